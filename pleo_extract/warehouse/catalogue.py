"""The catalogue: a DuckDB file without data, whose views and macros read a lake, for any DuckDB client."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb

from pleo_extract.errors import StorageError
from pleo_extract.warehouse.definition import Source, definitions, literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = ["write_catalogue"]

_STORAGE: Final = "v1.0.0"
"""A file of DuckDB 2.0's own storage version cannot be opened by 1.x."""
_MARKED: Final = ("export_jobs", "job_durations", "snapshot")
"""More than one: the end of a block may part the bytes of a comment."""


def write_catalogue(
    target: str | Path,
    files: Sequence[str | Path],
    *,
    as_of: datetime | None = None,
    companies: Mapping[str, str] | None = None,
    mark: str = "",
) -> None:
    """Write or replace, atomically, a DuckDB file with all views and macros over these Parquet files.

    Each of them carries all that it reads, with absolute paths: it works in a client that opens the file, and,
    as `name.failure_rates('month')`, in one that attaches it. A client whose zone is not UTC sees instants in its
    own, and takes a `since` without an offset for its own.

    Args:
        target: the file, such as `LAKE/jobs.duckdb`.
        files: as for `open_warehouse`; symbolic links are kept, so that `current` stays current.
        as_of: the instant that "now" means; by default the latest instant in the files.
        companies: names of companies by id.
        mark: a short text to know the file by: it stands in its bytes as it is.

    Raises:
        StorageError: the file cannot be written.
    """
    target = Path(target)
    source = Source(tuple(str(Path(file).absolute()) for file in files), as_of)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".catalogue-") as folder:
            fresh = Path(folder, "jobs.duckdb")
            with duckdb.connect(":memory:", config={"threads": 1}) as con:
                con.execute(f"ATTACH {literal(str(fresh))} AS fresh (STORAGE_VERSION '{_STORAGE}')")
                con.execute("USE fresh")
                for definition in definitions(source, companies=companies, self_contained=True):
                    con.execute(definition)
                for view in _MARKED if mark else ():
                    con.execute(f"COMMENT ON VIEW {view} IS {literal(mark)}")
            fresh.chmod(fresh.stat().st_mode & 0o755)  # nobody else writes it, whatever the umask
            fresh.replace(target)
    except (OSError, duckdb.Error) as exc:
        raise StorageError(f"the catalogue {target} cannot be written: {exc}") from exc
