"""A lake opened for questions: one whole snapshot, as DuckDB sees it."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.errors import LakeError, PleoExtractError, check_path, escape
from pleo_extract.keywords import check_keywords
from pleo_extract.lake import disk
from pleo_extract.lake.folder.opening import open_snapshot
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.store import open_lake
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

    from pleo_extract.answers import SnapshotFacts
    from pleo_extract.lake.folder.opening import Opened

__all__ = ["connect", "list_answers", "renew_catalogue", "write_catalogue"]

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
    from pleo_extract.answers import open_warehouse, read_facts  # noqa: PLC0415 - duckdb only where there is a question

    opened = open_lake(lake, storage_options=storage_options, workspace=workspace).open(as_of)
    if opened is None:
        return open_warehouse([], locked=locked, allow=allow)
    manifest, asked = opened.manifest, as_of if isinstance(as_of, datetime) else None
    facts = read_facts(manifest.accounts, manifest.made_at, asked=asked)
    return open_warehouse(opened.files, facts=facts, locked=locked, allow=allow)


@check_keywords
def list_answers() -> pl.DataFrame:
    """The views and macros of `connect`: one row each, columns `name`, `kind`, `call`, `summary`, `definition`.

    `kind` is ``view`` or ``macro``; `call` how it is called, with its parameters and their defaults; `definition` what
    counts, what is left out, the units, column by column. No lake is needed.
    """
    from pleo_extract.answers import statements  # noqa: PLC0415 - as above

    rows = [
        (each.name, each.kind, each.signature, each.summary, each.definition)
        for each in statements().values()
    ]
    return pl.DataFrame(rows, schema=["name", "kind", "call", "summary", "definition"], orient="row")


def renew_catalogue(lake: str | Path, *, run: str) -> None:
    """Bring ``LAKE/_jobs.duckdb`` up to date: the files it reads beside the rows, and seldom itself.

    It has the views and macros of `connect`, for any DuckDB client to open or attach. It holds no data and reads the
    visible months by a glob, so that a session that has it open sees new months; "now", names and vanished jobs stand in
    small files in `_lake`. A lake without one is whole all the same: whatever keeps it from being written, a warning says
    so and the run has not failed.
    """
    layout = Layout(lake)
    target = layout.catalogue
    try:
        from pleo_extract import answers  # noqa: PLC0415 - as above

        opened = open_snapshot(lake)
        facts = _read_facts(opened)
        mark = _make_mark(target, opened, facts)
        answers.write_facts(layout.root, facts)
        with suppress(LakeError):
            if mark.encode() in disk.read_file(target):
                return
        has_months = bool(opened and opened.files)
        answers.write_catalogue(target, layout.root, facts=facts, has_months=has_months, mark=mark)
    except (PleoExtractError, ImportError, OSError, RuntimeError, ValueError) as exc:
        _log.warning(
            "%s. The data is published; only other DuckDB clients miss the catalogue",
            escape(str(exc), 500),
            extra={"run": run},
        )


@check_keywords
def write_catalogue(lake: str | Path, path: str | Path, *, root: str = "") -> Path:
    """Write a catalogue of a lake for DuckDB clients that reach it by another path, such as another mount.

    It is what every dump keeps in the lake as `_jobs.duckdb`, and follows the lake as that does.

    Args:
        lake: the lake's folder; Delta tables have none.
        path: the DuckDB file to write; one that is there is replaced.
        root: the lake's folder as the clients see it; by default as it is here.

    Returns:
        The path.

    Raises:
        LakeError: there is no such lake, nothing was published to it, or it is of an older format. StorageError: the file
        cannot be written.
    """
    from pleo_extract import answers  # noqa: PLC0415 - as above

    check_path(path, "the catalogue's file")
    layout, opened = Layout(lake), open_snapshot(lake)
    if opened is None or layout.is_old:
        raise LakeError(f"{lake} has nothing that a catalogue could read yet; run: pleo-extract dump {lake}")
    facts = _read_facts(opened)
    if not (layout.own / "now.csv").exists():  # no dump has kept a catalogue here
        answers.write_facts(layout.root, facts)
    answers.write_catalogue(
        path, layout.root, root=root.rstrip("/"), facts=facts, has_months=bool(opened.files)
    )
    return Path(path)


def _read_facts(opened: Opened | None) -> SnapshotFacts:
    from pleo_extract.answers import SnapshotFacts, read_facts  # noqa: PLC0415 - as above

    return read_facts(opened.manifest.accounts, opened.manifest.made_at) if opened else SnapshotFacts()


def _make_mark(target: Path, opened: Opened | None, facts: SnapshotFacts) -> str:
    """What the catalogue is known by: all that stands in it, and not in the files that it reads."""
    content = f"{target} {bool(opened and opened.files)} {facts.as_of is None}"
    return f"pleo_extract {__version__} {hashlib.sha256(content.encode()).hexdigest()[:16]}"
