"""Jobs and people erased from a folder: from every snapshot under its own number, and from all that is kept beside them.

What is to be forgotten is written down first, as hashes, with the word that it is under way. From then on every run that
writes finishes it before anything else, so that it does not matter who is killed where. Then, in this order, so that
whoever reads meanwhile sees the old rows or the new ones: new objects; the state; the manifests, one by one; the visible
months; and then what nobody needs any longer goes. Who has opened a snapshot before and reads its files now may find one
gone, and opens it again.

A snapshot that cannot be read cannot be searched. The current one must be repaired first; an older one goes.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.core.decode import Rejected
from pleo_extract.errors import LakeError
from pleo_extract.lake import disk, strict
from pleo_extract.lake.folder.objects import ROW_GROUP, begin_build, place_objects, sweep_objects
from pleo_extract.lake.folder.publish import write_manifest
from pleo_extract.lake.folder.verify import UNREADABLE
from pleo_extract.lake.folder.visible import show_months
from pleo_extract.lake.forgotten import forget_more, read_forgotten, write_forgotten
from pleo_extract.lake.layout import State, name_object
from pleo_extract.lake.record import read_last_run
from pleo_extract.lake.staging import encode_rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from pleo_extract.core.state import AccountKey, JobKey, SyncState
    from pleo_extract.lake.forgotten import Forgotten
    from pleo_extract.lake.layout import FileEntry, Layout, Manifest

__all__ = ["Erasure", "finish_forgetting", "forget_rows", "strip_accounts", "strip_beside"]


@dataclass(frozen=True, slots=True)
class Erasure:
    """What `forget` did.

    Attributes:
        snapshot: the one that is current; 0 for none.
        removed: rows of it that went. blanked: rows of it that stay, and no longer say what they did.
        rewritten: snapshots that were written anew, under their own numbers.
        dropped: the numbers of older snapshots that could not be read, and went.
        gone: whether snapshots that were kept can no longer be read, as of a Delta table.
    """

    snapshot: int = 0
    removed: int = 0
    blanked: int = 0
    rewritten: int = 0
    dropped: tuple[int, ...] = ()
    gone: bool = False


class _Line(msgspec.Struct):
    """A line of a file of rejected rows."""

    page: int
    path: str
    reason: str
    row: str


_IGNORED: Final = (LakeError, strict.Malformed)


def forget_rows(
    layout: Layout, jobs: Collection[str], people: Collection[str], *, check: Callable[[], None]
) -> Erasure:
    """Note that these jobs and people are forgotten, and erase them; see `finish_forgetting`."""
    number = layout.number()
    accounts = layout.apply_state(layout.manifest(number)).accounts if number else {}
    known = read_forgotten(layout)
    write_forgotten(layout, forget_more(known, accounts.values(), layout.root, jobs=jobs, people=people))
    return finish_forgetting(layout, check=check)


def finish_forgetting(layout: Layout, *, check: Callable[[], None]) -> Erasure:
    """Erase what is to be forgotten, if that is under way; the lake is held, and what killed runs left is swept away.

    Args:
        layout: the lake, in this format.
        check: raises where the lake is another run's by now.

    Raises:
        LakeError: the current snapshot cannot be read; what is to be forgotten is noted, and a repair finishes it.
    """
    forgotten = read_forgotten(layout)
    if not forgotten.pending:
        return Erasure(layout.number() or 0)
    erasing = _Erasing(layout, forgotten, check)
    build = begin_build(layout)
    done = erasing.rewrite(build)
    for path in disk.list_folder(layout.staging):
        if path != build:
            disk.remove_tree(path)
    strip_beside(layout, forgotten)
    sweep_objects(layout, check)
    disk.sync_folder(layout.objects if layout.objects.is_dir() else layout.own)
    disk.remove_tree(build)
    check()
    write_forgotten(layout, forgotten.settle())
    return done


@dataclass(slots=True)
class _Changed:
    """A file of a snapshot as it is to be: its entry, the rows that went from it, and how many say less."""

    entry: FileEntry
    lost: list[JobKey] = field(default_factory=list)
    blanked: int = 0


class _Erasing:
    """A lake on its way to forget; objects that several snapshots share are searched once."""

    def __init__(self, layout: Layout, forgotten: Forgotten, check: Callable[[], None]) -> None:
        self._layout = layout
        self._forgotten = forgotten
        self._check = check
        self._searched: dict[str, _Changed | None] = {}

    def rewrite(self, build: Path) -> Erasure:
        """Write what is to be written anew: objects into this folder and then in their place, and what names them."""
        layout, current = self._layout, self._layout.number()
        plans = {number: self._plan(number, build) for number in layout.numbers()}
        dropped = tuple(number for number, plan in plans.items() if plan is None)
        if current is not None and plans.get(current) is None:
            layout.manifest(current)  # says what is wrong with it, if it can
            raise LakeError(
                f"a file of snapshot {current} of {layout.root} is missing or not as it was written: it cannot be searched. "
                f"What is to be forgotten is noted; run: pleo-extract repair {layout.root}"
            )
        place_objects(layout, build)
        self._rewrite_state(current, plans)
        rewritten = 0
        for number, plan in plans.items():
            self._check()
            if plan is None:
                disk.remove_file(layout.manifest_file(number))
            elif self._rewrite_manifest(*plan):
                rewritten += 1
        if layout.snapshots.is_dir():
            disk.sync_folder(layout.snapshots)
        mine = plans.get(current) if current is not None else None
        if current is None or mine is None:
            return Erasure(0, rewritten=rewritten, dropped=dropped)
        show_months(layout, layout.manifest(current), check=self._check)
        changes = mine[1]
        return Erasure(
            current,
            removed=sum(len(each.lost) for each in changes),
            blanked=sum(each.blanked for each in changes),
            rewritten=rewritten,
            dropped=dropped,
        )

    def _plan(self, number: int, build: Path) -> tuple[Manifest, list[_Changed]] | None:
        """The manifest of a snapshot and its files as they are to be; None where they cannot be searched."""
        try:
            manifest = self._layout.manifest(number)
        except LakeError:
            return None
        changes = []
        for entry in manifest.files:
            if entry.object not in self._searched:
                self._searched[entry.object] = self._search(number, entry, build)
            changed = self._searched[entry.object]
            if changed is None:
                return None
            found = changed.entry
            same = msgspec.structs.replace(found, path=entry.path)
            changes.append(_Changed(same, changed.lost, changed.blanked))
        return manifest, changes

    def _search(self, number: int, entry: FileEntry, build: Path) -> _Changed | None:
        """A file as it is to be, written if it holds what is to be forgotten; None where it is not as it was written."""
        self._check()
        try:
            data = disk.read_file(self._layout.path_of(number, entry))
        except LakeError:
            return None
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            return None
        stripped = self._forgotten.strip_rows(pl.read_parquet(io.BytesIO(data)))
        if not stripped.lost and not stripped.blanked:
            return _Changed(entry)
        buffer = io.BytesIO()
        stripped.rows.write_parquet(buffer, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
        data = buffer.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        name = name_object(entry.month, sha256)
        if not (build / name).exists():
            disk.write_file(build / name, data, read_only=True)
        anew = msgspec.structs.replace(
            entry, rows=stripped.rows.height, bytes=len(data), sha256=sha256, object=name
        )
        return _Changed(anew, stripped.lost, stripped.blanked)

    def _rewrite_manifest(self, manifest: Manifest, changes: list[_Changed]) -> bool:
        """Write a manifest anew where it says or names what is to be forgotten; returns whether it did."""
        files = [each.entry for each in changes]
        stripped = msgspec.structs.replace(
            manifest,
            files=files,
            rows=sum(entry.rows for entry in files),
            receipt=self._forgotten.strip_json(manifest.receipt),
            accounts=self._strip_accounts(manifest.accounts, changes),
        )
        if stripped == manifest:
            return False
        write_manifest(self._layout, stripped, check=self._check)
        return True

    def _rewrite_state(
        self, current: int | None, plans: Mapping[int, tuple[Manifest, list[_Changed]] | None]
    ) -> None:
        """What runs have learned since the current snapshot; a state that nobody will read again goes."""
        path = self._layout.state
        if not path.exists():
            return
        try:
            state = strict.decode(disk.read_file(path), State)
        except _IGNORED:
            state = None
        plan = plans.get(current) if current is not None else None
        if state is None or plan is None or state.snapshot != current:
            disk.remove_file(path)
            return
        stripped = msgspec.structs.replace(
            state,
            receipt=self._forgotten.strip_json(state.receipt),
            accounts=self._strip_accounts(state.accounts, plan[1]),
        )
        if stripped != state:
            disk.replace_file(path, strict.encode(stripped), check=self._check)

    def _strip_accounts(
        self, accounts: Mapping[AccountKey, SyncState], changes: Collection[_Changed]
    ) -> dict[AccountKey, SyncState]:
        lost = [pair for each in changes for pair in each.lost]
        return strip_accounts(self._forgotten, accounts, lost, blanked=any(each.blanked for each in changes))


def strip_accounts(
    forgotten: Forgotten, accounts: Mapping[AccountKey, SyncState], lost: Iterable[JobKey], *, blanked: bool
) -> dict[AccountKey, SyncState]:
    """Return the states of accounts without what is forgotten; the jobs of each that were lost still count."""
    by_company: dict[str, set[str]] = {"*": set()}
    for company, job in lost:
        by_company.setdefault(company, set()).add(job)
        by_company["*"].add(job)
    return {
        key: forgotten.strip_account(account, by_company.get(key.company, ()), blanked=blanked)
        for key, account in accounts.items()
    }


def strip_beside(layout: Layout, forgotten: Forgotten) -> None:
    """Strip what is kept beside the snapshots: how the last run ended, rejected rows, what the catalogue reads, strays."""
    if layout.last_run.exists():
        _strip_last_run(layout, forgotten)
    for path in disk.list_folder(layout.rejected):
        if disk.is_plain(path):
            _strip_rejected(path, forgotten)
    for name in ("now.csv", "vanished.csv"):
        if disk.is_plain(path := layout.own / name):
            _strip_lines(path, forgotten)
    for path in disk.list_folder(layout.own / "strays"):
        if not disk.is_plain(path) or _may_hold(path, forgotten):
            disk.remove_tree(path)


def _strip_last_run(layout: Layout, forgotten: Forgotten) -> None:
    record = read_last_run(layout)
    if record is None:  # it is broken, and may say anything
        disk.remove_file(layout.last_run)
        return
    stripped = msgspec.structs.replace(
        record,
        error=forgotten.strip_text(record.error) if record.error else record.error,
        receipt=forgotten.strip_json(record.receipt),
        failed=forgotten.strip_json(record.failed),
    )
    if stripped != record:
        disk.replace_file(layout.last_run, strict.encode(stripped))


def _strip_rejected(path: Path, forgotten: Forgotten) -> None:
    """A file of rejected rows; a line that is none of ours goes, since it may hold anything."""
    data, rows = disk.read_file(path), []
    for line in data.splitlines():
        try:
            said = strict.decode(line, _Line)
        except strict.Malformed:
            continue
        rows.append(Rejected(said.page, said.path, said.reason, said.row.encode()))
    kept, _ = forgotten.strip_rejected(rows)
    if not kept:
        disk.remove_file(path)
    elif (stripped := encode_rejected(kept)) != data:
        disk.replace_file(path, stripped, private=True)


def _strip_lines(path: Path, forgotten: Forgotten) -> None:
    text = disk.read_file(path).decode("utf-8", "replace")
    kept = "".join(line for line in text.splitlines(keepends=True) if forgotten.strip_text(line) == line)
    if kept != text:
        disk.replace_file(path, kept.encode())


def _may_hold(path: Path, forgotten: Forgotten) -> bool:
    """Whether a file that is not the lake's may hold what is to be forgotten: it does, or it cannot be searched."""
    try:
        stripped = forgotten.strip_rows(pl.read_parquet(io.BytesIO(disk.read_file(path))))
    except (*UNREADABLE, LakeError):
        return True
    return bool(stripped.lost or stripped.blanked)
