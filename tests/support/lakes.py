"""Small lakes of given jobs, in the form that a dump leaves, and storage calls that fail."""

from __future__ import annotations

import functools
import hashlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from canary import CANARY
from storage_calls import WRITING
from warehouse_jobs import Row, parquet

from pleo_extract import Client, dump_export_jobs
from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.lake import disk
from pleo_extract.lake.layout import FORMAT, FileEntry, Layout, Manifest
from pleo_extract.lake.table import Info
from pleo_extract.sync.publish import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pleo_extract import Receipt
    from pleo_extract.lake.staging import Staging
    from pleo_extract.lake.table import Change, Table
    from pleo_extract.sandbox import Sandbox

__all__ = [
    "SERVER",
    "BareRun",
    "Killed",
    "around_storage",
    "draw_state",
    "dump",
    "killed_at",
    "list_months",
    "lose_month",
    "make_lake",
    "publish_staged",
    "spoil_month",
]

SERVER = "https://sandbox.invalid"


@contextmanager
def around_storage(call: Callable[[str, Callable[[], Any]], Any]) -> Iterator[None]:
    """Replace each storage call by `call(name, go)`: `name` is the function's name, `go()` makes the call."""

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def made(*args: Any, **more: Any) -> Any:
            return call(name, functools.partial(function, *args, **more))

        return made

    before = {name: getattr(disk, name) for name in WRITING}
    for name, function in before.items():
        setattr(disk, name, wrap(name, function))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(disk, name, function)


class Killed(BaseException):
    """Raised in place of a storage call, as if the process had been killed before it."""


@contextmanager
def killed_at(call: int) -> Iterator[list[str]]:
    """Raise Killed at this storage call, counted from 1, and at all later ones; yield the names of the calls."""
    calls: list[str] = []

    def kill(name: str, go: Callable[[], Any]) -> Any:
        calls.append(name)
        if len(calls) >= call:
            raise Killed
        return go()

    with suppress(Killed), around_storage(kill):
        yield calls


@dataclass
class BareRun:
    """A run with an empty receipt, unless one is given."""

    server: str = SERVER
    receipt: Mapping[str, Any] = field(default_factory=dict)
    accounts: Mapping[AccountKey, SyncState] = field(default_factory=dict)

    def build_info(self, _change: Change) -> Info:
        """Return the same info for every change."""
        return Info(self.server, self.receipt, self.accounts)

    def note_committed(self, _change: Change) -> None:
        """Ignore the change."""


def publish_staged(table: Table, *stagings: Staging, run: BareRun | None = None) -> Manifest:
    """Publish staged rows to a table whose lock is held."""
    facts = run or BareRun()
    return publish(table, stagings, facts, server=facts.server)


def dump(lake: Path, sandbox: Sandbox, **options: Any) -> Receipt:
    """Dump the sandbox to a lake."""
    with Client(
        "https://sandbox.invalid", api_key=CANARY, transport=sandbox, in_flight=1, rate=10_000_000
    ) as client:
        return dump_export_jobs(lake, client=client, progress=False, **options)


def make_lake(
    root: Path, rows: Sequence[Row], made_at: datetime, names: Mapping[str, str] | None = None
) -> Path:
    """Write a lake with one snapshot of these jobs; `names` (company by id) makes an account for each company."""
    by_month: dict[str, list[Row]] = {}
    for row in rows:
        by_month.setdefault(f"{row['created_at']:%Y-%m}", []).append(row)
    layout = Layout(root)
    for folder in (layout.objects, layout.snapshots):
        folder.mkdir(parents=True)
    files = [_write_month(layout, month, jobs) for month, jobs in by_month.items()]
    accounts = {
        AccountKey(f"{SERVER} {company}"): SyncState(name=name, verdict="complete", full_at=made_at)
        for company, name in (names or {"*": ""}).items()
    }
    manifest = Manifest(
        format=FORMAT,
        snapshot=1,
        server=SERVER,
        made_at=made_at,
        rows=len(rows),
        files=files,
        library="0",
        accounts=accounts,
    )
    layout.manifest_file(1).write_bytes(msgspec.json.encode(manifest))
    layout.current.write_text("1\n")
    return root


def list_months(lake: Path) -> list[Path]:
    """Return the visible month files, oldest first."""
    return sorted(lake.glob("created_month=*/part-0.parquet"))


def lose_month(visible: Path) -> None:
    """Remove a month's visible file and its object: if only one is missing, the lake repairs it from the other."""
    for path in _names_of(visible):
        path.unlink()


def spoil_month(visible: Path, data: bytes) -> None:
    """Overwrite a month's visible file and its object, which may be two files; both are read-only."""
    for path in _names_of(visible):
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(0o444)


def _names_of(visible: Path) -> tuple[Path, Path]:
    layout = Layout(visible.parent.parent)
    manifest = layout.manifest(layout.number() or 0)
    (name,) = (entry.object for entry in manifest.files if layout.root / entry.path == visible)
    return visible, layout.objects / name


def _write_month(layout: Layout, month: str, jobs: Sequence[Row]) -> FileEntry:
    """Write a month's file as a visible file and an object."""
    visible = layout.root / f"created_month={month}" / "part-0.parquet"
    visible.parent.mkdir()
    parquet(visible, jobs)
    data = visible.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{month}-{sha256}"
    (layout.objects / name).hardlink_to(visible)
    path = visible.relative_to(layout.root).as_posix()
    return FileEntry(path=path, rows=len(jobs), bytes=len(data), sha256=sha256, object=name)


def draw_state(n: int) -> SyncState:
    """Return the state of one company as dumps leave it."""
    start = datetime(2026, 11, 1, tzinfo=UTC)
    created = f"2026-11-{1 + n % 28:02d}T{n % 24:02d}:{n % 60:02d}:17"
    return SyncState(
        verdict="complete",
        order="strict",
        watermark=(created, f"{n * 7919:08x}-52b1-4c5f-9d2a-{n * 104_729:012x}"),
        full_at=start + timedelta(seconds=n),
        updated_at=start + timedelta(seconds=n, microseconds=n * 37 % 999_983),
        data_as_of=start + timedelta(days=2, seconds=n, microseconds=n * 41 % 999_983),
        full_jobs=50 + n % 13,
        total_kind="exact",
        page_size=100,
    )
