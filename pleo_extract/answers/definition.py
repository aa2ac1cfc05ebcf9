"""Statements as DuckDB's CREATE VIEW and CREATE MACRO.

Theory of operation. Only one view, `export_jobs`, names the Parquet files; everything else reads it by name, so that the
text in `sql/` never contains a path. There are two kinds of definitions:

- Linked definitions read the views of the same connection. `connect` uses them.
- Self-contained definitions carry all that they read as a WITH clause. The catalogue, a DuckDB file, needs them: a client
  that attaches the file calls `lake.failure_rates('month')`, and a macro called that way does not find the views of its
  own file.

A macro is untyped text that DuckDB expands where it is called, so a wrong argument would silently give no rows or an
error from deep inside the query. Therefore each parameter is replaced by an expression that converts the argument and
raises our own message; see `_create_macro` and `_require`.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING, Final

from pleo_extract.answers.facts import INSTANTS, VANISHED, SnapshotFacts
from pleo_extract.answers.history import create_changes
from pleo_extract.answers.statement import (
    ENGINE_VIEWS,
    ROW_BY_ROW,
    TIME_RANGES,
    VANISHED_KEYS,
    bind_parameters,
    check_value,
    in_order_of_creation,
    one_sided,
    parts,
    range_error,
    snapshot_query,
    statements,
    vanished_keys_query,
    with_relations,
)
from pleo_extract.contract import DUCKDB_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pleo_extract.answers.statement import Statement

__all__ = ["ROOT", "Source", "definitions", "literal"]

ROOT: Final = "pleo_root"
"""The DuckDB variable with which a client says where the lake of a catalogue is now, if it was moved or mounted elsewhere."""
MONTHS: Final = "/created_month=*/part-*.parquet"
"""The months of a lake, as a glob pattern below its folder."""

_NAIVE_INSTANT: Final = r"^\s*[0-9]+[-/][0-9]+[-/][0-9]+([ T]+[0-9]+(:[0-9]+)*([.][0-9]*)?)?\s*$"
"""A date, or a date and a time, without a time zone."""
_BOUND: Final = r"^\s*([-+0-9]|infinity|epoch)"
"""How an instant begins; another word in its place is a grain."""


@dataclass(frozen=True, slots=True)
class Source:
    """What the statements read.

    Attributes:
        files: paths of Parquet files; empty for an empty lake.
        facts: what the lake knows about the snapshot besides its rows.
        root: the folder of the lake, for definitions that stay right when the lake changes: they find its months by a
            glob pattern, and read `INSTANTS` and `VANISHED` instead of `facts`. Empty for definitions with fixed content.
        has_months: for definitions with a `root`, whether the lake has months; a pattern without a match is an error.
        has_objects: the same for the files of its snapshots.
    """

    files: Sequence[str]
    facts: SnapshotFacts = field(default_factory=SnapshotFacts)
    root: str = ""
    has_months: bool = False
    has_objects: bool = False

    @property
    def reads_facts(self) -> bool:
        """True if definitions read the facts from the files of the lake."""
        return bool(self.root) and self.facts.as_of is not None


def definitions(source: Source, *, self_contained: bool = False, asked: str | None = None) -> Iterator[str]:
    """Yield CREATE statements for all views and macros, each after those that it reads.

    They create no table, so that no query finds anything that it could change. Macros that the SQL `asked` does not need
    are left out: DuckDB takes 20 ms to create one.
    """
    views, private = _view_queries(source), {VANISHED_KEYS: _vanished_keys(source)}
    for name, query in views.items():
        yield f"CREATE VIEW {name} AS {_with_relations(query, private | (views if self_contained else {}))}"
    for statement in statements().values():
        if statement.kind == "macro" and (asked is None or _may_need(asked, statement.name)):
            yield _create_macro(statement, views | private if self_contained else {})
    if source.root and source.has_objects:
        yield create_changes(lambda path: _lake_path(source.root, path))


def _with_relations(query: str, relations: Mapping[str, str]) -> str:
    return with_relations(query, relations, inlined=ROW_BY_ROW)


def _may_need(asked: str, macro: str) -> bool:
    # SQL that lists functions, or takes a query from a text, may need any.
    return any(each in asked.lower() for each in (macro, "duckdb_", "query"))


def literal(text: str) -> str:
    """Return the text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _view_queries(source: Source) -> dict[str, str]:
    views = [s.name for s in statements().values() if s.kind == "view"]
    from_files = {s.name: s.query for s in in_order_of_creation(views) if s.name not in ENGINE_VIEWS}
    return {
        "export_jobs": _export_jobs(source),
        "snapshot": _snapshot(source),
        "companies": _companies(source),
    } | from_files


def _export_jobs(source: Source) -> str:
    if not source.files and not source.has_months:
        columns = ", ".join(f"CAST(NULL AS {kind}) AS {column}" for column, kind in DUCKDB_SCHEMA.items())
        return f"SELECT {columns} WHERE FALSE"
    columns = ", ".join(f"CAST(f.{column} AS {kind}) AS {column}" for column, kind in DUCKDB_SCHEMA.items())
    paths = ", ".join(literal(glob.escape(path)) for path in source.files)
    found = _lake_path(source.root, MONTHS) if source.root else f"[{paths}]"
    return f"SELECT {columns} FROM read_parquet({found}, hive_partitioning = FALSE) AS f"  # noqa: S608 -- paths are escaped


def _snapshot(source: Source) -> str:
    if not source.reads_facts:
        return snapshot_query(source.facts, "TIMESTAMPTZ")
    return (
        f"SELECT t.as_of, t.data_as_of, t.now FROM {_instants_table(source.root)} WHERE t.company_id IS NULL"  # noqa: S608 -- the path is escaped
    )


def _companies(source: Source) -> str:
    """Return the query of the view `companies`.

    Its ids, names and instants are one text. As VALUES, each company would add three nodes to the statement: 6 kB of memory
    per company, and there can be thousands.
    """
    if source.reads_facts:
        where = "WHERE t.company_id IS NOT NULL"
        return f"SELECT t.company_id AS id, t.name, t.now FROM {_instants_table(source.root)} {where}"  # noqa: S608 -- the path is escaped
    rows = [(company, name or "", now) for company, name, now in source.facts.companies()]
    if not rows:
        return (
            "SELECT CAST(NULL AS VARCHAR) AS id, CAST(NULL AS VARCHAR) AS name, "
            "CAST(NULL AS TIMESTAMPTZ) AS now WHERE FALSE"
        )
    used = set("".join("".join(row) for row in rows))  # a name can contain any character, also a separator
    between_rows, between_fields = islice((c for c in map(chr, count(1)) if c not in used and c != "'"), 2)
    packed = literal(between_rows.join(between_fields.join(row) for row in rows))
    entries = f"SELECT unnest(string_split({packed}, chr({ord(between_rows)}))) AS entry"
    company, name, now = (f"split_part(c.entry, chr({ord(between_fields)}), {part})" for part in (1, 2, 3))
    return (
        f"SELECT {company} AS id, nullif({name}, '') AS name, "  # noqa: S608 -- the text is escaped
        f"CAST(nullif({now}, '') AS TIMESTAMPTZ) AS now FROM ({entries}) AS c"
    )


def _vanished_keys(source: Source) -> str:
    """Return the query of the vanished jobs' keys.

    With a `root` it always reads the file, even if no job has vanished yet: the first one can vanish any day.
    """
    if source.reads_facts:
        table = _read_csv(_lake_path(source.root, VANISHED), {"company_id": "VARCHAR", "id": "VARCHAR"})
        return f"SELECT v.company_id, v.id FROM {table} AS v"  # noqa: S608 -- the path is escaped
    return vanished_keys_query(source.facts, lambda text: f"unnest(string_split({literal(text)}, ','))")


def _lake_path(root: str, path: str) -> str:
    """Return a path below the lake as SQL; the variable `ROOT` of the session has precedence over `root`."""
    return f"concat(coalesce(getvariable({literal(ROOT)}), {literal(glob.escape(root))}), {literal(path)})"


def _instants_table(root: str) -> str:
    instants = dict.fromkeys(("now", "as_of", "data_as_of"), "TIMESTAMPTZ")
    columns = {"company_id": "VARCHAR", "name": "VARCHAR"} | instants
    return f"{_read_csv(_lake_path(root, INSTANTS), columns)} AS t"


def _read_csv(path: str, columns: Mapping[str, str]) -> str:
    types = ", ".join(f"{name}: {literal(kind)}" for name, kind in columns.items())
    return (
        f"read_csv({path}, columns = {{{types}}}, header = TRUE, auto_detect = FALSE, "
        "delim = ',', quote = '\"', escape = '\"', nullstr = '')"
    )


def _create_macro(statement: Statement, views: Mapping[str, str]) -> str:
    zone = "CAST(tz AS VARCHAR)" if any(p.name == "tz" for p in statement.parameters) else "'UTC'"
    # Arguments are cast where they are used: a typed parameter would refuse since := '2026-01-01', and database files
    # of DuckDB 1 cannot store typed parameters.
    values = {
        p.name: _parse_instant(p.name, zone) if p.type == "TIMESTAMPTZ" else f"CAST({p.name} AS {p.type})"
        for p in statement.parameters
    }
    if {"grain", "since_a"} <= values.keys():
        values |= _take_grain_first(values)
    checked: dict[str, str] = {}
    for name, value in values.items():
        # company_quantiles.sql checks q itself, and says why.
        if name != "q" and (check := check_value(statement, name, value, "VARCHAR")):
            checked[name] = _require(*check, value, name)
    for since, until in TIME_RANGES:
        if since in values:
            is_empty = f"{values[since]} >= {values[until]}"
            message = range_error(since, until, values)
            checked[since] = _require(f"coalesce(NOT {is_empty}, TRUE)", message, values[since], since)
    if "since_a" in values:
        is_one_sided, message = one_sided(values)
        # A grain beside bounds has an error of its own.
        is_grain, _ = check_value(statement, "grain", values["grain"], "VARCHAR") or ("TRUE", "")
        accepted = f"NOT ({is_one_sided}) OR NOT coalesce({is_grain}, FALSE)"
        checked["until_a"] = _require(accepted, message, values["until_a"], "until_a")
    body = _with_relations(statement.query, {**views, **{part.name: part.query for part in parts().values()}})
    declared = ", ".join(statement.declarations())
    return f"CREATE MACRO {statement.name}({declared}) AS TABLE {bind_parameters(body, values, checked)}"


def _take_grain_first(values: Mapping[str, str]) -> dict[str, str]:
    """Return SQL for the grain and the first bound of `compare`: a grain may stand in the place of the bound.

    A grain there, beside other bounds, becomes a value that no check accepts.
    """
    first = "CAST(since_a AS VARCHAR)"
    is_bound = f"regexp_matches({first}, {literal(_BOUND)})"
    named = f"CASE WHEN NOT {is_bound} THEN {first} END"
    bound = values["since_a"].replace(first, f"(CASE WHEN {is_bound} THEN {first} END)")
    others = " OR ".join(f"{each} IS NOT NULL" for each in ("until_a", "since_b", "until_b"))
    grain = f"CASE WHEN {others} THEN concat({named}, ' beside bounds') ELSE {named} END"
    return {"grain": f"coalesce(nullif({grain}, ' beside bounds'), {values['grain']})", "since_a": bound}


def _parse_instant(name: str, zone: str) -> str:
    """Return SQL for an argument as an instant.

    A date or time without a zone is in `zone`, not in the time zone of the session: the same call gives the same
    answer in every client.
    """
    text = f"CAST({name} AS VARCHAR)"
    local = f"timezone({zone}, CAST({text} AS TIMESTAMP))"
    return f"(CASE WHEN regexp_matches({text}, {literal(_NAIVE_INSTANT)}) THEN {local} ELSE CAST({text} AS TIMESTAMPTZ) END)"


def _require(condition: str, message: str, value: str, parameter: str) -> str:
    """Return SQL for the value of a parameter, which raises `message` unless the condition holds.

    The message is given to date_trunc as its unit. DuckDB evaluates that while it binds the query and refuses it with
    'extract specifier "…" not recognized', from which `connection` takes the message. Its error() would run per row:
    an empty lake would accept any argument. If the condition holds, the value is a constant for the optimizer, which
    still skips files and row groups by it.

    The concat() of the parameter itself, which is never null, makes CREATE MACRO cheaper: DuckDB binds a macro when it is
    created, but ends that where a function takes a parameter of unknown type. Without it, `connect` takes 1.5 times as long.
    """
    unit = f"CASE WHEN {condition} THEN 'day' WHEN concat({parameter}) IS NOT NULL THEN {message} END"
    checked = f"date_trunc({unit}, TIMESTAMP '2000-01-01')"
    return f"(CASE WHEN {checked} IS NOT NULL THEN {value} END)"
