"""`pleo-extract sql`: questions to a lake in SQL."""

from __future__ import annotations

import os
import re
import signal
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from pleo_extract.cli.answer import choose_format, write_answer
from pleo_extract.cli.folder import FilePathParam, LakeFolder
from pleo_extract.cli.options import (
    answer_format_option,
    names_option,
    output_option,
    parse_pairs,
    store_options,
)
from pleo_extract.cli.span import SnapshotParam
from pleo_extract.errors import UsageError, escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    import duckdb

    from pleo_extract.lake.store import StoreOptions

__all__ = ["sql"]

EXAMPLES = """\b
Examples:
  pleo-extract sql "from failure_rates('month')"
  pleo-extract sql data/export_jobs "from duration_stats('week')" \\
      -o durations.xlsx
  pleo-extract sql 'from export_jobs where status = $s' \\
      -p s=failed --format json
  pleo-extract sql "from failure_rates('week', tz := 'Europe/Copenhagen')"
  pleo-extract sql --list
  pleo-extract sql --describe failure_rates
"""
_SELECTS = re.compile(
    r"\s*(?:(?:from|select|with|summarize|describe|pivot|show|values)\s|--|/\*)", re.IGNORECASE
)
"""What begins like a query, of more than one word: no folder is named like that."""
_COMMENTS = ("-- ", "--\n", "--\t")
FOR_PEOPLE = ("table", "xlsx", "excel-csv")
"""The formats in which names of companies stand beside their ids unasked."""


class _Query(click.Command):
    """A command whose arguments may be SQL that begins with a comment, which looks like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f" {each}" if each[:3] in _COMMENTS else each for each in args])


@click.command(cls=_Query, epilog=EXAMPLES, short_help="Ask a lake in SQL")
@click.argument("words", nargs=-1, metavar="[LAKE] [QUERY]")
@click.option(
    "--lake",
    type=LakeFolder(),
    help="Folder or URL of the lake, if it is not the first argument  [default: data/export_jobs]",
)
@store_options
@click.option(
    "--file",
    "-f",
    "script",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Read the query from this file; - is stdin",
)
@click.option(
    "--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="Value of $NAME, as text; repeatable"
)
@answer_format_option
@output_option
@names_option
@click.option(
    "--as-of",
    type=SnapshotParam(),
    help="Ask an older snapshot: its number, or an instant such as 2026-11-01T08:00:00Z",
)
@click.option(
    "--allow",
    multiple=True,
    type=FilePathParam(exists=True),
    help="Let the query read this file or folder too; repeatable",
)
@click.option(
    "--raw-csv",
    is_flag=True,
    help="Do not change texts that a spreadsheet would run as formulas, such as =1+1",
)
@click.option(
    "--list-separator",
    "separator",
    type=click.Choice(["comma", "semicolon", "tab"]),
    default="comma",
    show_default=True,
    help="What separates the columns of excel-csv: the list separator in the regional settings of the reader's Windows. "
    "With semicolon, decimals have a comma",
)
@click.option("--list", "listing", is_flag=True, help="List the views and macros")
@click.option("--describe", metavar="NAME", help="Show the definition of a view or macro")
def sql(
    words: tuple[str, ...],
    lake: str | Path | None,
    store: StoreOptions,
    script: TextIO | None,
    params: tuple[str, ...],
    kind: str | None,
    output: Path | None,
    names: Path | None,
    as_of: datetime | int | None,
    allow: tuple[Path, ...],
    raw_csv: bool,
    separator: str,
    listing: bool,
    describe: str | None,
) -> None:
    """Ask a lake in SQL: its views and macros, or any other SELECT of DuckDB over them.

    A query can read only the lake, and cannot write. Times are UTC.
    """
    if listing or describe:
        click.echo(_list_statements() if listing else _describe_statement(str(describe)))
        return
    _restore_signals()
    before = _check_words(words, lake, has_script=script is not None)
    asked = os.fsdecode(LakeFolder()(before[0])) if before else lake or Path("data/export_jobs")
    kind = kind or choose_format(output)
    from pleo_extract.answers import answer, name_lake
    from pleo_extract.answers.doors import connect_to_ask

    text = script.read() if script else words[-1]
    values = parse_pairs(params, "--param")
    _refuse_unknown(values, text)
    with (
        closing(connect_to_ask(text, asked, as_of, store, locked=True, allow=allow, names=names)) as con,
        name_lake(asked),
    ):
        for note in _find_notes(con, asked, text, values):
            click.echo(f"note: {note}", err=True)
        # Programs that read an answer rely on its columns; people get the names that the lake knows, too.
        known = _read_names(con) if names or kind in FOR_PEOPLE else {}
        found = answer(con, text, values)
        write_answer(found, kind, output, names=known, raw_csv=raw_csv, separator=separator)


def _check_words(words: tuple[str, ...], lake: str | Path | None, *, has_script: bool) -> tuple[str, ...]:
    """Return what stands before the query: the lake, or nothing.

    Raises:
        UsageError: there is no query or more than one, or no lake or more than one.
    """
    if words and words[-1] == "-" and not has_script:
        raise UsageError("to read the query from stdin, write --file -")
    before = words if has_script else words[:-1]  # what stands before the query
    if len(before) > 1 or not (words or has_script):
        raise UsageError("give one query, as an argument or with --file; see pleo-extract sql --help")
    if len(words) == 1 and not has_script and ("://" in words[0] or os.path.lexists(words[0])):
        raise UsageError(f"there is no query after the lake; write: pleo-extract sql {words[0]} QUERY")
    if len(words) == 2 and not has_script and _SELECTS.match(words[0]) and not os.path.lexists(words[0]):
        raise UsageError("the lake comes first, then the query; write: pleo-extract sql LAKE QUERY")
    if before and lake is not None:
        raise UsageError("the lake is named twice; name it as an argument or with --lake")
    return before


_CLOCK = re.compile(r"\b(?:current_date|current_timestamp|now\s*\(|today\s*\()", re.IGNORECASE)
_LAST_READ = """
select strftime(now, '%Y-%m-%d %H:%M UTC') from snapshot where now < current_timestamp - to_days(1)"""


def _find_notes(
    con: duckdb.DuckDBPyConnection, asked: str | Path, text: str, values: Mapping[str, str]
) -> Iterator[str]:
    """Yield what may explain an answer that is empty or 0: nothing of what the query names can be in the lake."""
    from pleo_extract.answers import translate_errors

    with translate_errors():
        first = con.execute("select id from export_jobs limit 1").fetchall()
        is_old = con.execute(_LAST_READ).fetchone() if _CLOCK.search(text) else None
    if not first:
        yield f"there is no job in {asked} yet"
    for company in _find_unknown_companies(con, text, values):
        yield (
            f"there is no job of company {escape(company)} in {asked}; list the UUIDs of its companies with: "
            f"pleo-extract sql {asked} \"from failure_rates('all')\""
        )
    for wrong, there in _find_unknown_statuses(con, text, values):
        yield f"no job has the status {escape(wrong)!r}; there are {there}"
    for bound, now in _find_future_bounds(con, text, values):
        yield f"{escape(bound)} is later than {asked} was read ({now}): no job can be"
    if first and is_old:
        yield f"{asked} was last read at {is_old[0]}, and the query counts from today"


def _read_names(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    from pleo_extract.answers import translate_errors

    with translate_errors():
        return dict(con.execute("select id, name from companies where name is not null").fetchall())


def _restore_signals() -> None:
    """Let signals end the process as they do by default.

    There is nothing to keep here, and no Python handler runs while DuckDB computes a query.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # there is no SIGHUP on Windows
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _refuse_unknown(values: Mapping[str, str], text: str) -> None:
    """Raise UsageError for a parameter that the query does not have: DuckDB names only the one that has no value."""
    for name in values:
        if not re.search(rf"\${re.escape(name)}\b", text, re.IGNORECASE):
            there = ", ".join(sorted({f"${found}" for found in re.findall(r"\$(\w+)", text)}))
            raise UsageError(
                f"--param {escape(name)}: the query has no ${escape(name)}"
                + (f"; it has {escape(there, 200)}" if there else "")
            )


_STATUS = re.compile(r"\bstatus\s*==?\s*(?:'([^']*)'|\$(\w+))", re.IGNORECASE)


def _find_unknown_statuses(
    con: duckdb.DuckDBPyConnection, text: str, values: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return the statuses that a query asks for and neither the contract nor the lake has, each with those of the lake."""
    from pleo_extract.contract import STATUSES

    asked = {values.get(name, "") if name else literal for literal, name in _STATUS.findall(text)}
    asked -= {"", *STATUSES}
    if not asked:
        return []
    from pleo_extract.answers import translate_errors

    with translate_errors():
        rows = con.execute("select distinct status from export_jobs order by status").fetchall()
    there = [row[0] for row in rows]
    listed = escape(", ".join(there), 300)
    return [(each, listed) for each in sorted(asked.difference(there)) if there]


_COMPANY_ID = re.compile(r"\bcompany_id\s*(?::=|=>|==?)\s*(?:'([^']*)'|\$(\w+))", re.IGNORECASE)


def _find_unknown_companies(
    con: duckdb.DuckDBPyConnection, text: str, values: Mapping[str, str]
) -> list[str]:
    """Return the companies that a query names and the lake does not have.

    Its answer is empty or 0, which looks like a company without failures.
    """
    asked = {values.get(name, "") if name else literal for literal, name in _COMPANY_ID.findall(text)} - {""}
    if not asked:
        return []
    from pleo_extract.answers import translate_errors

    known = "select unnest($asked) except select company_id from export_jobs"
    lower = {company.lower(): company for company in asked}
    with translate_errors():
        return sorted(lower[row[0]] for row in con.execute(known, {"asked": list(lower)}).fetchall())


_SINCE = re.compile(
    r"\bsince(?:_[ab])?\s*(?::=|=>)\s*(?:(?:timestamptz|timestamp|date)\s*)?(?:'([^']*)'|\$(\w+))",
    re.IGNORECASE,
)
_AHEAD = """
select $bound, strftime(now, '%Y-%m-%d %H:%M UTC') from snapshot
where try_cast($bound as timestamptz) > now + to_hours($slack)"""


def _find_future_bounds(
    con: duckdb.DuckDBPyConnection, text: str, values: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return the bounds `since` of a query that are later than the lake was read, each with the instant of that.

    Its answer is empty, which looks like a time without exports.
    """
    asked = {values.get(name, "") if name else literal for literal, name in _SINCE.findall(text)}
    # A bound without a zone is on the clocks of tz, which can be half a day ahead of UTC.
    slack = 14 if re.search(r"\btz\b", text, re.IGNORECASE) else 0
    from pleo_extract.answers import translate_errors

    with translate_errors():
        found = [con.execute(_AHEAD, {"bound": each, "slack": slack}).fetchone() for each in sorted(asked)]
    return [each for each in found if each is not None]


def _list_statements() -> str:
    from pleo_extract.answers import statements

    lines = []
    for found in statements().values():
        names = f"({', '.join(parameter.name for parameter in found.parameters)})" if found.parameters else ""
        lines.append(f"{found.name}{names}\n    {found.summary}")
    return "\n".join([*lines, "", "Columns, defaults and what each counts: pleo-extract sql --describe NAME"])


def _describe_statement(name: str) -> str:
    from pleo_extract.answers.statement import find_statement

    found = find_statement(name)
    return f"{found.signature}\n{found.summary}\n\n{found.definition}"
