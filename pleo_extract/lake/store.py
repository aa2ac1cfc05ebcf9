"""Give both kinds of lake one set of methods, and choose the kind: a folder of Parquet, or a Delta table.

A URL, or a folder with a `_delta_log`, is a Delta table; every other path is a folder of Parquet. What is particular to a
kind stays in `folder` or `delta`. `delta` is imported only for a Delta table, since it needs an extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict

from pleo_extract.errors import ConfigurationError, TryLater, UsageError, amount, check_path
from pleo_extract.keywords import check_keywords
from pleo_extract.lake import disk
from pleo_extract.lake.folder.lake import FolderLake
from pleo_extract.lake.layout import Layout, scan_files
from pleo_extract.lake.lock import find_holder, format_holder
from pleo_extract.lake.staging import count_staged
from pleo_extract.lake.table import Table
from pleo_extract.zones import check_zones

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    import polars as pl

    from pleo_extract.lake.folder.forgetting import Erasure
    from pleo_extract.lake.folder.opening import Opened
    from pleo_extract.lake.folder.repair import Repair
    from pleo_extract.lake.folder.verify import Verification
    from pleo_extract.lake.forgotten import Forgotten
    from pleo_extract.lake.layout import Manifest
    from pleo_extract.lake.record import LastRun

__all__ = [
    "Format",
    "Store",
    "StoreOptions",
    "is_delta",
    "open_lake",
    "open_to_read",
    "scan_lake",
]

Format = Literal["parquet", "delta"]


class StoreOptions(TypedDict, total=False):
    """How to reach a Delta table.

    Attributes:
        storage_options: options of its object store, as for delta-rs.
        workspace: the folder of this machine for copies of its files.
    """

    storage_options: Mapping[str, str] | None
    workspace: str | Path | None


class Store(Table, Protocol):
    """A lake of either kind: a table to publish to, and what readers and runs ask of it besides.

    Attributes:
        name: the path or URL that the user gave.
        layout: the folders of a run on this machine: staging, rejected rows, its record, its lock.
        catalogue: the DuckDB file that leads other programs to it, or None.
        counts_snapshots: True if `expire` can keep a number of snapshots; else it keeps them by age alone.
        forgotten: the jobs and people that it has forgotten, once a run has begun.
    """

    name: str
    layout: Layout
    catalogue: Path | None
    counts_snapshots: bool
    forgotten: Forgotten

    def exists(self) -> bool:
        """Return whether there is such a lake."""
        ...

    def open(self, as_of: datetime | int | None = None) -> Opened | None:
        """Return a state to read, its files checked; None before the first snapshot."""
        ...

    def history(self) -> Iterator[Manifest]:
        """Yield the manifests of the snapshots that are kept, oldest first; the current one is the last."""
        ...

    def last_run(self) -> LastRun | None:
        """Return how the last run ended, as far as this machine knows."""
        ...

    def months_behind(self, manifest: Manifest) -> list[str]:
        """Return the months that a reader of the folder does not see as the current snapshot has them.

        There are some after a run was killed while it replaced them; the next run does the rest.
        """
        ...

    def verify(self) -> Verification:
        """Read the current state in full and compare it with what was written."""
        ...

    def refuse_other(self, server: str) -> None:
        """Raise ConfigurationError if it holds jobs of another server, before anything in it is changed."""

    def repair(self) -> Repair:
        """Repair it from what is left of it; see `lake.folder.repair`."""
        ...

    def forget(self, jobs: Sequence[str], people: Sequence[str]) -> Erasure:
        """Erase these jobs, and what identifies these people, and keep them from coming back."""
        ...

    def read_forgotten(self) -> Forgotten:
        """Return the jobs and people that it has forgotten, before a run begins."""
        ...

    def begin(self) -> Manifest | None:
        """Return the state that a run starts from; None for a new lake.

        Its files are checked first, and what killed runs have left is removed.
        """
        ...

    def scan(self, base: Manifest | None) -> pl.LazyFrame:
        """Scan the rows that a run starts from."""
        ...


def is_delta(lake: str | Path) -> bool:
    """Return whether this is a Delta table: a URL, or a folder with a log or with what a first run has begun."""
    return "://" in str(lake) or disk.has_folder(Path(lake), "_delta_log", "_pleo_extract")


def open_lake(
    lake: str | Path,
    *,
    kind: Format | None = None,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
    accounts: Sequence[str] = (),
) -> Store:
    """Return the lake at an address.

    Args:
        lake: a folder, or a URL: ``s3://…``, ``az://…``, ``abfss://…``, ``gs://…``.
        kind: the kind of a new lake; by default the kind of what is there, else Delta for a URL and Parquet for a folder.
        storage_options: how to reach the object store; for a URL only.
        workspace: where runs keep what is not in a Delta table, and copies of its files.
        accounts: the accounts that a run reads: runs for others can write to the same Delta table meanwhile.

    Raises:
        UsageError: an unknown kind, or options of a Delta table for a folder of Parquet.
        ConfigurationError: the lake is of the other kind, or the extra `delta` is not installed.
    """
    check_path(lake, "the lake's folder")
    check_zones()
    if kind not in (None, "parquet", "delta"):
        raise UsageError(f"a lake is parquet or delta, not {kind!r}")
    found = is_delta(lake)
    if found and kind == "parquet":
        raise ConfigurationError(f"{lake} is a Delta table; a Parquet lake needs a folder of its own")
    if not found and kind != "delta":
        if storage_options or workspace:
            raise UsageError(
                "storage options and a workspace belong to a Delta table: s3://…, or format delta"
            )
        return FolderLake(lake)
    if not found and (Layout(lake).own.exists() or Layout(lake).old.exists()):
        raise ConfigurationError(f"{lake} is a Parquet lake; a Delta table needs a place of its own")
    try:
        from pleo_extract.lake.delta import DeltaLake  # noqa: PLC0415 - only where there is a Delta table
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"{lake} is a Delta table, and {exc.name} is not installed: pip install 'pleo-extract[delta]'"
        ) from exc
    return DeltaLake(lake, storage_options=storage_options, workspace=workspace, accounts=accounts)


def open_to_read(store: Store, as_of: datetime | int | None = None) -> Opened | None:
    """Return a snapshot for the questions of a reader; None for an empty folder, which no dump has begun to fill.

    Without the error, a first dump that was cut short would read as an account without exports.

    Raises:
        TryLater: a first dump has begun, and none has been completed.
        LakeError: there is no such lake, or it is damaged.
        UsageError: no such snapshot is kept.
    """
    opened = store.open(as_of)
    if opened is not None or (isinstance(store, FolderLake) and not store.layout.own.is_dir()):
        return opened
    staged = count_staged(store.layout.staging)
    kept = f" ({amount(staged, 'row')} staged)" if staged else ""
    running = find_holder(store.layout)
    way = (
        f"run: pleo-extract dump {store.name}"
        if running is None
        else f"wait for the run that is at work ({format_holder(running)})"
    )
    raise TryLater(f"no dump to {store.name} has been completed yet{kept}; {way}")


@check_keywords
def scan_lake(
    lake: str | Path,
    as_of: datetime | int | None = None,
    *,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> pl.LazyFrame:
    """Return one whole snapshot of a lake as a LazyFrame, even while a dump is running.

    For a Delta table in an object store, the data files that this machine does not have yet are copied to it first.

    Args:
        lake: the lake's folder, or the URL or folder of a Delta table.
        as_of: the snapshot that was current at this instant, or the snapshot of this number; the current one by default.
            The number of a Delta table's snapshot is its version.
        storage_options: how to reach the object store, as for delta-rs; credentials can also come from the environment.
        workspace: where the copies are kept; by default in the user's cache.

    Returns:
        One row a job, with the columns of `pleo_extract.COLUMNS`; no rows for an empty folder.

    Raises:
        LakeError: there is no such folder, or it is not a lake.
        TryLater: a first dump has begun, and none has been completed.
        UsageError: no such snapshot is kept.
    """
    opened = open_to_read(open_lake(lake, storage_options=storage_options, workspace=workspace), as_of)
    return scan_files(opened.files if opened else ())
