"""Statements as DuckDB's CREATE VIEW and CREATE MACRO.

`files`, the Parquet, is substituted in one place: in the view `export_jobs`. A definition is either *linked*,
reading the views beside it, or *self-contained*, carrying all that it reads as WITH: a macro in a database file
that somebody attaches does not find the views of that file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

from pleo_extract.contract import DUCKDB_SCHEMA
from pleo_extract.warehouse.statement import GIVEN, SPANS, bind, parts, statements, with_relations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pleo_extract.warehouse.statement import Statement

__all__ = ["Source", "definitions", "literal", "pattern"]

_GLOB = re.compile(r"[\[*?]")


@dataclass(frozen=True, slots=True)
class Source:
    """What the statements read, beside the names of companies.

    Attributes:
        files: paths of Parquet files; none for an empty lake.
        as_of: the instant that "now" means, with a time zone; None for the latest instant in the data.
    """

    files: Sequence[str]
    as_of: datetime | None = None


def definitions(
    source: Source, *, companies: Mapping[str, str] | None = None, self_contained: bool = False
) -> Iterator[str]:
    """CREATE statements for all views and macros, in an order that works.

    Beside those of `sql/`: `snapshot` (one row, `as_of`) and `companies` (`id`, `name`). There is no table, so a
    question finds nothing that it could change.
    """
    views = _views(source, companies or {})
    for name, query in views.items():
        yield f"CREATE VIEW {name} AS {with_relations(query, views) if self_contained else query}"
    for statement in statements().values():
        if statement.kind == "macro":
            yield _macro(statement, views if self_contained else {})


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def pattern(path: str) -> str:
    """A path as the glob pattern that means it and nothing else."""
    return _GLOB.sub(r"[\g<0>]", path)


def _views(source: Source, companies: Mapping[str, str]) -> dict[str, str]:
    written = {s.name: s.query for s in statements().values() if s.kind == "view" and s.name not in GIVEN}
    return {
        "export_jobs": _export_jobs(source),
        "snapshot": _snapshot(source),
        "companies": _companies(companies),
    } | written


def _export_jobs(source: Source) -> str:
    if not source.files:
        columns = ", ".join(f"CAST(NULL AS {kind}) AS {column}" for column, kind in DUCKDB_SCHEMA.items())
        return f"SELECT {columns} WHERE FALSE"
    columns = ", ".join(f"CAST(f.{column} AS {kind}) AS {column}" for column, kind in DUCKDB_SCHEMA.items())
    paths = ", ".join(literal(pattern(path)) for path in source.files)
    return f"SELECT {columns} FROM read_parquet([{paths}], hive_partitioning = FALSE) AS f"  # noqa: S608 -- paths are escaped


def _snapshot(source: Source) -> str:
    if source.as_of is not None:
        return f"SELECT TIMESTAMPTZ {literal(source.as_of.isoformat())} AS as_of"
    instants = [f"max(j.{column})" for column, kind in DUCKDB_SCHEMA.items() if kind.startswith("TIMESTAMP")]
    return f"SELECT greatest({', '.join(instants)}) AS as_of FROM export_jobs AS j"  # noqa: S608 -- columns of the contract


def _companies(names: Mapping[str, str]) -> str:
    """Ids and names in one text: as VALUES, each of thousands would be two nodes of the statement, at 6 kB a company."""
    if not names:
        return "SELECT CAST(NULL AS VARCHAR) AS id, CAST(NULL AS VARCHAR) AS name WHERE FALSE"
    used = set("".join([*names, *names.values()]))
    between, within = islice((mark for mark in map(chr, count(1)) if mark not in used and mark != "'"), 2)
    packed = literal(between.join(f"{company}{within}{name}" for company, name in names.items()))
    each = f"SELECT unnest(string_split({packed}, chr({ord(between)}))) AS entry"
    id_and_name = (f"split_part(c.entry, chr({ord(within)}), {part})" for part in (1, 2))
    return "SELECT {} AS id, {} AS name FROM ({}) AS c".format(*id_and_name, each)  # noqa: S608 -- the text is escaped


def _macro(statement: Statement, views: Mapping[str, str]) -> str:
    declared = (p.name if p.default is None else f"{p.name} := {p.default}" for p in statement.parameters)
    # Cast where they are used: a typed parameter would refuse since := '2026-01-01', and 1.x files have none.
    values = {p.name: f"CAST({p.name} AS {p.type})" for p in statement.parameters}
    for since, until in SPANS:
        if since in values:
            values[since] = _refuse_empty(since, values[since], values[until])
    body = with_relations(statement.query, {**views, **{part.name: part.query for part in parts().values()}})
    return f"CREATE MACRO {statement.name}({', '.join(declared)}) AS TABLE {bind(body, values)}"


def _refuse_empty(name: str, since: str, until: str) -> str:
    """`since`, unless it is not before `until`: then date_trunc refuses the text while the query is bound.

    So also where there is no job. Otherwise it is a constant by then, and files are skipped by it as before.
    """
    said = f"concat('{name} ', {since}, ' is not before {name.replace('since', 'until')} ', {until})"
    checked = f"date_trunc(CASE WHEN {since} >= {until} THEN {said} ELSE 'day' END, TIMESTAMP '2000-01-01')"
    return f"(CASE WHEN {checked} IS NOT NULL THEN {since} END)"
