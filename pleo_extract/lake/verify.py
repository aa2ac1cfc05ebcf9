"""Is the lake as it was written? Every file of the current snapshot against its manifest, every row against its key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.errors import LakeError
from pleo_extract.lake.layout import Layout, Snapshot
from pleo_extract.refresh import created_month

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.layout import FileEntry, Manifest

__all__ = ["Verification", "verify_lake"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify_lake` found: the snapshot (0: none yet), its files and rows, and one line a problem."""

    snapshot: int
    files: int
    rows: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the lake is as it was written."""
        return not self.problems


def verify_lake(lake: str | Path) -> Verification:
    """Read the current snapshot in full and compare it with its manifest.

    Checked: the pointer, the manifest, each file's size and sha256, columns and types, the month each row is filed
    under, and that no (company_id, id) occurs twice, across months too. Files that no manifest names are reported.
    """
    layout = Layout(lake)
    if not layout.root.is_dir():
        raise LakeError(f"there is no lake at {layout.root}")
    try:
        snapshot = layout.snapshot()
        if snapshot is None:
            return Verification(0, 0, 0, ())
        manifest = layout.manifest(snapshot.number)
    except LakeError as exc:
        return Verification(0, 0, 0, (str(exc),))
    problems = [problem for entry in manifest.files for problem in _check_file(snapshot, entry)]
    problems += _check_strangers(snapshot, manifest)
    if not problems:
        problems += _check_rows(snapshot, manifest)
    return Verification(snapshot.number, len(manifest.files), manifest.rows, tuple(problems))


def _check_file(snapshot: Snapshot, entry: FileEntry) -> list[str]:
    path = snapshot.folder / entry.path
    try:
        data = path.read_bytes()
    except OSError as exc:
        return [f"{entry.path}: cannot be read ({exc.strerror})"]
    if len(data) != entry.bytes:
        return [f"{entry.path}: {len(data)} bytes, written with {entry.bytes}"]
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        return [f"{entry.path}: changed since it was written (sha256 differs)"]
    schema = pl.read_parquet_schema(path)
    if dict(schema) != dict(POLARS_SCHEMA):
        return [f"{entry.path}: columns or types are not those of this version"]
    return []


def _check_strangers(snapshot: Snapshot, manifest: Manifest) -> list[str]:
    known = {entry.path for entry in manifest.files}
    found = {
        path.relative_to(snapshot.folder).as_posix() for path in snapshot.folder.rglob("*") if path.is_file()
    }
    return [f"{path}: in the snapshot's folder, but in no manifest" for path in sorted(found - known)]


def _check_rows(snapshot: Snapshot, manifest: Manifest) -> list[str]:
    problems = []
    for entry in manifest.files:
        months = (
            pl.scan_parquet(snapshot.folder / entry.path)
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
