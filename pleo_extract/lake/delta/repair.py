"""Repair a table that holds jobs twice, or whose files are damaged or lost, by one commit."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Final

from pleo_extract.core.state import reset_walks
from pleo_extract.errors import LakeConflict, LakeLocked, PleoExtractError, amount
from pleo_extract.lake.delta.change import VersionFiles, make_state
from pleo_extract.lake.delta.copies import check_file, path_of
from pleo_extract.lake.delta.version import Version
from pleo_extract.lake.folder.repair import Repair
from pleo_extract.lake.folder.verify import check_rows
from pleo_extract.lake.table import Base, Change, Info, merge_staged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pleo_extract.lake.delta.address import Address
    from pleo_extract.lake.layout import FileEntry, Manifest

__all__ = ["repair_table"]

TRIES: Final = 5
"""How often a repair that was not first begins again."""

_log = logging.getLogger(__name__)


def repair_table(address: Address, scratch: Path, overlay: Callable[[Version], Manifest]) -> Repair:
    """Rewrite months that hold a job more than once, and remove damaged or missing files from the table.

    Args:
        address: the table.
        scratch: a folder on this machine for temporary files.
        overlay: returns the manifest of a version with the sync states that only this machine knows.

    Raises:
        LakeLocked: other writers committed first every time.
        LakeError: there is no table, or it does not accept the commit.
    """
    for _ in range(TRIES):
        version = Version(address)
        version.require_writable()
        manifest, files = overlay(version), VersionFiles(version, scratch)
        checked = [(entry, check_file(version, entry)) for entry in manifest.files]
        broken = [entry for entry, problems in checked if problems]
        done = [problem for _, problems in checked for problem in problems]
        base = Base(version.version, manifest, manifest.files, suspects=version.suspects)
        change = Change(base, dropped=broken)
        try:
            merge_staged(files, change, search=True)
            if not change.is_news:
                return Repair(version.version, (), _check(version, manifest.files))
            accounts = reset_walks(manifest.accounts) if broken else {}
            info = Info(manifest.server, manifest.receipt, accounts)
            version.commit(change.new, change.old, make_state(version, secrets.token_hex(16), change, info))
        except LakeConflict as exc:
            files.discard(change)
            _log.info("%s; beginning again", exc)
            continue
        except PleoExtractError:
            files.discard(change)
            raise
        done += _describe(change)
        return Repair(change.number, tuple(done), _check(version, change.files))
    raise LakeLocked(f"others have committed to {address.uri} first, {TRIES} times running; run again later")


def _describe(change: Change) -> list[str]:
    rows = sum(e.rows for e in change.base.files if e not in change.dropped) - change.rows
    parts = [f"version {change.number} was made"]
    if change.months:
        parts.append(f"{amount(rows, 'row')} that repeated a job removed from {', '.join(change.months)}")
    if change.dropped:
        parts.append(f"{amount(len(change.dropped), 'file')} removed; the next dump reads the whole list")
    return ["; ".join(parts)]


def _check(version: Version, files: Sequence[FileEntry]) -> tuple[str, ...]:
    return tuple(
        check_rows(
            [(entry.month, path_of(version, entry)) for entry in files], sum(entry.rows for entry in files)
        )
    )
