"""From staging to a new snapshot: months merged, unchanged ones linked, all synced, then the pointer swapped.

Order, so that power may fail at any point: data synced, renamed, folders synced, manifest, pointer. Whatever lies
beyond the pointer was never published; the next run sweeps it away.
"""

from __future__ import annotations

import hashlib
import io
import logging
import secrets
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from polars.exceptions import PolarsError
from polars.io.plugins import register_io_source

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.errors import LakeError, LakeLocked, StorageError
from pleo_extract.lake import disk
from pleo_extract.lake.layout import FORMAT, MOST_SNAPSHOTS, FileEntry, Layout, Manifest, Snapshot
from pleo_extract.lake.merging import Merge
from pleo_extract.lake.staging import KEEP_STAGED
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import polars as pl

    from pleo_extract.lake.staging import Staging
    from pleo_extract.refresh import Account

    Tell = Callable[[Manifest, Manifest | None, list[str]], tuple[dict[str, Any], dict[str, Account]]]
    """What a run says of the state that is about to be published, its base and the months written: its receipt, and
    the state of its accounts. Asked again, with another base, where another run was first."""
    Shield = Callable[[], AbstractContextManager[None]]
    """Holds signals back for a moment."""

__all__ = [
    "KEEP",
    "KEEP_COUNT",
    "building",
    "commit",
    "finish_first",
    "place",
    "place_link",
    "prune",
    "publish",
    "sweep",
]

KEEP: Final = timedelta(hours=24)
"""How long a snapshot stays after it was replaced, so that readers may finish."""
KEEP_COUNT: Final = 1_000
"""How many snapshots stay at most."""
ROW_GROUP: Final = 50_000
SLACK: Final = timedelta(minutes=5)
"""By how much clocks of two machines may differ."""

_log = logging.getLogger(__name__)


def publish(
    layout: Layout, stagings: Sequence[Staging], base: Manifest | None, *, server: str
) -> tuple[Manifest, list[str]]:
    """Build a new snapshot of the lake and what is staged, unless nothing changed. `commit` makes it current.

    Returns:
        The manifest of the state to commit (the base where nothing changed), and the months that were written.

    Raises:
        LakeError: a file of the base is not as it was written.
    """
    source = layout.snapshot_folder(base.snapshot) if base else layout.root
    is_older = base is not None and base.format < FORMAT

    def read(entry: FileEntry) -> bytes:
        return _read_checked(source, entry)

    merge = Merge(layout.staging, stagings, base.files if base else (), read, anew=is_older)
    first = next((month for month in merge.months if _is_changed(merge, month)), None)
    if base is not None and first is None and not is_older:
        return msgspec.structs.replace(base, server=server), []
    with building(layout) as build:
        return _build(layout, build, merge, base, first=first, server=server)


def _is_changed(merge: Merge, month: str) -> bool:
    """Whether a month is to be written; one of several files, as a repair may leave it, is made one again."""
    return len(merge.old.get(month, ())) > 1 or merge.is_changed(month)


def _read_checked(source: Path, entry: FileEntry) -> bytes:
    """The bytes of the base's file, as it was written."""
    data = disk.read_file(source / entry.path)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise LakeError(
            f"{source / entry.path} changed since it was written; run: pleo-extract repair {source.parent.parent}"
        )
    return data


@contextmanager
def building(layout: Layout) -> Iterator[Path]:
    """A folder to build a snapshot in, gone again if that fails."""
    disk.make_folder(layout.staging, private=True)
    build = layout.staging / f"build-{secrets.token_hex(4)}"
    disk.make_folder(build)
    try:
        yield build
    except BaseException:
        with suppress(StorageError):  # on a full disk it would be in the way
            disk.remove_tree(build)
        raise


def _build(
    layout: Layout, build: Path, merge: Merge, base: Manifest | None, *, first: str | None, server: str
) -> tuple[Manifest, list[str]]:
    source = layout.snapshot_folder(base.snapshot) if base else layout.root
    entries: list[FileEntry] = []
    written: list[str] = []
    for month in merge.months:
        if first is not None and (month == first or (month > first and _is_changed(merge, month))):
            entry = _write_month(build, month, merge.pieces(month))
            if entry.rows:
                entries.append(entry)
            else:  # all its jobs have moved to other months
                disk.remove_tree((build / entry.path).parent)
            written.append(month)
        else:
            (entry,) = merge.old[month]
            place_link(source, build, entry)
            entries.append(entry)
    manifest = Manifest(
        format=FORMAT,
        snapshot=(base.snapshot if base else 0) + 1,
        server=server,
        made_at=datetime.now(UTC),
        rows=sum(entry.rows for entry in entries),
        files=entries,
        library=__version__,
        accounts=base.accounts if base else {},
    )
    place(layout, build, manifest.snapshot)
    return manifest, written


def place(layout: Layout, build: Path, number: int) -> None:
    """Make what was built snapshot `number`, durably; nobody reads it before the pointer leads there.

    Raises:
        LakeError: there is no such number any more.
    """
    if number > MOST_SNAPSHOTS:
        raise LakeError(f"{layout.root} has no number left for a snapshot; merge it into a new lake")
    disk.sync_folder(build)
    disk.make_folder(layout.snapshots)
    disk.rename(build, layout.snapshot_folder(number))
    disk.sync_folder(layout.snapshots)
    disk.sync_folder(build.parent)


def commit(
    layout: Layout,
    manifest: Manifest,
    base: Manifest | None,
    *,
    receipt: dict[str, Any],
    accounts: dict[str, Account],
    still_held: Callable[[], None],
) -> Manifest:
    """Write the manifest with this run's receipt and state, and point to its snapshot: now it is published.

    Raises:
        LakeLocked: another run has taken the lake, or published since `base` was read; this one publishes nothing.
    """

    def check() -> None:
        still_held()
        current = layout.snapshot()
        if (current.number if current else 0) != (base.snapshot if base else 0):
            raise LakeLocked(
                f"another run has published to {layout.root} meanwhile, although this one held the lock; run again"
            )

    manifest = msgspec.structs.replace(manifest, receipt=receipt, accounts={**manifest.accounts, **accounts})
    disk.make_folder(layout.meta, private=True)
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    disk.replace_file(layout.manifest_file(manifest.snapshot), data, check=check)
    if base is None or base.snapshot != manifest.snapshot:
        disk.swap_link(layout.current, f"snapshots/{manifest.snapshot:06d}", check=check)
    return manifest


def finish_first(layout: Layout) -> Snapshot | None:
    """The current snapshot. A first one that lacks nothing but the pointer, since its run was killed, is given it."""
    snapshot = layout.snapshot()
    if snapshot is None and layout.numbers() == [1] and layout.manifest_file(1).exists():
        disk.swap_link(layout.current, f"snapshots/{1:06d}")
        return layout.snapshot()
    return snapshot


def sweep(layout: Layout, current: Snapshot | None, *, now: datetime) -> None:
    """Remove what a run left that was killed: snapshots and manifests beyond the pointer, staging that nobody resumed for a month."""
    newest = current.number if current else 0
    numbers = layout.numbers()
    for number in numbers:
        if number > newest:
            _discard(layout, number)
    for number in layout.manifest_numbers():
        if number > newest or number not in numbers:
            disk.remove_tree(layout.manifest_file(number))
    for folder in disk.list_folder(layout.staging):
        age = now.timestamp() - folder.lstat().st_mtime
        is_left = folder.name.startswith(("build-", "gone-"))
        if is_left or age > KEEP_STAGED.total_seconds():
            disk.remove_tree(folder)


def prune(
    layout: Layout, current: int, *, now: datetime, keep: timedelta = KEEP, count: int = KEEP_COUNT
) -> list[int]:
    """Remove snapshots that were replaced longer ago than `keep`, and all but the newest `count`; returns their numbers.

    A clock that runs ahead makes everything old at once, and the newest manifest says what that clock says. So an age
    is taken between manifests: from the one that replaced a snapshot to the last but one. An instant in the future
    says that a clock was wrong, and not which: then nothing is removed for its age.
    """
    numbers = [n for n in layout.numbers() if n <= current]
    gone = set(numbers[: max(0, len(numbers) - max(1, count))])
    made: dict[int, datetime] = {}
    for number in numbers:
        with suppress(LakeError):  # a broken manifest does not say when: no earlier than its successor
            made[number] = layout.made_at(number)
    if ahead := [number for number, made_at in made.items() if made_at > now + SLACK]:
        _log.warning(
            "snapshot %d of %s says that it was made at %s, which is in the future: a clock was wrong. Snapshots are "
            "kept, whatever their age; a dump with --keep %s removes them",
            ahead[-1],
            layout.root,
            f"{made[ahead[-1]]:%Y-%m-%d %H:%M} UTC",
            len(numbers) // 2 or 1,
        )
    else:
        gone |= _find_old(numbers, made, now=now, keep=keep)
    for number in sorted(gone):
        _discard(layout, number)
    return sorted(gone)


def _find_old(
    numbers: Sequence[int], made: dict[int, datetime], *, now: datetime, keep: timedelta
) -> set[int]:
    """Those of these snapshots, the current one last, that were replaced so long before the last but one was made."""
    earlier = [made[number] for number in numbers[:-1] if number in made]
    until = min([now, *earlier[-1:]]) if keep else now
    old, replaced_at = set(), now
    for number in reversed(numbers):
        if number != numbers[-1] and until - replaced_at >= keep:
            old.add(number)
        replaced_at = made.get(number, replaced_at)
    return old


def _discard(layout: Layout, number: int) -> None:
    """Take a snapshot away at once, and then apart: nobody finds half of one."""
    disk.make_folder(layout.staging, private=True)
    gone = layout.staging / f"gone-{number:06d}"
    disk.remove_tree(gone)
    disk.rename(layout.snapshot_folder(number), gone)
    disk.sync_folder(layout.snapshots)
    disk.remove_file(layout.manifest_file(number))
    disk.remove_tree(gone)


def place_link(source: Path, build: Path, entry: FileEntry) -> None:
    """A file of an earlier snapshot in the one that is built.

    Raises:
        LakeError: it is not as it was written, as far as its size tells.
    """
    if disk.size_of(source / entry.path) != entry.bytes:
        raise LakeError(
            f"{source / entry.path} changed since it was written; run: pleo-extract repair {source.parent.parent}"
        )
    target = build / entry.path
    disk.make_folder(target.parent)
    disk.link_file(source / entry.path, target)
    disk.sync_folder(target.parent)


def _write_month(build: Path, month: str, pieces: Iterator[pl.DataFrame]) -> FileEntry:
    path = f"created_month={month}/part-0.parquet"
    buffer, rows = io.BytesIO(), 0
    failures: list[BaseException] = []

    def give(columns: list[str] | None, *_: object) -> Iterator[pl.DataFrame]:
        nonlocal rows
        try:
            for piece in pieces:
                rows += piece.height
                yield piece if columns is None else piece.select(columns)
        except BaseException as exc:
            failures.append(exc)
            raise

    try:
        register_io_source(give, schema=POLARS_SCHEMA).sink_parquet(
            buffer, compression="zstd", compression_level=1, row_group_size=ROW_GROUP, maintain_order=True
        )
    except PolarsError:
        if failures:  # polars has made an error of its own of it
            raise failures[0] from None
        raise
    data = buffer.getbuffer()
    target = build / path
    disk.make_folder(target.parent)
    disk.write_file(target, data)
    disk.sync_folder(target.parent)
    return FileEntry(path=path, rows=rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
