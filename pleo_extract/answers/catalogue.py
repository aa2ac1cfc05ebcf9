"""The catalogue: a DuckDB file without data, whose views and macros read a lake, for any DuckDB client.

Its views find the months by a glob pattern. What changes more often, such as the instant that counts as now, is in small
CSV files that the views read. A run that finds nothing new writes only these, at a hundredth of the cost of a catalogue,
and a client that has the catalogue open sees the change.
"""

from __future__ import annotations

import glob
import io
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.answers.definition import ROOT, Source, definitions, literal
from pleo_extract.answers.facts import INSTANTS, VANISHED, SnapshotFacts
from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.errors import StorageError
from pleo_extract.temporary import temporary_folder

if TYPE_CHECKING:
    import duckdb
else:
    # The engine without duckdb's Python layer, which nothing here uses and which takes 90 ms to load: every first dump
    # writes a catalogue.
    try:
        import _duckdb as duckdb
    except ImportError:  # the name is duckdb's own affair
        import duckdb

__all__ = ["compile_ahead", "is_readable", "write_catalogue"]

_STORAGE_VERSION: Final = "v1.0.0"
"""DuckDB 1 cannot open files of the storage version that DuckDB 2 writes by default."""
_MARKED_VIEWS: Final = ("export_jobs", "job_durations", "snapshot")
"""Several views, because the end of a storage block can split the bytes of one comment."""


def write_catalogue(  # noqa: PLR0913 - each is a fact about the lake
    target: str | Path,
    lake: str | Path,
    *,
    root: str = "",
    facts: SnapshotFacts | None = None,
    has_months: bool = True,
    has_objects: bool = False,
    mark: str = "",
) -> None:
    """Write a DuckDB file with all views and macros over the months of a lake; replace an existing file atomically.

    Each definition is self-contained and has absolute paths, so that it works in a client that opens the file, and, as
    `name.failure_rates('month')`, in one that attaches it. Instants appear in the time zone of the client's session.
    Months that are added later are found without a new catalogue; facts change with `write_facts`. A client that
    reaches the lake by another path runs ``SET VARIABLE pleo_root = '/mnt/export_jobs'``.

    Args:
        target: the file, such as `LAKE/_jobs.duckdb`.
        lake: the folder of the lake.
        root: the path by which clients reach the lake; by default the same path.
        facts: what the lake knows about the snapshot; by default "now" is the latest instant in the files.
        has_months: whether the lake has any month.
        has_objects: whether it has files of snapshots; a copy may have only the current rows, until the next dump.
        mark: a short text that identifies the content; it is in the bytes of the file, unencoded.

    Raises:
        StorageError: the file cannot be written.
    """
    target, here = Path(target).absolute(), str(Path(lake).absolute())
    _refuse_odd_path(target)
    source = Source((), facts or SnapshotFacts(), root or here, has_months, has_objects)
    try:
        # A folder, because DuckDB keeps a log next to the file that it writes; the next run removes both if this one dies.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".catalogue-") as folder:
            new = Path(folder, target.name)
            _compile(new, here, source, mark)
            new.replace(target)
    except (OSError, duckdb.Error) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise StorageError(f"the catalogue {target} cannot be written: {reason}") from exc


def compile_ahead(target: Path, lake: Path, mark: str) -> bytes:
    """Return the catalogue that a lake will need once it has months, snapshots and facts, while it has none of them.

    DuckDB opens the files that a view reads when it creates the view. So this compiles over an empty lake elsewhere; what
    is written into the catalogue is the path of the real one.

    Args:
        target: the file that it will be.
        lake: the folder of the lake.
        mark: as for `write_catalogue`.

    Raises:
        StorageError: there is no folder for temporary files, or no room in it.
    """
    _refuse_odd_path(target)
    facts = SnapshotFacts(datetime.fromtimestamp(0, UTC))
    source = Source((), facts, str(lake.absolute()), has_months=True, has_objects=True)
    try:
        with temporary_folder() as folder:
            _make_stand_in(Path(folder), facts)
            new = Path(folder, target.name)
            _compile(new, folder, source, mark)
            return new.read_bytes()
    except (OSError, duckdb.Error) as exc:
        raise StorageError(f"the catalogue {target} cannot be compiled: {exc}") from exc


def _make_stand_in(folder: Path, facts: SnapshotFacts) -> None:
    """Make the files that the catalogue of a lake reads, without rows."""
    rows = io.BytesIO()
    pl.DataFrame(schema=POLARS_SCHEMA).write_parquet(rows)
    files = {
        "created_month=1970-01/part-0.parquet": rows.getvalue(),
        "_lake/objects/part-0.parquet": rows.getvalue(),
        "_lake/snapshots/1.json": b"{}",
        "_lake/current": b"1",
        INSTANTS.lstrip("/"): facts.encode_instants(),
        VANISHED.lstrip("/"): facts.encode_vanished(),
    }
    for name, data in files.items():
        Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        Path(folder, name).write_bytes(data)


def _refuse_odd_path(target: Path) -> None:
    """Raise StorageError for a path at which DuckDB opens no file, wherever the file was written before."""
    # DuckDB cuts a path at a question mark, but looks for the log of the file by the whole path. It takes a backslash for a
    # separator, also where that is a character of a name.
    for character, name in (("?", "a question mark"), ("\\", "a backslash")):
        if character in str(target) and character != os.sep:
            raise StorageError(
                f"the catalogue {target} cannot be written: DuckDB opens no file with {name} in its path"
            )


def _compile(file: Path, lake: str, source: Source, mark: str) -> None:
    with duckdb.connect(":memory:", config={"threads": 1}) as con:
        con.execute(f"SET VARIABLE {ROOT} = {literal(glob.escape(lake))}")
        con.execute(f"ATTACH {literal(str(file))} AS catalogue (STORAGE_VERSION '{_STORAGE_VERSION}')")
        con.execute("USE catalogue")
        con.begin()  # otherwise DuckDB writes and syncs the file once per definition: 0.20 s, not 0.16 s
        for definition in definitions(source, self_contained=True):
            con.execute(definition)
        for view in _MARKED_VIEWS if mark else ():
            con.execute(f"COMMENT ON VIEW {view} IS {literal(mark)}")
        con.commit()


def is_readable(data: bytes) -> bool:
    """Return whether the bytes of a catalogue are a DuckDB file; DuckDB checks the checksums of all definitions.

    It reads a copy, because a client that has the file open to write would lock us out.
    """
    with temporary_folder() as folder:
        copy = Path(folder, "jobs.duckdb")
        copy.write_bytes(data)
        try:
            with duckdb.connect(str(copy), read_only=True, config={"threads": 1}) as con:
                con.execute("SELECT count(*) FROM duckdb_views() WHERE NOT internal").fetchall()
        except duckdb.Error:
            return False
    return True
