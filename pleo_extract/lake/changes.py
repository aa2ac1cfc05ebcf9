"""What is different between two snapshots of a lake: one row a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import COLUMNS, KEY, POLARS_SCHEMA
from pleo_extract.core.rows import find_other, is_ended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.lake.folder.opening import Opened

__all__ = ["find_changes"]

_SCHEMA: Final = pl.Schema([("change", pl.String()), ("status_before", pl.String()), *POLARS_SCHEMA.items()])


def find_changes(before: Opened | None, after: Opened | None) -> pl.DataFrame:
    """Compare two states of a lake; only months whose files differ are read.

    Args:
        before: the earlier state; None for one in which nothing was published.
        after: the later one.

    Returns:
        One row a job that differs, ordered by created_at and id: `change`, `status_before` (null where it is new), and the
        columns of `COLUMNS` as the later state has them, as the earlier one has them where the job is not there any more.
        `change` is ``vanished`` (the server has stopped listing it), ``new``, ``ended`` (it was open, and is so no longer),
        ``changed`` (anything else but `expires_in`, which counts down), or ``removed`` (its row is gone: it was erased, or
        damage was repaired and it was not read again yet).
    """
    gone, come = [_nothing()], [_nothing()]
    for old, new in _pair_months(before, after):
        come.append(find_other(old, new))
        gone.append(find_other(new, old))
    was = pl.concat(gone).select(*KEY, status_before="status", _had_ended=is_ended())
    now = pl.concat(come).join(was, on=KEY, how="left")
    lost = pl.concat(gone).join(now, on=KEY, how="anti")
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
        lost.with_columns(change=pl.lit("removed"), status_before="status").select(_SCHEMA.names()),
        _find(after, vanished)
        .with_columns(change=pl.lit("vanished"), status_before="status")
        .select(_SCHEMA.names()),
    ]
    return pl.concat(rows).cast(_SCHEMA).sort("created_at", "id")


def _pair_months(before: Opened | None, after: Opened | None) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    """The rows of both states, of each month whose files are not the same."""
    files = [_list_files(before), _list_files(after)]
    months = sorted(files[0].keys() | files[1].keys())
    differing = [month for month in months if files[0].get(month) != files[1].get(month)]
    return [(_read(before, month), _read(after, month)) for month in differing]


def _list_files(state: Opened | None) -> dict[str, list[str]]:
    """What the files of each month are known by."""
    found: dict[str, list[str]] = {}
    for entry in state.manifest.files if state else ():
        found.setdefault(entry.month, []).append(entry.sha256 or entry.path)
    return found


def _read(state: Opened | None, month: str) -> pl.DataFrame:
    entries: Sequence[pl.LazyFrame] = [
        state.read(entry)
        for entry in (state.manifest.files if state else ())
        if entry.month == month and state
    ]
    return pl.concat(entries).collect() if entries else _nothing()


def _list_vanished(state: Opened | None) -> pl.DataFrame:
    jobs = {
        job for account in (state.manifest.accounts.values() if state else ()) for job in account.vanished
    }
    return pl.DataFrame(sorted(jobs), schema=dict.fromkeys(KEY, pl.String), orient="row")


def _find(state: Opened | None, jobs: pl.DataFrame) -> pl.DataFrame:
    """The rows of these jobs."""
    if state is None or not jobs.height:
        return _nothing()
    found = [state.read(entry).join(jobs.lazy(), on=KEY, how="semi") for entry in state.manifest.files]
    return pl.concat([_nothing().lazy(), *found]).collect().select(COLUMNS)


def _nothing() -> pl.DataFrame:
    return pl.DataFrame(schema=POLARS_SCHEMA)
