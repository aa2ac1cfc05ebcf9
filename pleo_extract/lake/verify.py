"""Is the lake as it was written? Every file of the current snapshot against its manifest, every row against its key."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.errors import LakeError
from pleo_extract.lake.layout import FORMAT, OWN, Layout, Snapshot
from pleo_extract.lake.opening import require_lake, require_pointer
from pleo_extract.refresh import created_month

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.layout import FileEntry, Manifest

__all__ = ["Verification", "check_file", "check_snapshot", "find_strangers", "has_columns", "verify_lake"]


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
    return problems or _check_rows(snapshot, manifest)


def check_file(snapshot: Snapshot, entry: FileEntry, version: int) -> list[str]:
    """One line if this file is not as it was written."""
    path = snapshot.folder / entry.path
    try:
        data = path.read_bytes()
    except OSError as exc:
        return [f"{entry.path}: cannot be read ({exc.strerror})"]
    if len(data) != entry.bytes:
        return [f"{entry.path}: {len(data)} bytes, written with {entry.bytes}"]
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        return [f"{entry.path}: changed since it was written (sha256 differs)"]
    if not has_columns(data, version):
        return [f"{entry.path}: columns or types are not those of this version"]
    return []


def has_columns(data: bytes, version: int = FORMAT) -> bool:
    """Whether these are the bytes of a Parquet file with our columns; an older format may lack some."""
    try:
        schema = dict(pl.read_parquet_schema(io.BytesIO(data)))
    except (pl.exceptions.PolarsError, OSError):
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
    own = {layout.root: OWN.pattern, layout.snapshots: r"\d{6,}", layout.meta: r"\d{6,}\.json|last_run\.json"}
    prepared = r"|\..+\.new|\.catalogue-.+"  # by a run that is under way, or was killed
    return sorted(
        path.relative_to(layout.root).as_posix()
        for folder, names in own.items()
        if folder.is_dir()
        for path in folder.iterdir()
        if not re.fullmatch(names + prepared, path.name)
    )


def _check_rows(snapshot: Snapshot, manifest: Manifest) -> list[str]:
    problems = []
    for entry in manifest.files:
        months = (
            pl.scan_parquet(snapshot.folder / entry.path, glob=False)
            .select(created_month().unique())
            .collect()
            .to_series()
            .to_list()
        )
        wrong = [month for month in months if f"created_month={month}" != entry.path.partition("/")[0]]
        problems += [f"{entry.path}: holds rows of {month}" for month in wrong]
    rows, keys = snapshot.scan().select(pl.len(), pl.struct(KEY).n_unique().alias("keys")).collect().row(0)
    if rows != manifest.rows:
        problems.append(f"{rows} rows, written with {manifest.rows}")
    if keys != rows:
        problems.append(f"{rows - keys} rows repeat a (company_id, id)")
    return problems
