"""The full sync: walk the whole list, make the closing reads, and decide what that proves.

Theory of operation. A full sync assumes nothing of the lake. It takes up to three passes over the list:

    full      always; if earlier runs began it, this run continues their segments
    again     if the distinct jobs and `total` do not fit (`decide_verdict`), or if an unordered list has shrunk a lot
    confirm   if jobs of the lake were not met: only what two passes miss has vanished

The passes run in different situations:

1. *The first pass was resumed.* Its pages may be days old. Jobs deleted or inserted among them since then show in the
   counts only. So the closing reads come before the verdict; if their totals do not fit the jobs met, staging is dropped
   and this run walks the list alone. What an earlier run's *incremental* sync staged is dropped at the start.
2. *This run walked the list alone.* The verdict comes first. The closing reads follow, unless the list has one page
   (then everything is of one instant) or the pass was incomplete.

What the lake holds and no pass met has vanished, if the order was proven and the verdict is not incomplete. The row
stays, marked. If more than 100 jobs and more than 1 % vanish, the server probably serves other data: the sync ends in a
ContractError until someone confirms with --accept-vanished.

An incomplete sync is published too, but its state keeps the old watermark, so that the next run is full again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.core.order import weakest
from pleo_extract.core.rows import OPEN, count_months, created_month, find_unknown, is_confirmed, is_unsettled
from pleo_extract.core.state import SyncState, stop_line
from pleo_extract.core.verdict import (
    Verdict,
    count_arrivals,
    decide_verdict,
    expect_total,
    is_many,
    is_skip_likely,
    learn_total,
)
from pleo_extract.core.walk import BY_CREATION
from pleo_extract.errors import ContractError, CursorRefused, RequestRefused, amount
from pleo_extract.fetch.segments import (
    is_moving,
    moves_of,
    narrow,
    newest_of,
    read_list,
    repeated_of,
    totals_of,
)
from pleo_extract.sync.closing import MANY_SOUGHT, find_jobs, read_from_start, read_head
from pleo_extract.sync.moved import OTHER_DATA, choose_months, count_surplus, find_staged, move_jobs
from pleo_extract.sync.readings import count_rereads

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pleo_extract.contract import Key
    from pleo_extract.core.state import JobKey
    from pleo_extract.sync.task import Task

__all__ = ["sync_fully"]

_log = logging.getLogger(__name__)

CONFIRM: Final = "If it is the same and these jobs are gone for good, run again with --accept-vanished"


@dataclass(frozen=True, slots=True)
class _Pass:
    """The result of one pass over the whole list.

    Attributes:
        order: the weakest order that its walks prove.
        jobs: different jobs staged by it, and by the first pass if it is the second, unusable rows included.
        newest: the newest key met, see `newest_of`.
        totals: `total` on the first and on the last page.
        moves: by how much `total` rose and fell from page to page.
        pages: how many pages were read.
        repeated: how many rows came twice in a list sorted by created_at alone.
        is_moving: whether rows of a list without order came twice in it.
    """

    order: str
    jobs: int
    newest: Key | None
    totals: tuple[int | None, int | None]
    moves: tuple[int, int]
    pages: int
    repeated: int
    is_moving: bool


@dataclass(frozen=True, slots=True)
class _Closing:
    """The result of the closing reads over a pass.

    Attributes:
        as_of: when they began (UTC).
        jobs: different jobs of the pass and the closing reads together.
        newest: the newest key that the closing reads met.
        totals: `total` on the first and on the last page of the head.
        is_whole: False if a job that was looked up is gone, or could not be looked up.
        reread: how many rows of the pass the closing reads read again; such rows are no duplicates.
        is_apart: whether the list read newest first ended without any job of the pass.
    """

    as_of: datetime
    jobs: int
    newest: Key | None
    totals: tuple[int | None, int | None]
    is_whole: bool = True
    reread: int = 0
    is_apart: bool = False


def sync_fully(task: Task, *, accept_vanished: bool, mismatch: str = "") -> SyncState:
    """Read the whole list into staging, more than once if the counts ask for it, and return the account's new state.

    Args:
        task: the account's sync.
        accept_vanished: accept the loss of any number of jobs.
        mismatch: the `kind` of the `Mismatch` that an incremental sync of this run raised before.

    Raises:
        DataError: too many rows do not fit the contract.
        ContractError: too many jobs have vanished.
        PleoExtractError: the walk did not reach the end of the list.
    """
    walked, closing, verdict = _walk_and_close(task, accept_vanished=accept_vanished)
    is_complete = verdict.name != "incomplete"
    choose_months(task)
    unmet = _move_unmet(task)
    is_proven = is_complete and walked.order != "none"
    # A list whose order is not proven shows no job to be gone, but those that are known to be gone stay so until it is met.
    if is_proven:
        vanished = _find_vanished(task, unmet, accept_vanished=accept_vanished)
    else:
        if is_complete and (open_jobs := _select_open(task, unmet)):
            # In a list that is ordered by its last change a job moves when it ends, perhaps past the reader.
            _walk_list(task, "confirm")
            unmet = _move_unmet(task)
            if lost := len(open_jobs & unmet):
                why = f"{amount(lost, 'open job')} of the lake did not come in two readings of a list without order"
                verdict = _add_drift(verdict, why)
        vanished = unmet & task.known_vanished()
    newly_vanished = sorted(vanished - task.known_vanished())
    if newly_vanished:
        why = f"{amount(len(newly_vanished), 'job of the lake is', 'jobs of the lake are')} no longer listed"
        verdict = _add_drift(verdict, why)
    if verdict.why:
        _log.warning(
            "%s, %s: %s",
            task.evidence.account,
            verdict.name,
            verdict.why,
            extra={"run": task.session.log.run},
        )
    task.evidence.conclude(verdict, distinct=closing.jobs, reread=closing.reread)
    task.evidence.order, task.evidence.vanished = walked.order, newly_vanished
    if not is_complete:
        return _keep_state(task)
    learned = learn_total(
        task.before,
        closing.jobs,
        (*walked.totals, *closing.totals),
        fallen=walked.moves[1],
        page=task.session.pages.usual,
    )
    task.evidence.total_kind = learned.total_kind
    return msgspec.structs.replace(
        learned,
        verdict=verdict.name,
        order=walked.order,
        watermark=max(filter(None, (walked.newest, closing.newest)), default=None),
        full_at=task.clock(),
        full_jobs=closing.jobs,
        vanished=sorted(vanished),
        rejected=sorted(task.staging.unresolved()),
        spoiled={},
        unknown=count_rereads(task),
        data_as_of=closing.as_of,
        # Ranks that misled the audit although no job had vanished, come back or been inserted: this server's offsets are
        # no ranks.
        has_ranks=mismatch != "ranks" or vanished != task.known_vanished() or _has_inserted(task),
        forgotten=sorted(task.staging.met_forgotten()),
    )


def _add_drift(verdict: Verdict, why: str) -> Verdict:
    return Verdict("complete_with_drift", f"{verdict.why}; {why}" if verdict.why else why)


def _keep_state(task: Task) -> SyncState:
    """Return the state after an incomplete sync: what is known of jobs and `total` stays, what a walk proved does not."""
    before = task.before
    return SyncState(
        verdict="incomplete",
        watermark=before.watermark,
        vanished=before.vanished,
        rejected=sorted(task.staging.unresolved()),
        unknown=before.unknown,
        total_kind=before.total_kind,
        total_offset=before.total_offset,
        total_misses=before.total_misses,
        forgotten=sorted(task.list_forgotten()),
        page_size=before.page_size,
        page_limit=before.page_limit,
    )


def _walk_and_close(task: Task, *, accept_vanished: bool) -> tuple[_Pass, _Closing, Verdict]:
    """Walk the list and make the closing reads, unless they would show nothing new."""
    began = task.clock()
    walked, closing, verdict = _walk_until_it_fits(task, accept_vanished=accept_vanished)
    # Pages that an earlier run staged are checked by counts alone, where a deletion and an insertion cancel out.
    task.evidence.shift_chance = 1.0 if closing is None else 0.0
    task.refuse_many_rejected()
    if closing is not None:
        return walked, closing, _doubt(closing, verdict)
    # A single page needs none, unless the server counts more jobs: then the list may have been cut off.
    most = max(filter(None, expect_total(task.before, walked.totals)), default=0)
    if (walked.pages <= 1 and walked.jobs >= most) or verdict.name == "incomplete":
        return walked, _Closing(began, walked.jobs, walked.newest, walked.totals), verdict
    rows = task.evidence.rows
    closing = _read_closing(task, walked, resumed=False)
    reread = task.evidence.rows - rows - (closing.jobs - walked.jobs)
    task.refuse_many_rejected()
    return walked, replace(closing, reread=reread), _doubt(closing, verdict)


def _doubt(closing: _Closing, verdict: Verdict) -> Verdict:
    """Return the verdict, unless the closing reads show that the list was cut off: servers may list a part of it only."""
    if not closing.is_apart:
        return verdict
    why = "the list read oldest first and the list read newest first have no job in common, so jobs between them are missing"
    return Verdict("incomplete", why)


def _walk_until_it_fits(task: Task, *, accept_vanished: bool) -> tuple[_Pass, _Closing | None, Verdict]:
    """Walk the list, and once more if the counts do not fit. The closing reads are made if the first pass was resumed.

    Raises:
        ContractError: an unordered list without a usable `total` has lost too many jobs, twice.
    """
    previous: int | None = None
    resumed = bool(task.staging.checkpoints("full"))
    # What an earlier incremental sync staged is read again: its jobs may be gone by now.
    if task.staging.resumed and not resumed:
        task.restart()
    walked = _walk_list(task, "full")
    if resumed:
        closing = _read_closing(task, walked, resumed=True)
        first_totals, totals = (expect_total(task.before, each.totals) for each in (walked, closing))
        # Between two runs a list moves anyway: without a total no run could go on with what another one has read.
        is_moving = walked.is_moving and totals[1] is not None
        verdict = decide_verdict(closing.jobs, totals, repeated=walked.repeated, is_moving=is_moving)
        most = max(filter(None, totals), default=closing.jobs)
        is_drop = _is_drop(task, walked, accept_vanished=accept_vanished)
        is_doubtful = verdict.again or is_drop or is_skip_likely(closing.jobs, first_totals, walked.moves)
        if closing.is_whole and not is_doubtful and closing.jobs <= most:
            # The totals of the first pass may be days old; only those of the closing reads count.
            return replace(walked, totals=closing.totals), closing, verdict
        _log.info(
            "%s: the staged pages no longer fit the list; reading everything again", task.evidence.account
        )
        task.restart()
        walked, previous = _walk_list(task, "full"), closing.jobs
        previous = previous if previous == walked.jobs else None
    totals = expect_total(task.before, walked.totals)
    verdict = decide_verdict(
        walked.jobs,
        totals,
        moves=walked.moves,
        repeated=walked.repeated,
        is_moving=walked.is_moving,
        meets_arrivals=walked.order != "none",
        previous=previous,
    )
    if not verdict.again and not _is_drop(task, walked, accept_vanished=accept_vanished):
        return walked, None, verdict
    first = walked
    walked = _walk_list(task, "again")
    # Both passes are staged, so the first total of the first pass is the one to compare with: where cursors are
    # positions, a job deleted behind the reader moves another one past it, and the total of the second pass fits.
    arrivals = count_arrivals(*(expect_total(task.before, each.totals) for each in (first, walked)))
    walked = replace(walked, totals=(first.totals[0], walked.totals[1]))
    confirmed = _is_confirmed(task, arrivals)
    verdict = decide_verdict(
        walked.jobs,
        expect_total(task.before, walked.totals),
        repeated=walked.repeated,
        is_moving=walked.is_moving,
        previous=walked.jobs if confirmed else first.jobs,
        confirmed=confirmed,
    )
    if _is_drop(task, walked, accept_vanished=accept_vanished):
        task.staging.clear()
        raise ContractError(
            f"the server lists {walked.jobs} jobs, {task.before.full_jobs} at the last full sync; nothing was published. "
            f"{OTHER_DATA}. {CONFIRM}"
        )
    return walked, None, verdict


def _is_drop(task: Task, walked: _Pass, *, accept_vanished: bool) -> bool:
    """Return whether far fewer jobs are listed than at the last full sync, in a list without proven order.

    With a proven order `_find_vanished` counts the loss. A `total` is no reason to believe it: if it has fallen too, the
    server shows other data, and if it has not, the list was cut off.
    """
    if walked.order != "none" or accept_vanished:
        return False
    return is_many(task.before.full_jobs - walked.jobs, task.before.full_jobs)


def _read_closing(task: Task, walked: _Pass, *, resumed: bool) -> _Closing:
    """Make the closing reads over a staged pass."""
    if walked.order == "none":
        return _read_closing_unordered(task, walked, resumed=resumed)
    until = None if walked.newest is None else stop_line(walked.newest)
    try:
        head = read_head(task, "head", until)
    except (CursorRefused, RequestRefused) as exc:
        _log.info("%s: the head could not be read newest first: %s", task.evidence.account, exc)
        return _read_closing_unordered(task, walked, resumed=resumed)
    new = _count_new(task, head.batch, resumed=resumed)
    sought = task.drop_rejected(task.unsettled.find(before=head.batch))
    # Rows of unknown statuses were read by this run moments ago, and no open list would show them.
    if not resumed:
        sought = sought.filter(pl.col("status").is_in(OPEN))
    is_whole = head.order != "none" and not head.replaced
    if sought.height and (sought.height <= MANY_SOUGHT or not resumed):
        lost = find_jobs(task, sought, lambda keys: _count_staged(task, keys, new), walk_down=resumed)
        is_whole = is_whole and not lost and lost is not None
    elif sought.height:
        is_whole = False
    is_apart = head.ended and _is_apart(task, head.batch)
    # Of jobs that came meanwhile, one may be hidden: the next sync reads from the newest of the pass on.
    newest = walked.newest if head.replaced else head.newest
    return _Closing(head.as_of, walked.jobs + new, newest, head.totals, is_whole, is_apart=is_apart)


def _is_apart(task: Task, batch: int) -> bool:
    """Return whether the head, of the batches from this number on, has jobs, and the pass has jobs, but none of them."""
    phases = [each.phase for each in task.staging.batches]
    nothing = pl.DataFrame(schema=dict.fromkeys(KEY, pl.String))
    late = [frame.select(KEY) for n, frame in task.staging.numbered(start=batch) if phases[n] == "head"]
    head = pl.concat([nothing, *late]).unique()
    frames = task.staging.pages("full", "again")
    passed = [frame.select(KEY).join(head, on=KEY, how="semi").height for frame in frames]
    return head.height > 0 and len(passed) > 0 and not any(passed)


def _read_closing_unordered(task: Task, walked: _Pass, *, resumed: bool) -> _Closing:
    """Make the closing reads over an unordered list. Without ranks, a staged job that has ended cannot be looked up."""
    as_of, batch, totals = read_from_start(task)
    ended = resumed and task.drop_rejected(task.unsettled.find(before=batch)).height > 0
    return _Closing(as_of, walked.jobs + _count_new(task, batch, resumed=resumed), None, totals, not ended)


def _count_new(task: Task, batch: int, *, resumed: bool) -> int:
    """Return how many jobs only batches from this number on hold; after a resumed pass, only batches of other phases.

    An earlier run may have staged a head of its own. Its new jobs count too: uncounted, they would make up for deleted
    ones.
    """
    phases = [each.phase for each in task.staging.batches]
    is_late = [phase != "full" if resumed else n >= batch for n, phase in enumerate(phases)]
    frames = [pl.DataFrame(schema=POLARS_SCHEMA).select(*KEY, "created_at")]
    first = 0 if resumed else batch
    late_frames = task.staging.numbered(start=first)
    frames += [frame.select(*KEY, "created_at") for n, frame in late_frames if is_late[n]]
    late = pl.concat(frames).unique(KEY)
    for n, frame in task.staging.numbered(months=count_months(late)):
        if not is_late[n]:
            late = late.join(frame.select(KEY), on=KEY, how="anti")
    forgotten: dict[bool, set[str]] = {True: set(), False: set()}
    for came_late, each in zip(is_late, task.staging.batches, strict=True):
        forgotten[came_late].update(each.forgotten)
    return late.height + len(forgotten[True] - forgotten[False])


def _count_staged(task: Task, keys: Sequence[pl.Expr], new: int) -> list[int]:
    """Return how many jobs of the pass match each expression, plus the `new` ones, which stand before all of them."""
    counts = [new] * len(keys)
    for frame in task.staging.pages("full"):
        found = frame.select(key.sum().alias(str(n)) for n, key in enumerate(keys)).row(0)
        counts = [count + more for count, more in zip(counts, found, strict=True)]
    return counts


def _is_confirmed(task: Task, arrivals: range | None) -> bool:
    """Return whether the second pass alone confirms the first one."""
    nothing = pl.DataFrame(schema=POLARS_SCHEMA).select(KEY)
    first, again = (
        pl.concat([nothing, *(frame.select(KEY) for frame in task.staging.pages(phase))]).unique()
        for phase in ("full", "again")
    )
    return is_confirmed(first, again, arrivals=arrivals)


def _has_inserted(task: Task) -> bool:
    """Return whether staging holds jobs older than the watermark that the lake lacks: inserted into the past."""
    if task.before.watermark is None:
        return True
    until = stop_line(task.before.watermark)
    for month in task.staging.months():
        lake = task.lake.filter(created_month() == month).select(KEY).collect()
        if any(find_unknown(lake, frame, until=until).height for frame in task.staging.read(month)):
            return True
    return False


def _walk_list(task: Task, phase: str) -> _Pass:
    """Walk the whole list into staging as one phase.

    In strict order the walks themselves prove how many different jobs they met, apart from those that moved meanwhile,
    which spares a count over all staged rows. They are believed only if as many rows are staged as they have read: after
    a signal at the wrong moment they may have read more.
    """
    query = narrow(BY_CREATION, company_id=task.company_id)
    walks, batches = read_list(
        task.session,
        query,
        segments=task.in_flight,
        checkpoints=task.staging.checkpoints(phase),
        on_page=task.on_page,
    )
    try:
        task.stage(phase, batches)
    finally:
        for walk in walks:
            task.evidence.count_walk(walk)
    unkeyed = sum(walk.checkpoint.unkeyed for walk in walks)
    moved = choose_months(task)
    proven = [walk.distinct for walk in walks if walk.distinct is not None]
    is_staged = task.staging.count_rows(phase) >= sum(walk.checkpoint.rows for walk in walks)
    if len(proven) < len(walks) or phase != "full" or not is_staged:
        met = _count_jobs(task, moved, phase)
        jobs = _count_jobs(task, moved, "full", "again") if phase == "again" else met
    else:
        moved = moved.filter(pl.col("phase") == phase)
        jobs = met = sum(proven) - count_surplus(moved, pl.col("created_at"))
    return _Pass(
        order=weakest(walk.order for walk in walks),
        jobs=jobs + unkeyed,
        newest=newest_of(walks),
        totals=totals_of(walks),
        moves=moves_of(walks),
        pages=sum(walk.checkpoint.pages for walk in walks),
        repeated=repeated_of(walks),
        is_moving=is_moving(walks, met + unkeyed),
    )


def _count_jobs(task: Task, moved: pl.DataFrame, *phases: str) -> int:
    """Return how many different jobs these phases have staged; `moved` are the keys that were met in several months."""
    jobs = len(task.staging.met_forgotten(*phases))
    jobs -= count_surplus(moved.filter(pl.col("phase").is_in(phases)), created_month())
    for month in task.staging.months():  # a month at a time, to bound memory
        frames = [frame.select(KEY) for frame in task.staging.read(month, *phases)]
        jobs += pl.concat(frames).unique().height if frames else 0
    return jobs


def _move_unmet(task: Task) -> set[JobKey]:
    """Move the jobs that are staged in another month than the lake's, and return those that were not met at all.

    A job whose row was rejected was met. If another page showed a valid row of it, it is moved like any other.
    """
    unmet = _find_unmet(task)
    listed = find_staged(task, unmet.keys())
    move_jobs(task, {job: unmet[job] for job in listed})
    return unmet.keys() - listed - task.list_rejected()


def _find_vanished(task: Task, unmet: set[JobKey], *, accept_vanished: bool) -> set[JobKey]:
    """Return the jobs of the lake that no pass met, after one more pass; `unmet` are those of the passes so far.

    Raises:
        ContractError: too many jobs have vanished.
    """
    known = task.known_vanished()
    if unmet <= known:
        return unmet
    _walk_list(task, "confirm")
    unmet = _move_unmet(task)
    drop = len(unmet - known)
    if is_many(drop, task.before.full_jobs) and not accept_vanished:
        task.staging.clear()
        raise ContractError(
            f"{drop} jobs of the lake are no longer listed by the server, of {task.before.full_jobs} at the last "
            f"full sync; nothing was published. {OTHER_DATA}. {CONFIRM}"
        )
    return unmet


def _select_open(task: Task, unmet: set[JobKey]) -> set[JobKey]:
    """Return those jobs of the lake that may still change and are not known to have vanished."""
    rows = task.lake.filter(is_unsettled(task.before.unknown)).select(KEY).collect().iter_rows()
    return unmet.intersection(rows) - task.known_vanished()


def _find_unmet(task: Task) -> dict[JobKey, list[str]]:
    """Return the jobs of the lake that are not staged in the lake's month, with that month."""
    unmet: dict[JobKey, list[str]] = {}
    months = task.lake.select(created_month().unique()).collect().to_series().to_list()
    for month in months:
        lake = task.lake.filter(created_month() == month).select(KEY).collect()
        met = pl.concat([lake.clear(), *(frame.select(KEY) for frame in task.staging.read(month))])
        for company, name in lake.join(met, on=KEY, how="anti").iter_rows():
            unmet.setdefault((company, name), []).append(month)
    return unmet
