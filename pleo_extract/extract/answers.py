"""A lake opened for questions: one whole snapshot, as DuckDB sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.lake import Layout, open_snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    import duckdb

    from pleo_extract.lake import Manifest


__all__ = ["connect", "write_catalogue"]


def connect(
    lake: str | Path, as_of: datetime | int | None = None, *, locked: bool = False, allow: Sequence[Path] = ()
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection over one whole snapshot of a lake, in UTC, with its views and macros.

    Views: `export_jobs`, `job_durations`, `companies`, `snapshot`. Macros: ``FROM failure_rates('month')``,
    ``FROM duration_stats('week')`` and the others that `pleo-extract sql --list` names. For open jobs, "now" is when
    the snapshot was published. A lake without a snapshot answers with no rows.

    Args:
        lake: the lake's folder.
        as_of: the snapshot that was current at this instant, or the snapshot of this number; the current one by default.
        locked: no access to any file but the lake's. Left open by default, so that you can join files of your own.
        allow: further files and folders that a locked connection may read.

    Raises:
        LakeError: there is no such folder, or it is not a lake. UsageError: no such snapshot is kept.
    """
    from pleo_extract.warehouse import open_warehouse  # noqa: PLC0415 - duckdb only where there is a question

    snapshot = open_snapshot(lake, as_of)
    if snapshot is None:
        return open_warehouse([], locked=locked, allow=allow)
    manifest = Layout(lake).manifest(snapshot.number)
    return open_warehouse(
        snapshot.files(),
        as_of=manifest.made_at,
        locked=locked,
        allow=allow,
        companies=_name_companies(manifest),
    )


def write_catalogue(lake: str | Path) -> Path:
    """Write ``LAKE/jobs.duckdb``: the views and macros of `connect` in a file that any DuckDB client opens or attaches.

    It holds no data and reads the lake through `current`, by absolute paths: after a lake was moved, or a dump has
    added a month, it is to be written anew. Dumps do so by themselves.

    Raises:
        LakeError: there is no such lake. StorageError: the file cannot be written.
    """
    from pleo_extract import warehouse  # noqa: PLC0415 - as above

    layout, snapshot = Layout(lake), open_snapshot(lake)
    target = layout.root / "jobs.duckdb"
    if snapshot is None:
        warehouse.write_catalogue(target, [])
        return target
    manifest = layout.manifest(snapshot.number)
    files = [layout.current / entry.path for entry in manifest.files]
    warehouse.write_catalogue(target, files, as_of=manifest.made_at, companies=_name_companies(manifest))
    return target


def _name_companies(manifest: Manifest) -> dict[str, str]:
    return {
        key.rpartition(" ")[2]: account.name for key, account in manifest.accounts.items() if account.name
    }
