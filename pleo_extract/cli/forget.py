"""`pleo-extract forget`: erase jobs or people from a lake."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pleo_extract.cli.folder import LakeFolder
from pleo_extract.cli.store import store_options
from pleo_extract.errors import UsageError, amount

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.folder.forgetting import Erasure
    from pleo_extract.lake.store import StoreOptions

__all__ = ["forget"]

EXAMPLES = """\b
Examples:
  pleo-extract forget data/export_jobs --job 5c0e8d3e-6a44-4b0f-9d6e-0b8f2f0d7c11 --yes
  pleo-extract forget data/export_jobs --person 0c1f6c1e-93a7-4f44-8a86-7b7f2a1f9e02 --yes
"""


@click.command(epilog=EXAMPLES, short_help="Erase jobs or people from a lake, for good")
@click.argument("lake", type=LakeFolder())
@click.option("--job", "jobs", multiple=True, metavar="ID", help="A job whose row is to go; repeatable")
@click.option(
    "--person",
    "people",
    multiple=True,
    metavar="ID",
    help="Who is no longer to be named: created_by and failure_reason of their jobs become null; repeatable",
)
@click.option("--yes", is_flag=True, help="Do not ask: it cannot be undone")
@store_options
def forget(
    lake: str | Path, jobs: tuple[str, ...], people: tuple[str, ...], yes: bool, store: StoreOptions
) -> None:
    """Erase jobs, or who asked for them, from every snapshot of LAKE; no later dump brings them back.

    What is forgotten is remembered as salted hashes. Staged pages go, and are read again. It cannot be undone, and it
    reaches nothing but this lake: not copies, backups or snapshots of its disk, and not the server. Older versions of a
    Delta table can no longer be read afterwards. Killed, it is finished by running it again, or by the next dump. Without
    --yes it asks first, on a terminal.
    """
    from pleo_extract.lake.store import is_delta
    from pleo_extract.sync.forget import forget as erase

    if not jobs and not people:
        raise UsageError("name what to forget, with --job or --person")
    if not yes:
        what = " and ".join(
            [*([amount(len(jobs), "job")] if jobs else []), *([_count(people)] if people else [])]
        )
        if not sys.stdin.isatty():
            raise UsageError(f"forgetting {what} cannot be undone; say that you mean it with --yes")
        history = "; no older version can be read afterwards" if is_delta(lake) else ""
        click.confirm(
            f"Forget {what} in every snapshot of {lake}{history}? This cannot be undone", abort=True, err=True
        )
    click.echo(_tell(str(lake), erase(lake, jobs=jobs, people=people, **store)))


def _count(people: tuple[str, ...]) -> str:
    return "1 person" if len(people) == 1 else f"{len(people):,} people"


def _tell(lake: str, done: Erasure) -> str:
    text = (
        f"{lake}: {amount(done.removed, 'row')} removed and {amount(done.blanked, 'row')} blanked in snapshot {done.snapshot}, "
        f"{amount(done.rewritten, 'snapshot')} rewritten"
    )
    if not done.removed and not done.blanked:
        text += "; no row of it was theirs"
    if done.dropped:
        text += f"; removed {amount(len(done.dropped), 'older snapshot')} that could not be read"
    if done.gone:
        text += "; no older version can be read any longer"
    return text
