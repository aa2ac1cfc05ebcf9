"""`pleo-extract demo`: the whole path, without an account."""

from __future__ import annotations

import itertools
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from pleo_extract.cli.dump import tell_receipt
from pleo_extract.cli.folder import LakeFolder
from pleo_extract.cli.screen import fit_terminal
from pleo_extract.cli.span import InstantParam
from pleo_extract.errors import amount

__all__ = ["demo"]


@click.command(
    epilog="\b\nExample:\n  pleo-extract demo --out demo/export_jobs",
    short_help="The whole path, without an account",
)
@click.option(
    "--out",
    type=LakeFolder(),
    metavar="LAKE",
    default=Path("demo/export_jobs"),
    show_default=True,
    help="Where to make the lake; -2, -3 … is added where there is something already",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=20_000,
    show_default=True,
    help="Jobs in the sandbox at the first dump",
)
@click.option(
    "--now",
    type=InstantParam(),
    help="What the sandbox's clock says at the second dump [default: this machine's time]",
)
def demo(out: Path, jobs: int, now: datetime | None) -> None:
    """Dump a sandbox twice and ask the lake how long exports take and how often they fail."""
    from pleo_extract.answers import answer, table
    from pleo_extract.answers.doors import connect
    from pleo_extract.client import Client
    from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, serve
    from pleo_extract.sync.dump import dump_export_jobs

    lake = _find_free(out)
    end = now or datetime.now(UTC).replace(microsecond=0)
    api = Sandbox(World(jobs=jobs, now=end - timedelta(days=1)), rules=Rules(tick=2.0))
    with serve(api) as running, Client(running.url, api_key=API_KEY, rate=100_000) as client:
        _say(f"1. A sandbox with {amount(jobs, 'job')} listens on {running.url}")
        click.echo("   Jobs are created, start and end while it is read.")
        _say("2. The first dump reads everything")
        click.echo(tell_receipt(dump_export_jobs(lake, client=client)))
        api.world.advance(max(0.0, (end - api.world.now).total_seconds()))
        _say("3. The second dump, a day later, reads what can have changed")
        click.echo(tell_receipt(dump_export_jobs(lake, client=client)))
    con = connect(lake, locked=True)
    for number, (title, query) in enumerate(_QUESTIONS, start=4):
        _say(f"{number}. {title}")
        click.echo(f'pleo-extract sql --lake {lake} "{query}"\n')
        click.echo(fit_terminal(table(answer(con, query))))
    _say("Now you:")
    me = _name_program()
    click.echo(f"""  {me} sql --lake {lake} --list
  {me} verify {lake}
  PLEO_API_KEY=… {me} dump data/export_jobs     # your own jobs""")


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


def _find_free(out: Path) -> Path:
    """The path itself, or the next one that does not exist: a lake belongs to one server, and each demo is a new one."""
    numbered = (out.with_name(f"{out.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([out], numbered) if not path.exists())


def _name_program() -> str:
    """What to type for this program: its name where the shell finds it, else the path it was started by."""
    if shutil.which("pleo-extract"):
        return "pleo-extract"
    return "python -m pleo_extract" if sys.argv[0].endswith("__main__.py") else sys.argv[0]


def _say(text: str) -> None:
    click.echo("\n" + click.style(text, bold=True))
