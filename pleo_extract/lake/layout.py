"""Where things are in a lake, and what a manifest says.

current -> snapshots/000012                                swapped by one rename; the only pointer
snapshots/000012/created_month=2026-11/part-0.parquet      never changed once published
_meta/000012.json                                          manifest; _meta/last_run.json: how the last run ended
_staging/<run>/                                            fetched but not yet published, with a journal
_rejected/<run>-<account>.jsonl, _lock
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.errors import ConfigurationError, LakeError, StorageError, UsageError, check_path, escape
from pleo_extract.lake import disk, strict
from pleo_extract.refresh import Account

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "DATA_FILE",
    "FORMAT",
    "MOST_SNAPSHOTS",
    "NUMBER",
    "FileEntry",
    "Layout",
    "Manifest",
    "Snapshot",
    "decode_manifest",
    "refuse_newer",
    "scan_files",
]

FORMAT: Final = 1
"""Version of the lake's layout and manifest; a newer one is refused, an older one carried over."""

OWN: Final = re.compile(
    r"current|snapshots|_meta|_staging|_rejected|_lock|_now\.csv|_vanished\.csv|jobs\.duckdb(\.wal)?"
)
"""What a lake puts into its folder."""

MOST_SNAPSHOTS: Final = 999_999_999
NUMBER: Final = re.compile(r"(?!000000)(?:[0-9]{6}|[1-9][0-9]{6,8})")
"""The number of a snapshot as it names its folder and its manifest: one spelling each, or it is not ours."""

_MONTH: Final = re.compile(r"created_month=[0-9]{4}-(?:0[1-9]|1[0-2])")
_SUM: Final = re.compile(r"[0-9a-f]{64}|")
DATA_FILE: Final = re.compile(_MONTH.pattern + r"/[\w.-]+\.parquet")
"""A data file below its snapshot: nothing else is opened, whatever a manifest says."""


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One data file of a snapshot: path below the snapshot, rows, bytes, sha256 of its bytes."""

    path: str
    rows: int
    bytes: int
    sha256: str

    @property
    def month(self) -> str:
        """The month that it is filed under, as ``2026-11``."""
        return self.path.partition("/")[0].partition("=")[2]


class Manifest(msgspec.Struct, kw_only=True):
    """What a snapshot is, and what the runs know that made it.

    `made_at` is when the data was published (UTC); `accounts` the sync state, by account; `receipt` the last run's.
    """

    format: int
    snapshot: int
    server: str
    made_at: datetime
    rows: int
    files: list[FileEntry]
    library: str
    receipt: dict[str, Any] = {}
    accounts: dict[str, Account] = {}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One published, immutable state of the lake, resolved to its real folder once."""

    number: int
    folder: Path

    def files(self) -> list[Path]:
        """The data files, in order of month."""
        return sorted(
            p for p in self.folder.glob("created_month=*/*.parquet") if _MONTH.fullmatch(p.parent.name)
        )

    def scan(self) -> pl.LazyFrame:
        """All rows, lazily, with the columns of `COLUMNS`; an empty frame with these when there are none."""
        return scan_files(self.files())

    @staticmethod
    def scan_nothing() -> pl.LazyFrame:
        """No rows, with all columns: what a lake without a snapshot holds."""
        return pl.LazyFrame(schema=POLARS_SCHEMA)


def scan_files(files: Sequence[Path]) -> pl.LazyFrame:
    """The rows of these data files, lazily, with the columns of `COLUMNS`; an empty frame with these for no files."""
    if not files:
        return Snapshot.scan_nothing()
    # Columns that an older format did not have are null.
    return pl.scan_parquet(
        list(files), glob=False, hive_partitioning=False, schema=POLARS_SCHEMA, missing_columns="insert"
    )


class Layout:
    """The names below a lake's root, and the pointer resolved."""

    def __init__(self, root: str | Path) -> None:
        if isinstance(root, str) and not root.strip():
            raise UsageError("the name of the lake's folder is empty; is a variable not set?")
        self.shown_rejected = f"{root}/_rejected"
        self.root = Path(root).absolute()
        check_path(self.root, "the lake's folder")
        self.current = self.root / "current"
        self.snapshots = self.root / "snapshots"
        self.meta = self.root / "_meta"
        self.staging = self.root / "_staging"
        self.rejected = self.root / "_rejected"
        self.lock = self.root / "_lock"
        self.catalogue = self.root / "jobs.duckdb"
        self.last_run = self.meta / "last_run.json"
        try:
            is_file = self.root.exists() and not self.root.is_dir()
        except OSError as exc:
            raise StorageError(f"cannot read {self.root}: {exc.strerror or exc}") from exc
        if is_file:
            raise ConfigurationError(f"{self.root} is a file, not a folder that can hold a lake")

    def snapshot_folder(self, number: int) -> Path:
        """Where snapshot `number` is."""
        return self.snapshots / f"{number:06d}"

    def manifest_file(self, number: int) -> Path:
        """Where its manifest is."""
        return self.meta / f"{number:06d}.json"

    def numbers(self) -> list[int]:
        """The snapshots there are, oldest first."""
        return sorted(int(p.name) for p in disk.list_folder(self.snapshots) if NUMBER.fullmatch(p.name))

    def manifest_numbers(self) -> list[int]:
        """The snapshots that have a manifest, oldest first."""
        found = (path for path in disk.list_folder(self.meta) if path.suffix == ".json")
        return sorted(int(path.stem) for path in found if NUMBER.fullmatch(path.stem))

    def snapshot(self) -> Snapshot | None:
        """The current snapshot, or None where nothing was published yet.

        Raises:
            LakeError: the pointer leads nowhere, or out of the lake.
        """
        if not self.current.is_symlink():
            if self.current.exists():
                raise LakeError(
                    f"{self.current} is not the link that a lake keeps there; is this folder a lake?"
                )
            if self.numbers() not in ([], [1]):  # a first publish that was killed leaves 1 without a pointer
                raise LakeError(f"{self.root} has snapshots but no pointer 'current'; run repair")
            return None
        folder = self._follow()
        if folder is None or not NUMBER.fullmatch(folder.name) or not folder.is_dir():
            raise LakeError(f"{self.current} does not lead to a snapshot of this lake; run repair")
        return Snapshot(int(folder.name), folder)

    def _follow(self) -> Path | None:
        """Where the pointer leads; None where that is no place of this lake's, or a pointer leads to itself."""
        try:
            folder = self.current.resolve()
            return folder if folder.parent == self.snapshots.resolve() else None
        except (OSError, RuntimeError, ValueError):
            return None

    def snapshot_as_of(self, as_of: datetime | int | None) -> Snapshot | None:
        """The current snapshot; or the one of that number; or the one that was current at that instant.

        Raises:
            UsageError: no such snapshot is kept, or the instant has no time zone.
        """
        if as_of is None:
            return self.snapshot()
        current = self.snapshot()
        numbers = [n for n in self.numbers() if current is not None and n <= current.number]
        if isinstance(as_of, datetime):
            if as_of.tzinfo is None:
                raise UsageError("as_of has no time zone; say which, for example datetime.now(UTC)")
            numbers = [n for n in numbers if self.manifest_file(n).exists() and self.made_at(n) <= as_of]
        elif as_of not in numbers:
            raise UsageError(f"snapshot {as_of} is not kept in {self.root}; there are {numbers}")
        if not numbers:
            raise UsageError(
                f"no snapshot of {self.root} is as old as {as_of}; older ones were pruned, or never made"
            )
        number = numbers[-1] if isinstance(as_of, datetime) else int(as_of)
        return Snapshot(number, self.snapshot_folder(number).resolve())

    def manifest(self, number: int) -> Manifest:
        """The manifest of a snapshot.

        Raises:
            LakeError: missing, broken, or written by a newer version.
        """
        path = self.manifest_file(number)
        manifest = decode_manifest(disk.read_file(path), path)
        if manifest.snapshot != number:
            raise LakeError(f"{path} is broken (it is of snapshot {manifest.snapshot}); run repair")
        return manifest

    def made_at(self, number: int) -> datetime:
        """When a snapshot was published (UTC): all that is read of its manifest, which may tell of many accounts.

        Raises:
            LakeError: the manifest is missing or broken.
        """
        path = self.manifest_file(number)
        try:
            return strict.read_instant(strict.decode(disk.read_file(path), _Made).made_at, "made_at")
        except strict.Malformed as exc:
            raise LakeError(f"{path} is broken ({exc}); run repair") from exc

    def server(self) -> str:
        """The server whose jobs the current snapshot holds; empty where there is no snapshot, or it does not say.

        Raises:
            LakeError: a newer version wrote it.
        """
        try:
            snapshot = self.snapshot()
            path = self.manifest_file(snapshot.number) if snapshot else None
            data = disk.read_file(path) if path else b""
        except LakeError:  # whoever opens it will say so
            return ""
        if path is None:
            return ""
        refuse_newer(data, path)
        try:
            server = strict.decode(data, _Bound).server
            strict.check_name(server, "the server")
        except strict.Malformed:
            return ""
        return server

    def require_room(self) -> None:
        """Refuse to make a lake where it can hardly be meant to be: among other files.

        Raises:
            UsageError: the root of the file system. ConfigurationError: a folder with files and no lake in it.
        """
        if self.root == self.root.parent:
            raise UsageError(f"a lake needs a folder of its own, not {self.root}")
        if what := self.foreign():
            raise ConfigurationError(
                f"{self.root} is no lake and not empty ({what}); name a folder of its own"
            )

    def foreign(self) -> str:
        """What this folder holds, if it holds files and no lake; else nothing."""
        found = [path.name for path in disk.list_folder(self.root)]
        foreign = [name for name in found if not name.startswith(".") and name != "lost+found"]
        if not foreign or any(OWN.fullmatch(name) for name in found):
            return ""
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        return f"it holds {escape(foreign[0])!r}{more}"

    def own_folders(self) -> tuple[Path, ...]:
        """The folders that a run writes to."""
        return self.snapshots, self.meta, self.staging, self.rejected


def decode_manifest(data: bytes, path: Path) -> Manifest:
    """A manifest from its bytes, the version looked at first.

    Raises:
        LakeError: it is broken, or from a newer version.
    """
    refuse_newer(data, path)
    try:
        manifest = strict.decode(data, Manifest)
        _check_manifest(manifest)
        made_at = strict.read_instant(manifest.made_at, "made_at")
    except strict.Malformed as exc:
        raise LakeError(f"{path} is broken ({exc}); run repair") from exc
    return msgspec.structs.replace(manifest, made_at=made_at)


def _check_manifest(manifest: Manifest) -> None:
    """What the types cannot say.

    Raises:
        strict.Malformed: it is not so.
    """
    if not 1 <= manifest.snapshot <= MOST_SNAPSHOTS or manifest.format < 0:
        raise strict.Malformed(f"it is of snapshot {manifest.snapshot}, format {manifest.format}")
    strict.check_name(manifest.server, "the server")
    strict.check_name(manifest.library, "the library")
    for entry in manifest.files:
        if not DATA_FILE.fullmatch(entry.path) or not _SUM.fullmatch(entry.sha256):
            raise strict.Malformed(f"it names {escape(entry.path)!r}, {escape(entry.sha256)!r}")
        strict.check_count(entry.rows, "rows")
        strict.check_count(entry.bytes, "bytes")
    if len({entry.path for entry in manifest.files}) < len(manifest.files):
        raise strict.Malformed("it names a file twice")
    if (rows := sum(entry.rows for entry in manifest.files)) != manifest.rows:
        raise strict.Malformed(f"{rows} rows in its files, written with {manifest.rows}")
    strict.check_accounts(manifest.accounts)
    strict.check_receipt(manifest.receipt)


def refuse_newer(data: bytes, path: Path) -> None:
    """Look at the version of a manifest, if it says one.

    Raises:
        LakeError: it is newer than this.
    """
    try:
        version = strict.decode(data, _Version).format
    except strict.Malformed:
        return
    if version > FORMAT:
        raise LakeError(
            f"{path} has lake format {version}; this version of pleo-extract knows {FORMAT}. Upgrade pleo-extract"
        )


class _Version(msgspec.Struct):
    format: int


class _Made(msgspec.Struct):
    made_at: datetime


class _Bound(msgspec.Struct):
    server: str
