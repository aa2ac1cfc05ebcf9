"""A full walk: everything is read, and what that proves is said."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY
from pleo_extract.errors import ContractError
from pleo_extract.extract.counting import count_unknown
from pleo_extract.extract.moving import OTHER_DATA, find_listed, move_jobs, settle_split
from pleo_extract.extract.reading import narrow, read_list, totals_of
from pleo_extract.paging import BY_CREATION, Verdict, judge
from pleo_extract.refresh import Account, created_month

if TYPE_CHECKING:
    from datetime import datetime

    from pleo_extract.extract.task import Task
    from pleo_extract.paging import Walk
    from pleo_extract.refresh import JobKey

__all__ = ["read_everything"]

_log = logging.getLogger(__name__)

MANY_VANISHED: Final = 100
"""Above this many vanished jobs, and above 1 % of all, the server is not believed without confirmation."""


def read_everything(task: Task, now: datetime, *, accept_vanished: bool) -> Account:
    """Walk the whole list into staging, twice where the counts ask for it; returns the account's new state.

    Raises:
        DataError: too many rows that do not fit. ContractError: too many jobs have vanished.
        PleoExtractError: the walk did not come to its end.
    """
    walks, distinct = _pass(task, "full")
    verdict = judge(distinct, totals_of(walks))
    if verdict.again:
        told = totals_of(walks)[0]
        walks, again = _pass(task, "again")
        verdict = judge(again, (told, totals_of(walks)[1]), previous=distinct)
        distinct = again
    task.refuse_many_rejected()
    order = min((walk.order for walk in walks), key=("none", "created", "strict").index)
    complete = verdict.name != "incomplete"
    unmet = _move_unmet(task)
    is_proven = complete and order != "none"
    vanished = _find_vanished(task, unmet, accept_vanished=accept_vanished) if is_proven else set()
    news = sorted(vanished - task.known_vanished())
    if news:
        why = f"{len(news)} job(s) of the lake are no longer listed"
        verdict = Verdict("complete_with_drift", f"{verdict.why}; {why}" if verdict.why else why)
    if verdict.why:
        _log.warning(
            "%s, %s: %s", task.receipt.account, verdict.name, verdict.why, extra={"run": task.run.name}
        )
    task.receipt.conclude(verdict, distinct=distinct)
    task.receipt.order, task.receipt.vanished = order, news
    newest = [walk.newest for walk in walks if walk.newest is not None]
    if not complete:
        return Account(
            verdict=verdict.name,
            frontier=task.before.frontier,
            vanished=task.before.vanished,
            rejected=sorted(task.staging.unresolved()),
            unknown=task.before.unknown,
        )
    return Account(
        verdict=verdict.name,
        order=order,
        frontier=max(newest, default=None),
        full_at=now,
        full_jobs=distinct,
        vanished=sorted(vanished),
        rejected=sorted(task.staging.unresolved()),
        unknown=count_unknown(task),
    )


def _pass(task: Task, phase: str) -> tuple[list[Walk], int]:
    """One walk over the list, and how many different jobs are staged after it, unusable rows included.

    What the walks prove of rows counts where as many are staged as they have read; else those staged are counted.
    """
    query = narrow(BY_CREATION, company_id=task.company_id)
    walks, parts = read_list(
        task.run, query, segments=task.in_flight, marks=task.staging.marks(phase), on_page=task.on_page
    )
    try:
        task.stage(phase, parts)
    finally:
        for walk in walks:
            task.receipt.count_walk(walk)
    unkeyed = sum(walk.unkeyed for walk in walks) - settle_split(task)
    proven = [walk.distinct for walk in walks if walk.distinct is not None]
    is_staged = task.staging.count_rows(phase) >= sum(walk.rows for walk in walks)
    if len(proven) == len(walks) and phase == "full" and is_staged:
        return walks, sum(proven) + unkeyed
    return walks, sum(_count_jobs(task, month) for month in task.staging.months()) + unkeyed


def _count_jobs(task: Task, month: str) -> int:
    frames = [frame.select(KEY) for frame in task.staging.read(month)]
    return pl.concat(frames).unique().height


def _move_unmet(task: Task) -> set[JobKey]:
    """Let jobs move that the walk met in other months than the lake has them in; returns those that it did not meet."""
    unmet = _unmet(task)
    listed = find_listed(task, unmet.keys())
    move_jobs(task, {job: unmet[job] for job in listed})
    return unmet.keys() - listed


def _find_vanished(task: Task, unmet: set[JobKey], *, accept_vanished: bool) -> set[JobKey]:
    """Jobs of the lake that a full walk in proven order did not meet, twice; `unmet` are those it did not meet once."""
    known = task.known_vanished()
    if unmet <= known:
        return unmet
    _pass(task, "confirm")
    unmet = _move_unmet(task)
    drop = len(unmet - known)
    if drop > max(MANY_VANISHED, task.before.full_jobs // 100) and not accept_vanished:
        task.staging.clear()
        raise ContractError(
            f"{drop} jobs that the lake has are no longer listed by the server, of {task.before.full_jobs} at the last "
            f"full walk; nothing was published. {OTHER_DATA}. If it is the same and these jobs are gone for good, run "
            "again with --accept-vanished"
        )
    return unmet


def _unmet(task: Task) -> dict[JobKey, list[str]]:
    """Jobs of the lake that are neither staged in its month nor set aside, with that month."""
    unmet: dict[JobKey, list[str]] = {}
    rejected = set(task.staging.names)
    months = task.lake.select(created_month().unique()).collect().to_series().to_list()
    for month in months:
        lake = task.lake.filter(created_month() == month).select(KEY).collect()
        met = pl.concat([lake.clear(), *(frame.select(KEY) for frame in task.staging.read(month))])
        for company, name in lake.join(met, on=KEY, how="anti").iter_rows():
            if f"{company}/{name}" not in rejected:
                unmet.setdefault((company, name), []).append(month)
    return unmet
