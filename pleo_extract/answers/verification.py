"""Verify a lake with what its catalogue reads beside the rows, and repair that."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pleo_extract.answers.doors import read_snapshot_facts, renew_catalogue
from pleo_extract.answers.facts import find_damaged_facts
from pleo_extract.answers.names import read_kept_names
from pleo_extract.errors import LakeError, StorageError
from pleo_extract.keywords import check_keywords
from pleo_extract.lake import disk
from pleo_extract.lake.folder.opening import open_snapshot
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.store import open_lake
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pleo_extract.lake.folder.verify import Verification

__all__ = ["repair_catalogue", "verify_lake"]


@check_keywords
def verify_lake(
    lake: str | Path,
    *,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> Verification:
    """Read the current snapshot in full and compare it with what was written.

    It checks the pointer, the manifest, the size and sha256 of each file, columns and types, the month of each row, that no
    (company_id, id) occurs twice, not even in two months, and that the visible months are those of the snapshot. Another
    Parquet file in the folder is a problem, since a glob reads it; any other file is reported as foreign. So is damage in
    the catalogue and in the files that it reads beside the rows; a lake without a catalogue is whole. For a Delta table
    the log is the manifest, and the hashes are those in the names of its files.

    Args:
        lake: as for `scan_lake`.
        storage_options: as for `scan_lake`.
        workspace: as for `scan_lake`.

    Returns:
        What was found, with a line for each problem.

    Raises:
        LakeError: there is no lake.
    """
    store = open_lake(lake, storage_options=storage_options, workspace=workspace)
    found = store.verify()
    if store.catalogue is None or not found.snapshot:
        return found
    problems = [
        f"{path.relative_to(store.layout.root).as_posix()}: {what}; the catalogue reads it. Repair writes it again"
        for path, what in _find_damage(store.layout).items()
    ]
    return replace(found, problems=(*found.problems, *problems, *_check_names(lake)))


def repair_catalogue(lake: str | Path) -> list[str]:
    """Write the catalogue of a lake again, and what it reads beside the rows, where they are damaged.

    Returns:
        One line for each file that was written again.

    Raises:
        LakeError: the names that the lake keeps are damaged; only the user has them.
        StorageError: a file cannot be written.
    """
    layout = Layout(lake)
    damaged = _find_damage(layout)
    if layout.catalogue in damaged and disk.is_plain(layout.catalogue):
        disk.remove_file(layout.catalogue)  # its mark may be intact
    renew_catalogue(lake, run="repair")
    for problem in _check_names(lake):
        raise LakeError(problem)
    if left := _find_damage(layout):
        raise StorageError(f"{lake}: cannot write {', '.join(path.name for path in left)}, which is damaged")
    return [
        f"{path.relative_to(layout.root).as_posix()}: {what}; written again" for path, what in damaged.items()
    ]


def _find_damage(layout: Layout) -> dict[Path, str]:
    """Return the damaged files among the catalogue and what it reads beside the rows, each with words that say how.

    A lake that no run of this version has published to has none: another version may write other columns.
    """
    damaged: dict[Path, str] = {}
    with suppress(LakeError):  # of the snapshot or the names, which others report
        opened = open_snapshot(layout.root)
        if opened is None or layout.is_old or opened.manifest.library != __version__:
            return {}
        damaged = find_damaged_facts(layout.root, read_snapshot_facts(layout.root, opened))
    try:
        data = disk.read_file(layout.catalogue)
    except LakeError:
        if layout.catalogue.is_symlink() or layout.catalogue.exists():
            return damaged | {layout.catalogue: "not a plain file"}
        return {path: what for path, what in damaged.items() if what != "missing"}
    with suppress(ImportError):  # without DuckDB, nobody here reads it
        from pleo_extract.answers import is_readable  # noqa: PLC0415 - as in `doors`

        if not is_readable(data):
            damaged[layout.catalogue] = "not a DuckDB file that can be read"
    return damaged


def _check_names(lake: str | Path) -> list[str]:
    """Return one line where the names that the lake keeps are damaged."""
    try:
        read_kept_names(lake)
    except LakeError as exc:
        return [str(exc)]
    return []
