"""One version of a Delta table: which files it has, what the runs know that made it, and the store they lie in."""

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
from pleo_extract.lake import disk
from pleo_extract.lake.delta.log import APP, read_commit
from pleo_extract.lake.delta.translate import translated
from pleo_extract.lake.layout import DATA_FILE, FORMAT, FileEntry, Manifest
from pleo_extract.zones import to_utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.lake.delta.address import Address
    from pleo_extract.lake.delta.log import Commit, State

__all__ = ["MONTH", "Version", "create_table", "sum_in", "sum_names"]

MONTH: Final = "created_month"
CONSTRAINT: Final = "delta.constraints."
"""How the names of properties begin that hold a condition on every row."""
INVARIANT: Final = "delta.invariants"
"""The same, kept with a column."""
SERVER: Final = "pleo_extract.server"
"""The table property that binds the table to a server."""
FAR: Final = 1_000
"""Commits of others that are looked through for our last."""
COLUMNS: Final = {**POLARS_SCHEMA, MONTH: pl.String()}
_OVERTAKEN: Final = re.compile(r"Failed to commit transaction: \d+|Tried committing existing table version")
"""What delta-rs says of a version that is there already."""
_NUMBERED: Final = re.compile(r"(?:.*/)?_delta_log/([0-9]{20})\..*")
"""A file of the log that belongs to one version."""
_SUM: Final = re.compile(r".*/part-([0-9a-f]{64})-[0-9a-f]{8}\.parquet")


@dataclass(frozen=True, slots=True)
class _Found:
    """Our last commit at or before a version: its state, its instant, and whether others have changed rows since.

    `made_at` is the instant of the version itself.
    """

    state: State | None
    told_at: datetime | None
    untouched: bool
    made_at: datetime


def create_table(address: Address, server: str) -> None:
    """An empty table, bound to a server; one that is there already is left as it is."""
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
                configuration={SERVER: server},
                storage_options=address.options,
                raise_if_key_not_exists=False,
            )
        except CommitFailedError:
            if not DeltaTable.is_deltatable(address.uri, address.options):
                raise  # else another was faster
    if address.local is not None:
        _sync_log(address, 0)


class Version:
    """One version of a Delta table, loaded once.

    Attributes:
        version: its number. manifest: what it is, its files among it.
        state: what our last commit said, None for none. told_at: when it said so.
        suspects: months in which a job may stand twice.
    """

    def __init__(self, address: Address, as_of: datetime | int | None = None) -> None:
        self.address = address
        with translated(address, "read"):
            self._table = DeltaTable(address.uri, storage_options=address.options)
            self._handler = DeltaFileSystemHandler(address.uri, address.options)
        if as_of is not None:
            self._go_to(as_of)
        self.version = self._table.version()
        self._check()
        found = self._find_state()
        self.state, self.told_at = found.state, found.told_at
        files = self._files()
        self._sized = self._open_sized(files)
        accounts = found.state.accounts if found.state else {}
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

    def read(self, path: str, size: int) -> bytes:
        """All bytes of a file.

        Raises:
            LakeError: it is missing, or not as long.
        """
        with translated(self.address, f"read {path} of"):
            data = bytes(self._sized.open_input_file(path).read(size))
        if len(data) != size:
            raise LakeError(f"{path} of {self.address.uri} has {len(data)} bytes, not {size}")
        return data

    def write(self, path: str, data: bytes) -> None:
        """A new file, whole or not at all; synced where it is on disk."""
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
        """All bytes of a file that is ours and not Delta's; None where there is none."""
        if self.address.local is not None:
            target = self.address.local / path
            return disk.read_file(target) if target.exists() else None
        with translated(self.address, f"look for {path} of"):
            (found,) = self._handler.get_file_info([path])
        if found.size is None:
            return None
        with translated(self.address, f"read {path} of"):
            return bytes(self._handler.open_input_file(path).read(found.size))

    def write_own(self, path: str, data: bytes) -> None:
        """A file that is ours and not Delta's, in place of the one of that name; for its owner alone where it is on disk."""
        if self.address.local is None:
            self.write(path, data)
            return
        target = self.address.local / path
        disk.make_folder(target.parent)
        disk.replace_file(target, data, private=True)

    def expire_log(self) -> None:
        """Put a checkpoint in place of the log before this version, and remove that: no earlier version can be read any longer."""
        with translated(self.address, "write a checkpoint of"):
            self._table.create_checkpoint()
            names = [
                info.path for info in self._handler.get_file_info_selector("_delta_log", recursive=False)
            ]
        if self.address.local is not None:
            for path in sorted((self.address.local / "_delta_log").glob("*checkpoint*")):
                disk.sync_file(path)
            _sync_log(self.address, self.version)
        numbered = [(found, name) for name in names if (found := _NUMBERED.fullmatch(name))]
        self.remove([name for found, name in numbered if int(found[1]) < self.version])
        if self.address.local is not None:
            disk.sync_folder(self.address.local / "_delta_log")

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files that no version names."""
        for path in paths:
            with translated(self.address, f"remove {path} from"):
                self._handler.delete_file(path)

    def find_missing(self, entries: Sequence[FileEntry]) -> list[str]:
        """The paths of those files that are not in the store as long as they were written."""
        with translated(self.address, "look up new files of"):
            found = self._handler.get_file_info([entry.path for entry in entries]) if entries else []
        return [e.path for e, info in zip(entries, found, strict=True) if info.size != e.bytes]

    def require_writable(self) -> None:
        """Refuse a table with conditions on its rows: whoever commits files must keep them, and delta-rs does not look.

        Raises:
            ConfigurationError: it has some.
        """
        names = [name for name in self._table.metadata().configuration if name.startswith(CONSTRAINT)]
        names += [each.name for each in self._table.schema().fields if INVARIANT in each.metadata]
        if names:
            raise ConfigurationError(
                f"the Delta table {self.address.uri} has a constraint, {escape(names[0])}, which this library cannot "
                "check; drop it to let this library write to the table"
            )

    def commit(self, new: Sequence[FileEntry], old: Sequence[FileEntry], state: State) -> None:
        """Commit files that were added and removed on top of this very version, and the state with them.

        delta-rs repeats a commit on top of others' by default, and compares no files when it is written as an append,
        which is the only form that takes both kinds of actions: a compaction meanwhile would double its rows. So it
        makes one attempt, and any commit in between is a conflict.

        Raises:
            LakeConflict: another has committed since. ConfigurationError, LakeError: the table does not take it.
        """
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            *(AddAction(e.path, e.bytes, _month(e), now, data_change=True, stats=_stats(e)) for e in new),
            *(
                RemoveAction(
                    e.path, data_change=True, deletion_timestamp=now, size=e.bytes, partition_values=_month(e)
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
                    raise LakeConflict(f"another writer has committed to {self.address.uri} first") from None
                raise
        if self.address.local is not None:
            _sync_log(self.address, self.version + 1)

    def find_commit(self, run: str) -> int | None:
        """The version that this run committed, above this one; asked of the log alone."""
        version = self.version + 1
        while (commit := self._read_commit(version)) is not None:
            if commit.state is not None and commit.state.run == run:
                return version
            version += 1
        return None

    def commits_since(self, version: int) -> list[Commit | None]:
        """The commits above `version`, up to this one; None for one that is no longer kept."""
        return [self._read_commit(each) for each in range(version + 1, self.version + 1)]

    def vacuum(self, hours: int) -> list[str]:
        """Remove files that no version of the last `hours` needs, those of runs that were killed among them."""
        with translated(self.address, "clear up"):
            return list(self._table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True))

    def _is_overtaken(self) -> bool:
        return DeltaTable(self.address.uri, storage_options=self.address.options).version() > self.version

    def _go_to(self, as_of: datetime | int) -> None:
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
        """The last version that was committed at this instant or before, by the commits' own time."""
        for version in range(self._table.version(), -1, -1):
            commit = self._read_commit(version)
            if commit is None:
                break
            if commit.made_at <= as_of:
                return version
        raise UsageError(
            f"no version of {self.address.uri} is as old as {as_of}; older ones are no longer kept"
        )

    def _check(self) -> None:
        """That this is a table of export jobs whose files can be read one by one."""
        features = set(self._table.protocol().reader_features or ()) - {"timestampNtz"}
        if features:
            raise LakeError(
                f"the Delta table {self.address.uri} uses {', '.join(sorted(features))}, which this library does not read"
            )
        mode = self._table.metadata().configuration.get("delta.columnMapping.mode") or "none"
        if mode != "none":
            raise LakeError(
                f"the Delta table {self.address.uri} maps its columns by {escape(mode)}, which this library does not read"
            )
        fields = {each.name: str(each.type) for each in self._table.schema().fields}
        wanted = Schema.from_arrow(pl.DataFrame(schema=COLUMNS).to_arrow().schema)
        ours = {each.name: str(each.type) for each in wanted.fields}
        if fields != ours or self._table.metadata().partition_columns != [MONTH]:
            raise LakeError(
                f"the Delta table {self.address.uri} is not one of export jobs, or has other columns"
            )

    def _files(self) -> list[FileEntry]:
        with translated(self.address, "read"):
            found = pl.DataFrame(self._table.get_add_actions(flatten=True))
        entries = []
        for path, size, rows in found.select("path", "size_bytes", "num_records").sort("path").iter_rows():
            if not DATA_FILE.fullmatch(path) or rows is None:
                raise LakeError(
                    f"the Delta table {self.address.uri} names {escape(path)!r}, which is no file of ours"
                )
            entries.append(FileEntry(path=path, rows=rows, bytes=size, sha256=sum_in(path)))
        return entries

    def _open_sized(self, files: Sequence[FileEntry]) -> DeltaFileSystemHandler:
        """The store, told how long the files are: else it asks, and holds up all threads meanwhile."""
        with translated(self.address, "read"):
            sizes = {entry.path: entry.bytes for entry in files}
            return DeltaFileSystemHandler(self.address.uri, self.address.options, sizes)

    def _find_state(self) -> _Found:
        untouched, made_at = True, None
        for version in range(self.version, max(-1, self.version - FAR), -1):
            commit = self._read_commit(version)
            if commit is None:
                break
            made_at = made_at or commit.made_at
            if commit.state is not None:
                return _Found(commit.state, commit.made_at, untouched, made_at)
            untouched = untouched and not commit.changes_rows
        return _Found(None, None, untouched=False, made_at=made_at or datetime.now(UTC))

    def _find_suspects(self, found: _Found) -> frozenset[str]:
        """Months in which a job may stand twice: those of other programs' files that nobody has looked through yet."""
        months: dict[str, list[FileEntry]] = {}
        for entry in self.manifest.files:
            months.setdefault(entry.month, []).append(entry)
        proven = found.state.proven if found.state else {}
        return frozenset(
            month
            for month, files in months.items()
            if (not found.untouched or not all(entry.sha256 for entry in files))
            and proven.get(month) != sum_names(files)
        )

    def _read_commit(self, version: int) -> Commit | None:
        """What a commit says; None where it is no longer kept."""
        path = f"_delta_log/{version:020d}.json"
        try:
            with translated(self.address, f"read {path} of"):
                file = self._handler.open_input_file(path)
                data = bytes(file.read(file.size()))
        except LakeError:
            return None
        return read_commit(data, self.address.uri)


def sum_in(path: str) -> str:
    """The sha256 that is in the name of a file of ours; empty for one that another program wrote."""
    found = _SUM.fullmatch(path)
    return found[1] if found else ""


def sum_names(files: Sequence[FileEntry]) -> str:
    """A name for this very set of files."""
    names = "\n".join(sorted(entry.path for entry in files))
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def _month(entry: FileEntry) -> dict[str, str | None]:
    return {MONTH: entry.month}


def _stats(entry: FileEntry) -> str:
    return msgspec.json.encode({"numRecords": entry.rows}).decode()


def _sync_log(address: Address, version: int) -> None:
    """The commit on disk, durably: delta-rs does not see to that. Another's in its place does no harm."""
    assert address.local is not None
    log = address.local / "_delta_log"
    for path in (log / f"{version:020d}.json",):
        if path.exists():
            disk.sync_file(path)
    disk.sync_folder(log)
    disk.sync_folder(address.local)
