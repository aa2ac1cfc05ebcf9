"""One version of a Delta table: its files, the state that our runs wrote, its store, and the commit on top of it.

Theory of operation. A run merges with version N. It writes its new data files beside the old ones, under names that were
never used, and then commits version N + 1: the files that it adds and removes, its receipt, and the sync state of its
accounts, all in one file of Delta's log. Before that commit nothing is visible, and files that no version names are
removed by a later vacuum.

*On top of which version.* On N, and no other. By default delta-rs repeats a refused commit on top of the versions
that came meanwhile. It compares their files with ours except where a commit is written as an append, and append is the
only form that takes added and removed files together. So if another engine compacted the table in between, the
repeated commit doubled its rows. We allow no repetition (`max_commit_retries=0`). Delta's transaction identifier of our
name excludes two commits of ours on the same version as well.

*What is a conflict.* Any commit after N, whoever made it and whatever it changed. Another conflict is a new file of ours
that is gone before the commit: the full vacuum of another program removes what no version names. The publish loop then
reads the latest version. If it has the same files as N, the merged change is committed on top of it; else it is merged
again. Files that others took from the table since the run began still belong to the server's list, and are merged
back. Any other refusal, such as a protocol feature or a constraint, is an error and not a conflict.

*Lost answers.* A commit may arrive although its answer is lost. Every commit carries a random token of its run. After a
conflict or an unanswered commit the run looks for its token in the log above N. If it is there, the run has published.
If it is not, the change is merged or committed again; but the lost commit may still arrive, so its data files are not
removed. If the log cannot be read, the run ends with TryLater; a later run merges by key, so nothing is added twice.
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl
from deltalake import DeltaTable, Schema
from deltalake._internal import DeltaFileSystemHandler
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.core.state import reset_walks
from pleo_extract.errors import ConfigurationError, LakeConflict, LakeError, UsageError, escape
from pleo_extract.lake import disk, strict
from pleo_extract.lake.delta import states
from pleo_extract.lake.delta.log import APP, read_commit
from pleo_extract.lake.delta.translate import translated
from pleo_extract.lake.layout import DATA_FILE, FORMAT, FileEntry, Manifest, check_as_of
from pleo_extract.zones import to_utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.core.state import AccountKey, SyncState
    from pleo_extract.lake.delta.address import Address
    from pleo_extract.lake.delta.log import Commit, CommitState

__all__ = ["MONTH", "Version", "create_table", "hash_paths", "parse_sha256"]

MONTH: Final = "created_month"
CONSTRAINT: Final = "delta.constraints."
"""The prefix of table properties that hold a condition on every row."""
INVARIANT: Final = "delta.invariants"
"""The key of such a condition in the metadata of a column."""
SERVER: Final = "pleo_extract.server"
"""The table property that names the server whose jobs the table holds."""
CHECKPOINT_EVERY: Final = "10"
"""Commits between two checkpoints: whoever opens the table requests each commit since the last one."""
MOST_COMMITS: Final = 1_000
"""How many commits are read to find our last one."""
COLUMNS: Final = {**POLARS_SCHEMA, MONTH: pl.String()}
_OVERTAKEN: Final = re.compile(r"Failed to commit transaction: \d+|Tried committing existing table version")
"""What delta-rs reports where the version exists already."""
_NUMBERED: Final = re.compile(r"(?:.*/)?_delta_log/([0-9]{20})\..*")
"""A file of the log that belongs to one version; checkpoints among them."""
_COMMIT: Final = re.compile(r"(?:.*/)?_delta_log/([0-9]{20})\.json")
_SHA256_NAME: Final = re.compile(r".*/part-([0-9a-f]{64})-[0-9a-f]{8}\.parquet")


@dataclass(frozen=True, slots=True)
class _LastCommit:
    """Our last commit at or before a version.

    Attributes:
        state: what it says; None where it is not among the commits that were read.
        state_at: when it was made (UTC).
        untouched: whether no other program has changed rows since.
        made_at: when the version itself was made (UTC).
    """

    state: CommitState | None
    state_at: datetime | None
    untouched: bool
    made_at: datetime


def create_table(address: Address, server: str) -> None:
    """Make an empty table for the jobs of a server; an existing table stays unchanged."""
    schema = Schema.from_arrow(pl.DataFrame(schema=COLUMNS).to_arrow().schema)
    if address.local is not None:
        disk.make_folder(address.local)
    with translated(address, "make"):
        try:
            DeltaTable.create(
                address.uri,
                schema,
                mode="ignore",
                partition_by=[MONTH],
                name="export_jobs",
                configuration={SERVER: server, "delta.checkpointInterval": CHECKPOINT_EVERY},
                storage_options=address.options,
                raise_if_key_not_exists=False,
            )
        except CommitFailedError:
            if not DeltaTable.is_deltatable(address.uri, address.options):
                raise  # if it is one now, another run made it first
    if address.local is not None:
        _sync_log(address, 0)


class Version:
    """One version of a Delta table, loaded once.

    Attributes:
        version: its number.
        manifest: its description, with its files.
        state: the state that our last commit carries; None if there is none, or that of the accounts is lost.
        problem: why the state of the accounts is lost; else empty.
        state_at: when that commit was made (UTC).
        suspects: months that may hold a job twice, see `_find_suspects`.
    """

    def __init__(self, address: Address, as_of: datetime | int | None = None) -> None:
        self.address = address
        with translated(address, "read"):
            self._table = DeltaTable(address.uri, storage_options=address.options)
            self._handler = DeltaFileSystemHandler(address.uri, address.options)
        if as_of is not None:
            self._load_as_of(as_of)
        self.version = self._table.version()
        self._require_supported()
        found = self._find_last_commit()
        accounts, self.problem = self._read_accounts(found.state)
        self.state, self.state_at = None if self.problem else found.state, found.state_at
        files = self._list_files()
        self._sized_handler = self._open_store(files)
        self.manifest = Manifest(
            format=FORMAT,
            snapshot=self.version,
            server=self._table.metadata().configuration.get(SERVER, ""),
            made_at=found.made_at,
            rows=sum(entry.rows for entry in files),
            files=files,
            library=found.state.library if found.state else "",
            receipt=found.state.receipt if found.state else {},
            accounts=accounts if found.untouched else reset_walks(accounts),
        )
        self.suspects = self._find_suspects(found)

    @property
    def added_columns(self) -> list[str]:
        """The columns that other engines have added to the table."""
        return [each.name for each in self._table.schema().fields if each.name not in COLUMNS]

    def read(self, path: str, size: int) -> bytes:
        """Return all bytes of a data file.

        Raises:
            LakeError: it is missing or has another size.
        """
        with translated(self.address, f"read {path} of"):
            data = bytes(self._sized_handler.open_input_file(path).read(size))
        if len(data) != size:
            raise LakeError(f"{path} of {self.address.uri} has {len(data)} bytes, not {size}")
        return data

    def write(self, path: str, data: bytes) -> None:
        """Write a new file as a whole; on disk it is synced."""
        if self.address.local is not None:
            target = self.address.local / path
            disk.make_folder(target.parent)
            disk.write_file(target, data)
            disk.sync_folder(target.parent)
            return
        with translated(self.address, f"write {path} to"):
            stream = self._handler.open_output_stream(path)
            stream.write(data)
            stream.close()  # type: ignore[attr-defined] # its stub lacks it

    def read_own(self, path: str) -> bytes | None:
        """Return all bytes of a file that belongs to us and not to Delta, or None if the file does not exist."""
        if self.address.local is not None:
            target = self.address.local / path
            return disk.read_file(target) if target.exists() else None
        with translated(self.address, f"read {path} of"):
            try:
                file = self._handler.open_input_file(path)
            except FileNotFoundError:
                return None
            return bytes(file.read(file.size()))

    def write_own(self, path: str, data: bytes) -> None:
        """Write or replace a file that belongs to us and not to Delta; on disk only its owner may read it."""
        if self.address.local is None:
            self.write(path, data)
            return
        target = self.address.local / path
        disk.make_folder(target.parent)
        disk.replace_file(target, data, private=True)

    def expire_states(self) -> None:
        """Remove the states of versions whose commits are no longer kept."""
        kept = [
            int(found[1]) for name in self._list_names("_delta_log") if (found := _COMMIT.fullmatch(name))
        ]
        current = self.state.accounts_file if self.state else ""
        old = states.list_expired(self._list_names(states.FOLDER), before=min(kept, default=0), keep=current)
        self.remove(old)

    def expire_log(self) -> None:
        """Write a checkpoint and remove the log before this version, so that no earlier version can be read."""
        with translated(self.address, "write a checkpoint of"):
            self._table.create_checkpoint()
        names = self._list_names("_delta_log")
        if self.address.local is not None:
            for path in sorted((self.address.local / "_delta_log").glob("*checkpoint*")):
                disk.sync_file(path)
            _sync_log(self.address, self.version)
        current = self.state.accounts_file if self.state else ""
        self.remove(
            states.list_expired(self._list_names(states.FOLDER), before=self.version + 1, keep=current)
        )
        numbered = [(found, name) for name in names if (found := _NUMBERED.fullmatch(name))]
        self.remove([name for found, name in numbered if int(found[1]) < self.version])
        if self.address.local is not None:
            disk.sync_folder(self.address.local / "_delta_log")

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files; the caller knows that no version needs them."""
        for path in paths:
            with translated(self.address, f"remove {path} from"):
                self._handler.delete_file(path)

    def find_missing(self, entries: Sequence[FileEntry]) -> list[str]:
        """Return the paths of the files that are missing from the store or have another size."""
        with translated(self.address, "look up new files of"):
            found = self._handler.get_file_info([entry.path for entry in entries]) if entries else []
        return [e.path for e, info in zip(entries, found, strict=True) if info.size != e.bytes]

    def require_writable(self) -> None:
        """Raise where the table has conditions on its rows: a writer must keep them, and delta-rs does not check them.

        Raises:
            ConfigurationError: it has a constraint or an invariant.
        """
        names = [name for name in self._table.metadata().configuration if name.startswith(CONSTRAINT)]
        names += [each.name for each in self._table.schema().fields if INVARIANT in each.metadata]
        if names:
            raise ConfigurationError(
                f"the Delta table {self.address.uri} has a constraint, {escape(names[0])}, which this library cannot "
                "check; drop the constraint, then run again"
            )

    def commit(self, new: Sequence[FileEntry], old: Sequence[FileEntry], state: CommitState) -> None:
        """Commit added and removed files, with the run's state, on top of this version and no other.

        Args:
            new: files to add; they are in the store.
            old: files to remove.
            state: what the run writes into the commit.

        Raises:
            LakeConflict: another writer has committed since this version.
            ConfigurationError, LakeError: the table does not accept the commit.
            TryLater: the store gave no answer; the commit may have got through.
        """
        state = self._store_accounts(state)
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            *(AddAction(e.path, e.bytes, _partition(e), now, data_change=True, stats=e.stats) for e in new),
            *(
                RemoveAction(
                    e.path,
                    data_change=True,
                    deletion_timestamp=now,
                    size=e.bytes,
                    partition_values=_partition(e),
                )
                for e in old
            ),
        ]
        properties = CommitProperties(
            custom_metadata={APP: msgspec.json.encode(state).decode()},
            max_commit_retries=0,
            app_transactions=[Transaction(APP, self.version + 1)],
        )
        with translated(self.address, "commit to"):
            try:
                self._table.create_write_transaction(
                    actions, "append", self._table.schema(), [MONTH], commit_properties=properties
                )
            except CommitFailedError as exc:
                if _OVERTAKEN.match(str(exc)) or self._is_overtaken():
                    raise LakeConflict(f"another writer committed to {self.address.uri} first") from None
                raise
        if self.address.local is not None:
            _sync_log(self.address, self.version + 1)

    def find_commit(self, run: str) -> int | None:
        """Return the version above this one that a run committed; None where the log has none."""
        version = self.version + 1
        while (commit := self._read_commit(version)) is not None:
            if commit.state is not None and commit.state.run == run:
                return version
            version += 1
        return None

    def commits_since(self, version: int) -> list[Commit | None]:
        """Return the commits above `version`, up to this one; None for each that is no longer kept."""
        return [self._read_commit(each) for each in range(version + 1, self.version + 1)]

    def vacuum(self, hours: int) -> list[str]:
        """Remove files that no version of the last `hours` needs, including those of killed runs; return their paths."""
        with translated(self.address, "clear up"):
            return list(self._table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True))

    def _list_names(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder; none if there is no such folder."""
        if self.address.local is not None and not (self.address.local / folder).is_dir():
            return []
        with translated(self.address, f"list {folder} of"):
            return [info.path for info in self._handler.get_file_info_selector(folder, recursive=False)]

    def _store_accounts(self, state: CommitState) -> CommitState:
        """Return the state as a commit carries it: that of many accounts is written to a file, which it names."""
        data = states.pack_accounts(state.accounts)
        if data is None:
            return state
        path = states.name_file(self.version + 1, data)
        self.write(path, data)
        return msgspec.structs.replace(state, accounts={}, accounts_file=path)

    def _read_accounts(self, state: CommitState | None) -> tuple[dict[AccountKey, SyncState], str]:
        """Return the state of the accounts, and why it cannot be used if that is so."""
        path = state.accounts_file if state else ""
        if not path:
            return state.accounts if state else {}, ""
        try:
            return states.unpack_accounts(path, self.read_own(path) if states.is_name(path) else None), ""
        except (strict.Malformed, LakeError) as exc:
            return {}, f"the state of its accounts, {escape(path, 200)}, cannot be used: {escape(str(exc))}"

    def _is_overtaken(self) -> bool:
        return DeltaTable(self.address.uri, storage_options=self.address.options).version() > self.version

    def _load_as_of(self, as_of: datetime | int) -> None:
        check_as_of(as_of)
        version = self._find_version(to_utc(as_of, "as_of")) if isinstance(as_of, datetime) else as_of
        if not 0 <= version <= self._table.version():
            raise UsageError(
                f"{self.address.uri} has no version {version}; the latest is {self._table.version()}"
            )
        try:
            with translated(self.address, f"read version {version} of"):
                self._table.load_as_version(version)
        except LakeError:
            raise UsageError(f"version {version} of {self.address.uri} is no longer kept") from None

    def _find_version(self, as_of: datetime) -> int:
        """Return the last version that was committed at this instant or before, by the time in the commits."""
        for version in range(self._table.version(), -1, -1):
            commit = self._read_commit(version)
            if commit is None:
                break
            if commit.made_at <= as_of:
                return version
        raise UsageError(
            f"no version of {self.address.uri} is as old as {as_of}; older ones are no longer kept"
        )

    def _require_supported(self) -> None:
        """Raise unless this is a table of export jobs whose data files can be read one by one."""
        features = set(self._table.protocol().reader_features or ()) - {"timestampNtz"}
        if features:
            raise LakeError(
                f"the Delta table {self.address.uri} uses {', '.join(sorted(features))}, which this library cannot read"
            )
        mode = self._table.metadata().configuration.get("delta.columnMapping.mode") or "none"
        if mode != "none":
            raise LakeError(
                f"the Delta table {self.address.uri} maps its columns by {escape(mode)}, which this library cannot read"
            )
        fields = {each.name: str(each.type) for each in self._table.schema().fields}
        wanted = Schema.from_arrow(pl.DataFrame(schema=COLUMNS).to_arrow().schema)
        ours = {each.name: str(each.type) for each in wanted.fields}
        required = {each.name for each in self._table.schema().fields if not each.nullable}
        if foreign := sorted(required - ours.keys()):
            raise LakeError(
                f"the Delta table {self.address.uri} requires a value of each row for {escape(foreign[0])}, a column that "
                "this library does not know"
            )
        if not ours.items() <= fields.items() or self._table.metadata().partition_columns != [MONTH]:
            raise LakeError(
                f"the Delta table {self.address.uri} is not a table of export jobs, or has other columns"
            )

    def _list_files(self) -> list[FileEntry]:
        with translated(self.address, "read"):
            found = pl.DataFrame(self._table.get_add_actions(flatten=True))
        entries = []
        for path, size, rows in found.select("path", "size_bytes", "num_records").sort("path").iter_rows():
            if not DATA_FILE.fullmatch(path) or rows is None:
                raise LakeError(
                    f"the Delta table {self.address.uri} names {escape(path)!r}, which is not a data file of a lake"
                )
            entries.append(FileEntry(path=path, rows=rows, bytes=size, sha256=parse_sha256(path)))
        return entries

    def _open_store(self, files: Sequence[FileEntry]) -> DeltaFileSystemHandler:
        """Return the store with the sizes of all files: without them it asks for each, and blocks all threads meanwhile."""
        with translated(self.address, "read"):
            sizes = {entry.path: entry.bytes for entry in files}
            return DeltaFileSystemHandler(self.address.uri, self.address.options, sizes)

    def _find_last_commit(self) -> _LastCommit:
        untouched, made_at = True, None
        for version in range(self.version, max(-1, self.version - MOST_COMMITS), -1):
            commit = self._read_commit(version)
            if commit is None:
                break
            made_at = made_at or commit.made_at
            if commit.state is not None:
                return _LastCommit(commit.state, commit.made_at, untouched, made_at)
            untouched = untouched and not commit.changes_rows
        return _LastCommit(None, None, untouched=False, made_at=made_at or datetime.now(UTC))

    def _find_suspects(self, found: _LastCommit) -> frozenset[str]:
        """Return months that may hold a job twice: others wrote to them, and no run of ours has searched them since."""
        months: dict[str, list[FileEntry]] = {}
        for entry in self.manifest.files:
            months.setdefault(entry.month, []).append(entry)
        proven = found.state.proven if found.state else {}
        return frozenset(
            month
            for month, files in months.items()
            if (not found.untouched or not all(entry.sha256 for entry in files))
            and proven.get(month) != hash_paths(files)
        )

    def _read_commit(self, version: int) -> Commit | None:
        """Return a commit; None where it is no longer kept."""
        path = f"_delta_log/{version:020d}.json"
        try:
            with translated(self.address, f"read {path} of"):
                file = self._handler.open_input_file(path)
                data = bytes(file.read(file.size()))
        except LakeError:
            return None
        return read_commit(data, self.address.uri)


def parse_sha256(path: str) -> str:
    """Return the sha256 in the name of a file of ours; empty for a file of another program."""
    found = _SHA256_NAME.fullmatch(path)
    return found[1] if found else ""


def hash_paths(files: Sequence[FileEntry]) -> str:
    """Return a short hash that identifies a set of files by their paths."""
    names = "\n".join(sorted(entry.path for entry in files))
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def _partition(entry: FileEntry) -> dict[str, str | None]:
    return {MONTH: entry.month}


def _sync_log(address: Address, version: int) -> None:
    """Sync a commit to disk, which delta-rs does not do. If the file is another writer's commit, that does no harm."""
    assert address.local is not None
    log = address.local / "_delta_log"
    commit = log / f"{version:020d}.json"
    if commit.exists():
        disk.sync_file(commit)
    disk.sync_folder(log)
    disk.sync_folder(address.local)
