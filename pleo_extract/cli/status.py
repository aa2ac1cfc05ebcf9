"""`pleo-extract status`: the state of a lake and of its last run."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from pleo_extract.cli.options import lake_argument, store_options
from pleo_extract.cli.screen import align
from pleo_extract.errors import amount, escape
from pleo_extract.lake.lock import format_holder

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.status import LakeStatus
    from pleo_extract.lake.store import StoreOptions

__all__ = ["status"]

CLOCK_SKEW: Final = 120.0
"""Seconds by which the clocks of two machines may differ."""
LONGEST: Final = 2_000
"""Most characters of a text."""


@click.command(
    short_help="Show how fresh a lake is and how its last run ended",
    epilog="\b\nExamples:\n  pleo-extract status data/export_jobs\n  pleo-extract status data/export_jobs --json",
)
@lake_argument
@store_options
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON")
def status(lake: str | Path, store: StoreOptions, as_json: bool) -> None:
    """Show how fresh LAKE is, what it holds, and how its last run ended. Sends no request."""
    import msgspec

    from pleo_extract.lake.status import read_status

    found = read_status(lake, **store)
    if as_json:
        click.echo(
            msgspec.json.format(msgspec.json.encode(dataclasses.asdict(found), enc_hook=str), indent=2)
        )
    else:
        click.echo(_format_status(found, datetime.now(UTC)))


def _format_status(found: LakeStatus, now: datetime) -> str:
    lines = [
        ("jobs", f"{found.rows:,}, {found.open:,} of them open, {found.bytes / 1e6:.1f} MB"),
        (
            "snapshot",
            f"{found.snapshot}, published {_format_age(found.made_at, now)}"
            if found.snapshot
            else "none yet",
        ),
        ("data as of", _format_data_as_of(found, now)),
        ("newest job", _format_age(found.newest, now)),
        ("server", found.server or "known with the first snapshot"),
    ]
    if found.accounts:
        # The verdict is the lake's: how the last run ended changes it only for the companies that failed.
        lines.append(("verdict", escape(found.format_verdict(), 500)))
    if (last := found.last_run) is not None:
        error = f": {escape(last.error, 300)}" if last.error else ""
        lines += [
            ("last run", f"{_format_age(last.ended_at, now)}, code {last.code}{error}"),
            ("last complete", _format_age(last.last_complete_at, now)),
        ]
        lines += [
            ("failed", f"{escape(name)}: {code}, {escape(str(error), 200)}")
            for name, (code, error) in last.failed.items()
        ]
    if chance := found.last_run.receipt.get("shift_chance") if found.last_run else None:
        lines.append(
            (
                "audit",
                f"a deleted job is found by the next run; with a chance of {chance:.0%} if another was added in the past",
            )
        )
    if found.running is not None:
        lines.append(("at work", f"a run ({format_holder(found.running)})"))
    if found.staged:
        whose = "that run" if found.running is not None else "the next run"
        lines.append(
            ("staged", f"{amount(found.staged, 'row')} not published yet; {whose} continues from them")
        )
    if found.behind:
        months = amount(len(found.behind), "month")
        lines.append(("folder", f"{months} not up to date for programs that read the files; dump again"))
    due = [each.next_full_at for each in found.accounts if each.next_full_at is not None]
    lines.append(("next full sync", f"{min(due):%Y-%m-%d %H:%M} UTC" if due else "with the next run"))
    lines += [
        (name, f"{count}")
        for name, count in (
            ("accounts", len(found.accounts) if len(found.accounts) > 1 else 0),
            ("vanished", sum(each.vanished for each in found.accounts)),
            ("rejected", sum(each.rejected for each in found.accounts)),
        )
        if count
    ]
    # Whoever can write a manifest or a record can put control characters into it: none may reach the terminal.
    shown = align([(name, escape(text, LONGEST)) for name, text in lines])
    return "\n".join([escape(found.lake, LONGEST), *(f"  {line}" for line in shown)])


def _format_data_as_of(found: LakeStatus, now: datetime) -> str:
    """Return the instant that the rows describe; for many companies, that of the stalest and of the freshest."""
    instants = sorted(each.data_as_of for each in found.accounts if each.data_as_of is not None)
    if not instants:
        return "none yet: no run has been complete"
    never = len(found.accounts) - len(instants)
    text = _format_age(instants[0], now)
    if instants[-1] != instants[0]:
        text += f" for the stalest company, {_format_age(instants[-1], now)} for the freshest"
    return f"{text}; {never:,} never complete" if never else text


def _format_age(then: datetime | None, now: datetime) -> str:
    if then is None:
        return "never"
    seconds = (now - then).total_seconds()
    if seconds < -CLOCK_SKEW:
        return f"{then:%Y-%m-%d %H:%M} UTC (in the future: is the clock right?)"
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{then:%Y-%m-%d %H:%M} UTC ({seconds / size:.0f} {unit}s ago)"
    return f"{then:%Y-%m-%d %H:%M:%S} UTC (just now)"
