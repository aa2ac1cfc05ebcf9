"""Both kinds of lake behind one set of verbs, chosen at the door: a folder of Parquet, or a Delta table.

A URL, or a folder with a `_delta_log`, is a Delta table; every other path is a folder of Parquet. What is peculiar to
a kind stays in its room, `lake` or `delta`; `delta` is imported only where there is a Delta table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict

from pleo_extract.errors import ConfigurationError, UsageError, check_path
from pleo_extract.keywords import check_keywords
from pleo_extract.lake.folder.lake import FolderLake
from pleo_extract.lake.layout import Layout, scan_files
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
    "scan_lake",
    "verify_lake",
]

Format = Literal["parquet", "delta"]


class StoreOptions(TypedDict, total=False):
    """How a Delta table is reached: `storage_options` of its object store, `workspace` for copies of its files."""

    storage_options: Mapping[str, str] | None
    workspace: str | Path | None


class Store(Table, Protocol):
    """A lake of either kind: a table that is published to, and what readers and runs ask of it besides.

    Attributes:
        name: as it was given. layout: the folders of a run on this machine: staging, rejected rows, its record, its lock.
        catalogue: the DuckDB file that leads other programs to it; None where there is none.
        counts_snapshots: whether `expire` can keep so many; else it keeps by age alone.
    """

    name: str
    layout: Layout
    catalogue: Path | None
    counts_snapshots: bool
    forgotten: Forgotten

    def exists(self) -> bool:
        """Whether there is anything."""

    def open(self, as_of: datetime | int | None = None) -> Opened | None:
        """A state to read, its files looked at; None where nothing was published yet."""

    def history(self) -> Iterator[Manifest]:
        """The states that are kept, oldest first, as they were published; the current one is the last."""

    def last_run(self) -> LastRun | None:
        """How the last run ended, as far as this machine knows."""

    def verify(self) -> Verification:
        """Read all of the current state and compare it with what was written."""

    def refuse_other(self, server: str) -> None:
        """Raise ConfigurationError where it holds jobs of another server, before anything of it is touched."""

    def repair(self) -> Repair:
        """Make it whole again from what is left of it; see `lake.repair_lake`."""

    def forget(self, jobs: Sequence[str], people: Sequence[str]) -> Erasure:
        """Erase these jobs, and what says who these people are, and keep them from coming back."""

    def begin(self) -> Manifest | None:
        """The state that a run starts from, its files looked at, what killed runs left swept away; None for a new lake."""

    def scan(self, base: Manifest | None) -> pl.LazyFrame:
        """The rows that a run starts from."""


def is_delta(lake: str | Path) -> bool:
    """Whether this is a Delta table by its address or by what lies there: a log, or what a first run has begun."""
    return "://" in str(lake) or any((Path(lake) / name).is_dir() for name in ("_delta_log", "_pleo_extract"))


def open_lake(
    lake: str | Path,
    *,
    kind: Format | None = None,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
    accounts: Sequence[str] = (),
) -> Store:
    """The lake at an address, of the kind that it is, or is to become.

    Args:
        lake: a folder, or a URL: ``s3://…``, ``az://…``, ``abfss://…``, ``gs://…``.
        kind: what a new lake is to be; by default what is there, else Delta for a URL and Parquet for a folder.
        storage_options: how the object store is reached, for a URL only.
        workspace: where a Delta table's runs keep what is not in the table, and copies of its files.
        accounts: whom a run is for: runs for others may write to the same Delta table meanwhile.

    Raises:
        ConfigurationError: it is of the other kind, or the extra `delta` is not installed.
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


@check_keywords
def scan_lake(
    lake: str | Path,
    as_of: datetime | int | None = None,
    *,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> pl.LazyFrame:
    """One whole snapshot of a lake as a LazyFrame, safe beside a running dump.

    Of a Delta table in an object store, the data files that this machine does not have yet are copied to it first.

    Args:
        lake: the lake's folder, or the URL or folder of a Delta table.
        as_of: the snapshot that was current at this instant, or the snapshot of this number; the current one by default.
            The number of a Delta table's snapshot is its version.
        storage_options: how the object store is reached, as for delta-rs; credentials are also found in the environment.
        workspace: where the copies are kept; by default in the user's cache.

    Returns:
        One row a job, with the columns of `pleo_extract.COLUMNS`; no rows for a lake without a snapshot.

    Raises:
        LakeError: there is no such folder, or it is not a lake. UsageError: no such snapshot is kept.
    """
    opened = open_lake(lake, storage_options=storage_options, workspace=workspace).open(as_of)
    return scan_files(opened.files if opened else ())


@check_keywords
def verify_lake(
    lake: str | Path,
    *,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> Verification:
    """Read the current snapshot in full and compare it with what was written.

    Checked: the pointer, the manifest, each file's size and sha256, columns and types, the month each row is filed
    under, that no (company_id, id) occurs twice, across months too, and that the visible months are those of the
    snapshot. Another Parquet file in the folder is a problem, since a glob reads it; any other file is reported as
    foreign. Of a Delta table the log is the manifest, and the sums are those in the names of its files.

    Raises:
        LakeError: there is no lake.
    """
    return open_lake(lake, storage_options=storage_options, workspace=workspace).verify()
