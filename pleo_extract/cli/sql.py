"""`pleo-extract sql`: answers from a lake."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from pleo_extract.cli.answer import format_option, kind_of, read_snapshot, write_answer
from pleo_extract.cli.folder import FilePathParam, LakeFolder
from pleo_extract.cli.store import store_options
from pleo_extract.errors import UsageError, escape

if TYPE_CHECKING:
    import duckdb

    from pleo_extract.lake.store import StoreOptions

__all__ = ["sql"]

EXAMPLES = """\b
Examples:
  pleo-extract sql "from failure_rates('month')"
  pleo-extract sql "from duration_stats('week')" -o durations.csv
  pleo-extract sql 'from export_jobs where status = $s' -p s=failed --format json
  pleo-extract sql "from failure_rates('week', tz := 'Europe/Copenhagen')"
  pleo-extract sql --list
  pleo-extract sql --describe failure_rates
"""


@click.command(epilog=EXAMPLES, short_help="Ask a lake in SQL")
@click.argument("query", required=False)
@click.option(
    "--lake",
    type=LakeFolder(),
    default=Path("data/export_jobs"),
    show_default=True,
    help="The lake's folder",
)
@store_options
@click.option(
    "--file",
    "-f",
    "script",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Read the query from a file, - for stdin",
)
@click.option(
    "--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="A value for $NAME, as text"
)
@format_option
@click.option(
    "--output",
    "-o",
    type=FilePathParam(),
    metavar="FILE",
    help="Write to a file instead of the screen",
)
@click.option(
    "--as-of",
    metavar="WHEN",
    help="An older snapshot: its number, or an instant such as 2026-11-01T08:00:00Z",
)
@click.option("--allow", multiple=True, type=FilePathParam(exists=True), help="Let the query read here too")
@click.option(
    "--raw-csv", is_flag=True, help="Leave texts that a spreadsheet would run, such as =1+1, as they are"
)
@click.option("--list", "listing", is_flag=True, help="Name the views and macros")
@click.option("--describe", metavar="NAME", help="Define one of them")
def sql(
    query: str | None,
    lake: str | Path,
    store: StoreOptions,
    script: TextIO | None,
    params: tuple[str, ...],
    kind: str | None,
    output: Path | None,
    as_of: str | None,
    allow: tuple[Path, ...],
    raw_csv: bool,
    listing: bool,
    describe: str | None,
) -> None:
    """Ask a lake in SQL: its views and macros, or any SELECT of DuckDB's over them.

    The query can read the lake and nothing else, and write nothing. Times are UTC.
    """
    if listing or describe:
        click.echo(_list() if listing else _describe(str(describe)))
        return
    _leave_at_once()
    if (query is None) == (script is None):
        raise UsageError("give one query, as an argument or with --file; see pleo-extract sql --help")
    kind = kind or kind_of(output)
    from pleo_extract.answers import answer, translate_errors
    from pleo_extract.answers.doors import connect

    text = query if query is not None else script.read() if script else ""
    con = connect(lake, read_snapshot(as_of, "--as-of"), locked=True, allow=allow, **store)
    values = _read_params(params)
    try:
        with translate_errors():
            some = con.execute("select id from export_jobs limit 1").fetchall()
        if not some:
            click.echo(f"note: there is no job in {lake} yet", err=True)
        for company in _name_strangers(con, text, values):
            click.echo(f"note: there is no job of company {escape(company)} in {lake}", err=True)
        write_answer(answer(con, text, values), kind, output, raw_csv=raw_csv)
    finally:
        con.close()


def _leave_at_once() -> None:
    """Let signals end the program as they do by default: nothing is kept here, and a query in DuckDB hears no handler."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # there is no SIGHUP on Windows
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


_ASKED = re.compile(r"\bcompany_id\s*(?::=|=>|==?)\s*(?:'([^']*)'|\$(\w+))", re.IGNORECASE)


def _name_strangers(con: duckdb.DuckDBPyConnection, text: str, values: dict[str, object]) -> list[str]:
    """Companies that a query asks for by id and of which the lake has no job: it would answer with nothing, or 0."""
    asked = {str(values.get(name, "")) if name else literal for literal, name in _ASKED.findall(text)} - {""}
    if not asked:
        return []
    from pleo_extract.answers import translate_errors

    known = "select unnest($asked) except select company_id from export_jobs"
    lower = {company.lower(): company for company in asked}
    with translate_errors():
        return sorted(lower[row[0]] for row in con.execute(known, {"asked": list(lower)}).fetchall())


def _list() -> str:
    from pleo_extract.answers import statements

    lines = []
    for found in statements().values():
        given = f"({', '.join(parameter.name for parameter in found.parameters)})" if found.parameters else ""
        lines.append(f"{found.name}{given}\n    {found.summary}")
    return "\n".join(
        [*lines, "", "What each counts, its columns and defaults: pleo-extract sql --describe NAME"]
    )


def _describe(name: str) -> str:
    from pleo_extract.answers.statement import find_statement

    found = find_statement(name)
    return f"{found.signature}\n{found.summary}\n\n{found.definition}"


def _read_params(params: tuple[str, ...]) -> dict[str, object]:
    pairs = [param.partition("=") for param in params]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise UsageError(f"--param takes NAME=VALUE, not {wrong[0]!r}")
    return {name: value for name, _, value in pairs}
