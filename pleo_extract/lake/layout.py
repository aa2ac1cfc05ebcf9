"""Where things are in a lake, and what a manifest says.

created_month=2026-11/part-0.parquet   the current rows: any tool can be pointed at the folder
_lake/current                          the number of the current snapshot, replaced by one rename; the only pointer
_lake/snapshots/000012.json            the manifest of a snapshot
_lake/objects/2026-11-<sha256>         the bytes of a file, never changed; a visible file is a second name of an object
_lake/state.json                       what runs have learned since the current snapshot was published
_lake/forgotten.json                   hashes of jobs and people that the lake has forgotten, see `forgotten`
_lake/staging/<account>/               fetched but not yet published, with a journal, see `staging`
_lake/rejected/<run>-<account>.jsonl   rows that do not fit the contract
_lake/lock, last_run.json              who writes now, and how the last run ended
_lake/now.csv, vanished.csv            what the catalogue reads beside the rows
_lake/names.csv                        names of companies that the user keeps here, see `answers.names`
_jobs.duckdb                           the catalogue

Nothing but the visible months ends in `.parquet`, since readers of the folder take every such file for rows. A lake of
format 1 (see `old`) is read as it is, and carried over by the next run that writes.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.errors import ConfigurationError, LakeError, StorageError, UsageError, check_path, escape
from pleo_extract.lake import disk, strict
from pleo_extract.lake.old import NUMBER, OLD_NAMES, OldNames
from pleo_extract.zones import to_utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "DATA_FILE",
    "FORMAT",
    "MONTH",
    "MOST_SNAPSHOTS",
    "NUMBER",
    "OBJECT",
    "UNREADABLE",
    "FileEntry",
    "Layout",
    "Manifest",
    "State",
    "check_as_of",
    "decode_manifest",
    "name_object",
    "naming_damage",
    "refuse_newer",
    "scan_files",
]

UNREADABLE: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)
"""What polars raises for a file that is not Parquet, or whose bytes contradict its footer."""
FORMAT: Final = 2
"""Version of the layout and the manifest; a lake with a newer one is refused, one with an older one is carried over."""

OWN: Final = re.compile(rf"_lake|_jobs\.duckdb(\.wal)?|{OLD_NAMES.pattern}")
"""What a lake puts into its folder beside the months; a folder with one of these is a lake."""

MOST_SNAPSHOTS: Final = 999_999_999

MONTH: Final = re.compile(f"created_month={strict.MONTH.pattern}")
"""The folder of a visible month."""
DATA_FILE: Final = re.compile(MONTH.pattern + r"/[\w.-]+\.parquet")
"""A data file as readers of the folder see it; nothing else is opened, whatever a manifest says."""
OBJECT: Final = re.compile(f"{strict.MONTH.pattern}-{strict.SHA256.pattern}")
"""An object, named after its month and the sha256 of its bytes."""
_POINTER: Final = re.compile(rb"([1-9][0-9]{0,8})\n?")


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One data file of a snapshot.

    Attributes:
        path: where readers of the folder see it, relative to the lake.
        rows: how many rows it has.
        bytes: its size.
        sha256: the hash of its bytes; empty for a file that another program has written.
        object: the object that keeps its bytes; empty in a Delta table, whose files are never replaced, and in a lake of
            format 1.
        stats: Delta's statistics of a file that was just written to a table, as JSON; empty for all others.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    object: str = ""
    stats: str = ""

    @property
    def month(self) -> str:
        """The month of its folder, as ``2026-11``."""
        return self.path.partition("/")[0].partition("=")[2]


def check_as_of(as_of: object, name: str = "as_of") -> None:
    """Raise if this does not name a snapshot, or the current one.

    Raises:
        UsageError: it is not a datetime, a number or None.
    """
    if not isinstance(as_of, datetime | int | None):
        raise UsageError(
            f"{name} must be a datetime, such as datetime(2026, 11, 1, tzinfo=UTC), or the number of a snapshot, not {as_of!r}"
        )


def name_object(month: str, sha256: str) -> str:
    """Return the name of the object that keeps these bytes of a month."""
    return f"{month}-{sha256}"


class Manifest(msgspec.Struct, kw_only=True):
    """The description of a snapshot, with what the runs that made it have learned.

    Attributes:
        format: the version of the layout.
        snapshot: its number, from 1.
        server: the server whose jobs these are.
        made_at: when it was published (UTC).
        rows: how many rows its files have.
        files: its files.
        library: the version of pleo-extract that wrote it.
        receipt: the receipt of the last run.
        accounts: the sync state of each account.
        leaving: months that jobs have left for others; their visible files are replaced first, so that readers of the folder
            see no job twice.
    """

    format: int
    snapshot: int
    server: str
    made_at: datetime
    rows: int
    files: list[FileEntry]
    library: str
    receipt: dict[str, Any] = {}
    accounts: dict[AccountKey, SyncState] = {}
    leaving: list[str] = []


class State(msgspec.Struct, kw_only=True):
    """What runs have learned that found nothing new; it wins over the manifest of the snapshot of this number only."""

    snapshot: int
    server: str
    receipt: dict[str, Any]
    accounts: dict[AccountKey, SyncState]


def scan_files(files: Sequence[Path]) -> pl.LazyFrame:
    """Scan data files, with the columns of `COLUMNS`; those that an older format did not have are null.

    Columns that other engines have added to a Delta table are left out.
    """
    if not files:
        return pl.LazyFrame(schema=POLARS_SCHEMA)
    return pl.scan_parquet(
        list(files),
        glob=False,
        hive_partitioning=False,
        schema=POLARS_SCHEMA,
        missing_columns="insert",
        extra_columns="ignore",
    )


class Layout:
    """The paths below a lake's root, and the readers of its pointer and manifests."""

    def __init__(self, root: str | Path) -> None:
        if isinstance(root, str) and not root.strip():
            raise UsageError("the name of the lake's folder is empty; is a variable not set?")
        self.shown_rejected = f"{root}/_lake/rejected"
        self.root = Path(root).absolute()
        check_path(self.root, "the lake's folder")
        self.own = self.root / "_lake"
        self.current = self.own / "current"
        self.snapshots = self.own / "snapshots"
        self.objects = self.own / "objects"
        self.state = self.own / "state.json"
        self.forgotten = self.own / "forgotten.json"
        self.staging = self.own / "staging"
        self.rejected = self.own / "rejected"
        self.lock = self.own / "lock"
        self.catalogue = self.root / "_jobs.duckdb"
        self.old = OldNames(self.root)
        try:
            is_file = self.root.exists() and not self.root.is_dir()
        except OSError as exc:
            raise StorageError(f"cannot read {self.root}: {exc.strerror or exc}") from exc
        if is_file:
            raise ConfigurationError(f"{self.root} is a file, not a folder that can hold a lake")

    @property
    def is_old(self) -> bool:
        """True for a lake of format 1 that no run has carried over yet."""
        return not os.path.lexists(self.current) and self.old.exists()

    @property
    def above(self) -> Path | None:
        """The lake in whose folder this one lies; None as a rule.

        Whoever reads the files of the outer lake by a pattern would find those of the inner one, too.
        """
        inside = (each for each in self.root.parents if os.path.lexists(each / "_lake" / "current"))
        return next(inside, None)

    @property
    def strays(self) -> Path:
        """The folder of files that others have put beside the visible months."""
        return self.own / "strays"

    @property
    def last_run(self) -> Path:
        """The record of how the last run ended."""
        return self.old.last_run if self.is_old else self.own / "last_run.json"

    def manifest_file(self, number: int) -> Path:
        """Return the path of the manifest of snapshot `number`."""
        folder = self.old.meta if self.is_old else self.snapshots
        return folder / f"{number:06d}.json"

    def numbers(self) -> list[int]:
        """Return the numbers of the snapshots that have a manifest, oldest first."""
        found = (path for path in disk.list_folder(self.manifest_file(0).parent) if path.suffix == ".json")
        return sorted(int(path.stem) for path in found if NUMBER.fullmatch(path.stem))

    def path_of(self, snapshot: int, entry: FileEntry) -> Path:
        """Return where the bytes of a file are: its object, or if that is lost, the visible file with the same bytes.

        Raises:
            StorageError: the visible file cannot be read.
        """
        if self.is_old:
            return self.old.snapshot_folder(snapshot) / entry.path
        kept = self.objects / entry.object
        if entry.object and not disk.is_plain(kept):
            with suppress(LakeError):
                visible = self.root / entry.path
                if disk.size_of(visible) == entry.bytes and disk.hash_file(visible) == entry.sha256:
                    return visible
        return kept if entry.object else self.root / entry.path

    def paths_of(self, manifest: Manifest) -> tuple[Path, ...]:
        """Return where the bytes of all its files are, in the order of the manifest."""
        return tuple(self.path_of(manifest.snapshot, entry) for entry in manifest.files)

    def number(self) -> int | None:
        """Return the number of the current snapshot; None before the first.

        Raises:
            LakeError: the pointer is missing or invalid.
        """
        if self.is_old:
            if self.above and not self.old.current.is_symlink():
                raise LakeError(f"{self.root} lies in the lake {self.above}; name that folder")
            return self.old.number()
        if not os.path.lexists(self.current):
            there, numbers = "", self.numbers()
            if numbers not in ([], [1]):  # a kill during the first publish leaves 1 without a pointer
                there = "snapshots"
            elif not numbers and list_months(self.root):
                # A first dump would replace them, without the jobs that the server no longer lists.
                there = "months"
            if there:
                pointer = self.current.relative_to(self.root).as_posix()
                raise LakeError(
                    f"{self.root} has {there} but no pointer {pointer!r}; run: pleo-extract repair {self.root}"
                )
            return None
        found = _POINTER.fullmatch(disk.read_file(self.current))
        number = int(found[1]) if found else 0
        is_there = number and os.path.lexists(self.manifest_file(number))
        # The newest manifest can be lost, so one number beyond the others is valid. A number beyond that was never published,
        # and repair must not invent a snapshot for it.
        if not number or (not is_there and number > max(self.numbers(), default=number) + 1):
            raise LakeError(f"{self.current} does not name a snapshot of this lake; run repair")
        return number

    def number_as_of(self, as_of: datetime | int | None) -> int | None:
        """Return the number of a snapshot: the current one, the one of this number, or the one current at this instant.

        Raises:
            UsageError: no such snapshot is kept, or the instant has no time zone.
        """
        check_as_of(as_of)
        current = self.number()
        if as_of is None:
            return current
        numbers = [n for n in self.numbers() if current is not None and n <= current]
        if isinstance(as_of, datetime):
            instant = to_utc(as_of, "as_of")
            numbers = [n for n in numbers if self.made_at(n) <= instant]
        elif as_of not in numbers:
            raise UsageError(
                f"snapshot {as_of} is not kept in {self.root}; these are: {', '.join(map(str, numbers)) or 'none yet'}"
            )
        if not numbers:
            raise UsageError(
                f"no snapshot of {self.root} is as old as {as_of}: older ones were pruned, or never made"
            )
        return numbers[-1] if isinstance(as_of, datetime) else int(as_of)

    def manifest(self, number: int) -> Manifest:
        """Return the manifest of a snapshot.

        Raises:
            LakeError: it is missing, broken, or from a newer version.
        """
        path = self.manifest_file(number)
        manifest = decode_manifest(disk.read_file(path), path)
        if manifest.snapshot != number:
            raise LakeError(f"{path} is broken (it describes snapshot {manifest.snapshot}); run repair")
        if not self.is_old and not all(entry.object for entry in manifest.files):
            raise LakeError(f"{path} is broken (a file without an object); run repair")
        return manifest

    def made_at(self, number: int) -> datetime:
        """Return when a snapshot was published (UTC), without decoding the rest: a manifest can describe many accounts.

        Raises:
            LakeError: the manifest is missing or broken.
        """
        path = self.manifest_file(number)
        try:
            return strict.check_instant(strict.decode(disk.read_file(path), _Made).made_at, "made_at")
        except strict.Malformed as exc:
            raise LakeError(f"{path} is broken ({exc}); run repair") from exc

    def apply_state(self, manifest: Manifest) -> Manifest:
        """Return the manifest with what runs have learned since (`state.json`); if that is lost, it costs requests only."""
        if self.is_old or not self.state.exists():
            return manifest
        try:
            state = strict.decode(disk.read_file(self.state), State)
            strict.check_name(state.server, "the server")
            strict.check_accounts(state.accounts)
            strict.check_receipt(state.receipt)
        except (LakeError, strict.Malformed):
            return manifest
        if state.snapshot != manifest.snapshot:
            return manifest
        return msgspec.structs.replace(
            manifest, server=state.server, receipt=state.receipt, accounts=state.accounts
        )

    def server(self) -> str:
        """Return the server whose jobs the current snapshot holds; empty without a snapshot, or if it is broken.

        Raises:
            LakeError: a newer version wrote it.
        """
        try:
            number = self.number()
            path = self.manifest_file(number) if number else None
            data = disk.read_file(path) if path else b""
        except LakeError:  # opening the lake will say what is wrong
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

    def refuse_mistaken_folder(self) -> None:
        """Refuse to make a lake in a place that is probably a mistake.

        Raises:
            UsageError: the root of the file system.
            ConfigurationError: a folder with other files and no lake, or one in the folder of a lake.
        """
        if self.root == self.root.parent:
            raise UsageError(f"a lake needs a folder of its own, not {self.root}")
        if not os.path.lexists(self.current) and (above := self.above) is not None:
            raise ConfigurationError(
                f"{self.root} lies in the lake {above}; name that folder, or one outside of it"
            )
        if what := self.describe_foreign():
            raise ConfigurationError(f"{self.root} is not a lake and not empty ({what}); name another folder")

    def describe_foreign(self) -> str:
        """Return what this folder holds, if it holds other files and no lake; else an empty text."""
        found = [path.name for path in disk.list_folder(self.root)]
        foreign = [name for name in found if not name.startswith(".") and name != "lost+found"]
        if not foreign or any(OWN.fullmatch(name) for name in found):
            return ""
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        return f"it holds {escape(foreign[0])!r}{more}"

    def own_folders(self) -> tuple[Path, ...]:
        """Return the folders that a run writes to."""
        return self.own, self.snapshots, self.objects, self.staging, self.rejected, self.strays


@contextmanager
def naming_damage(lake: str | os.PathLike[str]) -> Iterator[None]:
    """Say in words that a data file cannot be read, where polars would end in a traceback.

    Raises:
        LakeError: a data file is damaged or missing.
    """
    try:
        yield
    except UNREADABLE as exc:
        why = escape(str(exc).partition("\n")[0], 200)
        raise LakeError(f"{lake}: a data file cannot be read ({why}); see pleo-extract verify") from exc


def list_months(folder: Path) -> list[Path]:
    """Return the visible files of a lake, one a month, or those of a snapshot of format 1."""
    months = (
        path for path in disk.list_folder(folder) if MONTH.fullmatch(path.name) and not path.is_symlink()
    )
    return [path for month in months if (path := month / "part-0.parquet").exists()]


def decode_manifest(data: bytes, path: Path) -> Manifest:
    """Decode a manifest; the version is checked first.

    Raises:
        LakeError: it is broken, or from a newer version.
    """
    refuse_newer(data, path)
    try:
        manifest = strict.decode(data, Manifest)
        _check_manifest(manifest)
        made_at = strict.check_instant(manifest.made_at, "made_at")
    except strict.Malformed as exc:
        raise LakeError(f"{path} is broken ({exc}); run repair") from exc
    return msgspec.structs.replace(manifest, made_at=made_at)


def _check_manifest(manifest: Manifest) -> None:
    """Check what the types cannot say.

    Raises:
        strict.Malformed: a value is out of its range, or contradicts another.
    """
    if not 1 <= manifest.snapshot <= MOST_SNAPSHOTS or manifest.format < 0:
        raise strict.Malformed(f"snapshot {manifest.snapshot}, format {manifest.format}")
    strict.check_name(manifest.server, "the server")
    strict.check_name(manifest.library, "the library")
    for entry in manifest.files:
        if not DATA_FILE.fullmatch(entry.path) or (
            entry.sha256 and not strict.SHA256.fullmatch(entry.sha256)
        ):
            raise strict.Malformed(f"file {escape(entry.path)!r}, sha256 {escape(entry.sha256)!r}")
        if entry.object not in ("", name_object(entry.month, entry.sha256)):
            raise strict.Malformed(f"object {escape(entry.object)!r} for {escape(entry.path)!r}")
        strict.check_count(entry.rows, "rows")
        strict.check_count(entry.bytes, "bytes")
    if len({entry.path for entry in manifest.files}) < len(manifest.files):
        raise strict.Malformed("a file twice")
    if (rows := sum(entry.rows for entry in manifest.files)) != manifest.rows:
        raise strict.Malformed(f"{rows} rows in its files, {manifest.rows} in the manifest")
    for month in manifest.leaving:
        if not strict.MONTH.fullmatch(month):
            raise strict.Malformed(f"month {escape(month)!r}")
    strict.check_accounts(manifest.accounts)
    strict.check_receipt(manifest.receipt)


def refuse_newer(data: bytes, path: Path) -> None:
    """Refuse a manifest of a newer version.

    Raises:
        LakeError: its format is newer than `FORMAT`.
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
