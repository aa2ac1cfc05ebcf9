"""Compare two snapshots of a lake: one row for each job that differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import COLUMNS, KEY, POLARS_SCHEMA
from pleo_extract.core.rows import find_other, is_ended

if TYPE_CHECKING:
    from pleo_extract.lake.folder.opening import Opened

__all__ = ["find_changes"]

_SCHEMA: Final = pl.Schema([("change", pl.String()), ("status_before", pl.String()), *POLARS_SCHEMA.items()])


def find_changes(before: Opened | None, after: Opened | None) -> pl.DataFrame:
    """Return the jobs that differ between two states of a lake; only months whose files differ are read.

    Args:
        before: the earlier state; None for a lake before its first snapshot.
        after: the later state.

    Returns:
        One row a job, ordered by created_at and id: `change`, `status_before` (null for a new job), and the columns of
        `COLUMNS` as the later state has them, or the earlier one if the later has no such job. `change` is one of:

        - ``vanished``: the server has stopped listing it.
        - ``new``: the earlier state does not have it.
        - ``ended``: its status was open and is now terminal.
        - ``changed``: anything else differs, except `expires_in`, which counts down.
        - ``removed``: its row is gone, because it was erased, or because damage was repaired and it was not read again yet.
    """
    nothing = pl.DataFrame(schema=POLARS_SCHEMA)
    only_before, only_after = [nothing], [nothing]
    for old, new in _pair_months(before, after):
        only_after.append(find_other(old, new))
        only_before.append(find_other(new, old))
    was = pl.concat(only_before).select(*KEY, status_before="status", _had_ended=is_ended())
    now = pl.concat(only_after).join(was, on=KEY, how="left")
    removed = pl.concat(only_before).join(now, on=KEY, how="anti")
    kind = (
        pl.when(pl.col("status_before").is_null())
        .then(pl.lit("new"))
        .when(is_ended() & ~pl.col("_had_ended"))
        .then(pl.lit("ended"))
        .otherwise(pl.lit("changed"))
    )
    vanished = _list_vanished(after).join(_list_vanished(before), on=KEY, how="anti")
    rows = [
        now.with_columns(change=kind).join(vanished, on=KEY, how="anti").select(_SCHEMA.names()),
        removed.with_columns(change=pl.lit("removed"), status_before="status").select(_SCHEMA.names()),
        _read_jobs(after, vanished)
        .with_columns(change=pl.lit("vanished"), status_before="status")
        .select(_SCHEMA.names()),
    ]
    return pl.concat(rows).cast(_SCHEMA).sort("created_at", "id")


def _pair_months(before: Opened | None, after: Opened | None) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    """Return the rows of both states for each month whose files differ."""
    files = [_list_files(before), _list_files(after)]
    months = sorted(files[0].keys() | files[1].keys())
    differing = [month for month in months if files[0].get(month) != files[1].get(month)]
    return [(_read_month(before, month), _read_month(after, month)) for month in differing]


def _list_files(state: Opened | None) -> dict[str, list[str]]:
    """Return the hashes of the files of each month; the path of a file without one."""
    found: dict[str, list[str]] = {}
    for entry in state.manifest.files if state else ():
        found.setdefault(entry.month, []).append(entry.sha256 or entry.path)
    return found


def _read_month(state: Opened | None, month: str) -> pl.DataFrame:
    entries = state.manifest.files if state else ()
    files = [state.read(entry) for entry in entries if state and entry.month == month]
    return pl.concat([pl.LazyFrame(schema=POLARS_SCHEMA), *files]).collect()


def _list_vanished(state: Opened | None) -> pl.DataFrame:
    jobs = {
        job for account in (state.manifest.accounts.values() if state else ()) for job in account.vanished
    }
    return pl.DataFrame(sorted(jobs), schema=dict.fromkeys(KEY, pl.String), orient="row")


def _read_jobs(state: Opened | None, jobs: pl.DataFrame) -> pl.DataFrame:
    nothing = pl.LazyFrame(schema=POLARS_SCHEMA)
    if state is None or not jobs.height:
        return nothing.collect()
    found = [state.read(entry).join(jobs.lazy(), on=KEY, how="semi") for entry in state.manifest.files]
    return pl.concat([nothing, *found]).collect().select(COLUMNS)
