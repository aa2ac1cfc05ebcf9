"""Erase jobs and people from a Delta table, by a commit without them after which no older version can be read.

Theory of operation. The ids are written to `_pleo_extract/forgotten.json` in the table itself first, as salted hashes,
with `pending` set: every machine that writes to the table reads that file. Until `pending` is cleared, any run that
writes finishes the erasure before anything else, so a kill at any step loses nothing.

    1  commit a version without the rows of forgotten jobs and without what names forgotten people, on top of the latest.
       It is made even if no row changes: what older commits say of files and accounts goes with them in step 2
    2  write a checkpoint of that version and remove the log before it: no older version can be read
    3  vacuum without a retention time: remove every data file that this version does not name
    4  remove this machine's copies, staged pages and records of runs that may hold what is forgotten
    5  clear `pending`

A run on another machine that read the table before step 1 meets a conflict. It sees that more is forgotten than it
knew, and ends without publishing. A machine that keeps copies of removed files deletes them at its next run, and
remembers that in `forgotten` in the run's folder.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.lake import disk
from pleo_extract.lake.delta.change import VersionFiles, encode_file, retry_conflicts
from pleo_extract.lake.delta.copies import place_files, remove_copies
from pleo_extract.lake.delta.repair import repair_table
from pleo_extract.lake.delta.version import Version
from pleo_extract.lake.folder.forgetting import Erasure, strip_accounts, strip_other_files
from pleo_extract.lake.forgotten import decode_forgotten, encode_forgotten, forget_more
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.table import Base, Change, Info

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pleo_extract.core.state import JobKey
    from pleo_extract.lake.delta.address import Address
    from pleo_extract.lake.forgotten import Forgotten

__all__ = ["finish_erasure", "forget_in_table", "forget_on_this_machine", "read_table_forgotten"]

PATH: Final = "_pleo_extract/forgotten.json"


@dataclass(slots=True)
class _Erased:
    """An erasure to commit: the change, the jobs whose rows it removes, and how many rows it blanks."""

    change: Change
    lost: list[JobKey] = field(default_factory=list)
    blanked: int = 0


def read_table_forgotten(table: Version) -> Forgotten:
    """Return what the table has forgotten; nothing where it has no such file.

    Raises:
        LakeError: the file is broken.
    """
    uri = table.address.uri
    return decode_forgotten(table.read_own(PATH), f"{uri}/{PATH}", uri)


def forget_in_table(address: Address, jobs: Sequence[str], people: Sequence[str], *, held: Layout) -> Erasure:
    """Record that these jobs and people are forgotten, and erase them.

    Args:
        address: the table.
        jobs: ids of jobs.
        people: ids of people.
        held: the folder of this run, which is locked.

    Raises:
        LakeError: there is no table, or a file of it is missing or was changed since it was written.
        LakeLocked: another run on this machine is under way.
    """
    with _lock_other_runs(address, held):  # before anything is written: a refused run leaves no trace
        table = Version(address)
        table.require_writable()
        accounts = table.manifest.accounts.values()
        more = forget_more(read_table_forgotten(table), accounts, address.uri, jobs=jobs, people=people)
        table.write_own(PATH, encode_forgotten(more))
        return _erase_locked(address, held)


def finish_erasure(address: Address, *, held: Layout) -> Erasure:
    """Complete a pending erasure; see `forget_in_table`."""
    with _lock_other_runs(address, held):
        return _erase_locked(address, held)


@contextmanager
def _lock_other_runs(address: Address, held: Layout) -> Iterator[None]:
    """Lock the folders of the other runs on this machine."""
    with ExitStack() as locks:
        for layout in _list_runs(address):
            if layout.root != held.root:
                locks.enter_context(hold_lock(layout))
        yield


def _list_runs(address: Address) -> list[Layout]:
    return [Layout(path) for path in address.runs]


def _erase_locked(address: Address, held: Layout) -> Erasure:
    table = Version(address)
    forgotten = read_table_forgotten(table)
    if table.suspects:
        repair_table(address, held.staging, lambda table: table.manifest)
    disk.make_folder(held.staging, private=True)
    erased = retry_conflicts(address, lambda version: _commit_erasure(version, forgotten, held.staging))
    Version(address).expire_log()
    newest = Version(address)  # a version that was opened before still lists the removed files
    newest.vacuum(0)
    remove_copies(newest, newest.manifest.files)
    for layout in _list_runs(address):
        _clear_run_folder(layout, forgotten)
    newest.write_own(PATH, encode_forgotten(forgotten.settle()))
    number = Version(address).version
    return Erasure(number, len(erased.lost), erased.blanked, rewritten=1, gone=True)


def forget_on_this_machine(version: Version, forgotten: Forgotten, *, held: Layout) -> None:
    """Remove what this machine still keeps of an erasure that another machine made: copies, and files of this run's folder."""
    # The number of the last list of forgotten ids that was applied here; later runs then skip this.
    applied, number = held.own / "forgotten", str(forgotten.number()).encode()
    if not forgotten or (disk.is_plain(applied) and disk.read_file(applied) == number):
        return
    remove_copies(version, version.manifest.files)
    _clear_run_folder(held, forgotten)
    disk.make_folder(held.own)
    disk.replace_file(applied, number, private=True)


def _commit_erasure(version: Version, forgotten: Forgotten, scratch: Path) -> _Erased:
    """Commit a version without what is forgotten, even if no row changes: the erasure then removes all older commits."""
    manifest, files = version.manifest, VersionFiles(version, scratch)
    place_files(version, manifest.files)
    erased = _Erased(Change(Base(version.version, manifest, manifest.files)))
    with files.discarded_on_failure(erased.change):
        _strip_files(files, forgotten, erased)
        receipt = forgotten.strip_json(manifest.receipt)
        accounts = strip_accounts(forgotten, manifest.accounts, erased.lost, blanked=erased.blanked > 0)
        files.commit(erased.change, Info(manifest.server, receipt, accounts))
    return erased


def _strip_files(files: VersionFiles, forgotten: Forgotten, erased: _Erased) -> None:
    """Write files without what is forgotten, and note in `erased` which ones they replace; other files stay."""
    change = erased.change
    for entry in change.base.files:
        stripped = forgotten.strip_rows(pl.read_parquet(io.BytesIO(files.read(entry))))
        if not stripped.lost and not stripped.blanked:
            continue
        erased.lost += stripped.lost
        erased.blanked += stripped.blanked
        if entry.month not in change.months:
            change.months[entry.month] = [each for each in change.base.files if each.month == entry.month]
        change.months[entry.month].remove(entry)
        if stripped.rows.height:
            new, data = encode_file(entry.month, stripped.rows)
            # A file of another program keeps a name without a sha256, so that its month is still searched for duplicates.
            if not entry.sha256:
                name = hashlib.sha256(entry.path.encode()).hexdigest()[:16]
                new = msgspec.structs.replace(
                    new,
                    path=f"created_month={entry.month}/part-{name}-{secrets.token_hex(4)}.parquet",
                    sha256="",
                )
            files.version.write(new.path, data)
            change.months[entry.month].append(new)


def _clear_run_folder(layout: Layout, forgotten: Forgotten) -> None:
    """Clear the folder of a run on this machine: staged pages, saved state, and what its records say of forgotten ids."""
    for path in disk.list_folder(layout.staging):
        disk.remove_tree(path)
    disk.remove_file(layout.state)
    strip_other_files(layout, forgotten)
