"""`pleo-extract demo`: dump a sandbox and ask the lake, without an account."""

from __future__ import annotations

import itertools
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from pleo_extract.cli.answer import write_answer
from pleo_extract.cli.folder import LakeFolder
from pleo_extract.cli.options import now_option
from pleo_extract.cli.span import CountParam
from pleo_extract.errors import amount

__all__ = ["demo"]


@click.command(
    epilog="\b\nExample:\n  pleo-extract demo --out demo/export_jobs",
    short_help="Try everything, without an account",
)
@click.option(
    "--out",
    type=LakeFolder(),
    metavar="LAKE",
    default=Path("demo/export_jobs"),
    show_default=True,
    help="Folder for the lake; if it exists, -2, -3 … is added to its name",
)
@click.option(
    "--jobs",
    type=CountParam(min=1),
    metavar="N",
    default=20_000,
    show_default=True,
    help="Jobs of the sandbox at the first dump",
)
@now_option
def demo(out: Path, jobs: int, now: datetime | None) -> None:
    """Dump a sandbox twice, then ask the lake how long exports take and how often they fail.

    The first dump is a day before --now, the second at --now.
    """
    from pleo_extract.answers import answer
    from pleo_extract.answers.doors import connect_to_ask
    from pleo_extract.client import Client
    from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, serve
    from pleo_extract.sync.dump import dump_export_jobs

    lake = _find_free_path(out)
    end = now or datetime.now(UTC).replace(microsecond=0)
    api = Sandbox(World(jobs=jobs, now=end - timedelta(days=1)), rules=Rules(tick=2.0))
    with serve(api) as running, Client(running.url, api_key=API_KEY, rate=100_000) as client:
        _print_title(f"1. A sandbox with {amount(jobs, 'job')} listens on {running.url}")
        click.echo("   Jobs are created, start and end while it is read.")
        _print_title("2. The first dump reads everything")
        click.echo(dump_export_jobs(lake, client=client))
        api.world.advance(max(0.0, (end - api.world.now).total_seconds()))
        _print_title("3. The second dump, a day later, reads only what can have changed")
        click.echo(dump_export_jobs(lake, client=client))
    con = connect_to_ask(_DURATIONS + _FAILURES, lake, None, {}, locked=True)
    for number, (title, query) in enumerate(_QUESTIONS, start=4):
        _print_title(f"{number}. {title}")
        click.echo(f'pleo-extract sql {lake} "{query}"\n')
        write_answer(answer(con, query), "table", None)
    _print_title("Now you:")
    program = _find_program()
    click.echo(f"""  {program} sql {lake} --list
  {program} verify {lake}
  PLEO_API_KEY=… {program} dump data/export_jobs     # your own jobs""")


_DURATIONS = """
  select period, duration, n, p50, p95, max, still_running
  from duration_stats('month', per_company := false)
  order by period desc, duration limit 9"""
_FAILURES = """
  select period, finished, failed, rate, low, high, still_open
  from failure_rates('month', per_company := false)
  order by period desc limit 6"""
_QUESTIONS = (
    ("How long do exports take? In seconds, the last three months", _DURATIONS),
    ("How often do they fail? With the 95 % interval, the last six months", _FAILURES),
)


def _find_free_path(out: Path) -> Path:
    """Return the path, or the first numbered one that does not exist.

    A second demo cannot use the first one's lake: a lake belongs to one server, and each demo starts a new one.
    """
    numbered = (out.with_name(f"{out.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([out], numbered) if not path.exists())


def _find_program() -> str:
    """Return what the user has to type: the program's name if it is on the PATH, otherwise the path that started it."""
    if shutil.which("pleo-extract"):
        return "pleo-extract"
    return "python -m pleo_extract" if sys.argv[0].endswith("__main__.py") else sys.argv[0]


def _print_title(text: str) -> None:
    click.echo("\n" + click.style(text, bold=True))
