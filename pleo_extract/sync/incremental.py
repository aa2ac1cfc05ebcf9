"""A refresh: only what can have changed is read, and what was read must fit what the lake has.

(a) the open jobs, by status; (b) the list newest-first, down to an hour below the last frontier; (c) jobs that lake or
staging holds as unsettled and the open list does not show, each on the page where it must stand; (d) a few pages of
old jobs, by chance, which must be where the lake's ranking puts them; (e) counts against `total`. Whatever does not fit
is said, and turns the run into a full sync. A refresh that is not resumed is nothing but its closing reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import polars as pl

from pleo_extract.contract import KEY
from pleo_extract.core.rows import find_changed, find_unknown, is_as_late, is_later
from pleo_extract.core.state import stop_line
from pleo_extract.core.verdict import Verdict, expect_total
from pleo_extract.errors import CursorRefused, RequestRefused
from pleo_extract.sync.audit import audit
from pleo_extract.sync.closing import find_jobs, read_front
from pleo_extract.sync.moved import move_listed, settle_split
from pleo_extract.sync.readings import count_unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.core.state import JobKey, SyncState
    from pleo_extract.sync.closing import Head
    from pleo_extract.sync.task import Task

__all__ = ["Mismatch", "refresh"]


class Mismatch(Exception):
    """What was read does not fit the lake: only a full sync can tell. The message says what.

    `kind` is ``ranks`` where offsets do not lead to the jobs that must stand there.
    """

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


def refresh(task: Task) -> SyncState:
    """Read what can have changed into staging; returns the account's new state.

    Raises:
        Misfit: a full sync is due.
    """
    front = _read_front(task)
    batch = len(task.staging.batches)
    vanished, unlisted = _find_settled(task, front)
    problem = audit(task, front, vanished)
    if problem:
        raise Mismatch(problem, kind="ranks")
    fresh = task.staging.frame()
    phases = [batch.phase for batch in task.staging.batches]
    pages = [frame for n, frame in task.staging.numbered(start=front.batch) if phases[n] in ("audit", "rank")]
    lake = task.lake_rows(fresh, pages)
    settle_split(task)
    news = fresh.join(lake, on=[*KEY, "created_at"], how="anti")
    moved = move_listed(task, news)
    _compare(task, pages, lake, vanished, moved)
    new = _without(news.unique(KEY), moved | _find_late(task, front, batch))
    state = _conclude(task, front, new.height, vanished, unlisted)
    return msgspec.structs.replace(state, unknown=count_unknown(task))


def _read_front(task: Task) -> Head:
    before = task.before
    assert before.watermark is not None, "choose_mode asks for a full sync without one"
    try:
        front = read_front(task, "new", stop_line(before.watermark))
    except (CursorRefused, RequestRefused) as exc:
        raise Mismatch(f"the list could not be read in parts ({exc})") from exc
    if front.order == "none" or (front.order == "created" and before.order == "strict"):
        raise Mismatch("the server no longer keeps the order of creation")
    if front.edge is None:
        raise Mismatch("the list is empty")
    return front


def _find_settled(task: Task, front: Head) -> tuple[set[JobKey], set[JobKey]]:
    """Look for the jobs that were open and are so no longer, and for those whose rows were rejected.

    Returns:
        Of the first those that have vanished; of the others those that are not listed.
    """
    assert front.edge is not None
    staged = task.staging.frame().select(KEY)
    columns = ("created_at", *KEY)
    # A walk that ended has passed everything, also what is older than the last job that it showed.
    is_passed = pl.lit(value=True) if front.ended else is_later(front.edge)
    near = task.lake if front.ended else task.lake.filter(is_as_late(front.edge))
    passed = near.select("status", *columns).collect()
    known = task.known_vanished()
    gone = task.without_spoiled(passed.filter(is_passed).join(staged, on=KEY, how="anti"))
    settled = [key for key in gone.filter(~task.is_unsettled()).select(KEY).iter_rows() if key not in known]
    if settled:
        raise Mismatch(f"{len(settled)} settled job(s) that the walk passed are no longer listed")
    vanished = set(gone.select(KEY).iter_rows()) - known
    unsettled = task.lake.filter(task.is_unsettled()).select(columns).collect()
    missing = unsettled.filter(~is_passed).join(staged, on=KEY, how="anti")
    stale = task.unsettled.find(before=front.batch)  # what earlier runs saw open may have ended since
    missing = task.without_spoiled(pl.concat([missing, stale.select(columns)]).unique(KEY))
    missing = _without(missing, known)
    rejected = task.find_rejected().join(staged, on=KEY, how="anti").join(missing, on=KEY, how="anti")
    sought = pl.concat([missing, rejected.select(columns)])
    if not sought.height:
        return vanished, set()
    lost = find_jobs(task, sought, lambda keys: _count_newer(task, keys))
    if lost is None or (stale.height and lost & set(stale.select(KEY).iter_rows())):
        raise Mismatch("jobs that an earlier run staged are no longer listed")
    return vanished | (lost & set(missing.select(KEY).iter_rows())), lost & task.known_rejected()


def _find_late(task: Task, front: Head, batch: int) -> set[JobKey]:
    """Return the jobs first met from this batch on that were not in the list yet when its head was read.

    The head told how many jobs there were then. One that was met later and counted all the same would make up for one
    that was inserted into the past.
    """
    assert front.newest is not None
    met = {True: [task.lake.head(0).select(KEY).collect()], False: [task.lake.head(0).select(KEY).collect()]}
    for n, frame in task.staging.numbered():
        met[n >= batch].append(frame.filter(is_as_late(front.newest)).select(KEY))
    return set(pl.concat(met[True]).join(pl.concat(met[False]), on=KEY, how="anti").iter_rows())


def _without(jobs: pl.DataFrame, keys: set[JobKey]) -> pl.DataFrame:
    return jobs.filter([key not in keys for key in jobs.select(KEY).iter_rows()]) if keys else jobs


def _count_newer(task: Task, keys: Sequence[pl.Expr]) -> list[int]:
    """How many jobs of the list match each of these, those that are new to the lake before all of them."""
    counts = task.lake.select(key.sum().alias(str(n)) for n, key in enumerate(keys)).collect().row(0)
    fresh = task.count_new(task.staging.frame())
    return [fresh + count for count in counts]


def _compare(
    task: Task,
    pages: Sequence[pl.DataFrame],
    known: pl.DataFrame,
    vanished: set[JobKey],
    moved: set[JobKey],
) -> None:
    """Compare what was read with what the lake has of it, and these old pages with all that must lie between their ends.

    Jobs that moved are accounted for.
    """
    assert task.before.watermark is not None
    expected = moved | task.known_rejected()  # what was rejected had changed
    changed = _without(find_changed(known, task.staging.frame(), task.before.unknown), expected)
    if changed.height:
        raise Mismatch(f"{changed.height} settled job(s) changed, {changed['id'][0]} among them")
    for page in filter(len, pages):
        low, high = page["created_at"].min(), page["created_at"].max()
        lake = known.filter(pl.col("created_at").is_between(low, high)).select("created_at", *KEY)
        unknown = _without(find_unknown(lake, page, until=stop_line(task.before.watermark)), moved)
        rejected = set(task.before.rejected)  # seen right at last
        unknown = unknown.filter(
            [f"{company}/{name}" not in rejected for company, name in unknown.select(KEY).iter_rows()]
        )
        if unknown.height:
            raise Mismatch(f"{unknown.height} old job(s) are new to the lake, {unknown['id'][0]} among them")
        inside = lake.filter(pl.col("created_at").is_between(low, high, closed="none"))
        gone = set(inside.join(page, on=KEY, how="anti").select(KEY).iter_rows())
        gone -= task.known_vanished() | task.spoiled() | vanished | moved
        if gone:
            raise Mismatch(f"{len(gone)} old job(s) are no longer listed")


def _conclude(task: Task, front: Head, new: int, vanished: set[JobKey], unlisted: set[JobKey]) -> SyncState:
    """Compare counts with `total`, given so many new jobs; where they fit, this refresh is complete.

    `unlisted` are jobs of rejected rows that are no longer listed: there is nothing to wait for.
    """
    task.refuse_many_rejected()
    before, staged = task.before, task.staging.frame()
    met = set(staged.select(KEY).iter_rows())
    gone = (task.known_vanished() | vanished) - met - task.spoiled()
    seen = {f"{company}/{name}" for company, name in met | unlisted}
    rejected = sorted(({*before.rejected} - seen) | task.staging.unresolved())
    jobs = task.count_lake() + new - len(gone) + task.count_unknown(rejected) + len(task.list_forgotten())
    totals = [total for total in expect_total(before, front.totals) if total is not None]
    if totals and not min(totals) <= jobs <= (max(totals) if vanished else totals[0]):
        raise Mismatch(f"the lake and what was read make {jobs} jobs, the server counts {totals[0]}")
    drift = len(set(totals)) > 1 or vanished
    why = f"{len(vanished)} open job(s) are no longer listed" if vanished else "jobs came or went meanwhile"
    verdict = Verdict("complete_with_drift", why) if drift else Verdict("complete")
    task.evidence.conclude(verdict, distinct=len(met) + len(task.staging.met_forgotten()))
    task.evidence.order, task.evidence.vanished = front.order, sorted(vanished)
    task.evidence.total_kind = before.total_kind
    newest = max(key for key in (front.newest, before.watermark) if key is not None)
    return msgspec.structs.replace(
        before,
        verdict=verdict.name,
        watermark=newest,
        vanished=sorted(gone),
        rejected=rejected,
        data_as_of=front.as_of,
        forgotten=sorted(task.list_forgotten()),
    )
