"""The three tables, each as a run opens it and as a reader sees it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import polars as pl
from deltalake import write_deltalake
from lakes import Plainly, around_storage, publish_staged
from memory import MemoryTable, Shelf

from pleo_extract import scan_lake, verify_lake
from pleo_extract.lake.staging import Header, Staging
from pleo_extract.lake.store import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pleo_extract.core.state import AccountKey, SyncState
    from pleo_extract.lake.layout import Manifest
    from pleo_extract.lake.table import Keep

__all__ = ["GROUNDS", "Ground", "publish_rows", "stage"]


class Ground(Protocol):
    """A table and its readers.

    Attributes:
        keeps_by_number: whether `expire` keeps so many snapshots, and not those of a time.
    """

    keeps_by_number: bool

    def open(self, name: str = "a") -> Any:
        """The table as a run for these accounts opens it."""

    def rows(self, as_of: int | None = None) -> pl.DataFrame:
        """What a reader sees."""

    def state(self) -> Manifest | None:
        """The newest state."""

    def append(self, month: str, rows: pl.DataFrame) -> None:
        """Another program appends these rows."""

    def around(self, call: Callable[[], None]) -> Any:
        """Let `call` go before each step that changes the store."""

    def problems(self) -> tuple[str, ...]:
        """What is wrong with it."""


@dataclass
class OnDisk:
    """A folder of Parquet, or a Delta table in a folder."""

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


class InMemory:
    """A table that lies in memory."""

    keeps_by_number = True

    def __init__(self, path: Path) -> None:
        self.shelf = Shelf()
        self._scratch = path

    def open(self, name: str = "a") -> Any:
        """See `Ground`."""
        return MemoryTable(self.shelf, self._scratch / name)

    def rows(self, as_of: int | None = None) -> pl.DataFrame:
        """See `Ground`."""
        return self.shelf.rows(as_of)

    def state(self) -> Manifest | None:
        """See `Ground`."""
        return self.shelf.states.get(self.shelf.number)

    def append(self, month: str, rows: pl.DataFrame) -> None:
        """See `Ground`."""
        self.shelf.append(self.shelf.keep(month, rows))

    @contextmanager
    def around(self, call: Callable[[], None]) -> Iterator[None]:
        """See `Ground`."""
        self.shelf.on_change = call
        try:
            yield
        finally:
            self.shelf.on_change = lambda: None

    def problems(self) -> tuple[str, ...]:
        """See `Ground`."""
        rows = self.rows()
        return ("a job stands twice",) if rows.select("company_id", "id").is_duplicated().any() else ()


GROUNDS: Final[dict[str, Callable[[Path], Ground]]] = {
    "folder": lambda path: OnDisk(path / "lake", "parquet", keeps_by_number=True),
    "delta": lambda path: OnDisk(path / "table", "delta", keeps_by_number=False),
    "memory": InMemory,
}


def stage(table: Any, *frames: pl.DataFrame) -> Staging:
    """Stage these rows, as a run does."""
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
    """One run that publishes these rows, with the states of these accounts."""
    table = ground.open(name)
    with table.hold():
        table.begin()
        manifest = publish_staged(table, stage(table, *frames), run=Plainly(accounts=accounts or {}))
        if keep is not None:
            table.expire(keep)
    return manifest
