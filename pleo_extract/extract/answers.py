"""A lake opened for questions: one whole snapshot, as DuckDB sees it."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.errors import LakeError, PleoExtractError, escape
from pleo_extract.keywords import check_keywords
from pleo_extract.lake import Layout, disk, open_snapshot
from pleo_extract.lakes import open_lake
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb

    from pleo_extract.lake import Snapshot
    from pleo_extract.warehouse import Told

__all__ = ["connect", "list_answers", "renew_catalogue"]

_log = logging.getLogger(__name__)


@check_keywords
def connect(
    lake: str | Path,
    as_of: datetime | int | None = None,
    *,
    locked: bool = False,
    allow: Sequence[Path] = (),
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection over one whole snapshot of a lake, in UTC, with its views and macros.

    Views: `export_jobs`, `job_durations`, `vanished`, `companies`, `snapshot`. Macros: ``FROM failure_rates('month')``,
    ``FROM duration_stats('week')`` and the others that `pleo-extract sql --list` names. For open jobs, "now" is the
    instant as of which the last complete run read their company, also if it found nothing new; see `companies`. A lake
    without a snapshot answers with no rows.

    Args:
        lake: the lake's folder, or the URL or folder of a Delta table; see `scan_lake`.
        as_of: the snapshot that was current at this instant, or the snapshot of this number; the current one by default.
        locked: no access to any file but the lake's. Left open by default, so that you can join files of your own.
        allow: further files and folders that a locked connection may read.
        storage_options: how an object store is reached; see `scan_lake`.
        workspace: where its files are copied to.

    Raises:
        LakeError: there is no such folder, or it is not a lake. UsageError: no such snapshot is kept.
    """
    from pleo_extract.warehouse import open_warehouse, read_told  # noqa: PLC0415 - duckdb only where there is a question

    opened = open_lake(lake, storage_options=storage_options, workspace=workspace).open(as_of)
    if opened is None:
        return open_warehouse([], locked=locked, allow=allow)
    manifest, asked = opened.manifest, as_of if isinstance(as_of, datetime) else None
    told = read_told(manifest.accounts, manifest.made_at, asked=asked)
    return open_warehouse(opened.files, told=told, locked=locked, allow=allow)


@check_keywords
def list_answers() -> pl.DataFrame:
    """The views and macros of `connect`: one row each, columns `name`, `kind`, `call`, `summary`, `definition`.

    `kind` is ``view`` or ``macro``; `call` how it is called, with its parameters and their defaults; `definition` what
    counts, what is left out, the units, column by column. No lake is needed.
    """
    from pleo_extract.warehouse import statements  # noqa: PLC0415 - as above

    rows = [
        (each.name, each.kind, each.signature, each.summary, each.definition)
        for each in statements().values()
    ]
    return pl.DataFrame(rows, schema=["name", "kind", "call", "summary", "definition"], orient="row")


def renew_catalogue(lake: str | Path, *, run: str) -> None:
    """Bring ``LAKE/jobs.duckdb`` up to date: the files it reads beside the rows, and itself where it names other files.

    It has the views and macros of `connect`, for any DuckDB client to open or attach. It holds no data and reads the
    lake through `current`, by absolute paths; "now", names and vanished jobs stand in small files beside it. A lake
    without one is whole all the same: whatever keeps it from being written, a warning says so and the run has not failed.
    """
    target = Layout(lake).catalogue
    try:
        from pleo_extract import warehouse  # noqa: PLC0415 - as above

        files, told = _read_content(lake, open_snapshot(lake))
        mark = _make_mark(target, files, told)
        with suppress(LakeError):
            if mark.encode() in disk.read_file(target):
                warehouse.write_told(target.parent, told)
                return
        warehouse.write_catalogue(target, files, told=told, mark=mark)
    except (PleoExtractError, ImportError, OSError, RuntimeError, ValueError) as exc:
        _log.warning(
            "%s. The data is published; only other DuckDB clients miss the catalogue",
            escape(str(exc), 500),
            extra={"run": run},
        )


def _read_content(lake: str | Path, snapshot: Snapshot | None) -> tuple[list[Path], Told]:
    """What the catalogue of a lake reads: files, and what is known beside their rows."""
    from pleo_extract.warehouse import Told, read_told  # noqa: PLC0415 - as above

    layout = Layout(lake)
    if snapshot is None:
        return [], Told()
    manifest = layout.manifest(snapshot.number)
    files = [layout.current / entry.path for entry in manifest.files]
    return files, read_told(manifest.accounts, manifest.made_at)


def _make_mark(target: Path, files: list[Path], told: Told) -> str:
    """What the catalogue is known by: all that stands in it, and not in the files that it reads."""
    content = f"{target} {[str(file) for file in files]} {told.as_of is None} {not told.vanished}"
    return f"pleo_extract {__version__} {hashlib.sha256(content.encode()).hexdigest()[:16]}"
