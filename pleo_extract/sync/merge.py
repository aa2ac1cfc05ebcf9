"""Two lakes made one: what one has and the other lacks is staged in the other, and published as a dump does it."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.answers.doors import renew_catalogue
from pleo_extract.contract import KEY
from pleo_extract.core.rows import find_moved, find_news
from pleo_extract.core.state import AccountKey, join_accounts
from pleo_extract.core.verdict import VERDICTS
from pleo_extract.errors import ConfigurationError, LakeError, PleoExtractError, UsageError, amount, escape
from pleo_extract.keywords import check_keywords
from pleo_extract.lake.forgotten import read_forgotten
from pleo_extract.lake.record import write_last_run
from pleo_extract.lake.staging import Header, Staging, name_run
from pleo_extract.lake.store import is_delta, open_lake
from pleo_extract.lake.table import Info
from pleo_extract.progress import show_progress
from pleo_extract.sync.publish import publish
from pleo_extract.sync.receipt import Evidence, Receipt, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pleo_extract.core.state import SyncState
    from pleo_extract.lake.folder.opening import Opened
    from pleo_extract.lake.forgotten import Forgotten
    from pleo_extract.lake.layout import Manifest
    from pleo_extract.lake.store import Format, Store
    from pleo_extract.lake.table import Change

__all__ = ["merge_lakes"]

_NOTHING: Final = "{}, nothing published"
BATCH: Final = 20_000
"""Rows of the source that are compared and staged at once."""
CHUNK: Final = 500_000
"""Staged rows that are looked for in all months of the target at once."""


@check_keywords
def merge_lakes(
    source: str | Path,
    target: str | Path,
    *,
    progress: bool | None = None,
    format: Format | None = None,  # noqa: A002 - as the command line calls it
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> Receipt:
    """Bring every job of one lake into another, of either kind: the latest row of each, published whole or not at all.

    Of a job that both have, the row that has ended stays, then the later `last_updated_at`, of equals the one whose company was read
    later. The state of each company comes with it; of a company that both have, the next dump reads all that either
    may have missed. The source stays as it is; of one whose runs have published nothing yet nothing is taken. Run
    again, it changes nothing.

    Args:
        source: the lake to take from. It is held meanwhile; of a Delta table, the latest version is taken.
        target: the lake to bring it into; made where there is none.
        progress: show a progress bar; by default on a terminal and in a notebook.
        format: the kind of a new target, ``parquet`` or ``delta``; by default Delta for a URL, Parquet for a folder.
        storage_options: how object stores are reached, those of the source and of the target.
        workspace: where a Delta table's runs keep what is not in it: the target's, or the source's where only that is
            a Delta table.

    Returns:
        The receipt: `source`, `rows` it has, how many were `taken`, what was published.

    Raises:
        UsageError: both are the same. ConfigurationError: they are of two servers.
        LakeLocked, LakeError, StorageError, TryLater: one is written to, damaged or not there; nothing is published.
    """
    giver, taker = _open_both(source, target, format, storage_options, workspace)
    evidence = Evidence(run=name_run(), lake=taker.name, mode="merge")
    opened = giver.open()
    taker.refuse_other(opened.manifest.server if opened else "")
    if opened is None:  # at the door, before anything is made
        if giver.last_run() is None:
            raise LakeError(f"nothing was published to {giver.name} yet: there is nothing to merge")
        if not taker.exists():
            evidence.source = _NOTHING.format(giver.name)
            return Receipt.of(evidence, Standing(), seconds=0.0)
    with (
        nullcontext() if is_delta(source) else giver.hold(),
        taker.hold() as still_held,
        show_progress(f"merge {source} into {target}", show=progress) as update,
    ):
        merge = _Merge(giver, taker, evidence, update)
        try:
            merge.make()
            receipt = merge.tell()
            _record(taker, receipt)
        except BaseException as exc:
            receipt = merge.tell(exc)
            if isinstance(exc, PleoExtractError):
                exc.receipt = receipt.to_dict()
            if not isinstance(exc, ConfigurationError):  # one that was refused leaves no trace
                with suppress(PleoExtractError):  # what went wrong before is told
                    still_held()
                    _record(taker, receipt)
            raise
    return receipt


def _record(lake: Store, receipt: Receipt) -> None:
    """How it ended. When a run was last complete stays as it is: nothing was read from the server."""
    write_last_run(lake.layout, receipt=receipt.to_dict(), error=receipt.error, complete=False, failed={})


class _Merge:
    """A merge under way, the target held."""

    def __init__(
        self,
        source: Store,
        target: Store,
        evidence: Evidence,
        update: Callable[[int, int | None, float], None],
    ) -> None:
        self._source = source
        self._target = target
        self._evidence = evidence
        self._update = update
        self._started = time.monotonic()
        self._standing = Standing()
        self._server = ""
        self._given: dict[AccountKey, SyncState] = {}
        self._taken: set[str] = set()

    def tell(self, error: BaseException | None = None) -> Receipt:
        """The receipt of what was done so far, and of what ended it."""
        seconds = round(time.monotonic() - self._started, 3)
        return Receipt.of(self._evidence, self._standing, seconds=seconds, error=error)

    def make(self) -> None:
        """Stage what the target lacks, publish it."""
        opened, evidence, base = self._source.open(), self._evidence, self._target.begin()
        self._standing = Standing.at(base)
        if read_forgotten(self._source.layout).pending:
            raise LakeError(
                f"what is to be forgotten of {self._source.name} is not all gone; dump to it, or repair it, before it is merged"
            )
        opened = _forget(opened, self._target.forgotten) if opened else None
        if opened is None:
            evidence.source = _NOTHING.format(self._source.name)
            return
        evidence.source = f"{self._source.name}, snapshot {opened.manifest.snapshot}"
        self._server = _choose_server(opened.manifest, base, self._source.name, self._target.name)
        self._given = opened.manifest.accounts
        header = Header(
            run=evidence.run, mode="merge", base=base.snapshot if base else 0, started_at=datetime.now(UTC)
        )
        staging = Staging.start(self._target.layout.staging, f"merge {self._source.name}", header)
        try:
            self._stage(opened, base, staging)
            told = base.accounts if base else {}
            if base is None or evidence.taken or join_accounts(told, self._given, taken=()):
                publish(self._target, [staging], self, server=self._server)
                if self._target.catalogue is not None:
                    renew_catalogue(self._target.layout.root, run=evidence.run)
        except pl.exceptions.PolarsError as exc:  # our own frames fit; what does not is a file of a lake
            raise LakeError(
                f"{self._source.name} or {self._target.name} cannot be read ({escape(str(exc), 200)}); run verify"
            ) from exc
        finally:
            staging.clear()

    def account_for(self, change: Change) -> Info:
        """See `publish`."""
        base = change.base.manifest
        told = base.accounts if base else {}
        accounts = join_accounts(told, self._given, taken=frozenset(self._taken))
        verdicts = [each.verdict for each in {**told, **accounts}.values()]
        self._evidence.verdict = max(verdicts, key=VERDICTS.index, default="complete")
        self._evidence.account = amount(len(self._given), "account")
        seconds = round(time.monotonic() - self._started, 3)
        receipt = Receipt.of(self._evidence, Standing.after(change), seconds=seconds)
        return Info(self._server, receipt.to_dict(), accounts)

    def stand(self, change: Change) -> None:
        """See `publish`."""
        self._standing = Standing.after(change)

    def _stage(self, opened: Opened, base: Manifest | None, staging: Staging) -> None:
        manifest, lake = opened.manifest, self._target.scan(base)
        evidence = self._evidence
        for entry in manifest.files:
            for read in _slice(opened.read(entry), entry.rows):
                rows = self._target.forgotten.strip_rows(read).rows
                companies = rows["company_id"].unique().to_list()
                later = [each for each in companies if _was_read_later(each, manifest, base)]
                news = find_news(_near(lake, rows), rows, fetched_later=later) if base else rows
                if news.height:
                    staging.add(news, phase="merge")
                    self._taken.update(news["company_id"].unique())
                evidence.rows += read.height
                evidence.taken += news.height
                self._update(evidence.rows, manifest.rows, 0.0)
        evidence.distinct = evidence.rows
        if base is not None:
            for news in _chunk(staging.pages("merge")):
                companies = news["company_id"].unique().to_list()
                later = [each for each in companies if _was_read_later(each, manifest, base)]
                for company, name, month in find_moved(lake, news, fetched_later=later).iter_rows():
                    staging.leaving.setdefault(month, set()).add((company, name))
                    evidence.moved += 1


def _forget(opened: Opened, forgotten: Forgotten) -> Opened:
    """The source's state without what the target has forgotten; what the source has forgotten it knows by hashes of its own."""
    accounts = {
        key: msgspec.structs.replace(forgotten.strip_account(account), forgotten=[], forgotten_people=0)
        for key, account in opened.manifest.accounts.items()
    }
    return replace(opened, manifest=msgspec.structs.replace(opened.manifest, accounts=accounts))


def _open_both(
    source: str | Path,
    target: str | Path,
    kind: Format | None,
    storage: Mapping[str, str] | None,
    workspace: str | Path | None,
) -> tuple[Store, Store]:
    """Both lakes, each given the options that concern it.

    Raises:
        UsageError: they are the same, or one lies in the other.
    """
    if _is_within(source, target) or _is_within(target, source):
        raise UsageError(f"{source} and {target} are one lake, or one lies in the other; name two")
    becomes_delta = is_delta(target) or kind == "delta"
    giver = open_lake(
        source,
        storage_options=storage if "://" in str(source) else None,
        workspace=None if becomes_delta else workspace,
    )
    taker = open_lake(
        target,
        kind=kind,
        storage_options=storage if "://" in str(target) else None,
        workspace=workspace if becomes_delta else None,
        accounts=[f"merge {source}"],
    )
    if storage and "://" not in f"{source}{target}":
        raise UsageError("storage options are for an object store: s3://…")
    return giver, taker


def _is_within(lake: str | Path, other: str | Path) -> bool:
    if "://" in str(lake) or "://" in str(other):
        return str(lake).rstrip("/") == str(other).rstrip("/")
    return Path(lake).resolve().is_relative_to(Path(other).resolve())


def _choose_server(given: Manifest, base: Manifest | None, source: str, target: str) -> str:
    for name, manifest in ((source, given), (target, base)):
        if manifest is not None and manifest.rows and not manifest.server:
            raise ConfigurationError(
                f"whose jobs {name} holds is not known since it was repaired; dump to it once from their server"
            )
    if base is not None and "" not in (base.server, given.server) and base.server != given.server:
        raise ConfigurationError(
            f"the lake {target} holds jobs of {base.server}; those of {given.server} need a lake of their own"
        )
    return given.server or (base.server if base else "")


def _slice(rows: pl.LazyFrame, count: int) -> Iterator[pl.DataFrame]:
    return (rows.slice(start, BATCH).collect() for start in range(0, count, BATCH))


def _near(lake: pl.LazyFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """What the lake has of these jobs; by company and instant, files and row groups that have none are not read."""
    ends = {name: (rows[name].min(), rows[name].max()) for name in ("company_id", "created_at")}
    within = [pl.col(name).is_between(pl.lit(low), pl.lit(high)) for name, (low, high) in ends.items()]
    return lake.filter(*within, pl.col("id").is_in(rows["id"].implode())).collect()


def _chunk(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """What finds a job in any month, in fewer frames: for each of them all ids of the target are read."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame.select(*KEY, "status", "created_at", "last_updated_at"))
        if sum(map(len, held)) >= CHUNK:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)


def _was_read_later(company: str, given: Manifest, base: Manifest | None) -> bool:
    """Whether the source read this company later than the target did, as far as their states tell."""
    return base is None or _read_at(company, given) > _read_at(company, base)


def _read_at(company: str, manifest: Manifest) -> datetime:
    for name in (company, None):
        account = manifest.accounts.get(AccountKey.of(manifest.server, name))
        if account is not None and account.updated_at is not None:
            return account.updated_at
    return manifest.made_at
