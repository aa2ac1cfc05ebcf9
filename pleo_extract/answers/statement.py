"""The statements of `sql/`: each file is one query, under a comment that is its manual.

The comment begins with the signature in DuckDB's syntax, `-- name(parameter TYPE := default, …)` for a macro or
`-- name` for a view. The next sentence is the summary, the rest is the definition. In the query a parameter is written
`:name`, so that no engine confuses it with a column.

A query reads parts, the files of `sql/parts/`, as if they were tables; they become its WITH clause. Parts hold what
several statements share. The folders `duckdb` and `spark` there hold the few parts that the two engines need in different
SQL. All other text is the same for both engines, and there are no other templates.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import UTC
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final, Literal

from pleo_extract.contract import EXTRA, FIELDS
from pleo_extract.errors import UsageError, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from importlib.resources.abc import Traversable

    from pleo_extract.answers.facts import SnapshotFacts

__all__ = [
    "CHECKS",
    "ENGINE_VIEWS",
    "GRAINS",
    "ROW_BY_ROW",
    "TIME_RANGES",
    "VANISHED_KEYS",
    "Engine",
    "Parameter",
    "Statement",
    "bind_parameters",
    "check_value",
    "describe_unknown",
    "find_statement",
    "in_order_of_creation",
    "one_sided",
    "parts",
    "range_error",
    "snapshot_query",
    "statements",
    "vanished_keys_query",
    "with_relations",
]

Engine = Literal["duckdb", "spark"]

ENGINE_VIEWS: Final = ("companies", "export_jobs", "snapshot")
"""The views that are not in `sql/`: each engine creates them from the files and facts of the snapshot."""
VANISHED_KEYS: Final = "vanished_keys"
"""The relation with the keys of vanished jobs. It is not a view: each engine inlines its query where it is read."""
ROW_BY_ROW: Final = frozenset(
    {
        "durations_by_range",
        "export_jobs",
        "filtered_jobs",
        "job_durations",
        "jobs_by_range",
        "jobs_with_duration",
        "jobs_with_period",
        "jobs_with_split",
        "observed_jobs",
    }
)
"""Relations that pass on the rows of `export_jobs` one by one. DuckDB must not keep their rows for a second reader: of ten
million jobs they fill two gigabytes, and making them again costs less than a second."""
TIME_RANGES: Final = (("since", "until"), ("since_a", "until_a"), ("since_b", "until_b"))
"""Pairs of parameters that are the bounds of a time range: each engine checks that the first is before the second."""

GRAINS: Final = ("hour", "day", "week", "month", "quarter", "year", "all")
"""The lengths of the periods of answers."""
SPLITS: Final = (
    "is_interactive",
    "created_by",
    "vendor_based_bookkeeping",
    "number_of_items",
    "weekday",
    "hour",
    "weekday_hour",
)
"""By what an answer can be split: a column of the jobs, or the clock when they were created."""
CHECKS: Final[Mapping[str, tuple[str, str]]] = {
    "grain": (
        f"{{0}} IN {GRAINS}",
        "hour, day, week, month, quarter, year or all",
    ),
    "fill": ("{0} IS NOT NULL", "true or false"),
    "split_by": (
        f"{{0}} IS NULL OR {{0}} IN {SPLITS}",
        "is_interactive, created_by, vendor_based_bookkeeping, number_of_items, weekday, hour or weekday_hour",
    ),
    "tz": ("{0} IS NOT NULL", "the name of a time zone, such as Europe/Copenhagen"),
    "company_id": (
        "{0} IS NULL OR {0} LIKE '________-____-____-____-____________'",
        "the UUID of a company, or NULL for all, and name other arguments, such as since := …",
    ),
    "per_company": ("{0} IS NOT NULL", "true or false"),
    "every_period": ("{0} IS NOT NULL", "true or false"),
    "at_least": ("{0} >= 1", "a number of jobs, at least 1"),
    "q": ("{0} >= 0 AND {0} <= 1", "a quantile from 0 to 1"),
    "duration": ("{0} IN ('total', 'queue', 'run')", "total, queue or run"),
    "seconds": ("{0} >= 0 AND {0} < 1e15", "seconds, at least 0"),
    "share": ("{0} > 0 AND {0} <= 1", "a share above 0, up to 1"),
    "once_in_days": ("{0} > 0 AND {0} < 1e15", "days, above 0"),
    "longest_days": ("{0} > 0 AND {0} <= 3650", "days, from 0 to 3650"),
    "every_company": ("{0} IS NOT NULL", "true or false"),
    "step": ("{0} >= 0 AND {0} < 1e15", "seconds, at least 0; 0 means one row for each duration that occurs"),
}
"""For each parameter name the condition on its value, as SQL, and in words.

Any other value, null included, is an error. Without the check such a call would silently answer with no rows."""

_SIGNATURE = re.compile(r"(?P<name>[a-z_]+)(?:\((?P<parameters>[^)]*)\))?\n(?P<text>.*)", re.DOTALL)
_PARAMETER = re.compile(r"(?P<name>\w+) (?P<type>[A-Z]+)(?: := (?P<default>[^,]+))?")
_RELATION = re.compile(r"\b(?:FROM|JOIN)\s+([a-z_]+)\b")
_PLACEHOLDER = re.compile(r"(?<![:\w]):([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a macro.

    Attributes:
        name: its name in SQL.
        type: its type in DuckDB.
        default: its default as SQL text; None if the caller must give a value.
    """

    name: str
    type: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Statement:
    """A view or macro of `sql/`, or a part of one.

    Attributes:
        name: its name in SQL.
        kind: ``view``, or ``macro`` (a table macro: ``FROM name(…)``).
        parameters: its parameters in order; empty for a view.
        summary: the question it answers, in one sentence.
        definition: the meaning of its columns, what it counts and what it leaves out; line breaks as in the file.
        query: the SELECT, with parameters as ``:name``.
    """

    name: str
    kind: Literal["view", "macro"]
    parameters: tuple[Parameter, ...]
    summary: str
    definition: str
    query: str

    @property
    def signature(self) -> str:
        """Return how to call it: ``failure_rates(grain := 'month', …)``, or the name of a view."""
        return self.name if self.kind == "view" else f"{self.name}({', '.join(self.declarations())})"

    def declarations(self) -> Iterator[str]:
        """Yield each parameter with its default, in DuckDB's syntax."""
        for p in self.parameters:
            yield p.name if p.default is None else f"{p.name} := {p.default}"


@cache
def statements() -> Mapping[str, Statement]:
    """Return all views and macros by name: first the views, then the macros, each in alphabetical order."""
    found = [*_engine_views(), *_parse_files(resources.files("pleo_extract.answers") / "sql")]
    found.sort(key=lambda statement: (statement.kind == "macro", statement.name))
    return {statement.name: statement for statement in found}


def in_order_of_creation(
    wanted: Iterable[str] | None = None, engine: Engine = "duckdb"
) -> Iterator[Statement]:
    """Yield all views and macros, or those that are wanted, each after the views that it reads."""
    done: dict[str, None] = {}
    relations = {part.name: part.query for part in parts(engine).values()}

    def visit(statement: Statement) -> Iterator[Statement]:
        if statement.name not in done:
            done[statement.name] = None
            for name in _RELATION.findall(with_relations(statement.query, relations)):
                if name in statements():
                    yield from visit(statements()[name])
            yield statement

    for name in statements() if wanted is None else wanted:
        yield from visit(statements()[name])


@cache
def parts(engine: Engine = "duckdb") -> Mapping[str, Statement]:
    """Return the parts of an engine by name: the shared ones of `sql/parts/`, and those in its own folder there."""
    folder = resources.files("pleo_extract.answers") / "sql" / "parts"
    return {part.name: part for part in (*_parse_files(folder), *_parse_files(folder / engine))}


def find_statement(name: str) -> Statement:
    """Return the view or macro with this name.

    Raises:
        UsageError: no answer has this name. The message suggests similar names, and says how to list all.
    """
    if (found := statements().get(name)) is not None:
        return found
    raise UsageError(describe_unknown(name))


def describe_unknown(name: str) -> str:
    """Say that no view or macro has this name, which ones are similar, and how to list all."""
    similar = difflib.get_close_matches(name.partition("(")[0].strip().lower(), statements(), cutoff=0.5)
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"there are {', '.join(statements())}."
    return (
        f"there is no view or macro {escape(name)!r}; {hint} "
        "List them with pleo-extract sql --list, or in Python with list_answers()"
    )


def bind_parameters(query: str, values: Mapping[str, str], checked: Mapping[str, str] | None = None) -> str:
    """Return the query with each parameter ``:name`` replaced by its SQL text in `values`.

    The first occurrence of a parameter takes its text from `checked`, if that has one: a value is checked only once.
    """
    once = dict(checked or {})
    return _PLACEHOLDER.sub(lambda found: once.pop(found[1], values[found[1]]), query)


def check_value(statement: Statement, parameter: str, value: str, kind: str) -> tuple[str, str] | None:
    """Return the condition on a parameter's value and the error message, both as SQL; None if any value is valid.

    Args:
        statement: the macro.
        parameter: the name of the parameter.
        value: the value, as SQL.
        kind: the engine's name of its text type.
    """
    if parameter not in CHECKS:
        return None
    condition, words = CHECKS[parameter]
    if statement.name in {"compare", "downtime", "incidents", "shifts"} and parameter == "grain":
        # One single period has no past to compare with, and no months to divide an outage between.
        condition, words = condition.replace(", 'all'", ""), words.replace(", year or all", " or year")
    if statement.name == "slow_jobs" and parameter == "q":  # without a quantile it lists what is unusual
        condition = f"{{0}} IS NULL OR {condition}"
    text = f"coalesce(CAST({value} AS {kind}), 'null')"
    return condition.format(value), f"concat('invalid {parameter} ', {text}, ': use {words}')"


def range_error(since: str, until: str, values: Mapping[str, str]) -> str:
    """Return the error message, as SQL, for a time range that does not begin before it ends."""
    return f"concat('{since} ', {values[since]}, ' is not before {until} ', {values[until]})"


def one_sided(values: Mapping[str, str]) -> tuple[str, str]:
    """Return whether only one range of `compare` has a bound, and the error message, both as SQL.

    The other range would be all time, the first range included: its change says nothing.
    """
    bounds = (f"coalesce({values[f'since_{each}']}, {values[f'until_{each}']}) IS NULL" for each in "ab")
    return (
        " <> ".join(f"({each})" for each in bounds),
        "'invalid bounds: use a bound of a (since_a, until_a) together with one of b (since_b, until_b), or none'",
    )


def snapshot_query(facts: SnapshotFacts, kind: str) -> str:
    """Return the query of the view `snapshot`. `kind` is the engine's type of an instant with a time zone."""
    names = ("as_of", "data_as_of", "now")
    instants = [
        f"{kind} '{instant.astimezone(UTC).isoformat()}'"
        for instant in facts.instants()
        if instant is not None
    ]
    if instants:
        return f"SELECT {', '.join(f'{each} AS {name}' for each, name in zip(instants, names, strict=True))}"
    latest = ", ".join(f"max(j.{field.column})" for field in FIELDS if field.kind == "instant")
    columns = ", ".join(f"greatest({latest}) AS {name}" for name in names)
    return f"SELECT {columns} FROM export_jobs AS j"  # noqa: S608 -- columns of the contract


def vanished_keys_query(facts: SnapshotFacts, explode: Callable[[str], str]) -> str:
    """Return the query of `VANISHED_KEYS`: columns company_id and id.

    All keys are in one text: as VALUES, each row would take several kB of memory when the statement is parsed.

    Args:
        facts: the facts of the snapshot.
        explode: makes of a text the engine's SQL for one row per item between commas.
    """
    if not facts.vanished:
        # Without any key, no id has to be read from the files to compare it. STRING is a type of both engines.
        return "SELECT CAST(NULL AS STRING) AS company_id, CAST(NULL AS STRING) AS id WHERE FALSE"
    entries = explode(",".join(f"{company} {job}" for company, job in facts.vanished))
    return (
        "SELECT split_part(v.entry, ' ', 1) AS company_id, split_part(v.entry, ' ', 2) AS id "  # noqa: S608 -- quoted
        f"FROM (SELECT {entries} AS entry) AS v"
    )


def with_relations(query: str, relations: Mapping[str, str], *, inlined: Collection[str] = ()) -> str:
    """Return the query with a WITH clause for every relation that it reads, directly or through another one.

    The relations in `inlined` are marked NOT MATERIALIZED, which Spark does not know.
    """
    needed: dict[str, None] = {}

    def visit(text: str) -> None:
        for name in _RELATION.findall(text):
            if name in relations and name not in needed:
                visit(relations[name])
                needed[name] = None

    visit(query)
    if not needed:
        return query
    clauses = ",\n".join(
        f"{name} AS {'NOT MATERIALIZED ' if name in inlined else ''}(\n{relations[name]}\n)"
        for name in needed
    )
    rest = query.removeprefix("WITH ")
    return f"WITH {clauses}{' ' if rest == query else ', '}{rest}"


def _parse_files(folder: Traversable) -> list[Statement]:
    files = (file for file in folder.iterdir() if file.name.endswith(".sql"))
    return [_parse(file.read_text(encoding="utf-8")) for file in files]


def _parse(text: str) -> Statement:
    lines = text.splitlines(keepends=True)
    head = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    comment = "".join(line.removeprefix("--").removeprefix(" ") for line in lines[:head])
    signature = _SIGNATURE.match(comment)
    assert signature is not None, f"no signature in: {comment[:60]}"
    summary, _, definition = signature["text"].partition("\n\n")
    return Statement(
        name=signature["name"],
        kind="view" if signature["parameters"] is None else "macro",
        parameters=tuple(
            Parameter(found["name"], found["type"], found["default"])
            for found in _PARAMETER.finditer(signature["parameters"] or "")
        ),
        summary=" ".join(summary.split()),
        definition=definition.rstrip(),
        query="".join(lines[head:]).strip(),
    )


def _engine_views() -> Iterator[Statement]:
    """Yield the views of `ENGINE_VIEWS`. Their queries only show what they read: each engine has its own."""
    columns = [(field.column, field.note) for field in (*FIELDS, EXTRA)]
    yield Statement(
        name="export_jobs",
        kind="view",
        parameters=(),
        summary="Every export job once, as last seen: one row per job.",
        definition="\n".join(f"{column:<25} {note}" for column, note in columns),
        query=f"SELECT {', '.join(f'f.{column}' for column, _ in columns)} FROM files AS f",  # noqa: S608 -- columns of the contract
    )
    yield Statement(
        name="companies",
        kind="view",
        parameters=(),
        summary="The names of companies, and when each was last read: one row per company that has an account.",
        definition=(
            "id    the company, as company_id elsewhere\n"
            "name  as in the accounts file of the dump; null if no file gives one\n"
            "now   the instant that counts as now for its open jobs: when the last complete run began its closing reads\n"
            "      of the company, even if it found nothing new. It does not advance while the company cannot be read\n\n"
            "A company without a row was read with a credential for all companies: its now is the now of snapshot."
        ),
        query="SELECT c.id, c.name, c.now FROM accounts AS c",
    )
    yield Statement(
        name="snapshot",
        kind="view",
        parameters=(),
        summary="When the snapshot was published, as of when its data is true, and which instant is now: one row.",
        definition=(
            "as_of       when the snapshot was published; if that is not known, the latest instant in the jobs\n"
            "data_as_of  the instant as of which all jobs are true; with several accounts, the earliest of theirs\n"
            "now         the instant that counts as now for open jobs, if their company has no now in companies"
        ),
        query="SELECT s.as_of, s.data_as_of, s.now FROM published AS s",
    )
