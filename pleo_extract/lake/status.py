"""Report the state of a lake from its manifest and the record of the last run; the server is not asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.core.rows import is_unsettled
from pleo_extract.core.state import FULL_EVERY
from pleo_extract.core.verdict import VERDICTS
from pleo_extract.errors import amount, escape
from pleo_extract.keywords import check_keywords
from pleo_extract.lake.html import LONGEST, format_html
from pleo_extract.lake.layout import naming_damage, scan_files
from pleo_extract.lake.lock import find_holder, format_holder
from pleo_extract.lake.staging import count_staged
from pleo_extract.lake.store import open_lake

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from pathlib import Path

    from pleo_extract.core.state import AccountKey
    from pleo_extract.lake.lock import Holder
    from pleo_extract.lake.record import LastRun

__all__ = ["AccountStatus", "LakeStatus", "read_status"]

CLOCK_SKEW: Final = 120.0
"""Seconds by which the clocks of two machines may differ."""
MOST_NAMED: Final = 3
"""How many failed companies a verdict names; there can be thousands."""


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """The state of one account of a lake.

    Attributes:
        account: the account.
        name: what the accounts file calls it; empty without one.
        verdict: of the last run.
        full_at: when the last full sync ended (UTC); None before the first.
        next_full_at: when the next full sync is due (UTC); None if the next sync is full.
        vanished: how many jobs of the lake the server no longer lists.
        rejected: how many rows do not fit the contract and were not read without fault since.
        data_as_of: its rows show the server as of this time (UTC).
        total_kind: how far the server's `total` can be trusted.
    """

    account: AccountKey
    name: str
    verdict: str
    full_at: datetime | None
    next_full_at: datetime | None
    vanished: int
    rejected: int
    data_as_of: datetime | None = None
    total_kind: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class LakeStatus:
    """The state of a lake. Printed, it is what `pleo-extract status` shows.

    Attributes:
        lake: the path or URL that the user gave.
        server: the server whose jobs it holds.
        snapshot: the number of the current snapshot; 0 before the first.
        made_at: when that was published (UTC).
        rows: how many jobs it has.
        open: how many of these are unsettled.
        bytes: the size of its files.
        newest: the latest created_at (UTC).
        last_run: how the last run ended; None before the first.
        accounts: one for each company, or one for all.
        data_as_of: the rows show the server as of this time (UTC); for several accounts, the earliest.
        behind: months that programs which read the folder itself do not see as the snapshot has them, because a run was
            killed while it replaced them; the next run does the rest.
        running: the run that is at work on the lake, or None.
        staged: how many rows runs have fetched and not published yet; 0 if this user may not read them.
    """

    lake: str
    server: str = ""
    snapshot: int = 0
    made_at: datetime | None = None
    rows: int = 0
    open: int = 0
    bytes: int = 0
    newest: datetime | None = None
    last_run: LastRun | None = None
    accounts: tuple[AccountStatus, ...] = ()
    data_as_of: datetime | None = None
    behind: tuple[str, ...] = ()
    running: Holder | None = None
    staged: int = 0

    def describe(self) -> list[tuple[str, str]]:
        """Return what there is to say, each with a name. Texts from the lake's files may hold any character."""
        now = datetime.now(UTC)
        lines = [
            ("jobs", f"{self.rows:,}, {self.open:,} of them open, {self.bytes / 1e6:.1f} MB"),
            (
                "snapshot",
                f"{self.snapshot}, published {_format_age(self.made_at, now)}"
                if self.snapshot
                else "none yet",
            ),
            ("data as of", _format_data_as_of(self, now)),
            ("newest job", _format_age(self.newest, now)),
            ("server", self.server or "known with the first snapshot"),
        ]
        if self.accounts:
            # The verdict is the lake's: how the last run ended changes it only for the companies that failed.
            lines.append(("verdict", escape(self.format_verdict(), 500)))
        if (last := self.last_run) is not None:
            error = f": {escape(last.error, 300)}" if last.error else ""
            lines += [
                ("last run", f"{_format_age(last.ended_at, now)}, code {last.code}{error}"),
                ("last complete", _format_age(last.last_complete_at, now)),
            ]
            lines += [
                ("failed", f"{escape(name)}: {code}, {escape(str(error), 200)}")
                for name, (code, error) in last.failed.items()
            ]
        if last is not None and (chance := last.shift_chance) is not None and self.rows:
            what = "chance that the last run would have noticed a deletion that a backdated job hides"
            is_resumed = not chance and last.receipt.get("resumed")
            why = ": it continued pages of an interrupted run" if is_resumed else ""
            lines.append(("audit", f"{chance * 100:.0f} % {what}{why}"))
        if self.running is not None:
            lines.append(("at work", f"a run ({format_holder(self.running)})"))
        if self.staged:
            whose = "that run" if self.running is not None else "the next run"
            lines.append(
                ("staged", f"{amount(self.staged, 'row')} not published yet; {whose} continues from them")
            )
        if self.behind:
            months = amount(len(self.behind), "month")
            lines.append(("folder", f"{months} not up to date for programs that read the files; dump again"))
        due = [each.next_full_at for each in self.accounts if each.next_full_at is not None]
        lines.append(("next full sync", f"{min(due):%Y-%m-%d %H:%M} UTC" if due else "with the next run"))
        never = self._count_never_read()
        if (total := len(self.accounts) + never) > 1:
            lines.append(("accounts", f"{total}, {never} of them never read" if never else f"{total}"))
        lines += [
            (name, f"{count}")
            for name, count in (
                ("vanished", sum(each.vanished for each in self.accounts)),
                ("rejected", sum(each.rejected for each in self.accounts)),
            )
            if count
        ]
        return lines

    def __str__(self) -> str:
        """Return the lake and a line for each of `describe`.

        Whoever can write a manifest or a record can put control characters into it: none may reach the terminal.
        """
        shown = [(name, escape(text, LONGEST)) for name, text in self.describe()]
        width = max(len(name) for name, _ in shown)
        return "\n".join([escape(self.lake, LONGEST), *(f"  {name:{width}}  {text}" for name, text in shown)])

    def __repr__(self) -> str:
        state = (
            f"{amount(self.rows, 'job')}, snapshot {self.snapshot}" if self.snapshot else "no snapshot yet"
        )
        return f"<LakeStatus of {escape(self.lake, LONGEST)}: {state}>"

    def _repr_html_(self) -> str:
        return format_html(self.lake, self.describe())

    def _count_never_read(self) -> int:
        """Return how many companies failed in the last run and were never in the lake."""
        known = {each.name or each.account for each in self.accounts}
        return len(self.last_run.failed.keys() - known) if self.last_run else 0

    def format_verdict(self) -> str:
        """Return the worst verdict of the lake's accounts; if the last run failed for some, also for how many, and which.

        Empty for a lake without accounts.
        """
        failed = self.last_run.failed if self.last_run else {}
        good = [each for each in self.accounts if (each.name or each.account) not in failed]
        if not self.accounts:
            return ""
        worst = max((each.verdict for each in good), key=VERDICTS.index, default="complete")
        if not failed:
            return worst
        total = len(self.accounts) + self._count_never_read()
        named = [f"{name} failed with {code}" for name, (code, _) in list(failed.items())[:MOST_NAMED]]
        more = f" and {len(failed) - MOST_NAMED:,} more" if len(failed) > MOST_NAMED else ""
        count = f"{len(good):,}" if good else "none"
        return f"{worst} for {count} of {total:,} companies: {', '.join(named)}{more}"


@check_keywords
def read_status(
    lake: str | Path,
    *,
    full_every: timedelta = FULL_EVERY,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> LakeStatus:
    """Return the state of a lake; for a Delta table, the last run is the last one of this machine.

    Args:
        lake: as for `scan_lake`.
        full_every: how long after a full sync the next one is due.
        storage_options: as for `scan_lake`.
        workspace: as for `scan_lake`.

    Raises:
        LakeError: there is no such lake, or it is broken.
    """
    store = open_lake(lake, storage_options=storage_options, workspace=workspace)
    opened, last_run = store.open(), _count_from_now(store.last_run())
    running, staged = find_holder(store.layout), count_staged(store.layout.staging)
    if opened is None:
        return LakeStatus(lake=str(lake), last_run=last_run, running=running, staged=staged)
    manifest = opened.manifest
    with naming_damage(lake):
        rows = (
            scan_files(opened.files)
            .select(is_unsettled().sum().alias("open"), pl.col("created_at").max())
            .collect()
        )
        newest: datetime | None = rows["created_at"][0]  # polars panics at an instant that no calendar has
    return LakeStatus(
        lake=str(lake),
        server=manifest.server,
        snapshot=manifest.snapshot,
        made_at=manifest.made_at,
        rows=manifest.rows,
        open=rows["open"][0],
        bytes=sum(entry.bytes for entry in manifest.files),
        newest=newest,
        last_run=last_run,
        accounts=tuple(
            AccountStatus(
                account=key,
                name=account.name,
                verdict=account.verdict,
                full_at=account.full_at,
                next_full_at=account.full_at + full_every if account.full_at else None,
                vanished=len(account.vanished),
                rejected=len(account.rejected),
                data_as_of=account.data_as_of,
                total_kind=account.total_kind,
            )
            for key, account in sorted(manifest.accounts.items())
        ),
        data_as_of=min(
            (account.data_as_of for account in manifest.accounts.values() if account.data_as_of), default=None
        ),
        behind=tuple(store.months_behind(manifest)),
        running=running,
        staged=staged,
    )


def _count_from_now(last_run: LastRun | None) -> LastRun | None:
    """Return the record with `seconds_since_complete` as of now; in the record it is as of the end of that run."""
    if last_run is None or last_run.last_complete_at is None:
        return last_run
    seconds = (datetime.now(UTC) - last_run.last_complete_at).total_seconds()
    return msgspec.structs.replace(last_run, seconds_since_complete=seconds)


def _format_data_as_of(found: LakeStatus, now: datetime) -> str:
    """Return the instant that the rows describe; for many companies, that of the stalest and of the freshest."""
    instants = sorted(each.data_as_of for each in found.accounts if each.data_as_of is not None)
    if not instants:
        return "none yet: no run has been complete"
    never = len(found.accounts) - len(instants)
    text = _format_age(instants[0], now)
    if instants[-1] != instants[0]:
        text += f" for the stalest company, {_format_age(instants[-1], now)} for the freshest"
    return f"{text}; {never:,} never complete" if never else text


def _format_age(then: datetime | None, now: datetime) -> str:
    if then is None:
        return "never"
    seconds = (now - then).total_seconds()
    if seconds < -CLOCK_SKEW:
        return f"{then:%Y-%m-%d %H:%M} UTC (in the future: is the clock right?)"
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{then:%Y-%m-%d %H:%M} UTC ({seconds / size:.0f} {unit}s ago)"
    return f"{then:%Y-%m-%d %H:%M:%S} UTC (just now)"
