"""A full sync: the whole list is walked, the closing reads make it true as of now, and what that proves is said.

A walk that earlier runs have begun is taken to its end. Jobs that were deleted or inserted among its pages meanwhile
show in the counts only; so where these do not fit what the closing reads tell, the list is walked again, by this run
alone, before anything is judged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.core.order import weakest
from pleo_extract.core.rows import OPEN, created_month, find_unknown, is_same_list, months_of
from pleo_extract.core.state import SyncState, stop_line
from pleo_extract.core.verdict import Verdict, decide_verdict, expect_total, learn_total
from pleo_extract.core.walk import BY_CREATION, PAGE_SIZE
from pleo_extract.errors import ContractError, CursorRefused, RequestRefused
from pleo_extract.fetch.segments import narrow, read_list, totals_of
from pleo_extract.sync.closing import MANY_SOUGHT, find_jobs, read_front, read_start
from pleo_extract.sync.moved import OTHER_DATA, find_listed, move_jobs, settle_split
from pleo_extract.sync.readings import count_unknown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pleo_extract.contract import Key
    from pleo_extract.core.state import JobKey
    from pleo_extract.core.walk import Walk
    from pleo_extract.sync.task import Task

__all__ = ["read_everything"]

_log = logging.getLogger(__name__)

MANY_VANISHED: Final = 100
"""Above this many vanished jobs, and above 1 % of all, the server is not believed without confirmation."""
CONFIRM: Final = "If it is the same and these jobs are gone for good, run again with --accept-vanished"


@dataclass(frozen=True, slots=True)
class _Walked:
    """The walks over the whole list: the order they prove, different jobs met, the newest key, totals first and last."""

    order: str
    jobs: int
    newest: Key | None
    totals: tuple[int | None, int | None]
    pages: int


@dataclass(frozen=True, slots=True)
class _Closed:
    """What the closing reads have shown: when they began, jobs in all, newest key, totals, whether all was found."""

    as_of: datetime
    jobs: int
    newest: Key | None
    totals: tuple[int | None, int | None]
    is_whole: bool = True


def read_everything(task: Task, *, accept_vanished: bool, doubt: str = "") -> SyncState:
    """Read the whole list into staging, twice where the counts ask for it; returns the account's new state.

    `doubt` says what a refresh has found amiss before: ``ranks`` where offsets did not lead where they must.

    Raises:
        DataError: too many rows that do not fit. ContractError: too many jobs have vanished.
        PleoExtractError: the walk did not come to its end.
    """
    began, reread = task.clock(), 0
    walked, closed, verdict = _read_until_it_fits(task, accept_vanished=accept_vanished)
    # Of what an earlier run staged and this one took over, the counts alone are checked.
    task.evidence.shift_chance = 1.0 if closed is None else 0.0
    task.refuse_many_rejected()
    if closed is None and walked.pages > 1 and verdict.name != "incomplete":
        before_rows = task.evidence.rows
        closed = _close(task, walked, resumed=False)
        reread = task.evidence.rows - before_rows - (closed.jobs - walked.jobs)
        task.refuse_many_rejected()
    elif closed is None:  # one page is of one instant
        closed = _Closed(began, walked.jobs, walked.newest, walked.totals)
    complete = verdict.name != "incomplete"
    settle_split(task)
    unmet = _move_unmet(task)
    is_proven = complete and walked.order != "none"
    vanished = _find_vanished(task, unmet, accept_vanished=accept_vanished) if is_proven else set()
    news = sorted(vanished - task.known_vanished())
    if news:
        why = f"{len(news)} job(s) of the lake are no longer listed"
        verdict = Verdict("complete_with_drift", f"{verdict.why}; {why}" if verdict.why else why)
    if verdict.why:
        _log.warning(
            "%s, %s: %s", task.evidence.account, verdict.name, verdict.why, extra={"run": task.session.name}
        )
    task.evidence.conclude(verdict, distinct=closed.jobs, reread=reread)
    task.evidence.order, task.evidence.vanished = walked.order, news
    before = task.before
    if not complete:
        return SyncState(
            verdict=verdict.name,
            watermark=before.watermark,
            vanished=before.vanished,
            rejected=sorted(task.staging.unresolved()),
            unknown=before.unknown,
            total_kind=before.total_kind,
            total_offset=before.total_offset,
            total_misses=before.total_misses,
            forgotten=sorted(task.list_forgotten()),
        )
    told = learn_total(before, closed.jobs, (*walked.totals, *closed.totals), page=PAGE_SIZE)
    task.evidence.total_kind = told.total_kind
    return msgspec.structs.replace(
        told,
        verdict=verdict.name,
        order=walked.order,
        watermark=max(filter(None, (walked.newest, closed.newest)), default=None),
        full_at=task.clock(),
        full_jobs=closed.jobs,
        vanished=sorted(vanished),
        rejected=sorted(task.staging.unresolved()),
        spoiled={},
        unknown=count_unknown(task),
        data_as_of=closed.as_of,
        has_ranks=doubt != "ranks" or bool(news) or _has_inserted(task),
        forgotten=sorted(task.staging.met_forgotten()),
    )


def _read_until_it_fits(task: Task, *, accept_vanished: bool) -> tuple[_Walked, _Closed | None, Verdict]:
    """Walk the list, once more where the counts do not fit; the closing reads too, where the first walk was resumed."""
    previous: int | None = None
    resumed = bool(task.staging.checkpoints("full"))
    if task.staging.resumed and not resumed:  # what an earlier run's refresh met may be gone since
        task.restart()
    walked = _pass(task, "full")
    if resumed:
        closed = _close(task, walked, resumed=True)
        totals = expect_total(task.before, closed.totals)
        verdict, most = decide_verdict(closed.jobs, totals), max(filter(None, totals), default=closed.jobs)
        if closed.is_whole and not verdict.again and closed.jobs <= most:
            return (
                replace(walked, totals=closed.totals),
                closed,
                verdict,
            )  # what was told days ago tells nothing now
        _log.info("%s: what was staged does not fit any longer; reading all again", task.evidence.account)
        task.restart()
        walked, previous = _pass(task, "full"), closed.jobs
        previous = previous if previous == walked.jobs else None
    verdict = decide_verdict(walked.jobs, expect_total(task.before, walked.totals), previous=previous)
    if not verdict.again and not _is_drop(task, walked, accept_vanished=accept_vanished):
        return walked, None, verdict
    told, first = walked.totals[0], walked.jobs
    walked = _pass(task, "again")
    same = _is_met_again(task)
    walked = replace(walked, totals=(told, walked.totals[1]))  # both passes are staged
    totals = expect_total(task.before, walked.totals)
    verdict = decide_verdict(walked.jobs, totals, previous=walked.jobs if same else first, confirmed=same)
    if _is_drop(task, walked, accept_vanished=accept_vanished):
        task.staging.clear()
        raise ContractError(
            f"the server lists {walked.jobs} jobs, of {task.before.full_jobs} at the last full walk; nothing was published. "
            f"{OTHER_DATA}. {CONFIRM}"
        )
    return walked, None, verdict


def _is_drop(task: Task, walked: _Walked, *, accept_vanished: bool) -> bool:
    """Return whether far fewer jobs are listed than at the last full walk, where nothing else would show it."""
    if (
        walked.order != "none"
        or accept_vanished
        or any(total is not None for total in expect_total(task.before, walked.totals))
    ):
        return False
    known = task.before.full_jobs
    return walked.jobs < known - max(MANY_VANISHED, known // 100)


def _close(task: Task, walked: _Walked, *, resumed: bool) -> _Closed:
    """Make the closing reads over what the walk has staged."""
    if walked.order == "none":
        return _close_unordered(task, walked, resumed=resumed)
    line = None if walked.newest is None else stop_line(walked.newest)
    try:
        front = read_front(task, "head", line)
    except (CursorRefused, RequestRefused) as exc:
        _log.info("%s: the head could not be read newest-first: %s", task.evidence.account, exc)
        return _close_unordered(task, walked, resumed=resumed)
    new = _count_new(task, front.batch, resumed=resumed)
    sought = task.without_spoiled(task.unsettled.find(before=front.batch))
    if not resumed:  # those of other statuses are true as this run has read them, and no list would show them
        sought = sought.filter(pl.col("status").is_in(OPEN))
    is_whole = front.order != "none"
    if sought.height and (sought.height <= MANY_SOUGHT or not resumed):
        lost = find_jobs(task, sought, lambda keys: _count_staged(task, keys, new), walk_down=resumed)
        is_whole = is_whole and not lost and lost is not None
    elif sought.height:
        is_whole = False
    return _Closed(front.as_of, walked.jobs + new, front.newest, front.totals, is_whole)


def _close_unordered(task: Task, walked: _Walked, *, resumed: bool) -> _Closed:
    """A job that has ended since it was staged can be anywhere: only another walk would meet it."""
    as_of, batch, totals = read_start(task)
    ended = resumed and task.without_spoiled(task.unsettled.find(before=batch)).height > 0
    return _Closed(as_of, walked.jobs + _count_new(task, batch, resumed=resumed), None, totals, not ended)


def _count_new(task: Task, batch: int, *, resumed: bool) -> int:
    """Count the jobs that only batches from this number on have.

    Of a walk that was resumed, those that it did not meet, whichever run has: all of them are taken over.
    """
    phases = [each.phase for each in task.staging.batches]
    is_late = [phase != "full" if resumed else n >= batch for n, phase in enumerate(phases)]
    frames = [pl.DataFrame(schema=POLARS_SCHEMA).select(*KEY, "created_at")]
    frames += [frame.select(*KEY, "created_at") for n, frame in task.staging.numbered() if is_late[n]]
    late = pl.concat(frames).unique(KEY)
    for n, frame in task.staging.numbered(months=months_of(late)):
        if not is_late[n]:
            late = late.join(frame.select(KEY), on=KEY, how="anti")
    forgotten: dict[bool, set[str]] = {True: set(), False: set()}
    for came_late, each in zip(is_late, task.staging.batches, strict=True):
        forgotten[came_late].update(each.forgotten)
    return late.height + len(forgotten[True] - forgotten[False])


def _count_staged(task: Task, keys: Sequence[pl.Expr], new: int) -> list[int]:
    """Count the jobs of the walk that match each of these, with the `new` ones that came before all of them."""
    counts = [new] * len(keys)
    for frame in task.staging.pages("full"):
        found = frame.select(key.sum().alias(str(n)) for n, key in enumerate(keys)).row(0)
        counts = [count + more for count, more in zip(counts, found, strict=True)]
    return counts


def _is_met_again(task: Task) -> bool:
    """Return whether the second pass, by itself, met what the first one met."""
    columns = (*KEY, "created_at")
    first, again = (
        pl.concat(
            [
                pl.DataFrame(schema=POLARS_SCHEMA).select(columns),
                *(f.select(columns) for f in task.staging.pages(phase)),
            ]
        )
        for phase in ("full", "again")
    )
    return is_same_list(first.unique(KEY), again.unique(KEY))


def _has_inserted(task: Task) -> bool:
    """Return whether jobs are staged that lie in the lake's past, and that it does not have."""
    if task.before.watermark is None:
        return True
    until = stop_line(task.before.watermark)
    for month in task.staging.months():
        lake = task.lake.filter(created_month() == month).select(KEY).collect()
        if any(find_unknown(lake, frame, until=until).height for frame in task.staging.read(month)):
            return True
    return False


def _pass(task: Task, phase: str) -> _Walked:
    """One walk over the list, with the number of different jobs that are staged after it, unusable rows included.

    What the walks prove of rows counts where as many are staged as they have read; else those staged are counted.
    """
    query = narrow(BY_CREATION, company_id=task.company_id)
    walks, parts = read_list(
        task.session,
        query,
        segments=task.in_flight,
        marks=task.staging.checkpoints(phase),
        on_page=task.on_page,
    )
    try:
        task.stage(phase, parts)
    finally:
        for walk in walks:
            task.evidence.count_walk(walk)
    unkeyed = sum(walk.checkpoint.unkeyed for walk in walks) - settle_split(task)
    proven = [walk.distinct for walk in walks if walk.distinct is not None]
    is_staged = task.staging.count_rows(phase) >= sum(walk.checkpoint.rows for walk in walks)
    jobs = sum(proven)
    if len(proven) < len(walks) or phase != "full" or not is_staged:
        jobs = sum(_count_jobs(task, month) for month in task.staging.months())
        jobs += len(task.staging.met_forgotten())
    return _describe(walks, jobs + unkeyed)


def _describe(walks: Sequence[Walk], jobs: int) -> _Walked:
    newest = [walk.checkpoint.newest for walk in walks if walk.checkpoint.newest is not None]
    return _Walked(
        order=weakest(walk.order for walk in walks),
        jobs=jobs,
        newest=max(newest, default=None),
        totals=totals_of(walks),
        pages=sum(walk.checkpoint.pages for walk in walks),
    )


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
            f"full walk; nothing was published. {OTHER_DATA}. {CONFIRM}"
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
