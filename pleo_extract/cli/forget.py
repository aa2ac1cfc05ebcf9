"""`pleo-extract forget`: erase jobs or people from a lake."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pleo_extract.cli.options import lake_argument, store_options
from pleo_extract.errors import UsageError, amount

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.folder.forgetting import Erasure
    from pleo_extract.lake.store import StoreOptions

__all__ = ["forget"]

EXAMPLES = """\b
Examples:
  pleo-extract forget data/export_jobs \\
      --job 5c0e8d3e-6a44-4b0f-9d6e-0b8f2f0d7c11 --yes
  pleo-extract forget data/export_jobs \\
      --person 0c1f6c1e-93a7-4f44-8a86-7b7f2a1f9e02 --yes
"""


@click.command(epilog=EXAMPLES, short_help="Erase jobs or people from a lake, for good")
@lake_argument
@click.option("--job", "jobs", multiple=True, metavar="ID", help="Erase the row of this job; repeatable")
@click.option(
    "--person",
    "people",
    multiple=True,
    metavar="ID",
    help="Erase this person: created_by and failure_reason of their jobs become null; repeatable",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation")
@store_options
def forget(
    lake: str | Path, jobs: tuple[str, ...], people: tuple[str, ...], yes: bool, store: StoreOptions
) -> None:
    """Erase jobs, or the people who asked for them, from every snapshot of LAKE, for good.

    No later dump brings them back: the lake remembers salted hashes of their ids. Staged pages are deleted, and the next
    dump reads them again. Nothing outside this lake changes: no copy, no backup, no snapshot of its disk, not the server.
    Older versions of a Delta table cannot be read afterwards. If the command is killed, run it again; the next dump finishes
    the work too. Without --yes, it asks for confirmation on a terminal.
    """
    from pleo_extract.lake.store import is_delta
    from pleo_extract.sync.forget import forget as erase

    if not jobs and not people:
        raise UsageError("nothing to forget: name a job with --job or a person with --person")
    if not yes:
        what = " and ".join(
            amount(len(ids), noun, plural)
            for ids, noun, plural in ((jobs, "job", "jobs"), (people, "person", "people"))
            if ids
        )
        if not sys.stdin.isatty():
            raise UsageError(f"forgetting {what} cannot be undone; confirm it with --yes")
        history = "; no older version can be read afterwards" if is_delta(lake) else ""
        if not _confirm(f"Forget {what} in every snapshot of {lake}{history}? This cannot be undone"):
            raise UsageError("nothing was forgotten, since the question was not answered with y")
    click.echo(_format_erasure(str(lake), erase(lake, jobs=jobs, people=people, **store)))


def _confirm(question: str) -> bool:
    """Ask on stderr; return whether the answer is yes. The end of the input (Ctrl-D) is none."""
    try:
        return click.confirm(question, err=True)
    except click.Abort as exc:
        if isinstance(exc.__context__, EOFError):
            return False
        raise  # Ctrl-C


def _format_erasure(lake: str, done: Erasure) -> str:
    text = (
        f"{lake}: {amount(done.removed, 'row')} removed and {amount(done.blanked, 'row')} blanked in snapshot {done.snapshot}, "
        f"{amount(done.rewritten, 'snapshot')} rewritten"
    )
    if not done.removed and not done.blanked:
        text += "; the snapshot had no row of theirs"
    if done.dropped:
        text += f"; {amount(len(done.dropped), 'unreadable older snapshot')} removed"
    if done.gone:
        text += "; older versions can no longer be read"
    return text
