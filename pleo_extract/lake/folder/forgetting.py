"""Erase jobs and people from a folder: from every snapshot, which keeps its number, and from all other files of the lake.

Theory of operation. The ids are written to `_lake/forgotten.json` first, as salted hashes, with `pending` set. From then
on every run that writes finishes the erasure before anything else, so a kill at any step loses nothing. The steps are
ordered so that a reader sees the old rows or the new ones:

    1  write new objects, without the rows of forgotten jobs and without what names forgotten people
    2  rewrite `state.json`, then the manifests, one by one, under their own numbers
    3  update the visible months
    4  remove staging, strip the records beside the snapshots, remove the objects that no manifest names any longer
    5  clear `pending`

The new objects are computed from the old ones whenever a run repeats these steps, and objects are named by their hash: a
repetition writes the same files. A reader that opened a snapshot before may find a file missing, and opens it again.

A snapshot that cannot be read cannot be searched. If it is the current one, it must be repaired first; an older one is
removed.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from pleo_extract.core.decode import Rejected
from pleo_extract.errors import LakeError
from pleo_extract.lake import disk, strict
from pleo_extract.lake.folder.objects import begin_build, encode_rows, place_objects, sweep_objects
from pleo_extract.lake.folder.publish import write_manifest
from pleo_extract.lake.folder.visible import show_months
from pleo_extract.lake.forgotten import forget_more, read_forgotten, write_forgotten
from pleo_extract.lake.layout import UNREADABLE, State, name_object
from pleo_extract.lake.record import read_last_run
from pleo_extract.lake.rejects import encode_rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from pleo_extract.core.state import AccountKey, JobKey, SyncState
    from pleo_extract.lake.forgotten import Forgotten
    from pleo_extract.lake.layout import FileEntry, Layout, Manifest

__all__ = ["Erasure", "finish_forgetting", "forget_rows", "strip_accounts", "strip_other_files"]


@dataclass(frozen=True, slots=True)
class Erasure:
    """The result of `forget`.

    Attributes:
        snapshot: the number of the current snapshot; 0 for none.
        removed: rows that were removed from it.
        blanked: rows of it that stay, with columns set to null or ids replaced in texts.
        rewritten: how many snapshots were rewritten under their own numbers.
        dropped: the numbers of older snapshots that could not be read and were removed.
        gone: whether older snapshots can no longer be read, which is so for a Delta table.
    """

    snapshot: int = 0
    removed: int = 0
    blanked: int = 0
    rewritten: int = 0
    dropped: tuple[int, ...] = ()
    gone: bool = False


class _RejectedLine(msgspec.Struct):
    """One line of a file of rejected rows."""

    page: int
    path: str
    reason: str
    row: str


def forget_rows(
    layout: Layout, jobs: Collection[str], people: Collection[str], *, check: Callable[[], None]
) -> Erasure:
    """Record that these jobs and people are forgotten, and erase them; see `finish_forgetting`."""
    number = layout.number()
    accounts = layout.apply_state(layout.manifest(number)).accounts if number else {}
    known = read_forgotten(layout)
    write_forgotten(layout, forget_more(known, accounts.values(), layout.root, jobs=jobs, people=people))
    return finish_forgetting(layout, check=check)


def finish_forgetting(layout: Layout, *, check: Callable[[], None]) -> Erasure:
    """Complete a pending erasure; do nothing where none is pending. The lake is locked, and `sweep` has run.

    Args:
        layout: the lake, in this format.
        check: raises LakeLocked when another run has taken the lake.

    Raises:
        LakeError: the current snapshot cannot be read. The erasure stays pending, and a repair finishes it.
    """
    forgotten = read_forgotten(layout)
    if not forgotten.pending:
        return Erasure(layout.number() or 0)
    build = begin_build(layout)
    done = _Eraser(layout, forgotten, check, build).rewrite()
    for path in disk.list_folder(layout.staging):
        if path != build:
            disk.remove_tree(path)
    strip_other_files(layout, forgotten)
    sweep_objects(layout, check)
    disk.sync_folder(layout.objects if layout.objects.is_dir() else layout.own)
    disk.remove_tree(build)
    check()
    write_forgotten(layout, forgotten.settle())
    return done


@dataclass(slots=True)
class _StrippedFile:
    """A file of a snapshot after the erasure: its new entry, the jobs removed, and how many rows were blanked."""

    entry: FileEntry
    lost: list[JobKey] = field(default_factory=list)
    blanked: int = 0


class _Eraser:
    """An erasure under way; it remembers each object's outcome, since snapshots share most of their objects."""

    def __init__(self, layout: Layout, forgotten: Forgotten, check: Callable[[], None], build: Path) -> None:
        self._layout = layout
        self._forgotten = forgotten
        self._check = check
        self._build = build
        self._stripped: dict[str, _StrippedFile | None] = {}

    def rewrite(self) -> Erasure:
        """Write the new objects, then the state and the manifests that name them, then the visible months."""
        layout, current = self._layout, self._layout.number()
        plans = {number: self._plan(number) for number in layout.numbers()}
        dropped = tuple(number for number, plan in plans.items() if plan is None)
        if current is not None and plans.get(current) is None:
            layout.manifest(current)  # if the manifest is at fault, this raises the exact reason
            raise LakeError(
                f"a file of snapshot {current} of {layout.root} is missing or damaged and cannot be searched. "
                f"Nothing was erased yet; run: pleo-extract repair {layout.root}, which finishes the erasure"
            )
        place_objects(layout, self._build)
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
        plan = plans.get(current) if current is not None else None
        if current is None or plan is None:
            return Erasure(0, rewritten=rewritten, dropped=dropped)
        show_months(layout, layout.manifest(current), check=self._check)
        changes = plan[1]
        return Erasure(
            current,
            removed=sum(len(each.lost) for each in changes),
            blanked=sum(each.blanked for each in changes),
            rewritten=rewritten,
            dropped=dropped,
        )

    def _plan(self, number: int) -> tuple[Manifest, list[_StrippedFile]] | None:
        """Return the old manifest of a snapshot and its new files; None where a file cannot be searched."""
        try:
            manifest = self._layout.manifest(number)
        except LakeError:
            return None
        changes = []
        for entry in manifest.files:
            if entry.object not in self._stripped:
                self._stripped[entry.object] = self._strip_file(number, entry)
            stripped = self._stripped[entry.object]
            if stripped is None:
                return None
            renamed = msgspec.structs.replace(stripped.entry, path=entry.path)
            changes.append(_StrippedFile(renamed, stripped.lost, stripped.blanked))
        return manifest, changes

    def _strip_file(self, number: int, entry: FileEntry) -> _StrippedFile | None:
        """Return a file without what is forgotten, written if it differs; None where the old one is missing or damaged."""
        self._check()
        try:
            data = disk.read_file(self._layout.path_of(number, entry))
        except LakeError:
            return None
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            return None
        stripped = self._forgotten.strip_rows(pl.read_parquet(io.BytesIO(data)))
        if not stripped.lost and not stripped.blanked:
            return _StrippedFile(entry)
        data, sha256 = encode_rows(stripped.rows)
        name = name_object(entry.month, sha256)
        if not (self._build / name).exists():
            disk.write_file(self._build / name, data, read_only=True)
        new = msgspec.structs.replace(
            entry, rows=stripped.rows.height, bytes=len(data), sha256=sha256, object=name
        )
        return _StrippedFile(new, stripped.lost, stripped.blanked)

    def _rewrite_manifest(self, manifest: Manifest, changes: list[_StrippedFile]) -> bool:
        """Rewrite a manifest if anything in it changes; return whether it did."""
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
        self, current: int | None, plans: Mapping[int, tuple[Manifest, list[_StrippedFile]] | None]
    ) -> None:
        """Strip `state.json`; remove it where it is broken or belongs to another snapshot than the current one."""
        path = self._layout.state
        if not path.exists():
            return
        try:
            state = strict.decode(disk.read_file(path), State)
        except (LakeError, strict.Malformed):
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
        self, accounts: Mapping[AccountKey, SyncState], changes: Collection[_StrippedFile]
    ) -> dict[AccountKey, SyncState]:
        lost = [pair for each in changes for pair in each.lost]
        return strip_accounts(self._forgotten, accounts, lost, blanked=any(each.blanked for each in changes))


def strip_accounts(
    forgotten: Forgotten, accounts: Mapping[AccountKey, SyncState], lost: Iterable[JobKey], *, blanked: bool
) -> dict[AccountKey, SyncState]:
    """Return the sync states of accounts without what is forgotten.

    Args:
        forgotten: what is to be forgotten.
        accounts: the states.
        lost: company and hash of each job whose row was removed; the states keep these, since the server still counts them.
        blanked: whether rows of forgotten people were blanked.
    """
    by_company: dict[str, set[str]] = {"*": set()}
    for company, job in lost:
        by_company.setdefault(company, set()).add(job)
        by_company["*"].add(job)
    return {
        key: forgotten.strip_account(account, by_company.get(key.company, ()), blanked=blanked)
        for key, account in accounts.items()
    }


def strip_other_files(layout: Layout, forgotten: Forgotten) -> None:
    """Strip the files beside the snapshots: the record of the last run, rejected rows, the catalogue's CSV files, strays."""
    if layout.last_run.exists():
        _strip_last_run(layout, forgotten)
    for path in disk.list_folder(layout.rejected):
        if disk.is_plain(path):
            _strip_rejected(path, forgotten)
    for name in ("now.csv", "vanished.csv"):
        if disk.is_plain(path := layout.own / name):
            _strip_csv(path, forgotten)
    for path in disk.list_folder(layout.own / "strays"):
        if not disk.is_plain(path) or _may_contain(path, forgotten):
            disk.remove_tree(path)


def _strip_last_run(layout: Layout, forgotten: Forgotten) -> None:
    record = read_last_run(layout)
    if record is None:  # a broken file cannot be searched
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
    """Strip a file of rejected rows; lines that cannot be decoded are removed, since they cannot be searched."""
    data, rows = disk.read_file(path), []
    for line in data.splitlines():
        try:
            parsed = strict.decode(line, _RejectedLine)
        except strict.Malformed:
            continue
        rows.append(Rejected(parsed.page, parsed.path, parsed.reason, parsed.row.encode()))
    kept, _ = forgotten.strip_rejected(rows)
    if not kept:
        disk.remove_file(path)
    elif (stripped := encode_rejected(kept)) != data:
        disk.replace_file(path, stripped, private=True)


def _strip_csv(path: Path, forgotten: Forgotten) -> None:
    text = disk.read_file(path).decode("utf-8", "replace")
    kept = "".join(line for line in text.splitlines(keepends=True) if forgotten.strip_text(line) == line)
    if kept != text:
        disk.replace_file(path, kept.encode())


def _may_contain(path: Path, forgotten: Forgotten) -> bool:
    """Return whether a stray contains what is to be forgotten, or cannot be searched."""
    try:
        stripped = forgotten.strip_rows(pl.read_parquet(io.BytesIO(disk.read_file(path))))
    except (*UNREADABLE, LakeError):
        return True
    return bool(stripped.lost or stripped.blanked)
