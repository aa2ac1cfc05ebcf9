"""The three tables that the suite tests, as a run opens them and as a reader sees them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import polars as pl
from deltalake import write_deltalake
from lakes import BareRun, around_storage, publish_staged
from memory import MemoryStore, MemoryTable

from pleo_extract import scan_lake, verify_lake
from pleo_extract.lake.journal import Header
from pleo_extract.lake.staging import Staging
from pleo_extract.lake.store import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pleo_extract.core.state import AccountKey, SyncState
    from pleo_extract.lake.layout import Manifest
    from pleo_extract.lake.table import Keep

__all__ = ["GROUNDS", "Ground", "publish_rows", "stage"]


class Ground(Protocol):
    """A table under test and its readers.

    Attributes:
        keeps_by_number: whether `expire` keeps a number of snapshots, not those of a period.
    """

    keeps_by_number: bool

    def open(self, name: str = "a") -> Any:
        """Open the table as a run for this account does."""

    def rows(self, as_of: int | None = None) -> pl.DataFrame:
        """Return the rows that a reader sees, now or in a snapshot."""

    def state(self) -> Manifest | None:
        """Return the newest manifest, or None."""

    def append(self, month: str, rows: pl.DataFrame) -> None:
        """Append rows as another program would."""

    def around(self, call: Callable[[], None]) -> Any:
        """Call `call` before each step that changes the store."""

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with the table."""


@dataclass
class DiskGround:
    """A Parquet folder, or a Delta table in a folder."""

    path: Path
    kind: Any
    keeps_by_number: bool

    def open(self, name: str = "a") -> Any:
        """See `Ground`."""
        return open_lake(self.path, kind=self.kind, accounts=[name])

    def rows(self, as_of: int | None = None) -> pl.DataFrame:
        """See `Ground`."""
        return scan_lake(self.path, as_of).collect()

    def state(self) -> Manifest | None:
        """See `Ground`."""
        table = self.open()
        opened = table.open() if table.exists() else None
        return opened.manifest if opened else None

    def append(self, month: str, rows: pl.DataFrame) -> None:
        """See `Ground`."""
        write_deltalake(self.path, rows.with_columns(created_month=pl.lit(month)).to_arrow(), mode="append")

    @contextmanager
    def around(self, call: Callable[[], None]) -> Iterator[None]:
        """See `Ground`."""

        def step(_name: str, go: Callable[[], Any]) -> Any:
            call()
            return go()

        with around_storage(step):
            yield

    def problems(self) -> tuple[str, ...]:
        """See `Ground`."""
        return verify_lake(self.path).problems


class MemoryGround:
    """A table in memory."""

    keeps_by_number = True

    def __init__(self, path: Path) -> None:
        self.store = MemoryStore()
        self._scratch = path

    def open(self, name: str = "a") -> Any:
        """See `Ground`."""
        return MemoryTable(self.store, self._scratch / name)

    def rows(self, as_of: int | None = None) -> pl.DataFrame:
        """See `Ground`."""
        return self.store.rows(as_of)

    def state(self) -> Manifest | None:
        """See `Ground`."""
        return self.store.states.get(self.store.number)

    def append(self, month: str, rows: pl.DataFrame) -> None:
        """See `Ground`."""
        self.store.append(self.store.keep(month, rows))

    @contextmanager
    def around(self, call: Callable[[], None]) -> Iterator[None]:
        """See `Ground`."""
        self.store.on_change = call
        try:
            yield
        finally:
            self.store.on_change = lambda: None

    def problems(self) -> tuple[str, ...]:
        """See `Ground`."""
        rows = self.rows()
        return ("a job is listed twice",) if rows.select("company_id", "id").is_duplicated().any() else ()


GROUNDS: Final[dict[str, Callable[[Path], Ground]]] = {
    "folder": lambda path: DiskGround(path / "lake", "parquet", keeps_by_number=True),
    "delta": lambda path: DiskGround(path / "table", "delta", keeps_by_number=False),
    "memory": MemoryGround,
}


def stage(table: Any, *frames: pl.DataFrame) -> Staging:
    """Stage rows as a run does."""
    header = Header(run="run", mode="full", base=0, started_at=datetime.now(UTC))
    staging = Staging.start(table.scratch, "binding", header)
    for frame in frames:
        staging.add(frame)
    return staging


def publish_rows(
    ground: Ground,
    *frames: pl.DataFrame,
    name: str = "a",
    accounts: Mapping[AccountKey, SyncState] | None = None,
    keep: Keep | None = None,
) -> Manifest:
    """Publish rows in one run, with the sync states of its accounts."""
    table = ground.open(name)
    with table.hold():
        table.begin()
        manifest = publish_staged(table, stage(table, *frames), run=BareRun(accounts=accounts or {}))
        if keep is not None:
            table.expire(keep)
    return manifest
