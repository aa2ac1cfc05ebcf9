"""DeltaLake: a Delta table as a lake, for runs that publish to it and for readers."""

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
from pleo_extract.lake.delta.forgetting import (
    finish_erasure,
    forget_in_table,
    forget_on_this_machine,
    read_table_forgotten,
)
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

    from pleo_extract.lake.delta.log import Commit, CommitState
    from pleo_extract.lake.folder.forgetting import Erasure
    from pleo_extract.lake.table import Change, Info, Keep

__all__ = ["DeltaLake"]

COMMIT_STATE_EVERY: Final = timedelta(hours=1)
"""How often a run that finds nothing new commits its state alone, so that other machines learn it."""
LEAST_KEEP: Final = timedelta(hours=1)
"""Younger files may belong to another run that has not committed yet."""

_log = logging.getLogger(__name__)


class _Overlay(msgspec.Struct):
    """The state of a run that found nothing new and committed nothing; it counts while this version is the latest."""

    version: int
    receipt: dict[str, Any]
    accounts: dict[AccountKey, SyncState]


class DeltaLake:
    """A Delta table that implements `Store`, which documents the methods.

    Attributes:
        name: the address, as the caller gave it.
        layout: the folder of these runs on this machine: lock, staging, rejected rows, records.
    """

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
        self._is_made = False  # this run made the table
        self._is_overtaken = False  # there may be a later version than `_version`
        self._is_raced = False  # another writer has changed rows since this run began
        self._lost: dict[str, FileEntry] = {}
        self._committed: Change | None = None
        self._may_arrive = False  # a commit without an answer may still arrive: its files must stay

    def exists(self) -> bool:
        """See `Store`."""
        try:
            self._version = Version(self._address)
        except NoLake:
            return False
        return True

    def open(self, as_of: datetime | int | None = None) -> Opened | None:
        """See `Store`."""
        table = self._open_or_none(as_of)
        if table is None or (not table.version and not table.manifest.files):
            return None
        files = place_files(table, table.manifest.files)
        return Opened(self._overlaid(table), files)

    def history(self) -> Iterator[Manifest]:
        """See `Store`. Only the current version; Delta's own tools list the others."""
        table = self._open_or_none()
        return iter([] if table is None else [self._overlaid(table)])

    def forget(self, jobs: Sequence[str], people: Sequence[str]) -> Erasure:
        """See `Store`. Older versions of the table can no longer be read."""
        Version(self._address)  # raises where there is no table, before a folder is made
        with self.hold():
            return forget_in_table(self._address, jobs, people, held=self.layout)

    def last_run(self) -> LastRun | None:
        """See `Store`."""
        found = [read_last_run(Layout(path)) for path in self._address.runs]
        return max((each for each in found if each), key=lambda each: each.ended_at, default=None)

    def months_behind(self, manifest: Manifest) -> list[str]:  # noqa: ARG002 - see `Store`
        """See `Store`. The log of a Delta table is all that readers follow."""
        return []

    def verify(self) -> Verification:
        """See `Store`."""
        table = self._open_or_none()
        if table is None:
            return Verification(0, 0, 0, ())
        problems: list[str] = []
        for entry in table.manifest.files:
            problems += check_file(table, entry)
        if not problems and table.manifest.files:
            files = [(entry.month, path_of(table, entry)) for entry in table.manifest.files]
            problems = check_rows(files, table.manifest.rows)
        if read_table_forgotten(table).pending:
            problems.append("an erasure is unfinished; the next dump finishes it")
        return Verification(table.version, len(table.manifest.files), table.manifest.rows, tuple(problems))

    def refuse_other(self, server: str) -> None:
        """See `Store`. If the folder of these runs exists, an earlier run was checked already."""
        if self.layout.root.is_dir():
            return
        try:
            is_there = self.exists()
        except PleoExtractError:  # `begin` fails the same way, and then the failure is recorded
            return
        if is_there:
            refuse_other_server(self.name, self._require_version().manifest.server, server)

    def repair(self) -> Repair:
        """See `Store`."""
        if self._open_or_none() is None:
            return Repair(0, (), ())
        with self.hold():
            if read_table_forgotten(Version(self._address)).pending:
                finish_erasure(self._address, held=self.layout)
            return repair_table(self._address, self.scratch, self._overlaid)

    @contextmanager
    def hold(self) -> Iterator[Callable[[], None]]:
        """See `Table`. The lock excludes runs for the same accounts on this machine only; commits settle all other cases."""
        disk.make_folder(self.layout.root, private=True)
        with hold_lock(self.layout) as self._still_held:
            yield self._still_held

    @property
    def scratch(self) -> Path:
        """See `Table`."""
        return self.layout.staging

    def read_forgotten(self) -> Forgotten:
        """See `Store`."""
        return read_table_forgotten(self._require_version())

    def begin(self) -> Manifest | None:
        """See `Store`."""
        sweep(self.layout, None, now=datetime.now(UTC))
        if not self.exists():
            return None
        if (forgotten := self.read_forgotten()).pending:
            finish_erasure(self._address, held=self.layout)
            self._version, forgotten = Version(self._address), forgotten.settle()
        forget_on_this_machine(self._require_version(), forgotten, held=self.layout)
        version = self._require_version()
        version.require_writable()
        if version.problem:
            _log.warning("%s: %s; this run reads them in full", self.name, version.problem)
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
        """See `Table`. The table is read again if others, or this run, have committed since."""
        if self._version is None:
            create_table(self._address, server)  # if another run makes it first, this changes nothing
            self._is_made = True
            self._open_version(server)
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
        return self._version_files().read(entry)

    def write(
        self, month: str, pieces: Iterator[pl.DataFrame], there: Sequence[FileEntry]
    ) -> list[FileEntry]:
        """See `Table`."""
        return self._version_files().write(month, pieces, there)

    def commit(self, change: Change, info: Info) -> Manifest:
        """See `Table`. A run that finds nothing new commits its state once an hour; else it saves it on this machine."""
        self._still_held()
        version = self._require_version()
        base = change.base.manifest or version.manifest
        number, made_at = version.version, base.made_at
        if change.makes_snapshot or not _has_recent_state(version):
            number = self._commit(version, change, make_state(version, self._run, change, info))
            made_at = datetime.now(UTC) if change.makes_snapshot else made_at
        else:
            self._save_state(number, info)
        self._committed = change
        return msgspec.structs.replace(
            base,
            snapshot=number,
            made_at=made_at,
            rows=change.rows,
            files=change.files,
            library=__version__,
            receipt=dict(info.receipt),
            accounts={**base.accounts, **info.accounts},
        )

    def is_published(self, number: int) -> bool:
        """See `Table`."""
        return self._committed is not None and self._committed.number == number

    def discard(self, change: Change) -> None:
        """See `Table`. Files stay if the commit that names them is published, or may still arrive."""
        if change is not self._committed and not self._may_arrive:
            self._version_files().discard(change)

    def expire(self, keep: Keep) -> None:
        """See `Table`. Once a day, files are removed that no version of the time to keep needs."""
        version, now = self._require_version(), datetime.now(UTC)
        if version.state is None or now - version.state.vacuumed_at < VACUUM_EVERY:
            return
        try:
            newest = Version(self._address)
            newest.vacuum(max(1, -(-max(keep.span, LEAST_KEEP) // timedelta(hours=1))))
            newest.expire_states()
        except PleoExtractError as exc:
            _log.warning("%s", exc)
        remove_stale(version, self._committed.files if self._committed else [])

    def _open_or_none(self, as_of: datetime | int | None = None) -> Version | None:
        """Return a version; None where a run on this machine began a table and has not published to it yet.

        Raises:
            NoLake: there is no table, or it has disappeared.
        """
        try:
            return Version(self._address, as_of)
        except NoLake:
            last = self.last_run()
            was_there = last is not None and last.receipt.get("snapshot")
            if as_of is not None or was_there or not self._address.runs:
                raise
            return None

    def _require_version(self) -> Version:
        assert self._version is not None, "begin and latest open it"
        return self._version

    def _version_files(self) -> VersionFiles:
        return VersionFiles(self._require_version(), self.scratch)

    def _refuse_forgotten(self, version: Version) -> None:
        """Raise where more was forgotten since this run began: it may have read and staged those jobs.

        Raises:
            TryLater: run again.
        """
        if read_table_forgotten(version).settle() != self.forgotten.settle():
            raise TryLater(
                f"jobs or people were forgotten in {self.name} since this run began, so it ends here; run again"
            )

    def _overlaid(self, table: Version) -> Manifest:
        """Return the manifest of a version, with the states saved by runs on this machine that found nothing new in it."""
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

    def _save_state(self, number: int, info: Info) -> None:
        """Save the state of a run that found nothing new."""
        overlay = _Overlay(number, dict(info.receipt), dict(info.accounts))
        disk.make_folder(self.layout.own)
        disk.replace_file(self.layout.state, msgspec.json.encode(overlay))

    def _open_version(self, server: str = "") -> Version:
        version = self._version = Version(self._address)
        if server and version.manifest.server not in ("", server):
            raise LakeError(
                f"another run has just made {self.name} for {version.manifest.server}; use another address for {server}"
            )
        version.require_writable()
        place_files(version, version.manifest.files)
        self._is_overtaken = False
        return version

    def _catch_up(self, known: Version) -> None:
        """Open the latest version, and note what others changed since the known one.

        A dump mirrors the server's list. So rows in files that others removed from the table meanwhile still belong
        there: these files are noted as lost, and are merged back.
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

    def _commit(self, version: Version, change: Change, state: CommitState) -> int:
        """Commit and return the new version; if no answer came, look for the commit in the log.

        Raises:
            LakeConflict: another writer committed first, or removed the new files.
            TryLater: it cannot be known whether the commit got through.
            ConfigurationError, LakeError: the table does not accept the commit.
        """
        self._is_overtaken = True
        if missing := version.find_missing(change.new):  # a full vacuum by another program
            change.is_spoiled = True
            raise LakeConflict(f"{missing[0]} of {self.name} was removed before it was committed")
        self._may_arrive, before = True, self._may_arrive
        try:
            version.commit(change.new, change.old, state)
        except (LakeConflict, TryLater) as exc:
            found = self._find_own_commit(version, state.run, exc)
            if found is None:
                self._may_arrive = before or isinstance(exc, TryLater)
                raise LakeConflict(f"the commit to {self.name} failed: {exc}") from exc
            return found
        except PleoExtractError:
            self._may_arrive = before  # the table refused this commit, so it cannot arrive later
            raise
        return version.version + 1

    def _find_own_commit(self, table: Version, run: str, failure: PleoExtractError) -> int | None:
        try:
            return table.find_commit(run)
        except PleoExtractError as exc:
            raise TryLater(
                f"{failure}; it is not known whether the data was committed, since {exc}. Run again: nothing is lost, "
                "and nothing is added twice"
            ) from exc


def _has_recent_state(version: Version) -> bool:
    """Return whether the last committed state, which other machines can read, is less than an hour old."""
    then = version.state_at
    return then is not None and timedelta(0) <= datetime.now(UTC) - then < COMMIT_STATE_EVERY
