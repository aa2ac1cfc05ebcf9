"""DeltaLake: what a run and a reader do with a Delta table. The verbs are those of `lakes.Store`."""

from __future__ import annotations

import hashlib
import logging
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pleo_extract.delta.address import read_address
from pleo_extract.delta.change import VACUUM_EVERY, Change, make_state
from pleo_extract.delta.copies import check_file, path_of, place_files, remove_stale
from pleo_extract.delta.forgetting import erase, forget_in_table, read_memory
from pleo_extract.delta.repair import repair_table
from pleo_extract.delta.table import Table, create_table
from pleo_extract.errors import (
    LakeConflict,
    LakeError,
    LakeLocked,
    NoLake,
    PleoExtractError,
    TryLater,
)
from pleo_extract.lake import (
    NOTHING,
    Erasure,
    FileEntry,
    Forgotten,
    LastRun,
    Layout,
    Manifest,
    Opened,
    Repair,
    Verification,
    check_rows,
    disk,
    hold_lock,
    read_last_run,
    refuse_other_server,
    require_forgotten,
    scan_files,
    strict,
    sweep,
)
from pleo_extract.refresh import Account, binding_of
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import polars as pl

    from pleo_extract.delta.log import State
    from pleo_extract.lake import Keep, Staging
    from pleo_extract.lake.publish import Shield, Tell

__all__ = ["DeltaLake"]

TRIES: Final = 5
"""How often a run that was not the first merges again."""
TELL_EVERY: Final = timedelta(hours=1)
"""How often runs that find nothing new commit their state alone, so that other machines know it too."""
LEAST_KEEP: Final = timedelta(hours=1)
"""Files younger than this may be another run's that has not committed yet."""

_log = logging.getLogger(__name__)


class _Overlay(msgspec.Struct):
    """State of runs that found nothing new, so that they committed nothing; good for this very version."""

    version: int
    receipt: dict[str, Any]
    accounts: dict[str, Account]


class DeltaLake:
    """A Delta table as a lake; see `lakes.Store`."""

    catalogue: Path | None = None
    counts_snapshots: bool = False
    forgotten: Forgotten = NOTHING

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
        """See `Store`."""
        try:
            self._base = Table(self._address)
        except NoLake:
            return False
        return True

    def open(self, as_of: datetime | int | None = None) -> Opened | None:
        """See `Store`."""
        table = self._read(as_of)
        if table is None or (not table.version and not table.manifest.files):
            return None
        files = place_files(table, table.manifest.files)
        return Opened(self._overlaid(table), files)

    def history(self) -> Iterator[Manifest]:
        """See `lakes.Store`. The current version only: what a Delta table keeps of others is told by its own tools."""
        table = self._read()
        return iter([] if table is None else [self._overlaid(table)])

    def forget(self, jobs: Sequence[str], people: Sequence[str]) -> Erasure:
        """See `Store`. Older versions of the table can no longer be read."""
        Table(self._address)  # says where there is none, before a folder is made
        with self.hold():
            return forget_in_table(self._address, jobs, people, held=self.layout)

    def last_run(self) -> LastRun | None:
        """See `Store`."""
        found = [read_last_run(Layout(path)) for path in sorted((self._address.home / "runs").glob("*"))]
        return max((each for each in found if each), key=lambda each: each.ended_at, default=None)

    def verify(self) -> Verification:
        """See `Store`."""
        table = self._read()
        if table is None:
            return Verification(0, 0, 0, ())
        problems: list[str] = []
        for entry in table.manifest.files:
            problems += check_file(table, entry)
        if not problems and table.manifest.files:
            files = [(entry.month, path_of(table, entry)) for entry in table.manifest.files]
            problems = check_rows(files, table.manifest.rows)
        if read_memory(table).pending:
            problems.append("what is to be forgotten is not all gone; the next dump finishes that")
        return Verification(table.version, len(table.manifest.files), table.manifest.rows, tuple(problems))

    def refuse_other(self, server: str) -> None:
        """See `Store`. A run of these accounts that was let in before has left its folder."""
        if self.layout.root.is_dir():
            return
        try:
            is_there = self.exists()
        except PleoExtractError:  # `begin` meets it again, and its end is recorded
            return
        if is_there:
            refuse_other_server(self.name, self._table().manifest.server, server)

    def repair(self) -> Repair:
        """See `Store`."""
        if self._read() is None:
            return Repair(0, (), ())
        with self.hold():
            if read_memory(Table(self._address)).pending:
                erase(self._address, held=self.layout)
            return repair_table(self._address, self.layout.staging, self._overlaid)

    def hold(self) -> AbstractContextManager[Callable[[], None]]:
        """See `Store`. Another run for the same accounts on this machine is kept out; others are no harm."""
        disk.make_folder(self.layout.root, private=True)
        return hold_lock(self.layout)

    def begin(self) -> Manifest | None:
        """See `Store`."""
        sweep(self.layout, None, now=datetime.now(UTC))
        if not self.exists():
            return None
        if (forgotten := read_memory(self._table())).pending:
            erase(self._address, held=self.layout)
            self._base, forgotten = Table(self._address), forgotten.settle()
        table = self._table()
        table.require_writable()
        place_files(table, table.manifest.files)
        base = self._overlaid(table)
        self.forgotten = require_forgotten(forgotten, base.accounts.values(), self.name)
        return base

    def binding(self, base: Manifest | None, account: str) -> int:
        """See `Store`."""
        return binding_of(base.accounts.get(account) if base else None) ^ self.forgotten.number()

    def scan(self, base: Manifest | None) -> pl.LazyFrame:
        """See `Store`."""
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
        """See `Store`. Who was not first reads what others have committed and merges again, five times at most."""
        self._reopen()
        run, last = secrets.token_hex(16), None
        change: Change | None = None
        lost: dict[str, FileEntry] = {}
        for attempt in range(TRIES):
            still_held()
            if base is None:
                base = self._begin_table(server)
            table = self._table()
            try:
                self._refuse_forgotten(table)
                if change is None:
                    change = Change()
                    change.merge(table, self.layout.staging, stagings, lost=lost.values(), raced=attempt > 0)
                planned = self._plan(table, base, change)
                with shield():
                    told = tell(planned, base, change.months)
                    if planned.snapshot == table.version and _was_told_lately(table):
                        self._note(planned, *told)
                    else:
                        state = make_state(table, run, change, planned, told)
                        planned.snapshot = self._commit(table, change, state)
                    self._published = planned.snapshot
                    for staging in stagings:
                        staging.clear()
            except LakeConflict as exc:
                last = exc.__cause__
                _log.info("%s; reading what others have committed", exc)
                base, change = self._catch_up(table, change, lost)
                continue
            except BaseException:
                if self._published < 0:
                    self._discard(table, change)
                raise
            receipt, accounts = told
            accounts = {**planned.accounts, **accounts}
            return msgspec.structs.replace(planned, receipt=receipt, accounts=accounts), change.months
        self._discard(table, change)
        if isinstance(last, TryLater):
            raise last
        raise LakeLocked(
            f"other writers have committed to {self.name} first, {TRIES} times running; run again later"
        )

    def _reopen(self) -> None:
        """Read the table again where this run, which lasts, has committed before: its own commit is no conflict."""
        if self._published >= 0:
            self._base, self._published = Table(self._address), -1

    def is_published(self, manifest: Manifest) -> bool:
        """See `Store`."""
        return self._published == manifest.snapshot

    def tidy(self, manifest: Manifest, keep: Keep) -> None:
        """See `Store`. Files that no version of the time to keep needs go once a day."""
        now = datetime.now(UTC)
        state = self._table().state
        if state is None or now - state.vacuumed_at < VACUUM_EVERY:
            return
        try:
            Table(self._address).vacuum(max(1, -(-max(keep.span, LEAST_KEEP) // timedelta(hours=1))))
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

    def _refuse_forgotten(self, table: Table) -> None:
        """End a run that has read what is forgotten by now."""
        if read_memory(table).settle() != self.forgotten.settle():
            raise TryLater(
                f"jobs of {self.name} were forgotten meanwhile; run again: it is read without them"
            )

    def _overlaid(self, table: Table) -> Manifest:
        """The manifest of a version, with what runs of this machine know that found nothing new in it."""
        manifest = table.manifest
        for path in sorted((self._address.home / "runs").glob("*/_lake/state.json")):
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
        disk.make_folder(self.layout.own)
        disk.replace_file(self.layout.state, msgspec.json.encode(overlay))

    def _begin_table(self, server: str) -> Manifest | None:
        """Make the table where there is none; returns what another run has committed to it meanwhile."""
        create_table(self._address, server)
        table = self._base = Table(self._address)
        self._refuse_other(table, server)
        table.require_writable()
        place_files(table, table.manifest.files)  # another run's, if it was first
        return table.manifest if table.version else None

    def _catch_up(
        self, table: Table, change: Change | None, lost: dict[str, FileEntry]
    ) -> tuple[Manifest, Change | None]:
        """Read the version that others have made of the one that was merged.

        A dump mirrors the server's list: what others have taken from the table since it was read belongs there still,
        and is added to `lost`.

        Returns:
            The state to go on from, and the change; None where it must be merged again.
        """
        try:
            newer = Table(self._address)
            newer.require_writable()
            place_files(newer, newer.manifest.files)
            commits = newer.commits_since(table.version)
        except BaseException:
            self._discard(table, change)
            raise
        self._base = newer
        changed = [each for each in commits if each is None or each.changes_rows]
        if any(each is None or each.state is None for each in changed):
            held = {entry.path for entry in newer.manifest.files}
            lost |= {entry.path: entry for entry in table.manifest.files if entry.path not in held}
        if change is None or changed or not change.stands_on(newer):
            self._discard(table, change)
            change = None
        return self._overlaid(newer), change

    def _plan(self, table: Table, base: Manifest | None, change: Change) -> Manifest:
        files = change.apply(table.manifest.files)
        is_news = bool(change.months) or base is None or table.state is None
        return msgspec.structs.replace(
            base if base is not None else table.manifest,
            snapshot=table.version + 1 if is_news else table.version,
            made_at=datetime.now(UTC) if is_news else table.manifest.made_at,
            rows=sum(entry.rows for entry in files),
            files=files,
            library=__version__,
        )

    def _commit(self, table: Table, change: Change, state: State) -> int:
        """Commit; returns the version. Where the answer was lost, the log is asked whether the commit is in it.

        Raises:
            LakeConflict: another has committed first, or has removed the new files. TryLater: whether it is committed
            cannot be known. ConfigurationError, LakeError: the table does not take it.
        """
        if missing := table.find_missing(change.new):  # another's full vacuum takes what no version names
            change.spoiled = True
            raise LakeConflict(f"{missing[0]} of {self.name} was removed before it was committed")
        self._unsure, before = True, self._unsure
        try:
            table.commit(change.new, change.old, state)
        except (LakeConflict, TryLater) as exc:
            found = self._find(table, state.run, exc)
            if found is None:
                self._unsure = before or isinstance(exc, TryLater)
                raise LakeConflict(f"the commit to {self.name} did not get through: {exc}") from exc
            return found
        except PleoExtractError:
            self._unsure = before  # refused
            raise
        return table.version + 1

    def _find(self, table: Table, run: str, failure: PleoExtractError) -> int | None:
        try:
            return table.find_commit(run)
        except PleoExtractError as exc:
            raise TryLater(
                f"{failure}; whether the data is committed cannot be told, since {exc}. Run again: nothing is lost, "
                "and what is there already is not added twice"
            ) from exc

    def _discard(self, table: Table, change: Change | None) -> None:
        """Remove files that were written in vain, unless a commit that names them may get through yet."""
        if change is not None and not self._unsure:
            change.discard(table)


def _was_told_lately(table: Table) -> bool:
    """Whether a run has told other machines less than an hour ago as of when the rows are true."""
    told = table.told_at
    return told is not None and timedelta(0) <= datetime.now(UTC) - told < TELL_EVERY
