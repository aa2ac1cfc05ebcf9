"""One version of a Delta table: which files it has, what the runs know that made it, and the store they lie in."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl
from deltalake import DeltaTable, Schema
from deltalake._internal import DeltaFileSystemHandler
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.delta.translate import translated
from pleo_extract.errors import LakeError, UsageError, escape
from pleo_extract.lake import DATA_FILE, FORMAT, FileEntry, Manifest, disk, strict
from pleo_extract.refresh import Account, forget_walks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.delta.address import Address

__all__ = ["MONTH", "State", "Table", "create_table", "sum_in"]

MONTH: Final = "created_month"
APP: Final = "pleo_extract"
"""Our name in commits, and in Delta's transaction identifiers: two commits under it never pass each other."""
SERVER: Final = "pleo_extract.server"
"""The table property that binds the table to a server."""
HARMLESS: Final = frozenset({"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "CREATE TABLE"})
"""What others may do to the table and leave every row in it."""
FAR: Final = 1_000
"""Commits of others that are looked through for our last."""
COLUMNS: Final = {**POLARS_SCHEMA, MONTH: pl.String()}
_SUM: Final = re.compile(r".*/part-([0-9a-f]{64})-[0-9a-f]{8}\.parquet")


class State(msgspec.Struct, kw_only=True):
    """What a run writes into its commit, beside the data.

    `run` is the committing run's, and no other's: by it a run knows its commit again. `vacuumed_at`: when files that no
    version needs were last removed.
    """

    format: int
    run: str
    server: str
    library: str
    vacuumed_at: datetime
    receipt: dict[str, Any] = {}
    accounts: dict[str, Account] = {}


class _CommitInfo(msgspec.Struct):
    operation: str = ""
    timestamp: int = 0
    pleo_extract: str | None = None


class _Line(msgspec.Struct):
    commitInfo: _CommitInfo | None = None  # noqa: N815 - Delta's name


class _Version(msgspec.Struct):
    format: int


@dataclass(frozen=True, slots=True)
class _Found:
    """Our last commit at or before a version, and whether others may have changed rows since."""

    state: State | None
    untouched: bool
    made_at: datetime


def create_table(address: Address, server: str) -> None:
    """An empty table, bound to a server; one that is there already is left as it is."""
    schema = Schema.from_arrow(pl.DataFrame(schema=COLUMNS).to_arrow().schema)
    if address.local is not None:
        disk.make_folder(address.local)
    with translated(address, "make"):
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
    if address.local is not None:
        _sync_log(address, 0)


class Table:
    """One version of a Delta table, loaded once.

    Attributes:
        version: its number. manifest: what it is, its files among it. state: what our last commit said, None for none.
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
        self.state = found.state
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
            accounts=accounts if found.untouched else forget_walks(accounts),
        )

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

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files that no version names."""
        for path in paths:
            with translated(self.address, f"remove {path} from"):
                self._handler.delete_file(path)

    def commit(self, new: Sequence[FileEntry], old: Sequence[FileEntry], state: State) -> None:
        """Commit files that were added and removed since this version, and the state with them.

        Raises:
            Conflict: another run has committed since, or files that are to be removed are gone.
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
            app_transactions=[Transaction(APP, self.version + 1)],
        )
        with translated(self.address, "commit to"):
            self._table.create_write_transaction(
                actions, "append", self._table.schema(), [MONTH], commit_properties=properties
            )
        if self.address.local is not None:
            _sync_log(self.address, self.version + 1)

    def find_commit(self, run: str, after: int) -> int | None:
        """The version that this run committed, above `after`."""
        for version in range(self.version, after, -1):
            info = self._read_commit(version)
            state = _decode_state(info, self.address) if info else None
            if state is not None and state.run == run:
                return version
        return None

    def vacuum(self, hours: int) -> list[str]:
        """Remove files that no version of the last `hours` needs, those of runs that were killed among them."""
        with translated(self.address, "clear up"):
            return list(self._table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True))

    def _go_to(self, as_of: datetime | int) -> None:
        if isinstance(as_of, datetime):
            if as_of.tzinfo is None:
                raise UsageError("as_of has no time zone; say which, for example datetime.now(UTC)")
            version = self._find_version(as_of)
        else:
            version = as_of
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
            info = self._read_commit(version)
            if info is None:
                break
            if _instant(info) <= as_of:
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
            info = self._read_commit(version)
            if info is None:
                break
            made_at = made_at or _instant(info)
            state = _decode_state(info, self.address)
            if state is not None:
                return _Found(state, untouched, made_at)
            untouched = untouched and info.operation in HARMLESS
        return _Found(None, untouched=False, made_at=made_at or datetime.now(UTC))

    def _read_commit(self, version: int) -> _CommitInfo | None:
        """What a commit says of itself; None where it is no longer kept."""
        path = f"_delta_log/{version:020d}.json"
        try:
            with translated(self.address, f"read {path} of"):
                file = self._handler.open_input_file(path)
                data = bytes(file.read(file.size()))
        except LakeError:
            return None
        for line in data.splitlines():
            if line.startswith(b'{"commitInfo"'):
                try:
                    return strict.decode(line, _Line).commitInfo
                except strict.Malformed:
                    return _CommitInfo()
        return _CommitInfo()


def sum_in(path: str) -> str:
    """The sha256 that is in the name of a file of ours; empty for one that another program wrote."""
    found = _SUM.fullmatch(path)
    return found[1] if found else ""


def _decode_state(info: _CommitInfo, address: Address) -> State | None:
    if info.pleo_extract is None:
        return None
    try:
        version = strict.decode(info.pleo_extract, _Version).format
        if version > FORMAT:
            raise LakeError(
                f"{address.uri} has lake format {version}; this version of pleo-extract knows {FORMAT}. "
                "Upgrade pleo-extract"
            )
        state = strict.decode(info.pleo_extract, State)
        strict.check_accounts(state.accounts)
        strict.check_receipt(state.receipt)
        vacuumed_at = strict.read_instant(state.vacuumed_at, "vacuumed_at")
    except strict.Malformed:
        return None
    return msgspec.structs.replace(state, vacuumed_at=vacuumed_at)


def _instant(info: _CommitInfo) -> datetime:
    return datetime.fromtimestamp(info.timestamp / 1000, UTC)


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
