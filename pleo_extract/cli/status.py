"""`pleo-extract status`: how a lake is doing."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from pleo_extract.cli.folder import LakeFolder
from pleo_extract.cli.store import store_options
from pleo_extract.errors import escape

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.status import LakeStatus
    from pleo_extract.lake.store import StoreOptions

__all__ = ["status"]

SLACK: Final = 120.0
"""Seconds by which the clocks of two machines may differ."""
LONGEST: Final = 2_000
"""Characters of a line."""


@click.command(
    short_help="Say how fresh a lake is and how the last run ended",
    epilog="\b\nExamples:\n  pleo-extract status data/export_jobs\n  pleo-extract status data/export_jobs --json",
)
@click.argument("lake", type=LakeFolder())
@store_options
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON")
def status(lake: str | Path, store: StoreOptions, as_json: bool) -> None:
    """Say how fresh LAKE is, what it holds and how the last run ended.

    Nothing is asked of the server.
    """
    import msgspec

    from pleo_extract.lake.status import read_status

    found = read_status(lake, **store)
    if as_json:
        click.echo(
            msgspec.json.format(msgspec.json.encode(dataclasses.asdict(found), enc_hook=str), indent=2)
        )
    else:
        click.echo(_tell(found, datetime.now(UTC)))


def _tell(found: LakeStatus, now: datetime) -> str:
    lines = [
        ("jobs", f"{found.rows:,}, {found.open:,} of them open, {found.bytes / 1e6:.1f} MB"),
        (
            "snapshot",
            f"{found.snapshot}, published {_ago(found.made_at, now)}" if found.snapshot else "none yet",
        ),
        ("data as of", _tell_as_of(found, now)),
        ("newest job", _ago(found.newest, now)),
        ("server", found.server),
    ]
    if found.accounts:
        # The lake's own; of how the last run ended, only for whom it failed.
        lines.append(("verdict", escape(found.format_verdict(), 500)))
    if (last := found.last_run) is not None:
        error = f": {escape(last.error, 300)}" if last.error else ""
        lines += [
            ("last run", f"{_ago(last.ended_at, now)}, code {last.code}{error}"),
            ("last complete", _ago(last.last_complete_at, now)),
        ]
        lines += [
            ("failed", f"{escape(name)}: {code}, {escape(str(error), 200)}")
            for name, (code, error) in last.failed.items()
        ]
    if chance := found.last_run.receipt.get("shift_chance") if found.last_run else None:
        lines.append(("hidden change", f"noticed by the last run with a chance of {chance:.0%}"))
    due = [each.next_full_at for each in found.accounts if each.next_full_at is not None]
    lines.append(("next full walk", f"{min(due):%Y-%m-%d %H:%M} UTC" if due else "with the next run"))
    lines += [
        (name, f"{count}")
        for name, count in (
            ("accounts", len(found.accounts) if len(found.accounts) > 1 else 0),
            ("vanished", sum(each.vanished for each in found.accounts)),
            ("rejected", sum(each.rejected for each in found.accounts)),
        )
        if count
    ]
    # What a manifest or a record says may have been written by anybody who can write there: no word of it is a control.
    shown = (f"  {name:<15} {escape(text, LONGEST)}" for name, text in lines)
    return "\n".join([escape(found.lake, LONGEST), *shown])


def _tell_as_of(found: LakeStatus, now: datetime) -> str:
    """Say as of when the rows are true: of many companies, from the stalest to the freshest."""
    instants = sorted(each.data_as_of for each in found.accounts if each.data_as_of is not None)
    if not instants:
        return "never complete"
    never = len(found.accounts) - len(instants)
    text = _ago(instants[0], now)
    if instants[-1] != instants[0]:
        text += f" for the stalest company, {_ago(instants[-1], now)} for the freshest"
    return f"{text}; {never:,} never complete" if never else text


def _ago(then: datetime | None, now: datetime) -> str:
    if then is None:
        return "never"
    seconds = (now - then).total_seconds()
    if seconds < -SLACK:
        return f"{then:%Y-%m-%d %H:%M} UTC (in the future: is the clock right?)"
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{then:%Y-%m-%d %H:%M} UTC ({seconds / size:.0f} {unit}s ago)"
    return f"{then:%Y-%m-%d %H:%M:%S} UTC (just now)"
