"""Verify a lake: every file of the current snapshot against its manifest, every row against its month and its key."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.core.rows import count_months
from pleo_extract.errors import LakeError, StorageError, escape
from pleo_extract.lake import disk
from pleo_extract.lake.folder.opening import require_lake, require_pointer
from pleo_extract.lake.folder.visible import find_strays, is_shown
from pleo_extract.lake.forgotten import read_forgotten, require_forgotten
from pleo_extract.lake.keys import count_repeats
from pleo_extract.lake.layout import FORMAT, MONTH, NUMBER, OBJECT, OWN, UNREADABLE, Layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pleo_extract.lake.layout import FileEntry, Manifest

__all__ = [
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
    r"names\.csv",
    "strays",
)


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of `verify_lake`.

    Attributes:
        snapshot: the number of the current snapshot; 0 where nothing was published.
        files: how many files it has.
        rows: how many rows it has.
        problems: one line for each problem.
        foreign: files in the lake's folder that do not belong to the lake; they do no harm and are left alone.
    """

    snapshot: int
    files: int
    rows: int
    problems: tuple[str, ...]
    foreign: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Return whether no problem was found."""
        return not self.problems


def verify_lake(lake: str | Path) -> Verification:
    """Read the current snapshot in full and compare it with its manifest; see `answers.verification`."""
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
    """Return one line for each way in which a snapshot differs from its manifest; rows are read only if all files match."""
    problems = [problem for entry in manifest.files for problem in check_file(layout, manifest, entry)]
    if problems:
        return problems
    months = [entry.month for entry in manifest.files]
    try:
        return check_rows(list(zip(months, layout.paths_of(manifest), strict=True)), manifest.rows)
    except UNREADABLE as exc:
        return [f"snapshot {manifest.snapshot}: rows cannot be read ({escape(str(exc), 200)})"]


def check_file(layout: Layout, manifest: Manifest, entry: FileEntry) -> list[str]:
    """Return one line if this file of a snapshot is missing or was changed since it was written."""
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
    """Return one line for each visible file that differs from the snapshot, and for each stray."""
    if layout.is_old:
        return []
    problems = [
        f"{path.relative_to(layout.root).as_posix()}: in the folder, but not in the lake; readers of the folder take it for data"
        for path in find_strays(layout, manifest)
    ]
    for entry in manifest.files:
        visible = layout.root / entry.path
        if is_shown(layout, entry) or visible.is_dir():  # `find_strays` lists such a folder
            continue
        try:
            if disk.hash_file(visible) != entry.sha256:
                problems.append(
                    f"{entry.path}: the visible file differs from the snapshot; the next dump replaces it"
                )
        except (LakeError, StorageError):
            problems.append(f"{entry.path}: the visible file cannot be read; the next dump replaces it")
    return problems


def _check_forgotten(layout: Layout, manifest: Manifest) -> list[str]:
    """Return one line where the list of forgotten jobs is lost, or an erasure is unfinished.

    Only the owner may read that list: others get no line.
    """
    try:
        forgotten = read_forgotten(layout)
        require_forgotten(forgotten, layout.apply_state(manifest).accounts.values(), layout.root)
        pending = forgotten.pending
    except LakeError as exc:
        return [str(exc)]
    except StorageError:
        return []
    return ["an erasure is unfinished; the next dump or repair finishes it"] if pending else []


def has_columns(file: Path | bytes, version: int = FORMAT, *, others: bool = False) -> bool:
    """Return whether a file, or the bytes of one, is Parquet with our columns; formats below 1 may lack some.

    With `others`, it may have further columns, as in a Delta table to which another engine has added them.
    """
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        schema = dict(pl.scan_parquet(source, glob=False, hive_partitioning=False).collect_schema())
    except UNREADABLE:
        return False
    ours = dict(POLARS_SCHEMA)
    if others:
        schema = {name: kind for name, kind in schema.items() if name in ours}
    return schema == ours or (version < 1 and schema.items() <= ours.items() and set(KEY) <= set(schema))


def _find_foreign(layout: Layout) -> list[str]:
    """Return the names in the folder, in `_lake`, `snapshots` and `objects` that a lake does not make."""
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
    temporary = r"|\..+\.new|\.catalogue-.+"  # of a run that is under way, or was killed
    return sorted(
        path.relative_to(layout.root).as_posix()
        for folder, names in own.items()
        for path in disk.list_folder(folder)
        if not re.fullmatch(names + temporary, path.name)
    )


def check_rows(files: Sequence[tuple[str, Path]], rows: int) -> list[str]:
    """Return one line for each row count that is wrong, each file with rows of another month, and repeated keys.

    Args:
        files: all data files of a snapshot, each with its month.
        rows: how many rows the snapshot was written with.
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
    """Return how many rows a file has, and their months.

    All instants are read only where the earliest and the latest row are of two months.
    """
    created = pl.scan_parquet(path, glob=False, hive_partitioning=False).select("created_at")
    extremes = created.select(
        pl.len(), pl.col("created_at").min().alias("first"), pl.col("created_at").max().alias("last")
    ).collect(engine="streaming")
    months = [
        *count_months(
            extremes.select(pl.concat_list("first", "last").explode().alias("created_at").drop_nulls())
        )
    ]
    return extremes["len"][0], months if len(months) <= 1 else [*count_months(created.collect())]
