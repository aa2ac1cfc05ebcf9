"""The audit of a refresh: a few pages of old jobs, read at ranks chosen by chance.

Such a page shows two things. Its rows must say what the lake says of them. And it must *begin* with the job that the
lake's ranking puts there: a job deleted and another one inserted into the past leave `total` as it was, but shift all
that lie between them by one. So a few pages show a change that no count shows, with a chance that can be computed.

Jobs that appear while the refresh reads shift every page by their number. What a page is off by must therefore be
what `total` has changed by since the head was read; or, where that does not hold, no more than the jobs that a second
look at the head finds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY
from pleo_extract.core.ranks import chance_of_shift, spread_ranks
from pleo_extract.core.rows import keep_latest
from pleo_extract.core.walk import NEWEST_FIRST, PAGE_SIZE, Walk
from pleo_extract.errors import CursorRefused, RequestRefused
from pleo_extract.fetch.segments import narrow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pleo_extract.contract import PageInfo
    from pleo_extract.core.state import JobKey
    from pleo_extract.sync.closing import Head
    from pleo_extract.sync.task import Task

__all__ = ["audit"]

AUDIT_PAGES: Final = 2
"""Old pages read in each refresh: where one job is gone and another one new, at random places, they show 58 % of pairs."""


@dataclass(frozen=True, slots=True)
class _Shift:
    """How many ranks deeper than expected a page begins: from `least` to `most`, since jobs of one instant may swap."""

    least: int
    most: int
    grown: int | None
    """What `total` has grown by since the head was read; None where it tells nothing."""


def audit(task: Task, front: Head, vanished: set[JobKey]) -> str:
    """Read some old pages anew, and note in the evidence what they prove; returns what is wrong with their ranks."""
    gone = vanished | task.known_vanished()
    fresh = task.staging.frame()
    jobs = task.count_lake() + task.count_new(fresh) - len(gone) + len(task.list_forgotten())
    evidence = task.evidence
    if front.ended or jobs <= front.rows:
        evidence.shift_chance = 1.0
        return ""
    phase = random.random()  # noqa: S311 - a sample, not a secret
    reached = min(jobs, task.session.habits.refused_offset or jobs)
    ranks = spread_ranks(front.rows, reached, page=PAGE_SIZE, count=AUDIT_PAGES, phase=phase)
    pages = task.read_places("audit", narrow(NEWEST_FIRST, company_id=task.company_id), ranks) or []
    if not pages:
        evidence.shift_chance = round(chance_of_shift(front.rows, jobs, []), 4)
        return ""
    audited = pl.concat([frame for frame, _ in pages]).unique(KEY).height
    evidence.audited, evidence.audited_share = audited, round(audited / jobs, 6)
    if not task.before.has_ranks:
        return ""
    shifts = _find_shifts(task, front, pages, ranks, gone)
    evidence.shift_chance = round(chance_of_shift(front.rows, jobs, ranks if shifts else []), 4)
    if all(_is_explained(shift) for shift in shifts):
        return ""
    came = _look_again(task, front)
    if came is not None and _fit_arrivals(shifts, came):
        return ""
    return f"{sum(not _is_explained(shift) for shift in shifts)} of {len(shifts)} old pages are not where they must be"


def _find_shifts(
    task: Task,
    front: Head,
    pages: Sequence[tuple[pl.DataFrame, PageInfo]],
    ranks: Sequence[int],
    gone: set[JobKey],
) -> list[_Shift]:
    """Compare where each page begins with where the lake has that job; nothing where offsets are ignored."""
    firsts = [frame["created_at"][0] if frame.height else None for frame, _ in pages]
    if all(first is None for first in firsts):
        return []
    newer, same = _rank(task, [first for first in firsts if first is not None], gone)
    unknown = task.count_unknown(sorted({*task.before.rejected, *task.staging.names}))
    unknown += len(task.list_forgotten())  # where these stand is not known, either
    told = front.totals[1] if task.before.total_kind != "unusable" else None
    shifts: list[_Shift] = []
    for (frame, info), first, rank in zip(pages, firsts, ranks, strict=True):
        if first is None:  # no row that fits, or beyond the end: nothing to compare
            continue
        at, ties = newer[first], same[first]
        if at < front.rows <= rank:
            return []
        aside = info.rows - frame.height
        grown = None if told is None or info.total is None else info.total - told
        shifts.append(_Shift(rank - at - max(0, ties - 1) - unknown, rank - at + aside, grown))
    return shifts


def _rank(
    task: Task, instants: Sequence[datetime], gone: set[JobKey]
) -> tuple[dict[datetime, int], dict[datetime, int]]:
    """Count the jobs that were created later than each instant, and those created at it, vanished ones left out."""
    created = pl.col("created_at")
    keys = sorted(set(instants))
    lost = pl.DataFrame(sorted(gone), schema=dict.fromkeys(KEY, pl.String), orient="row")
    staged = keep_latest(task.staging.frame()).select(*KEY, "created_at")
    near = task.lake_rows(staged)
    fresh = staged.join(near, on=[*KEY, "created_at"], how="anti")
    left = pl.concat(
        [lost, fresh.select(KEY)]
    )  # one that the lake has elsewhere has moved: it stands here now
    lake = task.lake.select(*KEY, "created_at").join(left.lazy(), on=KEY, how="anti")
    counts = [
        expression.sum().alias(f"{name}{n}")
        for n, key in enumerate(keys)
        for name, expression in (("newer", created > pl.lit(key)), ("same", created == pl.lit(key)))
    ]
    both = [lake.select(counts).collect().row(0, named=True), fresh.select(counts).row(0, named=True)]
    newer = {key: sum(each[f"newer{n}"] or 0 for each in both) for n, key in enumerate(keys)}
    same = {key: sum(each[f"same{n}"] or 0 for each in both) for n, key in enumerate(keys)}
    return newer, same


def _is_explained(shift: _Shift) -> bool:
    return shift.least <= (shift.grown or 0) <= shift.most


def _look_again(task: Task, front: Head) -> int | None:
    """Read the head down to what was its newest job; returns how many jobs have come, None where it cannot be read."""
    if front.newest is None:
        return None
    before = task.staging.frame().select(KEY)
    batch = len(task.staging.batches)
    try:
        task.walk("again", Walk(narrow(NEWEST_FIRST, company_id=task.company_id), until=front.newest))
    except (CursorRefused, RequestRefused):
        return None
    late = pl.concat(
        [before.clear(), *(frame.select(KEY) for _, frame in task.staging.numbered(start=batch))]
    )
    return late.unique().join(before, on=KEY, how="anti").height


def _fit_arrivals(shifts: Sequence[_Shift], came: int) -> bool:
    """Whether jobs that came one after the other explain the shifts: none too many, and never fewer than before."""
    least = 0
    for shift in shifts:
        least = max(least, shift.least)
        if least > min(came, shift.most):
            return False
    return True
