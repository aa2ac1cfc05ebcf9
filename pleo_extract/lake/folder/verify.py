"""Is the lake as it was written? Every file of the current snapshot against its manifest, every row against its key."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.core.rows import months_of
from pleo_extract.errors import LakeError, StorageError, escape
from pleo_extract.lake import disk
from pleo_extract.lake.folder.opening import require_lake, require_pointer
from pleo_extract.lake.folder.visible import find_strays, is_shown
from pleo_extract.lake.forgotten import read_forgotten, require_forgotten
from pleo_extract.lake.keys import count_repeats
from pleo_extract.lake.layout import FORMAT, MONTH, NUMBER, OBJECT, OWN, Layout

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
    "has_columns",
    "verify_lake",
]


_OWN_FILES: Final = (
    "current",
    "snapshots",
    "objects",
    r"state\.json",
    r"forgotten\.json",
    "staging",
    "rejected",
    "lock",
    r"last_run\.json",
    r"now\.csv",
    r"vanished\.csv",
    "strays",
)
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
    """Read the current snapshot in full and compare it with its manifest; see `lakes.verify_lake`."""
    layout = Layout(lake)
    require_lake(layout)
    foreign = tuple(_find_foreign(layout))
    try:
        number = layout.number()
        if number is None:
            require_pointer(layout)
            return Verification(0, 0, 0, (), foreign)
        manifest = layout.manifest(number)
    except LakeError as exc:
        return Verification(0, 0, 0, (str(exc),), foreign)
    with disk.name_lake_in_errors(layout.root):
        problems = (
            check_snapshot(layout, manifest)
            + _check_visible(layout, manifest)
            + _check_forgotten(layout, manifest)
        )
    return Verification(number, len(manifest.files), manifest.rows, tuple(problems), foreign)


def check_snapshot(layout: Layout, manifest: Manifest) -> list[str]:
    """One line for each way in which a snapshot is not as its manifest says; rows are looked at where files are right."""
    problems = [problem for entry in manifest.files for problem in check_file(layout, manifest, entry)]
    if problems:
        return problems
    months = [entry.month for entry in manifest.files]
    try:
        return check_rows(list(zip(months, layout.paths_of(manifest), strict=True)), manifest.rows)
    except UNREADABLE as exc:
        return [f"snapshot {manifest.snapshot}: rows cannot be read ({escape(str(exc), 200)})"]


def check_file(layout: Layout, manifest: Manifest, entry: FileEntry) -> list[str]:
    """One line if this file of a snapshot is not as it was written."""
    path = layout.path_of(manifest.snapshot, entry)
    try:
        size, sha256 = disk.size_of(path), disk.hash_file(path)
    except (LakeError, StorageError) as exc:
        return [f"{entry.path}: cannot be read ({getattr(exc.__cause__, 'strerror', None) or exc})"]
    if size != entry.bytes:
        return [f"{entry.path}: {size} bytes, written with {entry.bytes}"]
    if sha256 != entry.sha256:
        return [f"{entry.path}: changed since it was written (sha256 differs)"]
    if not has_columns(path, manifest.format):
        return [f"{entry.path}: columns or types are not those of this version"]
    return []


def _check_visible(layout: Layout, manifest: Manifest) -> list[str]:
    """One line for each month that readers of the folder do not see as it is in the snapshot."""
    if layout.is_old:
        return []
    problems = [
        f"{path.relative_to(layout.root).as_posix()}: in the folder, but not in the lake; its readers take it for part of it"
        for path in find_strays(layout, manifest)
    ]
    for entry in manifest.files:
        visible = layout.root / entry.path
        if is_shown(layout, entry) or visible.is_dir():  # a folder is among the strays
            continue
        try:
            if disk.hash_file(visible) != entry.sha256:
                problems.append(
                    f"{entry.path}: is not what the snapshot has; the next dump puts that in its place"
                )
        except (LakeError, StorageError):
            problems.append(f"{entry.path}: is not there to read; the next dump puts it there")
    return problems


def _check_forgotten(layout: Layout, manifest: Manifest) -> list[str]:
    """One line where what was forgotten is not known, or is not all gone; only the lake's owner may look."""
    try:
        forgotten = read_forgotten(layout)
        require_forgotten(forgotten, layout.apply_state(manifest).accounts.values(), layout.root)
        pending = forgotten.pending
    except LakeError as exc:
        return [str(exc)]
    except StorageError:
        return []
    return (
        ["what is to be forgotten is not all gone; the next dump or repair finishes that"] if pending else []
    )


def has_columns(file: Path | bytes, version: int = FORMAT) -> bool:
    """Whether this is a Parquet file with our columns, or the bytes of one; an older format may lack some."""
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        schema = dict(pl.scan_parquet(source, glob=False, hive_partitioning=False).collect_schema())
    except UNREADABLE:
        return False
    ours = dict(POLARS_SCHEMA)
    return schema == ours or (version < 1 and schema.items() <= ours.items() and set(KEY) <= set(schema))


def _find_foreign(layout: Layout) -> list[str]:
    """What a lake does not put into its folder, into `snapshots` and into `objects`."""
    manifests = rf"{NUMBER.pattern}\.json"
    if layout.is_old:
        own = {
            layout.root: OWN.pattern,
            layout.old.snapshots: NUMBER.pattern,
            layout.old.meta: rf"{manifests}|last_run\.json",
        }
    else:
        own = {
            layout.root: rf"{OWN.pattern}|{MONTH.pattern}",
            layout.own: "|".join(_OWN_FILES),
            layout.snapshots: manifests,
            layout.objects: OBJECT.pattern,
        }
    prepared = r"|\..+\.new|\.catalogue-.+"  # by a run that is under way, or was killed
    return sorted(
        path.relative_to(layout.root).as_posix()
        for folder, names in own.items()
        for path in disk.list_folder(folder)
        if not re.fullmatch(names + prepared, path.name)
    )


def check_rows(files: Sequence[tuple[str, Path]], rows: int) -> list[str]:
    """One line for each file that holds rows of another month than its own, and for keys and rows that are too many.

    Args:
        files: all data files of a state, each with its month.
        rows: how many it was written with.
    """
    problems, found = [], 0
    for month, path in files:
        height, months = _read_months(path)
        found += height
        problems += [f"created_month={month}: holds rows of {each}" for each in months if each != month]
    if found != rows:
        problems.append(f"{found} rows, written with {rows}")
    if repeats := count_repeats([path for _, path in files], found):
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
