"""The catalogue: a DuckDB file without data, whose views and macros read a lake, for any DuckDB client.

It finds the months by a pattern. What changes more often, such as the instant that "now" means, lies in small CSV
files, which the views read: a run that finds nothing new writes these, at a hundredth of the cost of the catalogue, and
a client that has the catalogue open sees it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import duckdb

from pleo_extract.answers.definition import INSTANTS, ROOT, VANISHED, Source, definitions, literal, pattern
from pleo_extract.answers.facts import SnapshotFacts
from pleo_extract.errors import StorageError
from pleo_extract.lake import disk

__all__ = ["write_catalogue", "write_facts"]

_STORAGE: Final = "v1.0.0"
"""A file of DuckDB 2.0's own storage version cannot be opened by 1.x."""
_MARKED: Final = ("export_jobs", "job_durations", "snapshot")
"""More than one: the end of a block may part the bytes of a comment."""


def write_catalogue(
    target: str | Path,
    lake: str | Path,
    *,
    root: str = "",
    facts: SnapshotFacts | None = None,
    has_months: bool = True,
    mark: str = "",
) -> None:
    """Write or replace, atomically, a DuckDB file with all views and macros over the visible months of a lake.

    Each of them carries all that it reads, with absolute paths: it works in a client that opens the file, and,
    as `name.failure_rates('month')`, in one that attaches it. A client whose zone is not UTC sees instants in its own.
    Months that are added later are found; what is told beside the rows is read from files in the lake, see `write_facts`.
    Where the lake lies elsewhere, a client says so: ``SET VARIABLE pleo_root = '/mnt/export_jobs'``.

    Args:
        target: the file, such as `LAKE/_jobs.duckdb`.
        lake: the folder.
        root: by which path clients reach it; by default by the same.
        facts: what the lake says of the snapshot; by default the latest instant in the files is "now".
        has_months: whether it has any.
        mark: a short text to know the file by: it stands in its bytes as it is.

    Raises:
        StorageError: the file cannot be written.
    """
    target, here = Path(target).absolute(), str(Path(lake).absolute())
    if "?" in str(
        target
    ):  # DuckDB takes what follows for no part of the name, and looks for its log elsewhere
        raise StorageError(
            f"the catalogue {target} cannot be written: DuckDB opens no file with a question mark in its path"
        )
    source = Source((), facts or SnapshotFacts(), root or here, has_months)
    try:
        # A folder and not a file: DuckDB keeps a log beside the file that it writes, and the next run sweeps up both.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".catalogue-") as beside:
            fresh = Path(beside, target.name)
            with duckdb.connect(":memory:", config={"threads": 1}) as con:
                con.execute(f"SET VARIABLE {ROOT} = {literal(pattern(here))}")
                con.execute(f"ATTACH {literal(str(fresh))} AS fresh (STORAGE_VERSION '{_STORAGE}')")
                con.execute("USE fresh")
                con.begin()  # each definition on its own would be written and synced on its own
                for definition in definitions(source, self_contained=True):
                    con.execute(definition)
                for view in _MARKED if mark else ():
                    con.execute(f"COMMENT ON VIEW {view} IS {literal(mark)}")
                con.commit()
            fresh.replace(target)
    except (OSError, duckdb.Error) as exc:
        raise StorageError(f"the catalogue {target} cannot be written: {exc}") from exc


def write_facts(lake: str | Path, facts: SnapshotFacts) -> None:
    """Write what a catalogue of this lake reads beside the rows, where it has changed; what is not told is removed.

    Raises:
        StorageError: a file cannot be written.
    """
    contents = {
        INSTANTS: b"" if facts.as_of is None else facts.spell_instants(),
        VANISHED: b"" if facts.as_of is None else facts.spell_vanished(),
    }
    for name, content in contents.items():
        file = Path(f"{lake}{name}")
        try:
            if not content:
                file.unlink(missing_ok=True)
            elif not file.is_file() or file.read_bytes() != content:
                disk.write_output(file, content)
        except OSError as exc:
            raise StorageError(
                f"{file}, which the catalogue reads, cannot be written: {exc.strerror}"
            ) from exc
