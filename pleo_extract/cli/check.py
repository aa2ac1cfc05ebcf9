"""`pleo-extract check`: limits on a lake, for schedulers that act on an exit code."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

from pleo_extract.cli.breaches import Limits, find_breaches, format_span
from pleo_extract.cli.options import lake_argument, names_option, quiet_option, store_options
from pleo_extract.cli.span import CountParam, DurationParam, ShareParam
from pleo_extract.errors import CheckFailed, UsageError, amount

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.cli.breaches import Findings
    from pleo_extract.lake.store import StoreOptions

__all__ = ["check"]

EXAMPLES = """\b
Examples:
  pleo-extract check data/export_jobs --max-age 4h
  pleo-extract check data/export_jobs --max-failure-rate 10% \\
      --since 7d --min-jobs 50
  pleo-extract check data/export_jobs --no-incident --no-silence --json
"""
JUDGED_BY: Final = {
    "max_failure_rate": "failure rate",
    "no_incident": "incidents",
    "no_silence": "silence",
}
NEEDS: Final = {
    "max_failure_rate": "that needs {jobs} in the {span} before the lake was last read; see --min-jobs and --since",
    "no_incident": "that needs eight days or weeks with ten finished jobs each, and one of them in the {span} before the "
    "lake was last read; see --since",
    "no_silence": "that needs a job in the last two months, and more than 20 over more than 14 days before",
}
"""What a check of nothing says, even with --quiet: it would not look like one of everything."""


@click.command(epilog=EXAMPLES, short_help="End with 3 if a lake breaks a limit")
@lake_argument
@store_options
@click.option("--max-age", type=DurationParam(), help="Each company was read completely within this time")
@click.option(
    "--max-failure-rate",
    type=ShareParam(),
    help="No company has a failure rate certainly above this: the lower end of its 95 % interval counts",
)
@click.option("--no-incident", is_flag=True, help="No company has had an incident")
@click.option("--no-silence", is_flag=True, help="No company has stopped exporting")
@click.option(
    "--since",
    type=DurationParam(),
    default=timedelta(days=7),
    help="How far back failure rates and incidents count, from when the lake was last read [default: 7d]",
)
@click.option(
    "--min-jobs",
    type=CountParam(min=1),
    default=50,
    metavar="N",
    show_default=True,
    help="Companies with fewer finished jobs are not judged by their rate",
)
@names_option
@click.option("--json", "as_json", is_flag=True, help="Print all breaches, with their figures, as JSON")
@quiet_option
def check(
    lake: str | Path,
    store: StoreOptions,
    max_age: timedelta | None,
    max_failure_rate: float | None,
    no_incident: bool,
    no_silence: bool,
    since: timedelta,
    min_jobs: int,
    names: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check LAKE against limits: print one line per breach and company, and end with 3 if there is one.

    Nothing is sent to the server. Only the limits that you name are checked. Without a breach, --quiet prints only
    which limits judge no company at all, because none has enough jobs.
    """
    if max_age is None and max_failure_rate is None and not (no_incident or no_silence):
        raise UsageError("name a limit: --max-age, --max-failure-rate, --no-incident or --no-silence")
    limits = Limits(since, max_age, max_failure_rate, min_jobs, no_incident, no_silence)
    now = datetime.now(UTC)
    found = find_breaches(lake, limits, store, names=names, now=now)
    if as_json:
        import msgspec

        told = {"lake": str(lake), "checked_at": now} | dataclasses.asdict(found)
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
    else:
        for breach in found.breaches:
            click.echo(breach.format_line())
    if found.left and not (as_json or quiet):
        click.echo(
            f"pleo-extract: {amount(len(found.left), 'company has', 'companies have')} been silent for more than 60 days, "
            f"which is no breach any more; list them with: "
            f'pleo-extract sql {lake} "from silences() where has_left"',
            err=True,
        )
    if found.breaches:
        raise CheckFailed(f"{lake}: {amount(len(found.breaches), 'breach', 'breaches')}")
    for name, judged in found.judged.items():
        if not judged:
            needs = NEEDS[name].format(jobs=amount(min_jobs, "finished job"), span=format_span(since))
            click.echo(
                f"pleo-extract: no company of {lake} can be judged by {JUDGED_BY[name]}: {needs}", err=True
            )
    if not (as_json or quiet):
        click.echo(f"{lake}: no breach{_describe(found)}")


def _describe(found: Findings) -> str:
    """Return how close to its limits a lake without a breach is, and how many companies each of them judged."""
    text = ""
    if found.oldest_seconds is not None:
        text += f"; read completely {format_span(timedelta(seconds=found.oldest_seconds))} ago"
    if found.judged:
        counts = [f"{count:,} by {JUDGED_BY[name]}" for name, count in found.judged.items()]
        if found.highest_rate is not None:  # of the first limit
            rate, certain = found.highest_rate
            counts[0] += f" (the highest rate: {rate:.1%}, at least {certain:.1%} without chance)"
        text += f"; of {amount(found.companies, 'company', 'companies')}, judged: {', '.join(counts)}"
    return text
