"""From staging to a new snapshot: changed months become objects, all synced, then the pointer is replaced.

Order, so that power may fail at any point: objects synced, renamed, their folder synced, manifest, pointer; then the
visible months, see `visible`. Whatever lies beyond the pointer was never published; the next run sweeps it away.
"""

from __future__ import annotations

import hashlib
import io
import logging
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from polars.exceptions import PolarsError
from polars.io.plugins import register_io_source

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.errors import LakeError, LakeLocked, PleoExtractError
from pleo_extract.lake import disk, strict
from pleo_extract.lake.layout import (
    FORMAT,
    MOST_SNAPSHOTS,
    FileEntry,
    Layout,
    Manifest,
    State,
    name_object,
)
from pleo_extract.lake.merging import Merge
from pleo_extract.lake.objects import place_objects, sweep_objects
from pleo_extract.lake.staging import KEEP_STAGED
from pleo_extract.lake.visible import show_months
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
    "Keep",
    "building",
    "commit",
    "finish_first",
    "point_to",
    "prune",
    "publish",
    "sweep",
    "write_manifest",
]

KEEP: Final = timedelta(hours=24)
"""How long a snapshot stays after it was replaced, so that readers may finish."""
KEEP_ALL: Final = timedelta(hours=48)
"""How long every snapshot stays that is kept at all; of older ones the last of each day stays."""
KEEP_COUNT: Final = 1_000
"""How many snapshots stay at most."""
ROW_GROUP: Final = 50_000
SLACK: Final = timedelta(minutes=5)
"""By how much clocks of two machines may differ."""

_log = logging.getLogger(__name__)


def publish(
    layout: Layout, build: Path, stagings: Sequence[Staging], base: Manifest | None, *, server: str
) -> tuple[Manifest, list[str]]:
    """Write the months of a new snapshot of the lake and what is staged, unless nothing changed. `commit` makes it current.

    Args:
        layout: the lake.
        build: from `building`.
        stagings: what is staged, in the order it was fetched.
        base: the state to begin with.
        server: whose jobs these are.

    Returns:
        The manifest of the state to commit (the base where nothing changed), and the months that were written.

    Raises:
        LakeError: a file of the base is not as it was written.
    """
    is_older = base is not None and base.format < FORMAT

    def read(entry: FileEntry) -> bytes:
        return _read_checked(layout, base.snapshot if base else 0, entry)

    merge = Merge(layout.staging, stagings, base.files if base else (), read, anew=is_older)
    first = next((month for month in merge.months if _is_changed(merge, month)), None)
    if base is not None and first is None and not is_older:
        return msgspec.structs.replace(base, server=server), []
    disk.make_folder(build)
    return _build(layout, build, merge, base, first=first, server=server)


def _is_changed(merge: Merge, month: str) -> bool:
    """Whether a month is to be written; one of several files, as a repair may leave it, is made one again."""
    return len(merge.old.get(month, ())) > 1 or merge.is_changed(month)


def _read_checked(layout: Layout, snapshot: int, entry: FileEntry) -> bytes:
    """The bytes of the base's file, as it was written."""
    path = layout.path_of(snapshot, entry)
    data = disk.read_file(path)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise LakeError(f"{path} changed since it was written; run: pleo-extract repair {layout.root}")
    return data


@contextmanager
def building(layout: Layout, still_held: Callable[[], None]) -> Iterator[Path]:
    """The name of a folder to write objects in before they get their names, gone again when all is published.

    One that is still there tells the next run that this one was killed, and may have left objects that nothing names.
    """
    disk.make_folder(layout.staging, private=True)
    build = layout.staging / f"build-{secrets.token_hex(4)}"
    try:
        yield build
    except BaseException:
        if build.exists():
            with suppress(PleoExtractError):  # on a full disk they would be in the way
                still_held()  # else what nothing names may be another run's
                sweep_objects(layout, still_held)
                disk.remove_tree(build)
        raise
    disk.remove_tree(build)


def _build(
    layout: Layout, build: Path, merge: Merge, base: Manifest | None, *, first: str | None, server: str
) -> tuple[Manifest, list[str]]:
    entries: list[FileEntry] = []
    written: list[str] = []
    for month in merge.months:
        if first is not None and (month == first or (month > first and _is_changed(merge, month))):
            entries.append(_write_month(build, month, merge.pieces(month)))
            written.append(month)
        else:
            (entry,) = merge.old[month]
            _require_size(layout, base, entry)
            entries.append(entry)
    entries = [entry for entry in entries if entry.rows or _is_needed(layout, entry)]
    manifest = Manifest(
        format=FORMAT,
        snapshot=(base.snapshot if base else 0) + 1,
        server=server,
        made_at=datetime.now(UTC),
        rows=sum(entry.rows for entry in entries),
        files=entries,
        library=__version__,
        accounts=base.accounts if base else {},
        leaving=sorted(merge.leaving & set(written)),
    )
    if manifest.snapshot > MOST_SNAPSHOTS:
        raise LakeError(f"{layout.root} has no number left for a snapshot; merge it into a new lake")
    place_objects(layout, build)
    return manifest, written


def _is_needed(layout: Layout, entry: FileEntry) -> bool:
    """Whether readers of the folder may still have begun with rows of this month, all of which have moved since."""
    for number in reversed(layout.numbers()):
        with suppress(LakeError):
            if any(each.month == entry.month and each.rows for each in layout.manifest(number).files):
                return True
    return False


def _require_size(layout: Layout, base: Manifest | None, entry: FileEntry) -> None:
    """A file that stays as it is must be there.

    Raises:
        LakeError: it is not as it was written, as far as its size tells.
    """
    path = layout.path_of(base.snapshot if base else 0, entry)
    if disk.size_of(path) != entry.bytes:
        raise LakeError(f"{path} changed since it was written; run: pleo-extract repair {layout.root}")


def commit(
    layout: Layout,
    manifest: Manifest,
    base: Manifest | None,
    *,
    receipt: dict[str, Any],
    accounts: dict[str, Account],
    still_held: Callable[[], None],
) -> Manifest:
    """Write the manifest with this run's receipt and state, and point to it: now it is published.

    Where nothing is new there is no snapshot: what the run has learned is kept beside the current one.

    Raises:
        LakeLocked: another run has taken the lake, or published since `base` was read; this one publishes nothing.
    """

    def check() -> None:
        still_held()
        if (layout.number() or 0) != (base.snapshot if base else 0):
            raise LakeLocked(
                f"another run has published to {layout.root} meanwhile, although this one held the lock; run again"
            )

    manifest = msgspec.structs.replace(manifest, receipt=receipt, accounts={**manifest.accounts, **accounts})
    if base is not None and base.snapshot == manifest.snapshot:
        state = State(
            snapshot=manifest.snapshot,
            server=manifest.server,
            receipt=manifest.receipt,
            accounts=manifest.accounts,
        )
        disk.replace_file(layout.state, strict.encode(state), check=check)
        return manifest
    disk.make_folder(layout.snapshots)
    write_manifest(layout, manifest, check=check)
    point_to(layout, manifest.snapshot, check=check)
    show_months(layout, manifest, check=still_held)
    return manifest


def write_manifest(layout: Layout, manifest: Manifest, *, check: Callable[[], None] | None = None) -> None:
    """Write a manifest in place of the one of its number."""
    disk.replace_file(layout.manifest_file(manifest.snapshot), strict.encode(manifest), check=check)


def point_to(layout: Layout, number: int, *, check: Callable[[], None] | None = None) -> None:
    """Make this snapshot the current one."""
    disk.replace_file(layout.current, f"{number}\n".encode(), check=check)


def finish_first(layout: Layout) -> int | None:
    """The current snapshot. A first one that lacks nothing but the pointer, since its run was killed, is given it."""
    number = layout.number()
    if number is None and layout.numbers() == [1]:
        with suppress(LakeError):
            manifest = layout.manifest(1)
            if all(disk.size_of(layout.path_of(1, entry)) == entry.bytes for entry in manifest.files):
                point_to(layout, 1)
                return 1
    return number


def sweep(
    layout: Layout, current: int | None, *, now: datetime, check: Callable[[], None] = lambda: None
) -> None:
    """Remove what a run left that was killed: manifests and objects beyond the pointer, staging that nobody resumed for a month.

    `check` raises where the lake is another run's by now.
    """
    newest = current or 0
    beyond = [number for number in layout.numbers() if number > newest]
    for number in beyond:
        check()
        disk.remove_file(layout.manifest_file(number))
    staged = disk.list_folder(layout.staging)
    builds = [folder for folder in staged if folder.name.startswith("build-")]
    if beyond or builds:
        sweep_objects(layout, check)
    for folder in staged:
        if folder in builds or now.timestamp() - folder.lstat().st_mtime > KEEP_STAGED.total_seconds():
            disk.remove_tree(folder)


@dataclass(frozen=True, slots=True)
class Keep:
    """Which snapshots stay beside the current one.

    Attributes:
        span: how long each stays after it was replaced. count: how many stay at most.
        every: whether all of them stay so long, and not, of those replaced more than `KEEP_ALL` ago, the last of each day.
    """

    span: timedelta = KEEP
    count: int = KEEP_COUNT
    every: bool = False


def prune(
    layout: Layout,
    current: int,
    keep: Keep = Keep(),
    *,
    now: datetime,
    check: Callable[[], None] = lambda: None,
) -> list[int]:
    """Remove the snapshots that are not to be kept, as long as `check` lets it; returns their numbers.

    A clock that runs ahead makes everything old at once, and the newest manifest says what that clock says. So an age
    is taken between manifests: from the one that replaced a snapshot to the last but one. An instant in the future
    says that a clock was wrong, and not which: then nothing is removed for its age.
    """
    numbers = [n for n in layout.numbers() if n <= current]
    gone = set(numbers[: max(0, len(numbers) - max(1, keep.count))])
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
        gone |= _find_old(numbers, made, keep, now=now)
    if gone:
        with building(layout, check) as mark:  # so that what a killed one has left is found
            disk.make_folder(mark)
            for number in sorted(gone):
                check()
                disk.remove_file(layout.manifest_file(number))
            disk.sync_folder(layout.snapshots)
            sweep_objects(layout, check)
    return sorted(gone)


def _find_old(numbers: Sequence[int], made: dict[int, datetime], keep: Keep, *, now: datetime) -> set[int]:
    """Those of these snapshots, the current one last, that were replaced so long before the last but one was made."""
    earlier = [made[number] for number in numbers[:-1] if number in made]
    until = min([now, *earlier[-1:]]) if keep.span else now
    old, replaced_at, day = set(), now, None
    for number in reversed(numbers):
        age, made_at = until - replaced_at, made.get(number, replaced_at)
        is_thinned = age >= KEEP_ALL and made_at.date() == day and not keep.every
        if number != numbers[-1] and (age >= keep.span or is_thinned):
            old.add(number)
        replaced_at, day = made_at, made_at.date()
    return old


def _write_month(build: Path, month: str, pieces: Iterator[pl.DataFrame]) -> FileEntry:
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
    sha256 = hashlib.sha256(data).hexdigest()
    name = name_object(month, sha256)
    disk.write_file(build / name, data, fixed=True)
    path = f"created_month={month}/part-0.parquet"
    return FileEntry(path=path, rows=rows, bytes=len(data), sha256=sha256, object=name)
