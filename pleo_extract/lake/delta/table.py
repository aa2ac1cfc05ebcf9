"""DeltaLake: what a run and a reader do with a Delta table. The verbs are those of `lakes.Store`."""

from __future__ import annotations

import hashlib
import logging
import secrets
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.errors import LakeConflict, LakeError, NoLake, PleoExtractError, TryLater
from pleo_extract.lake import disk, strict
from pleo_extract.lake.delta.address import read_address
from pleo_extract.lake.delta.change import VACUUM_EVERY, VersionFiles, make_state
from pleo_extract.lake.delta.copies import check_file, path_of, place_files, remove_stale
from pleo_extract.lake.delta.forgetting import erase, forget_here, forget_in_table, read_memory
from pleo_extract.lake.delta.repair import repair_table
from pleo_extract.lake.delta.version import Version, create_table
from pleo_extract.lake.folder.opening import Opened, refuse_other_server
from pleo_extract.lake.folder.pruning import sweep
from pleo_extract.lake.folder.repair import Repair
from pleo_extract.lake.folder.verify import Verification, check_rows
from pleo_extract.lake.forgotten import NOTHING, Forgotten, require_forgotten
from pleo_extract.lake.layout import FileEntry, Layout, Manifest, scan_files
from pleo_extract.lake.lock import hold_lock, refuse_unheld
from pleo_extract.lake.record import LastRun, read_last_run
from pleo_extract.lake.table import Base
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import polars as pl

    from pleo_extract.lake.delta.log import Commit, State
    from pleo_extract.lake.folder.forgetting import Erasure
    from pleo_extract.lake.table import Change, Info, Keep

__all__ = ["DeltaLake"]

TELL_EVERY: Final = timedelta(hours=1)
"""How often runs that find nothing new commit their state alone, so that other machines know it too."""
LEAST_KEEP: Final = timedelta(hours=1)
"""Files younger than this may be another run's that has not committed yet."""

_log = logging.getLogger(__name__)


class _Overlay(msgspec.Struct):
    """State of runs that found nothing new, so that they committed nothing; good for this very version."""

    version: int
    receipt: dict[str, Any]
    accounts: dict[AccountKey, SyncState]


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
        self._version: Version | None = None
        self._run = secrets.token_hex(16)
        self._still_held: Callable[[], None] = refuse_unheld
        self._is_made = False  # by this run
        self._is_overtaken = False  # the version that is known
        self._is_raced = False
        self._lost: dict[str, FileEntry] = {}
        self._committed: Change | None = None
        self._files: list[FileEntry] = []
        self._unsure = False  # a commit may get through yet: the files it names must stay

    def exists(self) -> bool:
        """See `Store`."""
        try:
            self._version = Version(self._address)
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
        Version(self._address)  # says where there is none, before a folder is made
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
            refuse_other_server(self.name, self._require_version().manifest.server, server)

    def repair(self) -> Repair:
        """See `Store`."""
        if self._read() is None:
            return Repair(0, (), ())
        with self.hold():
            if read_memory(Version(self._address)).pending:
                erase(self._address, held=self.layout)
            return repair_table(self._address, self.scratch, self._overlaid)

    @contextmanager
    def hold(self) -> Iterator[Callable[[], None]]:
        """See `Table`. Another run for the same accounts on this machine is kept out; others are no harm."""
        disk.make_folder(self.layout.root, private=True)
        with hold_lock(self.layout) as self._still_held:
            yield self._still_held

    @property
    def scratch(self) -> Path:
        """See `Table`."""
        return self.layout.staging

    def begin(self) -> Manifest | None:
        """See `Store`."""
        sweep(self.layout, None, now=datetime.now(UTC))
        if not self.exists():
            return None
        if (forgotten := read_memory(self._require_version())).pending:
            erase(self._address, held=self.layout)
            self._version, forgotten = Version(self._address), forgotten.settle()
        forget_here(self._require_version(), forgotten, held=self.layout)
        version = self._require_version()
        version.require_writable()
        place_files(version, version.manifest.files)
        base = self._overlaid(version)
        self.forgotten = require_forgotten(forgotten, base.accounts.values(), self.name)
        return base

    def scan(self, base: Manifest | None) -> pl.LazyFrame:
        """See `Store`."""
        if base is None or self._version is None:
            return scan_files(())
        return scan_files([path_of(self._version, entry) for entry in base.files])

    def latest(self, server: str) -> Base:
        """See `Table`. Read anew where others, or this run, have committed to the version that it knows."""
        if self._version is None:
            self._make_table(server)
        elif self._is_overtaken:
            self._catch_up(self._version)
        version = self._require_version()
        self._refuse_forgotten(version)
        manifest = self._overlaid(version)
        return Base(
            version.version,
            manifest if version.version or not self._is_made else None,
            manifest.files,
            suspects=version.suspects,
            lost=tuple(self._lost.values()),
            is_raced=self._is_raced,
            must_commit=version.state is None,
        )

    def read(self, entry: FileEntry) -> bytes:
        """See `Table`."""
        return self._known_files().read(entry)

    def write(
        self, month: str, pieces: Iterator[pl.DataFrame], there: Sequence[FileEntry]
    ) -> list[FileEntry]:
        """See `Table`."""
        return self._known_files().write(month, pieces, there)

    def commit(self, change: Change, info: Info) -> Manifest:
        """See `Table`. A run that finds nothing new commits its state once an hour, and keeps it on this machine else."""
        self._still_held()
        version = self._require_version()
        base = change.base.manifest or version.manifest
        number, made_at = version.version, base.made_at
        if change.makes_snapshot or not _was_told_lately(version):
            number = self._commit(version, change, make_state(version, self._run, change, info))
            made_at = datetime.now(UTC) if change.makes_snapshot else made_at
        else:
            self._note(number, info)
        self._committed, self._files = change, change.files
        return msgspec.structs.replace(
            base,
            snapshot=number,
            made_at=made_at,
            rows=change.rows,
            files=self._files,
            library=__version__,
            receipt=dict(info.receipt),
            accounts={**base.accounts, **info.accounts},
        )

    def is_published(self, number: int) -> bool:
        """See `Table`."""
        return self._committed is not None and self._committed.number == number

    def discard(self, change: Change) -> None:
        """See `Table`. Files stay that a commit names which is there, or may get through yet."""
        if change is not self._committed and not self._unsure:
            self._known_files().discard(change)

    def expire(self, keep: Keep) -> None:
        """See `Table`. Files that no version of the time to keep needs go once a day."""
        version, now = self._require_version(), datetime.now(UTC)
        if version.state is None or now - version.state.vacuumed_at < VACUUM_EVERY:
            return
        try:
            Version(self._address).vacuum(max(1, -(-max(keep.span, LEAST_KEEP) // timedelta(hours=1))))
        except PleoExtractError as exc:
            _log.warning("%s", exc)
        remove_stale(version, self._files)

    def _read(self, as_of: datetime | int | None = None) -> Version | None:
        """The table; None where a run has begun it that published nothing yet, as far as this machine knows.

        Raises:
            NoLake: there is none, or no longer.
        """
        try:
            return Version(self._address, as_of)
        except NoLake:
            last = self.last_run()
            was_there = last is not None and last.receipt.get("snapshot")
            if as_of is not None or was_there or not any((self._address.home / "runs").glob("*")):
                raise
            return None

    def _require_version(self) -> Version:
        assert self._version is not None, "begin and latest open it"
        return self._version

    def _known_files(self) -> VersionFiles:
        return VersionFiles(self._require_version(), self.scratch)

    def _refuse_forgotten(self, version: Version) -> None:
        """End a run that has read what is forgotten by now."""
        if read_memory(version).settle() != self.forgotten.settle():
            raise TryLater(
                f"jobs of {self.name} were forgotten meanwhile; run again: it is read without them"
            )

    def _overlaid(self, table: Version) -> Manifest:
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

    def _note(self, number: int, info: Info) -> None:
        """The state of a run that found nothing new."""
        overlay = _Overlay(number, dict(info.receipt), dict(info.accounts))
        disk.make_folder(self.layout.own)
        disk.replace_file(self.layout.state, msgspec.json.encode(overlay))

    def _make_table(self, server: str) -> None:
        """Make the table where there is none, unless another run was faster."""
        create_table(self._address, server)
        self._is_made = True
        self._open_version(server)

    def _open_version(self, server: str = "") -> Version:
        version = self._version = Version(self._address)
        if server and version.manifest.server not in ("", server):
            raise LakeError(f"{self.name} was made for {version.manifest.server} meanwhile")
        version.require_writable()
        place_files(version, version.manifest.files)
        self._is_overtaken = False
        return version

    def _catch_up(self, known: Version) -> None:
        """Read the version that was made of the one that is known.

        A dump mirrors the server's list: what others have taken from the table since it was read belongs there still,
        and is lost.
        """
        _log.info("reading what was committed to %s after version %d", self.name, known.version)
        newer = self._open_version()
        commits = newer.commits_since(known.version)
        changed = [each for each in commits if each is None or (each.changes_rows and not self._is_own(each))]
        self._is_raced = self._is_raced or bool(changed)
        if any(each is None or each.state is None for each in changed):
            held = {entry.path for entry in newer.manifest.files}
            self._lost |= {e.path: e for e in known.manifest.files if e.path not in held}

    def _is_own(self, commit: Commit) -> bool:
        return commit.state is not None and commit.state.run == self._run

    def _commit(self, version: Version, change: Change, state: State) -> int:
        """Commit; returns the version. Where the answer was lost, the log is asked whether the commit is in it.

        Raises:
            LakeConflict: another has committed first, or has removed the new files. TryLater: whether it is committed
            cannot be known. ConfigurationError, LakeError: the table does not take it.
        """
        self._is_overtaken = True
        if missing := version.find_missing(change.new):  # another's full vacuum takes what no version names
            change.is_spoiled = True
            raise LakeConflict(f"{missing[0]} of {self.name} was removed before it was committed")
        self._unsure, before = True, self._unsure
        try:
            version.commit(change.new, change.old, state)
        except (LakeConflict, TryLater) as exc:
            found = self._find(version, state.run, exc)
            if found is None:
                self._unsure = before or isinstance(exc, TryLater)
                raise LakeConflict(f"the commit to {self.name} did not get through: {exc}") from exc
            return found
        except PleoExtractError:
            self._unsure = before  # refused
            raise
        return version.version + 1

    def _find(self, table: Version, run: str, failure: PleoExtractError) -> int | None:
        try:
            return table.find_commit(run)
        except PleoExtractError as exc:
            raise TryLater(
                f"{failure}; whether the data is committed cannot be told, since {exc}. Run again: nothing is lost, "
                "and what is there already is not added twice"
            ) from exc


def _was_told_lately(version: Version) -> bool:
    """Whether a run has told other machines less than an hour ago as of when the rows are true."""
    told = version.told_at
    return told is not None and timedelta(0) <= datetime.now(UTC) - told < TELL_EVERY
