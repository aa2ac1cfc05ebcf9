"""Statements as DuckDB's CREATE VIEW and CREATE MACRO.

`files`, the Parquet, is substituted in one place: in the view `export_jobs`. A definition is either *linked*,
reading the views beside it, or *self-contained*, carrying all that it reads as WITH: a macro in a database file
that somebody attaches does not find the views of that file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING, Final

from pleo_extract.answers.facts import SnapshotFacts
from pleo_extract.answers.statement import (
    GIVEN,
    PRIVATE,
    SPANS,
    bind,
    check_value,
    parts,
    statements,
    with_relations,
)
from pleo_extract.contract import DUCKDB_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pleo_extract.answers.statement import Statement

__all__ = ["INSTANTS", "ROOT", "VANISHED", "Source", "definitions", "literal", "pattern"]

ROOT: Final = "pleo_root"
"""The variable of DuckDB that says where a catalogue's lake is, where that is elsewhere than when it was written."""
MONTHS: Final = "/created_month=*/part-*.parquet"
"""The visible months of a lake, whichever there are."""
INSTANTS: Final = "/_lake/now.csv"
VANISHED: Final = "/_lake/vanished.csv"
"""The files that a catalogue reads what `SnapshotFacts` says from; see `Source.root`."""

_GLOB = re.compile(r"[\[*?]")
_BARE: Final = r"^\s*[0-9]+[-/][0-9]+[-/][0-9]+([ T]+[0-9]+(:[0-9]+)*([.][0-9]*)?)?\s*$"
"""A date, or a date and a time, that does not say in which zone."""


@dataclass(frozen=True, slots=True)
class Source:
    """What the statements read.

    Attributes:
        files: paths of Parquet files; none for an empty lake.
        facts: what is known beside the rows.
        root: the lake, for definitions that stay right when it changes: they find its months by a pattern, where there are
            any, and read `INSTANTS` and `VANISHED` in place of `facts`. Empty for definitions that carry it all.
        has_months: whether there are any.
    """

    files: Sequence[str]
    facts: SnapshotFacts = field(default_factory=SnapshotFacts)
    root: str = ""
    has_months: bool = False


def definitions(source: Source, *, self_contained: bool = False) -> Iterator[str]:
    """CREATE statements for all views and macros, in an order that works.

    Beside those of `sql/`: `snapshot` (one row) and `companies` (`id`, `name`, `now`). There is no table, so a
    question finds nothing that it could change.
    """
    views, private = _views(source), {PRIVATE: _gone(source)}
    for name, query in views.items():
        yield f"CREATE VIEW {name} AS {with_relations(query, private | (views if self_contained else {}))}"
    for statement in statements().values():
        if statement.kind == "macro":
            yield _macro(statement, views | private if self_contained else {})


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def pattern(path: str) -> str:
    """A path as the glob pattern that means it and nothing else."""
    return _GLOB.sub(r"[\g<0>]", path)


def _views(source: Source) -> dict[str, str]:
    written = {s.name: s.query for s in statements().values() if s.kind == "view" and s.name not in GIVEN}
    return {
        "export_jobs": _export_jobs(source),
        "snapshot": _snapshot(source),
        "companies": _companies(source),
    } | written


def _export_jobs(source: Source) -> str:
    if not source.files and not source.has_months:
        columns = ", ".join(f"CAST(NULL AS {kind}) AS {column}" for column, kind in DUCKDB_SCHEMA.items())
        return f"SELECT {columns} WHERE FALSE"
    columns = ", ".join(f"CAST(f.{column} AS {kind}) AS {column}" for column, kind in DUCKDB_SCHEMA.items())
    paths = ", ".join(literal(pattern(path)) for path in source.files)
    found = _below(source.root, MONTHS) if source.root else f"[{paths}]"
    return f"SELECT {columns} FROM read_parquet({found}, hive_partitioning = FALSE) AS f"  # noqa: S608 -- paths are escaped


def _snapshot(source: Source) -> str:
    names = ("as_of", "data_as_of", "now")
    instants = [
        f"TIMESTAMPTZ {literal(each.isoformat())}" for each in source.facts.instants() if each is not None
    ]
    if not instants:
        latest = [f"max(j.{name})" for name, kind in DUCKDB_SCHEMA.items() if kind.startswith("TIMESTAMP")]
        found = ", ".join(f"greatest({', '.join(latest)}) AS {name}" for name in names)
        return f"SELECT {found} FROM export_jobs AS j"  # noqa: S608 -- columns of the contract
    if source.root:
        return f"SELECT t.as_of, t.data_as_of, t.now FROM {_facts(source.root)} WHERE t.company_id IS NULL"  # noqa: S608 -- the path is escaped
    return f"SELECT {', '.join(f'{each} AS {name}' for each, name in zip(instants, names, strict=True))}"


def _companies(source: Source) -> str:
    """Ids, names and instants in one text: as VALUES, each of thousands would be three nodes of the statement, at 6 kB a company."""
    if source.root and source.facts.as_of is not None:
        where = "WHERE t.company_id IS NOT NULL"
        return f"SELECT t.company_id AS id, t.name, t.now FROM {_facts(source.root)} {where}"  # noqa: S608 -- the path is escaped
    rows = [(company, name or "", now) for company, name, now in source.facts.companies()]
    if not rows:
        return (
            "SELECT CAST(NULL AS VARCHAR) AS id, CAST(NULL AS VARCHAR) AS name, "
            "CAST(NULL AS TIMESTAMPTZ) AS now WHERE FALSE"
        )
    used = set("".join("".join(row) for row in rows))
    between, within = islice((mark for mark in map(chr, count(1)) if mark not in used and mark != "'"), 2)
    packed = literal(between.join(within.join(row) for row in rows))
    each = f"SELECT unnest(string_split({packed}, chr({ord(between)}))) AS entry"
    company, name, now = (f"split_part(c.entry, chr({ord(within)}), {part})" for part in (1, 2, 3))
    return (
        f"SELECT {company} AS id, nullif({name}, '') AS name, "  # noqa: S608 -- the text is escaped
        f"CAST(nullif({now}, '') AS TIMESTAMPTZ) AS now FROM ({each}) AS c"
    )


def _gone(source: Source) -> str:
    """The keys of vanished jobs. A definition that is to stay right looks them up, since the first may vanish any day."""
    if source.root and source.facts.as_of is not None:
        read = _read_csv(_below(source.root, VANISHED), {"company_id": "VARCHAR", "id": "VARCHAR"})
        return f"SELECT v.company_id, v.id FROM {read} AS v"  # noqa: S608 -- the path is escaped
    if not source.facts.vanished:  # no id is read to look for them
        return "SELECT CAST(NULL AS VARCHAR) AS company_id, CAST(NULL AS VARCHAR) AS id WHERE FALSE"
    packed = literal(",".join(f"{company} {job}" for company, job in source.facts.vanished))
    each = f"SELECT unnest(string_split({packed}, ',')) AS entry"
    return f"SELECT split_part(v.entry, ' ', 1) AS company_id, split_part(v.entry, ' ', 2) AS id FROM ({each}) AS v"  # noqa: S608 -- as above


def _below(root: str, path: str) -> str:
    """A path below the lake as SQL, wherever the lake is by then."""
    return f"concat(coalesce(getvariable({literal(ROOT)}), {literal(pattern(root))}), {literal(path)})"


def _facts(root: str) -> str:
    instants = dict.fromkeys(("now", "as_of", "data_as_of"), "TIMESTAMPTZ")
    return (
        f"{_read_csv(_below(root, INSTANTS), {'company_id': 'VARCHAR', 'name': 'VARCHAR'} | instants)} AS t"
    )


def _read_csv(path: str, columns: Mapping[str, str]) -> str:
    stated = ", ".join(f"{name}: {literal(kind)}" for name, kind in columns.items())
    return (
        f"read_csv({path}, columns = {{{stated}}}, header = TRUE, auto_detect = FALSE, "
        "delim = ',', quote = '\"', escape = '\"', nullstr = '')"
    )


def _macro(statement: Statement, views: Mapping[str, str]) -> str:
    declared = (p.name if p.default is None else f"{p.name} := {p.default}" for p in statement.parameters)
    zone = "CAST(tz AS VARCHAR)" if any(p.name == "tz" for p in statement.parameters) else "'UTC'"
    # Cast where they are used: a typed parameter would refuse since := '2026-01-01', and 1.x files have none.
    values = {
        p.name: _instant(p.name, zone) if p.type == "TIMESTAMPTZ" else f"CAST({p.name} AS {p.type})"
        for p in statement.parameters
    }
    first: dict[str, str] = {}
    for name, value in values.items():
        if name != "q" and (
            check := check_value(statement, name, value, "VARCHAR")
        ):  # company_quantiles.sql checks q
            first[name] = _refuse_unless(*check, value)
    for since, until in SPANS:
        if since in values:
            said = f"concat('{since} ', {values[since]}, ' is not before {until} ', {values[until]})"
            is_empty = f"{values[since]} >= {values[until]}"
            first[since] = _refuse_unless(f"coalesce(NOT {is_empty}, TRUE)", said, values[since])
    body = with_relations(statement.query, {**views, **{part.name: part.query for part in parts().values()}})
    return f"CREATE MACRO {statement.name}({', '.join(declared)}) AS TABLE {bind(body, values, first)}"


def _instant(name: str, zone: str) -> str:
    """What was given as an instant: without a zone of its own it is on the clocks of `zone`, whatever the session's is."""
    text = f"CAST({name} AS VARCHAR)"
    there = f"timezone({zone}, CAST({text} AS TIMESTAMP))"
    return f"(CASE WHEN regexp_matches({text}, {literal(_BARE)}) THEN {there} ELSE CAST({text} AS TIMESTAMPTZ) END)"


def _refuse_unless(condition: str, said: str, value: str) -> str:
    """`value`, if the condition holds: else date_trunc refuses the message while the query is bound.

    So also where there is no job. Otherwise it is a constant by then, and files are skipped by it as before.
    """
    checked = f"date_trunc(CASE WHEN {condition} THEN 'day' ELSE {said} END, TIMESTAMP '2000-01-01')"
    return f"(CASE WHEN {checked} IS NOT NULL THEN {value} END)"
