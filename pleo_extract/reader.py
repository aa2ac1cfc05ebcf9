"""`Lake`: the door for readers of a lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.core.state import FULL_EVERY
from pleo_extract.keywords import check_keywords
from pleo_extract.lake.layout import check_as_of
from pleo_extract.lake.store import open_lake, scan_lake

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date, datetime, timedelta
    from pathlib import Path

    import duckdb

    from pleo_extract.lake.folder.forgetting import Erasure
    from pleo_extract.lake.folder.verify import Verification
    from pleo_extract.lake.status import LakeStatus
    from pleo_extract.lake.store import StoreOptions

__all__ = ["Lake"]


class Lake:
    """A lake opened for reading: a folder of Parquet, or a Delta table.

    Every method answers from one whole snapshot, however often a dump publishes meanwhile: the one that is current when
    it is called, or the one that the caller names.

        lake = Lake("data/export_jobs")
        lake.scan().filter(pl.col("status") == "failed").collect()
        lake.connect().sql("FROM failure_rates('month')").pl()
        lake.changes(lake.snapshots()["snapshot"][0])

    Attributes:
        name: the path or URL of the lake, as given.
    """

    @check_keywords
    def __init__(
        self,
        lake: str | Path,
        *,
        storage_options: Mapping[str, str] | None = None,
        workspace: str | Path | None = None,
    ) -> None:
        """Find out what kind of lake it is; nothing of it is read yet.

        Args:
            lake: the folder of a lake, or the URL or folder of a Delta table.
            storage_options: how to reach the object store, as for delta-rs; credentials are also taken from the
                environment.
            workspace: the folder for copies of a Delta table's files; by default the user's cache.

        Raises:
            ConfigurationError: the path is a file, or the extra `delta` is not installed.
        """
        self.name = str(lake)
        self._lake = lake
        self._store: StoreOptions = {"storage_options": storage_options, "workspace": workspace}
        self._reader = open_lake(lake, **self._store)

    def __repr__(self) -> str:
        """Return the name only, since storage options may hold a credential."""
        return f"Lake({self.name!r})"

    @check_keywords
    def scan(self, as_of: datetime | int | None = None) -> pl.LazyFrame:
        """Return one whole snapshot as a LazyFrame; see `scan_lake`."""
        return scan_lake(self._lake, as_of, **self._store)

    @check_keywords
    def connect(
        self,
        as_of: datetime | int | None = None,
        *,
        locked: bool = False,
        allow: Sequence[Path] = (),
        names: str | Path | Mapping[str, str] | None = None,
    ) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection to one whole snapshot, with all views and macros; see `connect`."""
        from pleo_extract.answers.doors import connect  # noqa: PLC0415 - duckdb only where there is a question

        return connect(self._lake, as_of, locked=locked, allow=allow, names=names, **self._store)

    def verify(self) -> Verification:
        """Read the current snapshot in full and compare it with its manifest; see `verify_lake`."""
        from pleo_extract.answers.verification import verify_lake  # noqa: PLC0415 - as above

        return verify_lake(self._lake, **self._store)

    @check_keywords
    def status(self, *, full_every: timedelta = FULL_EVERY) -> LakeStatus:
        """Return how fresh the lake is, what it holds, and how the last run of each account ended.

        Args:
            full_every: how often runs make a full sync, 7 days by default; the date of the next one follows from it.

        Raises:
            LakeError: there is no such lake, or it is damaged.
        """
        from pleo_extract.lake.status import read_status  # noqa: PLC0415 - as above

        return read_status(self._lake, full_every=full_every, **self._store)

    def snapshots(self) -> pl.DataFrame:
        """Return the snapshots that are kept, oldest first.

        Returns:
            One row a snapshot: `snapshot` (its number, for `as_of`), `made_at` (UTC), `rows`, `files`, `bytes` (size of
            its files) and `new_bytes` (size of those files that the snapshot before does not have: what keeping this one
            costs).

        Raises:
            LakeError: there is no such lake, or it is damaged.
        """
        schema: dict[str, pl.DataType | type[pl.DataType]] = {
            "snapshot": pl.Int64,
            "made_at": pl.Datetime("us", "UTC"),
            "rows": pl.Int64,
            "files": pl.Int64,
            "bytes": pl.Int64,
            "new_bytes": pl.Int64,
        }
        rows, before = [], set[str]()
        for manifest in self._reader.history():
            names = {entry.path + entry.sha256: entry.bytes for entry in manifest.files}
            new = sum(size for name, size in names.items() if name not in before)
            total = sum(names.values())
            rows.append((manifest.snapshot, manifest.made_at, manifest.rows, len(names), total, new))
            before = set(names)
        return pl.DataFrame(rows, schema=schema, orient="row")

    @check_keywords
    def changes(self, since: datetime | int, until: datetime | int | None = None) -> pl.DataFrame:
        """Return the jobs that differ between two snapshots.

        Args:
            since: the earlier snapshot: its number, or an instant at which it was current.
            until: the later snapshot; the current one by default.

        Returns:
            One row a job that differs: `change` (``new``, ``ended``, ``changed``, ``vanished`` or ``removed``),
            `status_before`, and the columns of `COLUMNS` with the values of the later snapshot; ordered by created_at
            and id. DuckDB reads such a frame by the name of its variable: ``lake.connect().sql("from changes")``.

        Raises:
            UsageError: no such snapshot is kept, or `since` is the later one.
            LakeError: there is no such lake.
        """
        from pleo_extract.errors import UsageError  # noqa: PLC0415 - as above
        from pleo_extract.lake.changes import find_changes  # noqa: PLC0415 - as above

        check_as_of(since, "since")
        check_as_of(until, "until")
        before, after = self._reader.open(since), self._reader.open(until)
        if before is not None and after is not None and before.manifest.snapshot > after.manifest.snapshot:
            raise UsageError(
                f"snapshot {before.manifest.snapshot} is later than {after.manifest.snapshot}; name the earlier one first"
            )
        return find_changes(before, after)

    @check_keywords
    def forget(self, *, jobs: Collection[str] = (), people: Collection[str] = ()) -> Erasure:
        """Erase jobs and people from all snapshots for good; see `forget`."""
        from pleo_extract.sync.forget import forget  # noqa: PLC0415 - as above

        return forget(self._lake, jobs=jobs, people=people, **self._store)

    @check_keywords
    def report(  # noqa: PLR0913 - all are independent, and have defaults
        self,
        path: str | Path,
        *,
        company_id: str | None = None,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        tz: str = "UTC",
        names: str | Path | Mapping[str, str] | None = None,
        workbook: str | Path | None = None,
    ) -> Path:
        """Write a report as one HTML file without scripts and outside resources; see `report.write_report`."""
        from pleo_extract.report import write_report  # noqa: PLC0415 - as above

        return write_report(
            self._lake,
            path,
            company_id=company_id,
            since=since,
            until=until,
            tz=tz,
            names=names,
            workbook=workbook,
            **self._store,
        )
