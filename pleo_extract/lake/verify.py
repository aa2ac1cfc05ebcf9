"""Is the lake as it was written? Every file of the current snapshot against its manifest, every row against its key."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.errors import LakeError, StorageError, escape
from pleo_extract.lake import disk
from pleo_extract.lake.keys import count_repeats
from pleo_extract.lake.layout import FORMAT, NUMBER, OWN, Layout, Snapshot
from pleo_extract.lake.opening import require_lake, require_pointer
from pleo_extract.refresh import months_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pleo_extract.lake.layout import FileEntry, Manifest

__all__ = [
    "UNREADABLE",
    "Verification",
    "check_file",
    "check_rows",
    "check_snapshot",
    "find_strangers",
    "has_columns",
    "verify_lake",
]


UNREADABLE: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)
"""What polars raises for a file that is no Parquet, or whose bytes are not what its footer says."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify_lake` found: the snapshot (0: none yet), its files and rows, and one line a problem.

    `foreign` names what lies in the lake's folder and is not the lake's; it is left alone and does no harm.
    """

    snapshot: int
    files: int
    rows: int
    problems: tuple[str, ...]
    foreign: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the lake is as it was written."""
        return not self.problems


def verify_lake(lake: str | Path) -> Verification:
    """Read the current snapshot in full and compare it with its manifest.

    Checked: the pointer, the manifest, each file's size and sha256, columns and types, the month each row is filed
    under, and that no (company_id, id) occurs twice, across months too. A file in the snapshot that no manifest names
    is a problem, since a glob reads it; one elsewhere in the lake is reported as foreign.
    """
    layout = Layout(lake)
    require_lake(layout)
    foreign = tuple(_find_foreign(layout))
    try:
        snapshot = layout.snapshot()
        if snapshot is None:
            require_pointer(layout)
            return Verification(0, 0, 0, (), foreign)
        manifest = layout.manifest(snapshot.number)
    except LakeError as exc:
        return Verification(0, 0, 0, (str(exc),), foreign)
    with disk.name_lake(layout.root):
        problems = check_snapshot(snapshot, manifest)
    return Verification(snapshot.number, len(manifest.files), manifest.rows, tuple(problems), foreign)


def check_snapshot(snapshot: Snapshot, manifest: Manifest) -> list[str]:
    """One line for each way in which a snapshot is not as its manifest says; rows are looked at where files are right."""
    problems = [
        problem for entry in manifest.files for problem in check_file(snapshot, entry, manifest.format)
    ]
    problems += [
        f"{path}: in the snapshot's folder, but in no manifest" for path in find_strangers(snapshot, manifest)
    ]
    if problems:
        return problems
    try:
        return check_rows([snapshot.folder / entry.path for entry in manifest.files], manifest.rows)
    except UNREADABLE as exc:
        return [f"{snapshot.folder.name}: rows cannot be read ({escape(str(exc), 200)})"]


def check_file(snapshot: Snapshot, entry: FileEntry, version: int) -> list[str]:
    """One line if this file is not as it was written."""
    path = snapshot.folder / entry.path
    try:
        size, sha256 = disk.size_of(path), disk.sum_of(path)
    except (LakeError, StorageError) as exc:
        return [f"{entry.path}: cannot be read ({getattr(exc.__cause__, 'strerror', None) or exc})"]
    if size != entry.bytes:
        return [f"{entry.path}: {size} bytes, written with {entry.bytes}"]
    if sha256 != entry.sha256:
        return [f"{entry.path}: changed since it was written (sha256 differs)"]
    if not has_columns(path, version):
        return [f"{entry.path}: columns or types are not those of this version"]
    return []


def has_columns(file: Path | bytes, version: int = FORMAT) -> bool:
    """Whether this is a Parquet file with our columns, or the bytes of one; an older format may lack some."""
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        schema = dict(pl.scan_parquet(source, glob=False, hive_partitioning=False).collect_schema())
    except UNREADABLE:
        return False
    ours = dict(POLARS_SCHEMA)
    return schema == ours or (version < FORMAT and schema.items() <= ours.items() and set(KEY) <= set(schema))


def find_strangers(snapshot: Snapshot, manifest: Manifest) -> list[str]:
    """What lies in a snapshot and is not in its manifest; a glob would read it."""
    known = {entry.path for entry in manifest.files}
    found = {
        path.relative_to(snapshot.folder).as_posix()
        for path in snapshot.folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }
    return sorted(found - known)


def _find_foreign(layout: Layout) -> list[str]:
    """What a lake does not put into its folder, into `snapshots` and into `_meta`."""
    own = {
        layout.root: OWN.pattern,
        layout.snapshots: NUMBER.pattern,
        layout.meta: rf"{NUMBER.pattern}\.json|last_run\.json",
    }
    prepared = r"|\..+\.new|\.catalogue-.+"  # by a run that is under way, or was killed
    return sorted(
        path.relative_to(layout.root).as_posix()
        for folder, names in own.items()
        for path in disk.list_folder(folder)
        if not re.fullmatch(names + prepared, path.name)
    )


def check_rows(paths: Sequence[Path], rows: int) -> list[str]:
    """One line for each file that holds rows of another month than its folder says, and for keys and rows that are too many.

    Args:
        paths: all data files of a state, each in a folder named after its month.
        rows: how many it was written with.
    """
    problems, found = [], 0
    for path in paths:
        height, months = _read_months(path)
        found += height
        wrong = [month for month in months if f"created_month={month}" != path.parent.name]
        problems += [f"{path.parent.name}/{path.name}: holds rows of {month}" for month in wrong]
    if found != rows:
        problems.append(f"{found} rows, written with {rows}")
    if repeats := count_repeats(paths, found):
        problems.append(f"{repeats} rows repeat a (company_id, id)")
    return problems


def _read_months(path: Path) -> tuple[int, list[str]]:
    """How many rows a file has, and of which months: those of the first and the last row say whether of more than one."""
    created = pl.scan_parquet(path, glob=False, hive_partitioning=False).select("created_at")
    ends = created.select(
        pl.len(), pl.col("created_at").min().alias("first"), pl.col("created_at").max().alias("last")
    ).collect(engine="streaming")
    months = months_of(
        ends.select(pl.concat_list("first", "last").explode().alias("created_at").drop_nulls())
    )
    return ends["len"][0], months if len(months) <= 1 else months_of(created.collect())
