"""The way in: a connection with everything defined, and one question at a time."""

from __future__ import annotations

import itertools
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb

from pleo_extract.answers.definition import Source, definitions, literal, pattern
from pleo_extract.answers.facts import SnapshotFacts
from pleo_extract.errors import LakeError, StorageError, UsageError, escape
from pleo_extract.zones import to_utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_REFUSED = re.compile(
    r'extract specifier "([a-z_]+ .*: take .*|since\w* .* is not before .*)" not recognized'
)
"""How DuckDB says what `definition` says of an argument that is none of its parameter's, or of an empty span."""

__all__ = ["answer", "open_warehouse", "translate_errors"]


def open_warehouse(
    files: Sequence[str | Path],
    *,
    facts: SnapshotFacts | None = None,
    locked: bool = False,
    allow: Sequence[Path] = (),
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in memory, in UTC, with the views and table macros of `statements()` over Parquet files.

    Args:
        files: the Parquet files of one snapshot, columns as in `contract.COLUMNS`; none means no jobs.
        facts: what the lake says of the snapshot: instants, names, vanished jobs; by default the latest instant in the
            files is "now".
        locked: read nothing but `files` and `allow`, load no extension, change no setting. What `answer` runs
            reads only; DuckDB itself has no lock against COPY … TO a path that may be read.
        allow: further files and folders that a locked connection may read.

    Raises:
        UsageError: an instant without a time zone.
        LakeError: a file that is missing, is no Parquet, or lacks a column.
    """
    facts = facts or SnapshotFacts()
    for instant in (*facts.instants(), *facts.nows.values()):
        if instant is not None:
            to_utc(instant, "as_of")
    source = Source(tuple(str(file) for file in files), facts)
    con = duckdb.connect(":memory:")
    try:
        con.execute("SET TimeZone = 'UTC'")
        if locked:
            _restrict(con, source.files, allow)
        with _reading_the_lake():
            for definition in definitions(source):
                con.execute(definition)
        if locked:
            con.execute("SET lock_configuration = TRUE")
    except BaseException:
        con.close()
        raise
    return con


def answer(
    con: duckdb.DuckDBPyConnection, sql: str, params: Mapping[str, object] | None = None
) -> duckdb.DuckDBPyRelation:
    """The answer to one question, read only: `.pl()` makes it a Polars frame, `.to_arrow_table()` an Arrow table.

    An error that shows only while its rows are read is DuckDB's; `translate_errors` around that makes it ours, as
    `read_table` and `write` do.

    Args:
        con: from `open_warehouse`.
        sql: one SELECT (or FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW), with values as ``$name``.
        params: the values; bound, never pasted.

    Raises:
        UsageError: no single SELECT, wrong SQL, an unknown name, a missing value, or a file that is locked away.
        LakeError: a file of the lake cannot be read.
        StorageError: no memory or disk left.
    """
    with translate_errors():
        asked = con.extract_statements(sql)
        if len(asked) != 1:
            raise UsageError(f"give one statement, not {len(asked)}")
        if asked[0].type != duckdb.StatementType.SELECT:
            kind = asked[0].type.name
            if kind == "MULTI":  # a PIVOT that looks for its values first
                raise UsageError("name the values of a PIVOT: ON x IN (…)")
            raise UsageError(f"only SELECT is answered, this is {kind}")
        # As a subquery, because DuckDB lets a WITH at the top hold a COPY … TO, but none below.
        inner = f"SELECT * FROM (\n{_without_end(asked[0].query)}\n)"  # noqa: S608 -- one SELECT, as parsed
        return con.sql(inner, params=dict(params)) if params else con.sql(inner)


@contextmanager
def translate_errors() -> Iterator[None]:
    """DuckDB's errors as ours, for whoever reads the rows of an answer himself.

    Raises:
        UsageError: the question is at fault.
        LakeError: the files are.
        StorageError: the machine is.
        KeyboardInterrupt: DuckDB was interrupted, which it reports as a RuntimeError.
    """
    try:
        yield
    except (duckdb.IOException, duckdb.HTTPException, duckdb.SerializationException) as exc:
        raise LakeError(f"the files cannot be read: {_first_line(exc)}") from exc
    except (duckdb.OutOfMemoryException, MemoryError) as exc:
        raise StorageError(f"not enough memory or disk for this question: {_first_line(exc)}") from exc
    except duckdb.Error as exc:
        raise UsageError(_first_line(exc)) from exc
    except RuntimeError as exc:
        if str(exc) == "Query interrupted":
            raise KeyboardInterrupt from exc
        raise


@contextmanager
def _reading_the_lake() -> Iterator[None]:
    """While the definitions are made, whatever goes wrong is the files' fault: missing, no Parquet, other columns."""
    try:
        yield
    except duckdb.Error as exc:
        raise LakeError(f"the files are no snapshot of export jobs: {_first_line(exc)}") from exc


def _restrict(con: duckdb.DuckDBPyConnection, files: Sequence[str], allow: Sequence[Path]) -> None:
    folders = [path for path in allow if path.is_dir()]
    # A path with glob characters is looked up by its pattern, opened by its name.
    named = [*files, *(str(path) for path in allow if path not in folders)]
    paths = list(dict.fromkeys([*named, *map(pattern, named)]))
    for setting, values in (
        ("allowed_directories", [f"{folder}/" for folder in folders]),
        ("allowed_paths", paths),
    ):
        con.execute(f"SET {setting} = [{', '.join(map(literal, values))}]")
    for setting in (
        "autoinstall_known_extensions",
        "autoload_known_extensions",
        "python_enable_replacements",  # or `FROM name` would read variables of the calling program
        "enable_external_access",  # last: the ones above are settled by then
    ):
        con.execute(f"SET {setting} = FALSE")


def _without_end(query: str) -> str:
    """The query without its semicolon, and without a comment after that."""
    text = query.encode()
    for offset, kind in reversed(duckdb.tokenize(query)):
        if kind != duckdb.token_type.comment and not text.startswith(b";", offset):
            break
        text = text[:offset]
    return text.decode()


def _first_line(exc: Exception) -> str:
    """DuckDB's message with the names it proposes, without its kind and its picture of the query, safe to show."""
    said, *more = str(exc).split("\n")
    said = said.partition(": ")[2] or said
    if refused := _REFUSED.fullmatch(said):
        said = refused[1]
    proposed = itertools.dropwhile(lambda line: not line.startswith(("Candidate", "Did you mean")), more)
    words = [line.strip() for line in itertools.takewhile(str.strip, proposed)]
    return escape(" ".join([said, *words]), 600)
