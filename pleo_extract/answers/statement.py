"""The statements of `sql/`: each file is one query under a comment that names it and says what it means.

A file opens with its signature in DuckDB's words, `-- name(parameter TYPE := default, …)`, or `-- name` for a
view; the first sentence after it is the summary, the rest the definition. In the query a parameter is `:name`,
so that no engine can take it for a column, and the parts in `sql/parts/` are named like tables: what many
statements begin with, and, in a folder an engine, all that DuckDB and Spark say differently. Nothing else is a
template.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final, Literal

from pleo_extract.contract import EXTRA, FIELDS
from pleo_extract.errors import UsageError, escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable

__all__ = [
    "CHECKS",
    "GIVEN",
    "PRIVATE",
    "SPANS",
    "Engine",
    "Parameter",
    "Statement",
    "bind",
    "check_value",
    "find_statement",
    "parts",
    "statements",
    "with_relations",
]

Engine = Literal["duckdb", "spark"]

GIVEN: Final = ("companies", "export_jobs", "snapshot")
"""The views that are not in `sql/`: each engine's door makes them of what it was told."""
PRIVATE: Final = "vanished_keys"
"""The keys of vanished jobs, which each engine's door puts into what reads them: a relation without a view."""
SPANS: Final = (("since", "until"), ("since_a", "until_a"), ("since_b", "until_b"))
"""Parameters that are the two ends of a span: each door sees to it that the second is later."""

CHECKS: Final[Mapping[str, tuple[str, str]]] = {
    "grain": (
        "{0} IN ('hour', 'day', 'week', 'month', 'quarter', 'year', 'all')",
        "hour, day, week, month, quarter, year or all",
    ),
    "tz": ("{0} IS NOT NULL", "a time zone by its name, such as Europe/Copenhagen"),
    "per_company": ("{0} IS NOT NULL", "true or false"),
    "every_period": ("{0} IS NOT NULL", "true or false"),
    "at_least": ("{0} >= 1", "a number of jobs from 1"),
    "q": ("{0} >= 0 AND {0} <= 1", "a quantile from 0 to 1"),
    "duration": ("{0} IN ('total', 'queue', 'run')", "total, queue or run"),
    "step": ("{0} >= 0 AND {0} < 1e15", "seconds from 0, which means at every duration that occurs"),
}
"""What a parameter of this name must be, as SQL, and in words: all else, null included, is an error and no empty answer."""

_SIGNATURE = re.compile(r"(?P<name>[a-z_]+)(?:\((?P<parameters>[^)]*)\))?\n(?P<text>.*)", re.DOTALL)
_PARAMETER = re.compile(r"(?P<name>\w+) (?P<type>[A-Z]+)(?: := (?P<default>[^,]+))?")
_READ = re.compile(r"\b(?:FROM|JOIN)\s+([a-z_]+)\b")
_PLACEHOLDER = re.compile(r"(?<![:\w]):([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a macro may be told. `type` is DuckDB's; `default` is SQL text, None where a value must be given."""

    name: str
    type: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Statement:
    """One view or macro of `sql/`.

    Attributes:
        name: what it is called in SQL.
        kind: ``view``, or ``macro`` (a table macro: ``FROM name(…)``).
        parameters: in order; none for a view.
        summary: what it answers, one sentence.
        definition: what its columns mean, what counts and what is left out; lines as in the file.
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
        """How it is called: ``failure_rates(grain := 'month', …)``, or the name of a view."""
        if self.kind == "view":
            return self.name
        given = (p.name if p.default is None else f"{p.name} := {p.default}" for p in self.parameters)
        return f"{self.name}({', '.join(given)})"


@cache
def statements() -> Mapping[str, Statement]:
    """All views and macros by name: the views first, then the macros, each in alphabetical order."""
    found = [*_given(), *_read(resources.files("pleo_extract.answers") / "sql")]
    found.sort(key=lambda statement: (statement.kind == "macro", statement.name))
    return {statement.name: statement for statement in found}


@cache
def parts(engine: Engine = "duckdb") -> Mapping[str, Statement]:
    """What statements are built from, by name: queries that a statement names as it would a table.

    Those of `sql/parts/` are the same for all engines, those in its folder `engine` are that engine's.
    """
    folder = resources.files("pleo_extract.answers") / "sql" / "parts"
    return {part.name: part for part in (*_read(folder), *_read(folder / engine))}


def find_statement(name: str) -> Statement:
    """The view or macro of this name.

    Raises:
        UsageError: there is none; the message names those that are spelt alike, and how to list all.
    """
    if (found := statements().get(name)) is not None:
        return found
    alike = difflib.get_close_matches(name.partition("(")[0].strip().lower(), statements(), cutoff=0.5)
    hint = f"did you mean {' or '.join(alike)}?" if alike else f"there are {', '.join(statements())}."
    raise UsageError(
        f"there is no view or macro {escape(name)!r}; {hint} pleo-extract sql --list, or list_answers(), says what each answers"
    )


def bind(query: str, values: Mapping[str, str], first: Mapping[str, str] | None = None) -> str:
    """The query with each parameter ``:name`` replaced by what an engine calls it, SQL text from `values`.

    Where a parameter stands for the first time, `first` goes before: what looks at a value does so once.
    """
    once = dict(first or {})
    return _PLACEHOLDER.sub(lambda found: once.pop(found[1], values[found[1]]), query)


def check_value(statement: Statement, parameter: str, value: str, kind: str) -> tuple[str, str] | None:
    """Return the condition that a value must fulfil, and the message if it does not, as SQL; None for any value.

    Args:
        statement: what is asked.
        parameter: the name of the parameter.
        value: the value, as SQL.
        kind: how the engine calls its type of text.
    """
    if parameter not in CHECKS:
        return None
    condition, words = CHECKS[parameter]
    if statement.name == "incidents" and parameter == "grain":  # all time is one period, which has no past
        condition, words = condition.replace(", 'all'", ""), words.replace(", year or all", " or year")
    said = f"coalesce(CAST({value} AS {kind}), 'null')"
    return condition.format(value), f"concat('{parameter} ', {said}, ': take {words}')"


def with_relations(query: str, relations: Mapping[str, str]) -> str:
    """The query with every relation it reads, directly or through another, put before it as WITH."""
    needed: dict[str, None] = {}

    def visit(text: str) -> None:
        for name in _READ.findall(text):
            if name in relations and name not in needed:
                visit(relations[name])
                needed[name] = None

    visit(query)
    if not needed:
        return query
    before = ",\n".join(f"{name} AS (\n{relations[name]}\n)" for name in needed)
    own = query.removeprefix("WITH ")
    return f"WITH {before}{' ' if own == query else ', '}{own}"


def _read(folder: Traversable) -> list[Statement]:
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


def _given() -> Iterator[Statement]:
    """The views of `GIVEN`; the columns of `export_jobs` are those of the contract."""
    columns = [(field.column, field.note) for field in (*FIELDS, EXTRA)]
    yield Statement(
        name="export_jobs",
        kind="view",
        parameters=(),
        summary="Every export job once, as last seen: one row a job.",
        definition="\n".join(f"{column:<25} {note}" for column, note in columns),
        query=f"SELECT {', '.join(f'f.{column}' for column, _ in columns)} FROM files AS f",  # noqa: S608 -- columns of the contract
    )
    yield Statement(
        name="companies",
        kind="view",
        parameters=(),
        summary="What companies are called and when they were last read: one row a company that has an account.",
        definition=(
            "id    the company, as company_id elsewhere\n"
            "name  as in the accounts file of the dump; null where no file has named it\n"
            "now   the instant that is now for its open jobs: when the last complete run began its closing reads of it,\n"
            "      also if nothing was new; it stands still while a company cannot be read\n\n"
            "A company without a row was read with a credential for any company: its now is that of snapshot."
        ),
        query="SELECT c.id, c.name, c.now FROM accounts AS c",
    )
    yield Statement(
        name="snapshot",
        kind="view",
        parameters=(),
        summary="When the snapshot was published, as of when it is true, and which instant is now: one row.",
        definition=(
            "as_of       when the snapshot was published; where that is not known, the latest instant in the jobs\n"
            "data_as_of  the instant as of which all jobs are true; of several accounts, the earliest\n"
            "now         the instant that is now for open jobs of companies that have none of their own in companies"
        ),
        query="SELECT s.as_of, s.data_as_of, s.now FROM published AS s",
    )
