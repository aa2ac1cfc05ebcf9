"""Repair a table that holds jobs twice, or whose files are damaged or lost, by one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.core.state import reset_walks
from pleo_extract.errors import amount
from pleo_extract.lake.delta.change import VersionFiles, retry_conflicts
from pleo_extract.lake.delta.copies import check_file, path_of
from pleo_extract.lake.folder.repair import Repair
from pleo_extract.lake.folder.verify import check_rows
from pleo_extract.lake.table import Base, Change, Info, merge_staged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pleo_extract.lake.delta.address import Address
    from pleo_extract.lake.delta.version import Version
    from pleo_extract.lake.layout import FileEntry, Manifest

__all__ = ["repair_table"]


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
    return retry_conflicts(address, lambda version: _repair_version(version, scratch, overlay(version)))


def _repair_version(version: Version, scratch: Path, manifest: Manifest) -> Repair:
    files = VersionFiles(version, scratch)
    checked = [(entry, check_file(version, entry)) for entry in manifest.files]
    broken = [entry for entry, problems in checked if problems]
    base = Base(version.version, manifest, manifest.files, suspects=version.suspects)
    change = Change(base, dropped=broken)
    with files.discarded_on_failure(change):
        merge_staged(files, change, search=True)
        if not change.makes_snapshot:
            return Repair(version.version, (), _check(version, manifest.files))
        accounts = reset_walks(manifest.accounts) if broken else {}
        files.commit(change, Info(manifest.server, manifest.receipt, accounts))
    done = [problem for _, problems in checked for problem in problems]
    return Repair(change.number, (*done, _describe(change)), _check(version, change.files))


def _describe(change: Change) -> str:
    rows = sum(e.rows for e in change.base.files if e not in change.dropped) - change.rows
    parts = [f"version {change.number} was made"]
    if change.months:
        parts.append(f"{amount(rows, 'row')} that repeated a job removed from {', '.join(change.months)}")
    if change.dropped:
        parts.append(f"{amount(len(change.dropped), 'file')} removed; the next dump reads the whole list")
    return "; ".join(parts)


def _check(version: Version, files: Sequence[FileEntry]) -> tuple[str, ...]:
    return tuple(
        check_rows(
            [(entry.month, path_of(version, entry)) for entry in files], sum(entry.rows for entry in files)
        )
    )
