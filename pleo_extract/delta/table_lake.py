"""DeltaLake: what a run and a reader do with a Delta table. The verbs are those of `lakes.Lake`."""

from __future__ import annotations

import hashlib
import io
import logging
import secrets
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from pleo_extract.delta.address import read_address
from pleo_extract.delta.copies import check_sum, keep_copy, path_of, place_files, remove_stale
from pleo_extract.delta.table import State, Table, create_table
from pleo_extract.errors import LakeConflict, LakeError, LakeLocked, NoLake, PleoExtractError, TryLater
from pleo_extract.lake import (
    FORMAT,
    FileEntry,
    LastRun,
    Layout,
    Manifest,
    Opened,
    Verification,
    check_rows,
    disk,
    has_columns,
    hold_lock,
    read_last_run,
    refuse_other_server,
    scan_files,
    strict,
    sweep,
)
from pleo_extract.lake.merging import Merge
from pleo_extract.refresh import Account, binding_of
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pleo_extract.lake import Staging
    from pleo_extract.lake.publish import Shield, Tell

__all__ = ["DeltaLake"]

TRIES: Final = 5
"""How often a run that was not the first merges again."""
FILE_ROWS: Final = 100_000
"""Rows of a file at most: some megabytes. A month that grows at its end keeps the files before."""
ROW_GROUP: Final = 50_000
"""Rows that a reader holds at once, at least."""
VACUUM_EVERY: Final = timedelta(days=1)
LEAST_KEEP: Final = timedelta(hours=1)
"""Files younger than this may be another run's that has not committed yet."""

_log = logging.getLogger(__name__)


class _Overlay(msgspec.Struct):
    """State of runs that found nothing new, so that they committed nothing; good for this very version."""

    version: int
    receipt: dict[str, Any]
    accounts: dict[str, Account]


@dataclass(slots=True)
class _Change:
    """What a merge makes of a version: files to add and to remove, and the months they are of."""

    new: list[FileEntry] = field(default_factory=list)
    old: list[FileEntry] = field(default_factory=list)
    months: list[str] = field(default_factory=list)


class DeltaLake:
    """A Delta table as a lake; see `lakes.Lake`."""

    catalogue: Path | None = None
    counts_snapshots: bool = False

    def __init__(
        self,
        lake: str | Path,
        *,
        storage_options: Mapping[str, str] | None = None,
        workspace: str | Path | None = None,
        accounts: Sequence[str] = (),
    ) -> None:
        self.name = str(lake)
        self._address = read_address(lake, storage_options, workspace)
        runs = hashlib.sha256("\n".join(sorted(accounts)).encode()).hexdigest()[:16]
        self.layout = Layout(self._address.home / "runs" / runs)
        self._base: Table | None = None
        self._published = -1
        self._unsure = False  # a commit may get through yet: the files it names must stay

    def exists(self) -> bool:
        """See `Lake`."""
        try:
            self._base = Table(self._address)
        except NoLake:
            return False
        return True

    def open(self, as_of: datetime | int | None = None) -> Opened | None:
        """See `Lake`."""
        table = self._read(as_of)
        if table is None or (not table.version and not table.manifest.files):
            return None
        files = place_files(table, table.manifest.files)
        return Opened(self._overlaid(table), files)

    def last_run(self) -> LastRun | None:
        """See `Lake`."""
        found = [read_last_run(Layout(path)) for path in sorted((self._address.home / "runs").glob("*"))]
        return max((each for each in found if each), key=lambda each: each.ended_at, default=None)

    def verify(self) -> Verification:
        """See `Lake`."""
        table = self._read()
        if table is None:
            return Verification(0, 0, 0, ())
        problems: list[str] = []
        for entry in table.manifest.files:
            problems += self._check_file(table, entry)
        if not problems and table.manifest.files:
            paths = [path_of(table, entry) for entry in table.manifest.files]
            problems = check_rows(paths, table.manifest.rows)
        return Verification(table.version, len(table.manifest.files), table.manifest.rows, tuple(problems))

    def refuse_other(self, server: str) -> None:
        """See `Lake`. A run of these accounts that was let in before has left its folder."""
        if self.layout.root.is_dir():
            return
        try:
            is_there = self.exists()
        except PleoExtractError:  # `begin` meets it again, and its end is recorded
            return
        if is_there:
            refuse_other_server(self.name, self._table().manifest.server, server)

    def hold(self) -> AbstractContextManager[Callable[[], None]]:
        """See `Lake`. Another run for the same accounts on this machine is kept out; others are no harm."""
        disk.make_folder(self.layout.root, private=True)
        return hold_lock(self.layout)

    def begin(self) -> Manifest | None:
        """See `Lake`."""
        sweep(self.layout, None, now=datetime.now(UTC))
        if not self.exists():
            return None
        table = self._table()
        place_files(table, table.manifest.files)
        return self._overlaid(table)

    def binding(self, base: Manifest | None, account: str) -> int:
        """See `Lake`."""
        return binding_of(base.accounts.get(account) if base else None)

    def scan(self, base: Manifest | None) -> pl.LazyFrame:
        """See `Lake`."""
        if base is None or self._base is None:
            return scan_files(())
        return scan_files([path_of(self._base, entry) for entry in base.files])

    def publish(
        self,
        stagings: Sequence[Staging],
        base: Manifest | None,
        *,
        server: str,
        tell: Tell,
        still_held: Callable[[], None],
        shield: Shield,
    ) -> tuple[Manifest, list[str]]:
        """See `Lake`. Who loses a race merges what is staged into what the winner has made, five times at most."""
        run = secrets.token_hex(16)
        last: BaseException | None = None
        for _ in range(TRIES):
            still_held()
            if base is None:
                create_table(self._address, server)
                self._base = Table(self._address)
                self._refuse_other(self._base, server)
                place_files(self._base, self._base.manifest.files)  # another run's, if it was first
                base = self._base.manifest if self._base.version else None
            table = self._table()
            change = _Change()
            try:
                self._merge(table, stagings, change)
                planned = self._plan(table, base, change)
                with shield():
                    receipt, accounts = tell(planned, base, change.months)
                    if planned.snapshot == table.version:
                        self._note(planned, receipt, accounts)
                    else:
                        state = self._state(run, server, planned, receipt, accounts)
                        planned.snapshot = self._commit(table, change, state)
                    self._published = planned.snapshot
                    for staging in stagings:
                        staging.clear()
            except LakeConflict as exc:
                last = exc.__cause__
                if not self._unsure:
                    self._discard(table, change)
                _log.info("%s; merging again", exc)
                self._base = Table(self._address)
                place_files(self._base, self._base.manifest.files)
                base = self._overlaid(self._base)
                continue
            except BaseException:
                if self._published < 0 and not self._unsure:
                    self._discard(table, change)
                raise
            return planned, change.months
        if isinstance(last, TryLater):
            raise last
        raise LakeLocked(
            f"other writers have committed to {self.name} first, {TRIES} times running; run again later"
        )

    def is_published(self, manifest: Manifest) -> bool:
        """See `Lake`."""
        return self._published == manifest.snapshot

    def tidy(self, manifest: Manifest, *, keep: timedelta, count: int) -> None:  # noqa: ARG002 - Delta keeps by age
        """See `Lake`. Files that no version of the time to keep needs go once a day."""
        now = datetime.now(UTC)
        state = self._table().state
        if state is None or now - state.vacuumed_at < VACUUM_EVERY:
            return
        try:
            Table(self._address).vacuum(max(1, -(-max(keep, LEAST_KEEP) // timedelta(hours=1))))
        except PleoExtractError as exc:
            _log.warning("%s", exc)
        remove_stale(self._table(), manifest.files)

    def _read(self, as_of: datetime | int | None = None) -> Table | None:
        """The table; None where a run has begun it that published nothing yet, as far as this machine knows.

        Raises:
            NoLake: there is none, or no longer.
        """
        try:
            return Table(self._address, as_of)
        except NoLake:
            last = self.last_run()
            was_there = last is not None and last.receipt.get("snapshot")
            if as_of is not None or was_there or not any((self._address.home / "runs").glob("*")):
                raise
            return None

    def _table(self) -> Table:
        assert self._base is not None, "exists and publish open it"
        return self._base

    def _refuse_other(self, table: Table, server: str) -> None:
        if table.manifest.server not in ("", server):
            raise LakeError(f"{self.name} was made for {table.manifest.server} meanwhile")

    def _overlaid(self, table: Table) -> Manifest:
        """The manifest of a version, with what runs of this machine know that found nothing new in it."""
        manifest = table.manifest
        for path in sorted((self._address.home / "runs").glob("*/_meta/state.json")):
            try:
                overlay = strict.decode(disk.read_file(path), _Overlay)
                strict.check_accounts(overlay.accounts)
                strict.check_receipt(overlay.receipt)
            except (strict.Malformed, LakeError):
                continue
            if overlay.version == table.version:
                accounts = {**manifest.accounts, **overlay.accounts}
                manifest = msgspec.structs.replace(manifest, accounts=accounts, receipt=overlay.receipt)
        return manifest

    def _note(self, manifest: Manifest, receipt: dict[str, Any], accounts: dict[str, Account]) -> None:
        """The state of a run that found nothing new."""
        overlay = _Overlay(manifest.snapshot, receipt, accounts)
        disk.make_folder(self.layout.meta, private=True)
        disk.replace_file(self.layout.meta / "state.json", msgspec.json.encode(overlay))

    def _merge(self, table: Table, stagings: Sequence[Staging], change: _Change) -> None:
        """Merge what is staged, a month at a time, and write the files that come of it."""

        def read(entry: FileEntry) -> bytes:
            data = disk.read_file(path_of(table, entry))
            check_sum(entry, data, table.address.uri)
            return data

        merge = Merge(self.layout.staging, stagings, table.manifest.files, read)
        for month in filter(merge.is_changed, merge.months):
            change.months.append(month)
            old = merge.old.get(month, [])
            kept = {entry.sha256: entry for entry in old if entry.sha256}
            for part in _slice(merge.pieces(month)):
                entry, data = _spell(month, part)
                if kept.pop(entry.sha256, None) is None:  # else it is there as it is
                    table.write(entry.path, data)
                    change.new.append(entry)
                    keep_copy(table, entry, data)
            change.old += [entry for entry in old if not entry.sha256 or entry.sha256 in kept]

    def _plan(self, table: Table, base: Manifest | None, change: _Change) -> Manifest:
        gone = {entry.path for entry in change.old}
        files = [entry for entry in table.manifest.files if entry.path not in gone] + change.new
        is_news = bool(change.months) or base is None or table.state is None
        return msgspec.structs.replace(
            base if base is not None else table.manifest,
            snapshot=table.version + 1 if is_news else table.version,
            made_at=datetime.now(UTC) if is_news else table.manifest.made_at,
            rows=sum(entry.rows for entry in files),
            files=sorted(files, key=lambda entry: entry.path),
            library=__version__,
        )

    def _state(
        self,
        run: str,
        server: str,
        planned: Manifest,
        receipt: dict[str, Any],
        accounts: dict[str, Account],
    ) -> State:
        now, before = datetime.now(UTC), self._table().state
        last = before.vacuumed_at if before else now
        return State(
            format=FORMAT,
            run=run,
            server=server,
            library=__version__,
            vacuumed_at=now if now - last >= VACUUM_EVERY else last,
            receipt=receipt,
            accounts={**planned.accounts, **accounts},
        )

    def _commit(self, table: Table, change: _Change, state: State) -> int:
        """Commit; returns the version. Where the answer was lost, the log is asked whether the commit is in it.

        Raises:
            LakeConflict: another run was first. TryLater: whether it is committed cannot be known.
        """
        self._unsure, before = True, self._unsure
        try:
            table.commit(change.new, change.old, state)
        except (LakeConflict, TryLater) as exc:
            found = self._find(state.run, table.version, exc)
            if found is None:
                self._unsure = before or isinstance(exc, TryLater)
                raise LakeConflict(f"the commit to {self.name} did not get through") from exc
            return found
        try:
            found = Table(self._address).find_commit(state.run, table.version)
        except PleoExtractError as exc:
            _log.warning("committed; the version is not certain: %s", exc)
            found = None
        return found if found is not None else table.version + 1

    def _find(self, run: str, after: int, failure: PleoExtractError) -> int | None:
        try:
            return Table(self._address).find_commit(run, after)
        except PleoExtractError as exc:
            raise TryLater(
                f"{failure}; whether the data is committed cannot be told, since {exc}. Run again: nothing is lost, "
                "and what is there already is not added twice"
            ) from exc

    def _discard(self, table: Table, change: _Change) -> None:
        """Remove files that were written and not committed; what cannot be removed goes with the next vacuum."""
        with suppress(PleoExtractError):
            table.remove([entry.path for entry in change.new])

    def _check_file(self, table: Table, entry: FileEntry) -> list[str]:
        """One line if this file is not as it was written; asked of the store, not of a copy."""
        try:
            data = table.read(entry.path, entry.bytes)
            check_sum(entry, data, self.name)
        except LakeError as exc:
            return [str(exc)]
        if not has_columns(data):
            return [f"{entry.path}: columns or types are not those of this version"]
        keep_copy(table, entry, data)
        return []


def _slice(pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows, a file's at a time, however many there are in a piece."""
    held: list[pl.DataFrame] = []
    rows = 0
    for piece in pieces:
        held.append(piece)
        rows += piece.height
        if rows >= FILE_ROWS:
            *full, rest = pl.concat(held, rechunk=False).iter_slices(FILE_ROWS)
            yield from full
            held, rows = [rest], rest.height
    if rows:
        yield pl.concat(held, rechunk=False)


def _spell(month: str, rows: pl.DataFrame) -> tuple[FileEntry, bytes]:
    """A file of these rows, named after its sum and by chance: a name is never used again."""
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
    data = buffer.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"created_month={month}/part-{sha256}-{secrets.token_hex(4)}.parquet"
    return FileEntry(path=path, rows=rows.height, bytes=len(data), sha256=sha256), data
