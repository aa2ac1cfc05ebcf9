"""Jobs and people erased from a Delta table: by a commit without them, after which nothing older can be read.

What is forgotten stands in the table itself, in `_pleo_extract/forgotten.json`, so that all machines that write to it
know. The rows are rewritten and committed on top of the latest version; a checkpoint takes the place of the log before it,
whose files go; and so do data files that this version does not name, at once. A run on another machine that had read
before meets the commit, sees that more is forgotten than it knew, and ends: nothing of it is published. Killed anywhere,
the next run that writes finishes it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import secrets
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.errors import LakeConflict, LakeLocked, PleoExtractError
from pleo_extract.lake import disk
from pleo_extract.lake.delta.change import VersionFiles, make_state, spell_file
from pleo_extract.lake.delta.copies import path_of, place_files
from pleo_extract.lake.delta.repair import repair_table
from pleo_extract.lake.delta.version import Version
from pleo_extract.lake.folder.forgetting import Erasure, strip_accounts, strip_beside
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

__all__ = ["erase", "forget_here", "forget_in_table", "read_memory"]

MEMORY: Final = "_pleo_extract/forgotten.json"
TRIES: Final = 5
"""How often an erasure that was not first begins again."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Erased:
    """What a commit is to change, the rows that go with it, and how many stay and say less."""

    change: Change
    lost: list[JobKey] = field(default_factory=list)
    blanked: int = 0


def read_memory(table: Version) -> Forgotten:
    """Return what the table has forgotten; nothing where it does not say.

    Raises:
        LakeError: what it says is broken.
    """
    uri = table.address.uri
    return decode_forgotten(table.read_own(MEMORY), f"{uri}/{MEMORY}", uri)


def forget_in_table(address: Address, jobs: Sequence[str], people: Sequence[str], *, held: Layout) -> Erasure:
    """Note that these jobs and people are forgotten, and erase them.

    Args:
        address: the table's.
        jobs: their ids.
        people: theirs.
        held: the folder of the run that forgets, which is locked.

    Raises:
        LakeError: there is no table, or a file of it is not as it was written. LakeLocked: a run of this machine is under way.
    """
    with _hold_others(address, held):  # a run that is refused leaves no trace
        table = Version(address)
        table.require_writable()
        accounts = table.manifest.accounts.values()
        more = forget_more(read_memory(table), accounts, address.uri, jobs=jobs, people=people)
        table.write_own(MEMORY, encode_forgotten(more))
        return _erase(address, held)


def erase(address: Address, *, held: Layout) -> Erasure:
    """Erase what is to be forgotten, as the table says; see `forget_in_table`."""
    with _hold_others(address, held):
        return _erase(address, held)


@contextmanager
def _hold_others(address: Address, held: Layout) -> Iterator[None]:
    """Keep out the other runs of this machine."""
    with ExitStack() as locks:
        for layout in _list_runs(address):
            if layout.root != held.root:
                locks.enter_context(hold_lock(layout))
        yield


def _list_runs(address: Address) -> list[Layout]:
    return [Layout(path) for path in sorted((address.home / "runs").glob("*"))]


def _erase(address: Address, held: Layout) -> Erasure:
    table = Version(address)
    forgotten = read_memory(table)
    if table.suspects:
        repair_table(address, held.staging, lambda table: table.manifest)
    erased = _commit(address, forgotten, held.staging)
    Version(address).expire_log()
    newest = Version(address)  # one that was read before knows of files that are gone
    newest.vacuum(0)
    _remove_copies(newest)
    for layout in _list_runs(address):
        _clear_run(layout, forgotten)
    newest.write_own(MEMORY, encode_forgotten(forgotten.settle()))
    number = Version(address).version
    return Erasure(number, len(erased.lost), erased.blanked, rewritten=1, gone=True)


def forget_here(version: Version, forgotten: Forgotten, *, held: Layout) -> None:
    """Remove what this machine keeps of what another has let the table forget, once: copies, and what this run's folder has."""
    mark, number = held.own / "forgotten", str(forgotten.number()).encode()
    if not forgotten or (disk.is_plain(mark) and disk.read_file(mark) == number):
        return
    _remove_copies(version)
    _clear_run(held, forgotten)
    disk.make_folder(held.own)
    disk.replace_file(mark, number, private=True)


def _commit(address: Address, forgotten: Forgotten, scratch: Path) -> _Erased:
    """Commit a version without what is forgotten, also where no row holds it: what earlier commits say of files goes with these."""
    disk.make_folder(scratch, private=True)
    for _ in range(TRIES):
        version = Version(address)
        version.require_writable()
        manifest, files = version.manifest, VersionFiles(version, scratch)
        place_files(version, manifest.files)
        erased = _Erased(Change(Base(version.version, manifest, manifest.files)))
        try:
            _strip_files(files, forgotten, erased)
            receipt = forgotten.strip_json(manifest.receipt)
            info = Info(
                manifest.server,
                receipt,
                strip_accounts(forgotten, manifest.accounts, erased.lost, blanked=erased.blanked > 0),
            )
            state = make_state(version, secrets.token_hex(16), erased.change, info)
            version.commit(erased.change.new, erased.change.old, state)
        except LakeConflict as exc:
            files.discard(erased.change)
            _log.info("%s; beginning again", exc)
            continue
        except PleoExtractError:
            files.discard(erased.change)
            raise
        return erased
    raise LakeLocked(f"others have committed to {address.uri} first, {TRIES} times running; run again later")


def _strip_files(files: VersionFiles, forgotten: Forgotten, erased: _Erased) -> None:
    """Files written anew where they hold what is forgotten; the others of such a month stay."""
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
            anew, data = spell_file(entry.month, stripped.rows)
            if not entry.sha256:  # another program's: what is to be proven of its month still is
                name = hashlib.sha256(entry.path.encode()).hexdigest()[:16]
                anew = msgspec.structs.replace(
                    anew,
                    path=f"created_month={entry.month}/part-{name}-{secrets.token_hex(4)}.parquet",
                    sha256="",
                )
            files.version.write(anew.path, data)
            change.months[entry.month].append(anew)


def _remove_copies(table: Version) -> None:
    """Copies on this machine of files that the table no longer has."""
    folder = table.address.home / "files"
    if table.address.local is None and folder.is_dir():
        keep = {path_of(table, entry) for entry in table.manifest.files}
        for path in folder.glob("*/*"):
            if path not in keep:
                disk.remove_file(path)


def _clear_run(layout: Layout, forgotten: Forgotten) -> None:
    """What runs of this machine keep beside the table: staged pages, a state that a version had, records, rejected rows."""
    for path in disk.list_folder(layout.staging):
        disk.remove_tree(path)
    disk.remove_file(layout.state)
    strip_beside(layout, forgotten)
