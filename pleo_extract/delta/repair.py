"""A table that holds jobs twice, or whose files are damaged or lost, made whole again by a commit of its own."""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from pleo_extract.delta.change import Change, make_state
from pleo_extract.delta.copies import check_file, path_of
from pleo_extract.delta.table import Table
from pleo_extract.errors import LakeConflict, LakeLocked, PleoExtractError, amount
from pleo_extract.lake import Repair, check_rows
from pleo_extract.refresh import forget_walks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pleo_extract.delta.address import Address
    from pleo_extract.lake import FileEntry, Manifest

__all__ = ["repair_table"]

TRIES: Final = 5
"""How often a repair that was not first begins again."""

_log = logging.getLogger(__name__)


def repair_table(address: Address, scratch: Path, overlay: Callable[[Table], Manifest]) -> Repair:
    """Rewrite months that hold a job more than once, and drop files that are damaged or missing.

    Args:
        address: the table's.
        scratch: a folder of this machine, for what is sorted.
        overlay: gives the manifest of a version with what this machine knows beside it.

    Raises:
        LakeLocked: others commit all the time. LakeError: there is no table, or it does not take the commit.
    """
    for _ in range(TRIES):
        table = Table(address)
        table.require_writable()
        checked = [(entry, check_file(table, entry)) for entry in table.manifest.files]
        broken = [entry for entry, problems in checked if problems]
        done = [problem for _, problems in checked for problem in problems]
        change = Change(old=list(broken))
        try:
            change.merge(table, scratch, search=True)
            if not change.months and not change.old:
                return Repair(table.version, (), _check(table, table.manifest.files))
            files = change.apply(table.manifest.files)
            manifest = overlay(table)
            accounts = forget_walks(manifest.accounts) if broken else manifest.accounts
            planned = msgspec.structs.replace(manifest, files=files, made_at=datetime.now(UTC))
            state = make_state(table, secrets.token_hex(16), change, planned, (manifest.receipt, accounts))
            table.commit(change.new, change.old, state)
        except LakeConflict as exc:
            change.discard(table)
            _log.info("%s; beginning again", exc)
            continue
        except PleoExtractError:
            change.discard(table)
            raise
        done += _tell(table, change, broken, files)
        return Repair(table.version + 1, tuple(done), _check(table, files))
    raise LakeLocked(f"others have committed to {address.uri} first, {TRIES} times running; run again later")


def _tell(table: Table, change: Change, broken: list[FileEntry], files: list[FileEntry]) -> list[str]:
    rows = sum(e.rows for e in table.manifest.files if e not in broken) - sum(e.rows for e in files)
    said = [f"version {table.version + 1} was made"]
    if change.months:
        said.append(f"{amount(rows, 'row')} that repeated a job left out, in {', '.join(change.months)}")
    if broken:
        said.append(f"{amount(len(broken), 'file')} left out; the next dump reads the whole list")
    return ["; ".join(said)]


def _check(table: Table, files: list[FileEntry]) -> tuple[str, ...]:
    return tuple(
        check_rows(
            [(entry.month, path_of(table, entry)) for entry in files], sum(entry.rows for entry in files)
        )
    )
