"""Merge one lake into another: stage the rows that the target lacks, then publish them as a dump does."""

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
from pleo_extract.lake.folder.opening import refuse_other_server
from pleo_extract.lake.forgotten import read_forgotten
from pleo_extract.lake.journal import Header
from pleo_extract.lake.record import write_last_run
from pleo_extract.lake.staging import Staging, name_run
from pleo_extract.lake.store import is_delta, open_lake
from pleo_extract.lake.table import Info
from pleo_extract.progress import show_progress
from pleo_extract.sync.publish import publish
from pleo_extract.sync.receipt import CurrentSnapshot, Evidence, Receipt

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
"""Rows of the source that are compared with the target and staged together."""
CHUNK: Final = 500_000
"""Staged rows that are looked up in all months of the target together; each lookup reads every id of the target."""


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
    """Merge every job of one lake into another, of either kind. The whole merge is published as one snapshot, or nothing.

    Of a job that both lakes have, one row stays: a row that has ended before one that has not, then the later
    `last_updated_at`, then the row of the lake whose company was read later. The sync state of each company comes with
    its rows; of a company that both lakes have, the next dump reads everything that either may have missed. The source
    is not changed. A source that never published contributes nothing. Merging twice is a no-op.

    Args:
        source: the lake to read. It is locked during the merge; of a Delta table the latest version is read.
        target: the lake to merge into; created if it does not exist.
        progress: show a progress bar; by default on a terminal and in a notebook.
        format: the kind of a new target, ``parquet`` or ``delta``; by default Delta for a URL, Parquet for a folder.
        storage_options: options for the object stores of source and target, as for delta-rs.
        workspace: the local folder for staging and records of a Delta table: the target's, or the source's if only the
            source is a Delta table.

    Returns:
        The receipt: the `source`, how many `rows` it has, how many were `taken`, what was published.

    Raises:
        UsageError: source and target are the same lake.
        ConfigurationError: they hold jobs of two servers.
        LakeLocked, LakeError, StorageError, TryLater: a lake is in use, damaged or missing; nothing was published.
    """
    source_lake, target_lake = _open_both(source, target, format, storage_options, workspace)
    evidence = Evidence(run=name_run(), lake=target_lake.name, mode="merge")
    opened = source_lake.open()
    target_lake.refuse_other(opened.manifest.server if opened else "")
    if opened is None:  # checked before the target is created
        if source_lake.last_run() is None:
            raise LakeError(f"nothing was published to {source_lake.name} yet: there is nothing to merge")
        if not target_lake.exists():
            evidence.source = _NOTHING.format(source_lake.name)
            return Receipt.of(evidence, CurrentSnapshot(), seconds=0.0)
    with (
        nullcontext() if is_delta(source) else source_lake.hold(),
        target_lake.hold() as still_held,
        show_progress(f"merge {source} into {target}", show=progress) as update,
    ):
        merge = _Merge(source_lake, target_lake, evidence, update)
        try:
            merge.run()
            receipt = merge.make_receipt()
            _record(target_lake, receipt)
        except BaseException as exc:
            receipt = merge.make_receipt(exc)
            if isinstance(exc, PleoExtractError):
                exc.receipt = receipt.to_dict()
            if not isinstance(exc, ConfigurationError):  # a run that is refused leaves no trace in the lake
                with suppress(PleoExtractError):  # a second error must not hide the first
                    still_held()
                    _record(target_lake, receipt)
            raise
    return receipt


def _record(lake: Store, receipt: Receipt) -> None:
    """Write `last_run.json`. The instant of the last complete run stays: a merge reads nothing from the server."""
    write_last_run(lake.layout, receipt=receipt.to_dict(), error=receipt.error, complete=False, failed={})


class _Merge:
    """A merge under way; the target is held."""

    def __init__(
        self,
        source: Store,
        target: Store,
        evidence: Evidence,
        update: Callable[[int, int | None, str], None],
    ) -> None:
        self._source = source
        self._target = target
        self._evidence = evidence
        self._update = update
        self._started = time.monotonic()
        self._snapshot = CurrentSnapshot()
        self._server = ""
        self._source_accounts: dict[AccountKey, SyncState] = {}
        self._taken: set[str] = set()

    def make_receipt(self, error: BaseException | None = None) -> Receipt:
        """Return the receipt of what was done so far, with the error that ended it."""
        seconds = round(time.monotonic() - self._started, 3)
        return Receipt.of(self._evidence, self._snapshot, seconds=seconds, error=error)

    def run(self) -> None:
        """Stage the rows that the target lacks and publish them."""
        opened, evidence, base = self._source.open(), self._evidence, self._target.begin()
        self._snapshot = CurrentSnapshot.of(base)
        if read_forgotten(self._source.layout).pending:
            raise LakeError(
                f"a forget of {self._source.name} was cut short: what is to be forgotten is not all gone; "
                "dump to it or repair it, then merge"
            )
        opened = _strip_forgotten(opened, self._target.forgotten) if opened else None
        if opened is None:
            evidence.source = _NOTHING.format(self._source.name)
            return
        evidence.source = f"{self._source.name}, snapshot {opened.manifest.snapshot}"
        self._server = _choose_server(opened.manifest, base, self._source.name, self._target.name)
        self._source_accounts = opened.manifest.accounts
        header = Header(
            run=evidence.run, mode="merge", base=base.snapshot if base else 0, started_at=datetime.now(UTC)
        )
        staging = Staging.start(self._target.layout.staging, f"merge {self._source.name}", header)
        try:
            self._stage(opened, base, staging)
            known = base.accounts if base else {}
            if base is None or evidence.taken or join_accounts(known, self._source_accounts, taken=()):
                publish(self._target, [staging], self, server=self._server)
                if self._target.catalogue is not None:
                    renew_catalogue(self._target.layout.root, run=evidence.run)
        except pl.exceptions.PolarsError as exc:  # our own frames always fit, so a file of a lake does not
            raise LakeError(
                f"{self._source.name} or {self._target.name} cannot be read ({escape(str(exc), 200)}); run verify"
            ) from exc
        finally:
            staging.clear()

    def build_info(self, change: Change) -> Info:
        """See `Publication`."""
        base = change.base.manifest
        known = base.accounts if base else {}
        accounts = join_accounts(known, self._source_accounts, taken=frozenset(self._taken))
        verdicts = [each.verdict for each in {**known, **accounts}.values()]
        self._evidence.verdict = max(verdicts, key=VERDICTS.index, default="complete")
        self._evidence.account = amount(len(self._source_accounts), "account")
        seconds = round(time.monotonic() - self._started, 3)
        receipt = Receipt.of(self._evidence, CurrentSnapshot.after(change), seconds=seconds)
        return Info(self._server, receipt.to_dict(), accounts)

    def note_committed(self, change: Change) -> None:
        """See `Publication`."""
        self._snapshot = CurrentSnapshot.after(change)

    def _stage(self, opened: Opened, base: Manifest | None, staging: Staging) -> None:
        manifest, lake = opened.manifest, self._target.scan(base)
        evidence = self._evidence
        for entry in manifest.files:
            source = opened.read(entry)
            for start in range(0, entry.rows, BATCH):
                batch = source.slice(start, BATCH).collect()
                rows = self._target.forgotten.strip_rows(batch).rows
                later = _find_read_later(rows, manifest, base)
                news = find_news(_read_near(lake, rows), rows, fetched_later=later) if base else rows
                if news.height:
                    staging.add(news, phase="merge")
                    self._taken.update(news["company_id"].unique())
                evidence.rows += batch.height
                evidence.taken += news.height
                self._update(evidence.rows, manifest.rows, "")
        evidence.distinct = evidence.rows
        if base is not None:
            # A job may have moved to another month between the dumps of the two lakes. One month must lose it, or the
            # target would hold it twice.
            for news in _concat_chunks(staging.pages("merge")):
                later = _find_read_later(news, manifest, base)
                for company, name, month in find_moved(lake, news, fetched_later=later).iter_rows():
                    staging.leaving.setdefault(month, set()).add((company, name))
                    evidence.moved += 1


def _strip_forgotten(opened: Opened, forgotten: Forgotten) -> Opened:
    """Return the source without what the target has forgotten.

    The source's own hashes of forgotten jobs are dropped: another lake's salt makes them useless here.
    """
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
    """Open both lakes, each with the options that concern it.

    Raises:
        UsageError: they are the same, or one lies in the other.
    """
    if _is_within(source, target) or _is_within(target, source):
        raise UsageError(f"{source} and {target} are the same lake, or one lies in the other; name two lakes")
    becomes_delta = is_delta(target) or kind == "delta"
    source_lake = open_lake(
        source,
        storage_options=storage if "://" in str(source) else None,
        workspace=None if becomes_delta else workspace,
    )
    target_lake = open_lake(
        target,
        kind=kind,
        storage_options=storage if "://" in str(target) else None,
        workspace=workspace if becomes_delta else None,
        accounts=[f"merge {source}"],
    )
    if storage and "://" not in f"{source}{target}":
        raise UsageError("storage options are for an object store: s3://…")
    return source_lake, target_lake


def _is_within(lake: str | Path, other: str | Path) -> bool:
    if "://" in str(lake) or "://" in str(other):
        return str(lake).rstrip("/") == str(other).rstrip("/")
    return Path(lake).resolve().is_relative_to(Path(other).resolve())


def _choose_server(given: Manifest, base: Manifest | None, source: str, target: str) -> str:
    """Return the server that both lakes hold jobs of.

    Raises:
        ConfigurationError: they hold jobs of two servers, or the server of one is not known.
    """
    for name, manifest in ((source, given), (target, base)):
        if manifest is not None and manifest.rows and not manifest.server:
            raise ConfigurationError(
                f"the server whose jobs {name} holds is not known since it was repaired; dump to it once from that server"
            )
    if base is not None:
        refuse_other_server(target, base.server, given.server)
    return given.server or (base.server if base else "")


def _read_near(lake: pl.LazyFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the lake's rows of these jobs. Bounds on company and instant let polars skip files and row groups."""
    ends = {name: (rows[name].min(), rows[name].max()) for name in ("company_id", "created_at")}
    within = [pl.col(name).is_between(pl.lit(low), pl.lit(high)) for name, (low, high) in ends.items()]
    return lake.filter(*within, pl.col("id").is_in(rows["id"].implode())).collect()


def _concat_chunks(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the columns that find a moved job, joined into frames of about `CHUNK` rows."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame.select(*KEY, "status", "created_at", "last_updated_at"))
        if sum(map(len, held)) >= CHUNK:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)


def _find_read_later(rows: pl.DataFrame, given: Manifest, base: Manifest | None) -> list[str]:
    """Return the companies of these rows that the source has read later than the target, by their states."""
    companies = rows["company_id"].unique().to_list()
    return [each for each in companies if base is None or _read_at(each, given) > _read_at(each, base)]


def _read_at(company: str, manifest: Manifest) -> datetime:
    """Return when a lake last published this company, alone or among all that a credential may see."""
    for name in (company, None):
        account = manifest.accounts.get(AccountKey.of(manifest.server, name))
        if account is not None and account.updated_at is not None:
            return account.updated_at
    return manifest.made_at
