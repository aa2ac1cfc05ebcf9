"""`Lake`: a lake opened once, with all that its readers ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.core.state import FULL_EVERY
from pleo_extract.keywords import check_keywords
from pleo_extract.lake.store import open_lake, scan_lake, verify_lake

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
    """A lake for its readers: a folder of Parquet, or a Delta table.

    Each question is answered from one whole snapshot, the one that is current when it is asked unless another is named,
    however often a dump publishes meanwhile.

        lake = Lake("data/export_jobs")
        lake.scan().filter(pl.col("status") == "failed").collect()
        lake.connect().sql("FROM failure_rates('month')").pl()
        lake.changes(lake.snapshots()["snapshot"][0])

    Attributes:
        name: the lake as it was given.
    """

    @check_keywords
    def __init__(
        self,
        lake: str | Path,
        *,
        storage_options: Mapping[str, str] | None = None,
        workspace: str | Path | None = None,
    ) -> None:
        """Find out of which kind the lake is; nothing of it is read yet.

        Args:
            lake: the lake's folder, or the URL or folder of a Delta table.
            storage_options: how the object store is reached, as for delta-rs; credentials are also found in the environment.
            workspace: where copies of a Delta table's files are kept; by default in the user's cache.

        Raises:
            ConfigurationError: it is a file, or the extra `delta` is not installed.
        """
        self.name = str(lake)
        self._lake = lake
        self._store: StoreOptions = {"storage_options": storage_options, "workspace": workspace}
        self._kept = open_lake(lake, **self._store)

    def __repr__(self) -> str:
        """Return its name; storage options may hold a credential."""
        return f"Lake({self.name!r})"

    def scan(self, as_of: datetime | int | None = None) -> pl.LazyFrame:
        """One whole snapshot as a LazyFrame; see `scan_lake`."""
        return scan_lake(self._lake, as_of, **self._store)

    @check_keywords
    def connect(
        self, as_of: datetime | int | None = None, *, locked: bool = False, allow: Sequence[Path] = ()
    ) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection over one whole snapshot, with all views and macros; see `connect`."""
        from pleo_extract.answers.doors import connect  # noqa: PLC0415 - duckdb only where there is a question

        return connect(self._lake, as_of, locked=locked, allow=allow, **self._store)

    def verify(self) -> Verification:
        """Read the current snapshot in full and compare it with what was written; see `verify_lake`."""
        return verify_lake(self._lake, **self._store)

    @check_keywords
    def status(self, *, full_every: timedelta = FULL_EVERY) -> LakeStatus:
        """How the lake is doing: how fresh it is, what it holds, how the last run ended, one account after the other.

        Args:
            full_every: how often runs read the whole list, 7 days by default: when the next will is told by it.

        Raises:
            LakeError: there is no such lake, or it is broken.
        """
        from pleo_extract.lake.status import read_status  # noqa: PLC0415 - as above

        return read_status(self._lake, full_every=full_every, **self._store)

    def snapshots(self) -> pl.DataFrame:
        """The snapshots that are kept, oldest first.

        Returns:
            One row a snapshot: `snapshot` (its number, for `as_of`), `made_at` (UTC), `rows`, `files`, `bytes` of its files,
            and `new_bytes`, of the files that the one before does not have: what keeping it costs.

        Raises:
            LakeError: there is no such lake, or its pointer is broken.
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
        for manifest in self._kept.history():
            names = {entry.path + entry.sha256: entry.bytes for entry in manifest.files}
            new = sum(size for name, size in names.items() if name not in before)
            total = sum(names.values())
            rows.append((manifest.snapshot, manifest.made_at, manifest.rows, len(names), total, new))
            before = set(names)
        return pl.DataFrame(rows, schema=schema, orient="row")

    def changes(self, since: datetime | int, until: datetime | int | None = None) -> pl.DataFrame:
        """What is different between two snapshots: jobs that are new, have ended, changed otherwise or vanished.

        Args:
            since: the earlier snapshot: its number, or an instant at which it was current.
            until: the later one; the current one by default.

        Returns:
            One row a job that differs: `change` (``new``, ``ended``, ``changed``, ``vanished`` or ``removed``), `status_before`,
            and the columns of `COLUMNS` as the later snapshot has them; ordered by created_at and id.

        Raises:
            UsageError: no such snapshot is kept, or `since` is the later one. LakeError: there is no such lake.
        """
        from pleo_extract.errors import UsageError  # noqa: PLC0415 - as above
        from pleo_extract.lake.changes import find_changes  # noqa: PLC0415 - as above

        before, after = self._kept.open(since), self._kept.open(until)
        if before is not None and after is not None and before.manifest.snapshot > after.manifest.snapshot:
            raise UsageError(
                f"snapshot {before.manifest.snapshot} is later than {after.manifest.snapshot}; name the earlier one first"
            )
        return find_changes(before, after)

    @check_keywords
    def forget(self, *, jobs: Collection[str] = (), people: Collection[str] = ()) -> Erasure:
        """Erase jobs and people from every snapshot, for good; see `forget`."""
        from pleo_extract.sync.forget import forget  # noqa: PLC0415 - as above

        return forget(self._lake, jobs=jobs, people=people, **self._store)

    @check_keywords
    def report(
        self,
        path: str | Path,
        *,
        company_id: str | None = None,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
    ) -> Path:
        """Write a report: one HTML file, without script, that loads nothing; see `report.write_report`."""
        from pleo_extract.report import write_report  # noqa: PLC0415 - as above

        return write_report(self._lake, path, company_id=company_id, since=since, until=until, **self._store)
