"""A refresh: only what can have changed is read, and what was read must fit what the lake has.

(a) the open jobs, by status; (b) the list newest-first, down to an hour below the last frontier; (c) jobs that were
open in the lake and are so no longer, each on the page where it must stand; (d) a page or two of old jobs, by
chance; (e) counts against `total`. Whatever does not fit is said, and turns the run into a full walk.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.contract import KEY, instant_key
from pleo_extract.errors import CursorRefused, RequestRefused
from pleo_extract.extract.counting import count_unknown
from pleo_extract.extract.moving import move_listed, settle_split
from pleo_extract.extract.reading import narrow
from pleo_extract.paging import BY_CREATION, NEWEST_FIRST, PAGE_SIZE, Verdict, Walk
from pleo_extract.refresh import (
    OPEN,
    find_changed,
    find_unknown,
    group_ranks,
    is_as_late,
    is_beyond,
    stop_line,
)

if TYPE_CHECKING:
    from pleo_extract.contract import Query
    from pleo_extract.extract.task import Task
    from pleo_extract.refresh import Account, JobKey

__all__ = ["Misfit", "refresh"]

AUDIT_PAGES: Final = 2
SLACK: Final = 20
"""Rows that a page for one job also shows before its expected rank, since jobs appear and vanish meanwhile."""
MANY_JOBS: Final = 1_000
"""More jobs than these are not looked for one by one."""


class Misfit(Exception):
    """What was read does not fit the lake: only a full walk can tell. The message says what."""


def refresh(task: Task) -> Account:
    """Read what can have changed into staging; returns the account's new state.

    Raises:
        Misfit: a full walk is due.
    """
    newest = narrow(NEWEST_FIRST, company_id=task.company_id)
    walk = _read_open_and_new(task, newest)
    vanished, unlisted = _find_settled(task, walk, newest)
    _audit(task, walk, newest)
    fresh = task.staging.frame()
    lake = task.lake_rows(fresh, task.staging.pages("audit", "rank"))
    settle_split(task)
    news = fresh.join(lake, on=[*KEY, "created_at"], how="anti")
    moved = move_listed(task, news)
    _compare(task, fresh, lake, vanished, moved)
    state = _conclude(task, walk, news.unique(KEY).height - len(moved), vanished, unlisted)
    return msgspec.structs.replace(state, unknown=count_unknown(task))


def _read_open_and_new(task: Task, newest: Query) -> Walk:
    before = task.before
    assert before.frontier is not None, "choose_mode asks for a full walk without one"
    try:
        task.walk("open", Walk(narrow(BY_CREATION, company_id=task.company_id, statuses=OPEN), restarts=5))
        walk = task.walk("new", Walk(newest, until=stop_line(before.frontier)))
    except (CursorRefused, RequestRefused) as exc:
        raise Misfit(f"the list could not be read in parts ({exc})") from exc
    if not task.staging.frame("open").filter(~pl.col("status").is_in(OPEN)).is_empty():
        raise Misfit("the server does not keep to the statuses asked for")
    if walk.order == "none" or (walk.order == "created" and before.order == "strict"):
        raise Misfit("the server no longer keeps the order of creation")
    if walk.edge is None:
        raise Misfit("the list is empty")
    return walk


def _find_settled(task: Task, walk: Walk, newest: Query) -> tuple[set[JobKey], set[JobKey]]:
    """Look for the jobs that were open in the lake and are so no longer, and for those whose rows were rejected.

    Returns:
        Of the first those that have vanished; of the others those that are not listed.
    """
    assert walk.edge is not None
    staged = task.staging.frame()
    columns = ("status", "created_at", *KEY)
    passed = task.lake.filter(is_as_late(walk.edge)).select(columns).collect().filter(is_beyond(walk.edge))
    known, spoiled = task.known_vanished(), task.spoiled()
    gone = _without(passed.join(staged, on=KEY, how="anti"), spoiled)
    settled = [key for key in gone.filter(~task.is_unsettled()).select(KEY).iter_rows() if key not in known]
    if settled:
        raise Misfit(f"{len(settled)} settled job(s) that the walk passed are no longer listed")
    vanished = set(gone.select(KEY).iter_rows()) - known
    unsettled = task.lake.filter(task.is_unsettled()).select(columns).collect()
    missing = unsettled.filter(~is_beyond(walk.edge)).join(staged, on=KEY, how="anti")
    missing = _without(missing, known | spoiled).select("created_at", *KEY)
    rejected = task.find_rejected().join(staged, on=KEY, how="anti").join(missing, on=KEY, how="anti")
    sought = pl.concat([missing, rejected.select("created_at", *KEY)])
    lost = _look_for(task, sought, newest) if sought.height else set()
    vanished |= lost & set(missing.select(KEY).iter_rows())
    return vanished, lost & task.known_rejected()


def _look_for(task: Task, jobs: pl.DataFrame, newest: Query) -> set[JobKey]:
    """Read the pages on which these jobs must stand, or walk down to the oldest; returns those that are not there."""
    left = jobs
    ranks = _rank(task, jobs)
    offsets = group_ranks(ranks, page=PAGE_SIZE, slack=SLACK)
    if ranks and len(offsets) <= max(ranks) // PAGE_SIZE + 1:
        beside = PAGE_SIZE - SLACK
        for step in (0, -beside, beside):
            pages = task.read_pages("rank", newest, [max(0, offset + step) for offset in offsets])
            if pages is None:
                break
            left = _without(left.join(pl.concat(pages), on=KEY, how="anti"), task.spoiled())
            inside = [_lies_on(pages, created) for created in left["created_at"]]
            if all(inside):  # where it must stand it does not
                return set(left.select(KEY).iter_rows())
    created = left["created_at"].min()
    task.walk("deep", Walk(newest, until=(instant_key(created), "")))  # type: ignore[arg-type]
    left = _without(left.join(task.staging.frame("deep"), on=KEY, how="anti"), task.spoiled())
    return set(left.select(KEY).iter_rows())


def _without(jobs: pl.DataFrame, keys: set[JobKey]) -> pl.DataFrame:
    return jobs.filter([key not in keys for key in jobs.select(KEY).iter_rows()]) if keys else jobs


def _rank(task: Task, jobs: pl.DataFrame) -> list[int]:
    """How many jobs stand before each in the newest-first list; none where there are too many to ask for."""
    if jobs.height > MANY_JOBS:
        return []
    keys = [(instant_key(created), name) for created, name in jobs.select("created_at", "id").iter_rows()]
    newer = (
        task.lake.select(is_beyond(key).sum().alias(str(n)) for n, key in enumerate(keys)).collect().row(0)
    )
    fresh = task.count_new(task.staging.frame())
    return [fresh + count for count in newer]


def _lies_on(pages: list[pl.DataFrame], created: object) -> bool:
    return any(page["created_at"].min() < created < page["created_at"].max() for page in pages if page.height)  # type: ignore[operator]


def _audit(task: Task, walk: Walk, newest: Query) -> None:
    """Read some old jobs anew, chosen by chance; the receipt says what share of the lake that is."""
    total = walk.last_total or task.count_lake()
    if walk.ended == "end" or total <= walk.rows + PAGE_SIZE:
        return
    last = total - PAGE_SIZE
    offsets = [random.randint(walk.rows, last) for _ in range(AUDIT_PAGES)]  # noqa: S311 - a sample, not a secret
    pages = task.read_pages("audit", newest, offsets)
    audited = pl.concat(pages).unique(KEY).height if pages else 0
    task.receipt.audited, task.receipt.audited_share = audited, round(audited / total, 6)


def _compare(
    task: Task, fresh: pl.DataFrame, known: pl.DataFrame, vanished: set[JobKey], moved: set[JobKey]
) -> None:
    """Compare what was read with what the lake has of it; jobs that moved are accounted for."""
    assert task.before.frontier is not None
    expected = moved | task.known_rejected()  # what was rejected had changed
    changed = _without(find_changed(known, fresh, task.before.unknown), expected)
    if changed.height:
        raise Misfit(f"{changed.height} settled job(s) changed, {changed['id'][0]} among them")
    for page in task.staging.pages("audit", "rank"):
        low, high = page["created_at"].min(), page["created_at"].max()
        lake = known.filter(pl.col("created_at").is_between(low, high)).select("created_at", *KEY)
        unknown = _without(find_unknown(lake, page, until=stop_line(task.before.frontier)), moved)
        rejected = set(task.before.rejected)  # seen right at last
        unknown = unknown.filter(
            [f"{company}/{name}" not in rejected for company, name in unknown.select(KEY).iter_rows()]
        )
        if unknown.height:
            raise Misfit(f"{unknown.height} old job(s) are new to the lake, {unknown['id'][0]} among them")
        inside = lake.filter(pl.col("created_at").is_between(low, high, closed="none"))
        gone = set(inside.join(page, on=KEY, how="anti").select(KEY).iter_rows())
        gone -= task.known_vanished() | task.spoiled() | vanished | moved
        if gone:
            raise Misfit(f"{len(gone)} old job(s) are no longer listed")


def _conclude(task: Task, walk: Walk, new: int, vanished: set[JobKey], unlisted: set[JobKey]) -> Account:
    """Compare counts with `total`, given so many new jobs; where they fit, this refresh is complete.

    `unlisted` are jobs of rejected rows that are no longer listed: there is nothing to wait for.
    """
    task.refuse_many_rejected()
    before, staged = task.before, task.staging.frame()
    met = set(staged.select(KEY).iter_rows())
    gone = (task.known_vanished() | vanished) - met - task.spoiled()
    seen = {f"{company}/{name}" for company, name in met | unlisted}
    rejected = sorted(({*before.rejected} - seen) | task.staging.unresolved())
    jobs = task.count_lake() + new - len(gone) + task.count_unknown(rejected)
    totals = [total for total in (walk.first_total, walk.last_total) if total is not None]
    if totals and not min(totals) <= jobs <= max(totals):
        raise Misfit(f"the lake and what was read make {jobs} jobs, the server counts {totals[-1]}")
    drift = len(set(totals)) > 1 or vanished
    why = f"{len(vanished)} open job(s) are no longer listed" if vanished else "jobs came or went meanwhile"
    verdict = Verdict("complete_with_drift", why) if drift else Verdict("complete")
    task.receipt.conclude(verdict, distinct=len(met))
    task.receipt.vanished = sorted(vanished)
    newest = max(key for key in (walk.newest, before.frontier) if key is not None)
    return msgspec.structs.replace(
        before, verdict=verdict.name, frontier=newest, vanished=sorted(gone), rejected=rejected
    )
