"""`pleo-extract demo`: the whole path, without an account."""

from __future__ import annotations

from pathlib import Path

import click

from pleo_extract.cli.dump import tell_receipt

__all__ = ["demo"]


@click.command(epilog="\b\nExample:\n  pleo-extract demo --out /tmp/demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo/export_jobs"),
    show_default=True,
    help="The lake",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=20_000, show_default=True, help="Jobs in the sandbox"
)
def demo(out: Path, jobs: int) -> None:
    """Dump a sandbox twice and ask the lake how long exports take and how often they fail."""
    from pleo_extract.client import Client
    from pleo_extract.extract import connect, dump_export_jobs
    from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, serve
    from pleo_extract.warehouse import answer, table

    api = Sandbox(World(jobs=jobs), rules=Rules(tick=2.0))
    with serve(api) as running, Client(running.url, api_key=API_KEY, rate=100_000) as client:
        _say(
            f"1. A sandbox with {jobs:,} jobs listens on {running.url}. Jobs come, start and end while it is read."
        )
        _say("2. The first dump reads everything:")
        click.echo(tell_receipt(dump_export_jobs(out, client=client)))
        api.world.advance(86_400)
        _say("3. A day later, the second dump:")
        click.echo(tell_receipt(dump_export_jobs(out, client=client)))
    con = connect(out, locked=True)
    for number, (title, query) in enumerate(_QUESTIONS, start=4):
        _say(f"{number}. {title}")
        click.echo(f'pleo-extract sql --lake {out} "{query}"\n')
        click.echo(table(answer(con, query)))
    _say("Now you:")
    click.echo(f"""  pleo-extract sql --lake {out} --list
  pleo-extract verify {out}
  PLEO_API_KEY=… pleo-extract dump data/export_jobs     # your own jobs""")


_DURATIONS = """\
select period, duration, n, p50, p95, max, still_running
from duration_stats('month', per_company := false) order by period desc, duration limit 9"""
_FAILURES = """\
select period, finished, failed, rate, low, high, still_open
from failure_rates('month', per_company := false) order by period desc limit 6"""
_QUESTIONS = (
    ("How long do exports take? In seconds, all companies together, the last three months:", _DURATIONS),
    ("How often do they fail? With the 95 % interval, the last six months:", _FAILURES),
)


def _say(text: str) -> None:
    click.echo("\n" + click.style(text, bold=True))
