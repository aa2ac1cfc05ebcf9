"""How a lake is doing: what its manifest and the last run's record say. Nothing is asked of the server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.core.rows import is_unsettled
from pleo_extract.core.state import FULL_EVERY
from pleo_extract.core.verdict import VERDICTS
from pleo_extract.keywords import check_keywords
from pleo_extract.lake.layout import scan_files
from pleo_extract.lake.store import open_lake

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from pathlib import Path

    from pleo_extract.core.state import AccountKey
    from pleo_extract.lake.record import LastRun

__all__ = ["AccountStatus", "LakeStatus", "read_status"]

MOST_NAMED: Final = 3
"""Companies that failed and are named in a verdict; there may be thousands."""


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """One account of a lake: its last verdict, when it was last walked in full and will be again, and what is amiss.

    `data_as_of` is the instant as of which its rows are true (UTC); `total_kind` what the server's `total` is worth.
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


@dataclass(frozen=True, slots=True)
class LakeStatus:
    """A lake at a glance.

    Attributes:
        lake: its folder. server: whose jobs it holds. snapshot: the current one, 0 before the first.
        made_at: when it was published (UTC). rows: jobs. open: of these, unsettled. bytes: of its files.
        newest: the latest created_at. last_run: how the last run ended, None before the first.
        accounts: one a company, or one for all.
        data_as_of: the instant as of which the rows are true (UTC); of several accounts, the earliest.
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

    def tell_verdict(self) -> str:
        """The worst verdict of the lake's accounts; where the last run failed for some, of how many others, and for whom.

        Empty where the lake has no account.
        """
        failed = self.last_run.failed if self.last_run else {}
        good = [each for each in self.accounts if (each.name or each.account) not in failed]
        if not self.accounts:
            return ""
        worst = max((each.verdict for each in good), key=VERDICTS.index, default="complete")
        if not failed:
            return worst
        known = {each.name or each.account for each in self.accounts}
        total = len(self.accounts) + len(failed.keys() - known)  # some may not have been in the lake before
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
    """What is known of a lake; of a Delta table, the last run is the last one of this machine.

    Raises:
        LakeError: there is no such lake, or it is broken.
    """
    kept = open_lake(lake, storage_options=storage_options, workspace=workspace)
    opened, last_run = kept.open(), _count_from_now(kept.last_run())
    if opened is None:
        return LakeStatus(lake=str(lake), last_run=last_run)
    manifest = opened.manifest
    rows = (
        scan_files(opened.files)
        .select(is_unsettled().sum().alias("open"), pl.col("created_at").max())
        .collect()
    )
    return LakeStatus(
        lake=str(lake),
        server=manifest.server,
        snapshot=manifest.snapshot,
        made_at=manifest.made_at,
        rows=manifest.rows,
        open=rows["open"][0],
        bytes=sum(entry.bytes for entry in manifest.files),
        newest=rows["created_at"][0],
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
    )


def _count_from_now(last_run: LastRun | None) -> LastRun | None:
    """Return the record with the seconds since the last complete run as of now; it was written when that run ended."""
    if last_run is None or last_run.last_complete_at is None:
        return last_run
    seconds = (datetime.now(UTC) - last_run.last_complete_at).total_seconds()
    return msgspec.structs.replace(last_run, seconds_since_complete=seconds)
