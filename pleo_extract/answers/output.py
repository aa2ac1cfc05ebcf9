"""Answers as text or files: a table for people, workbooks for Excel, CSV, JSON and Parquet for programs."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import duckdb

from pleo_extract.answers.connection import translate_errors
from pleo_extract.answers.definition import literal
from pleo_extract.answers.spreadsheet import MOST_ROWS, write_excel_csv, write_workbook
from pleo_extract.errors import StorageError, UsageError, amount, escape
from pleo_extract.lake import disk
from pleo_extract.signals import TICK
from pleo_extract.temporary import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["FORMATS", "AnswerTable", "read_table", "write"]

FORMATS: Final = {
    "csv": "FORMAT csv, HEADER TRUE",
    "json": "FORMAT json, ARRAY TRUE",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}
"""The formats that DuckDB writes, each with its options."""
SPREADSHEETS: Final = ("xlsx", "excel-csv")
"""The formats for Excel."""

LONGEST_CELL: Final = 60
"""Characters of a table cell; longer texts are cut."""

_FORMULA: Final = ", ".join(f"chr({ord(first)})" for first in "=+-@\t\r\n\0")
"""First characters with which a spreadsheet reads a cell as a formula, or which hide that it is one."""

_TEXTS: Final = ("VARCHAR", "JSON", "ENUM", "BLOB", "UNION", "VARIANT")
"""Types whose text can begin with such a character; the text of a list begins with a bracket."""
_CELL: Final = re.compile(
    r"BOOLEAN|DATE|TIME|TIMESTAMP(_\w+| WITH TIME ZONE)?|VARCHAR|U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|DOUBLE|FLOAT|DECIMAL.*\)"
)
"""Types of values that a cell of Excel can hold; others are written as text."""
_NUMBERS: Final = ("INT", "DOUBLE", "FLOAT", "DECIMAL", "UINT", "BIGINT", "HUGEINT", "SMALLINT", "TINYINT")


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """The first rows of an answer as text.

    Attributes:
        names: the names of the columns.
        rows: the cells of each row; a null is an empty text.
        is_number: for each column, whether it contains numbers.
        note: how many rows the answer has, and how to get what is left out.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_number: tuple[bool, ...]
    note: str


def write(
    relation: duckdb.DuckDBPyRelation,
    target: str | Path | BinaryIO,
    kind: str,
    *,
    names: Mapping[str, str] = MappingProxyType({}),
    formula_safe: bool = True,
    separator: str = "comma",
) -> int:
    """Write an answer to a path or an open binary file, and return its number of rows.

    In CSV and JSON, instants are RFC 3339 in UTC with six decimals. JSON is one array of objects, in which NaN and
    infinite numbers are null. For ``xlsx`` and ``excel-csv`` see `spreadsheet`.

    Args:
        relation: the result of `answer`.
        target: the path, which is replaced when everything is written, or the open file.
        kind: ``csv``, ``json``, ``parquet``, ``xlsx`` or ``excel-csv``.
        names: names of companies, by id; if there are any, a column `company_name` follows the column `company_id`.
        formula_safe: in CSV, put an apostrophe before a text that begins with one of ``= + - @``, tab, line break or
            NUL, so that no spreadsheet runs it. Use False for programs that need the exact text.
        separator: the list separator of ``excel-csv``, one of `spreadsheet.SEPARATORS`.

    Raises:
        UsageError: the format is unknown, the query fails while its rows are read, or Excel cannot hold all of them.
        ConfigurationError: the package that writes workbooks is not installed.
        StorageError: the target cannot be written.
    """
    known = (*FORMATS, *SPREADSHEETS)
    if kind not in known:
        raise UsageError(f"unknown format {kind!r}: use {', '.join(known)}")
    if isinstance(target, str | Path):
        with disk.open_output(Path(target)) as file:
            return _write_file(relation, file, kind, names, formula_safe=formula_safe, separator=separator)
    with temporary_folder() as folder:
        file = Path(folder, "answer")
        rows = _write_file(relation, file, kind, names, formula_safe=formula_safe, separator=separator)
        with file.open("rb") as source:
            shutil.copyfileobj(source, target)
    return rows


def read_table(
    relation: duckdb.DuckDBPyRelation,
    *,
    names: Mapping[str, str] = MappingProxyType({}),
    rows: int = 40,
    hint: str = "",
) -> AnswerTable:
    """Return the first rows of an answer as text for a terminal: control characters escaped, long texts cut.

    Args:
        relation: the result of `answer`.
        names: as for `write`.
        rows: the largest number of rows to return.
        hint: how to get the rest. The note ends with it if rows or parts of texts are left out.

    Raises:
        UsageError: the query fails while its rows are read.
    """
    with _stream(relation.limit(rows + 1), names) as (con, run):
        columns = con.table("answer").columns
        kinds = [str(kind) for kind in con.table("answer").types]
        texts = con.table("answer").select(", ".join(map(_format_for_table, columns, kinds)))
        cells = run(texts.fetchall)
    count = len(cells)
    if count > rows:
        connections = [relation._con]  # noqa: SLF001 -- as in `_stream`
        count = _run_interruptibly(lambda: relation.count("*").fetchall()[0][0], connections)
    clipped = any(cell is not None and len(cell) > LONGEST_CELL for row in cells[:rows] for cell in row)
    note = f"the first {rows:,} of {count:,} rows" if count > rows else amount(count, "row")
    note += f"; texts are cut at {LONGEST_CELL} characters" if clipped else ""
    note += f"; {hint}" if hint and (clipped or count > rows) else ""
    return AnswerTable(
        names=tuple(escape(column, 60) for column in columns),
        rows=tuple(
            tuple("" if cell is None else escape(cell, LONGEST_CELL) for cell in row) for row in cells[:rows]
        ),
        is_number=tuple(kind.startswith(_NUMBERS) for kind in kinds),
        note=f"({note})",
    )


def _write_file(
    relation: duckdb.DuckDBPyRelation,
    file: Path,
    kind: str,
    names: Mapping[str, str],
    *,
    formula_safe: bool,
    separator: str,
) -> int:
    with _stream(relation, names) as (con, run):
        columns = ", ".join(_format_for_file(con, kind, formula_safe=formula_safe))
        selected = f"SELECT {columns} FROM answer"  # noqa: S608 -- identifiers are quoted
        if kind in SPREADSHEETS:
            frame = run(con.sql(f"{selected} LIMIT {MOST_ROWS + 1}").pl)
            if kind == "xlsx":
                write_workbook({"answer": frame}, file)
            else:
                write_excel_csv(frame, file, separator=separator)
            return len(frame)
        copy = f"COPY ({selected}) TO {literal(str(file))} ({FORMATS[kind]})"
        try:
            rows: int = run(lambda: con.execute(copy).fetchall()[0][0])
        except duckdb.IOException as exc:
            raise StorageError(str(exc).rpartition(": ")[2]) from exc  # the rest names a temporary file
    return rows


@contextmanager
def _stream(
    relation: duckdb.DuckDBPyRelation, names: Mapping[str, str]
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Callable[[Callable[[], Any]], Any]]]:
    """Stream an answer into the view `answer` of a new connection; yield that, and a function that runs queries on it.

    The query's own connection may be locked, and must not write files. The new connection also gives each column a
    unique name, even if the query uses a name twice.
    """
    with duckdb.connect(":memory:") as con, translate_errors():
        both = (relation._con, con)  # noqa: SLF001 -- a relation has no public way to its connection
        con.execute("SET TimeZone = 'UTC'")
        con.register("found", _run_interruptibly(relation.to_arrow_reader, both))
        columns = con.table("found").columns
        cells = [_quote(column) for column in columns]
        if names and "company_id" in columns and "company_name" not in columns:
            con.execute(
                "SET VARIABLE names = map($ids, $names)", {"ids": [*names], "names": [*names.values()]}
            )
            name = "getvariable('names')[CAST(company_id AS VARCHAR)] AS company_name"
            cells.insert(columns.index("company_id") + 1, name)
        con.execute(f"CREATE TEMP VIEW answer AS SELECT {', '.join(cells)} FROM found")  # noqa: S608 -- identifiers are quoted
        yield con, partial(_run_interruptibly, connections=both)


def _run_interruptibly(work: Callable[[], Any], connections: Sequence[duckdb.DuckDBPyConnection]) -> Any:
    """Run `work` in another thread, so that Ctrl-C is noticed: DuckDB may not react to it until the query is done."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        try:
            while not running.done():
                wait([running], timeout=TICK)
            return running.result()
        except KeyboardInterrupt:
            for con in connections:
                con.interrupt()
            raise


def _format_for_file(con: duckdb.DuckDBPyConnection, kind: str, *, formula_safe: bool) -> Iterator[str]:
    answer = con.table("answer")
    for column, duck in zip(answer.columns, map(str, answer.types), strict=True):
        cell = _quote(column)
        if (
            kind in {"csv", "excel-csv"}
            and formula_safe
            and duck.startswith(_TEXTS)
            and not duck.endswith("]")
        ):
            text = f"CAST({cell} AS VARCHAR)"
            yield f"CASE WHEN left({text}, 1) IN ({_FORMULA}) THEN concat('''', {text}) ELSE {text} END AS {cell}"
        elif kind in SPREADSHEETS and not _CELL.fullmatch(duck):
            yield f"CAST({cell} AS VARCHAR) AS {cell}"
        elif kind in SPREADSHEETS and duck.startswith("TIMESTAMP"):
            instant = f"CAST({cell} AS {duck.partition('_')[0]})"
            yield f"CASE WHEN isfinite({instant}) THEN {instant} END AS {cell}"
        elif kind in SPREADSHEETS:
            yield cell
        elif kind != "parquet" and duck == "TIMESTAMP WITH TIME ZONE":
            yield f"strftime({cell}, '%Y-%m-%dT%H:%M:%S.%fZ') AS {cell}"
        elif kind == "json" and duck in {"DOUBLE", "FLOAT"}:
            yield f"CASE WHEN isfinite({cell}) THEN {cell} END AS {cell}"
        else:
            yield cell


def _format_for_table(column: str, kind: str) -> str:
    cell = _quote(column)
    if kind == "TIMESTAMP":  # a period: if all of them begin at midnight, the date is enough
        days = f"bool_and({cell} = date_trunc('day', {cell})) OVER ()"
        return f"CASE WHEN {days} THEN strftime({cell}, '%Y-%m-%d') ELSE CAST({cell} AS VARCHAR) END"
    return f"CAST({f'round({cell}, 4)' if kind in {'DOUBLE', 'FLOAT'} else cell} AS VARCHAR)"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
