"""The audit of an incremental sync: a few pages of old jobs, read at random ranks.

Theory of operation. Such a page is checked twice. Its rows must equal the lake's rows (`incremental` compares them).
And one of its jobs must stand at the rank where the lake's ranking puts it. If one job is deleted and another one is
inserted into the past, `total` stays the same, but every job between the two shifts by one rank. So a few pages show a
change that no count shows, with a probability that can be computed (`shift_chance` in the receipt). It is lower where
the rank is only known as a range: a page all of whose jobs have ties, rejected rows, forgotten jobs.

Jobs that appear while the sync reads shift every page too. Therefore a page's shift must equal the growth of `total`
since the head was read. If it does not, the head is read a second time, and the shift must not exceed the number of jobs
that have appeared there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY
from pleo_extract.core.pages import SAFE
from pleo_extract.core.ranks import chance_of_notice, chance_of_shift, spread_ranks
from pleo_extract.core.rows import keep_latest
from pleo_extract.core.walk import NEWEST_FIRST, Walk
from pleo_extract.errors import CursorRefused, RequestRefused
from pleo_extract.fetch.segments import narrow
from pleo_extract.sync.task import build_key_frame

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pleo_extract.contract import PageInfo
    from pleo_extract.core.state import JobKey
    from pleo_extract.sync.closing import Head
    from pleo_extract.sync.task import Task

__all__ = ["audit"]

AUDIT_PAGES: Final = 2
"""Old pages read per incremental sync. If one job is deleted and another inserted at random places, two pages show it in
58 % of cases."""


@dataclass(frozen=True, slots=True)
class _Shift:
    """How many ranks deeper a row of a page stands in the list than in the lake.

    Jobs of one instant may swap places, and rejected rows and forgotten jobs may stand anywhere. So the shift is a range.

    Attributes:
        rank: the rank at which the page was read.
        ranks: the shift, if none of these stands before the row.
        below: how much smaller it can be.
        above: how much larger it can be.
        grown: by how much `total` has grown since the head was read; None if `total` is unusable.
    """

    rank: int
    ranks: int
    below: int
    above: int
    grown: int | None

    @property
    def is_explained(self) -> bool:
        """Whether the growth of `total` alone explains the shift."""
        return self.least <= (self.grown or 0) <= self.most

    @property
    def certainty(self) -> float:
        """How likely a change of this shift by one shows: only at one end of the range, where each place is as likely."""
        return 1 / (1 + self.below + self.above)

    @property
    def least(self) -> int:
        """The smallest possible shift."""
        return self.ranks - self.below

    @property
    def most(self) -> int:
        """The largest possible shift."""
        return self.ranks + self.above


def audit(task: Task, head: Head, vanished: set[JobKey]) -> str:
    """Read some old pages, write to the evidence what they prove, and return what is wrong with their ranks, else ""."""
    fresh = task.staging.frame()
    # A job that had vanished and is listed again counts.
    gone = (vanished | task.known_vanished()) - set(fresh.select(KEY).iter_rows())
    jobs = task.count_lake() + task.count_new(fresh) - len(gone) + len(task.list_forgotten())
    evidence = task.evidence
    # Segments of an earlier run may reach the end too, but jobs of theirs may have been deleted since.
    if head.ended_now or jobs <= head.rows:
        evidence.shift_chance = 1.0
        return ""
    phase = random.random()  # noqa: S311 - a sample, not a secret
    reached = min(jobs, task.session.habits.refused_offset or jobs)
    page = min(SAFE, task.session.pages.usual)
    ranks = spread_ranks(head.rows, reached, page=page, count=AUDIT_PAGES, phase=phase)
    query = narrow(NEWEST_FIRST, company_id=task.company_id)
    pages = task.read_pages("audit", [query.at(offset=rank) for rank in ranks]) or []
    if not pages:
        evidence.shift_chance = round(chance_of_shift(head.rows, jobs, []), 4)
        return ""
    audited = pl.concat([frame for frame, _ in pages]).unique(KEY).height
    evidence.audited, evidence.audited_share = audited, round(audited / jobs, 6)
    if not task.before.has_ranks:
        return ""
    shifts = _find_shifts(task, head, pages, ranks, gone)
    evidence.shift_chance = round(
        chance_of_notice(head.rows, jobs, [(shift.rank, shift.certainty) for shift in shifts]), 4
    )
    unexplained = sum(not shift.is_explained for shift in shifts)
    if not unexplained:
        return ""
    arrivals = _count_arrivals(task, head)
    if arrivals is not None and _fit_arrivals(shifts, arrivals):
        return ""
    return f"{unexplained} of {len(shifts)} pages of old jobs begin with another job than the lake says"


def _find_shifts(
    task: Task,
    head: Head,
    pages: Sequence[tuple[pl.DataFrame, PageInfo]],
    ranks: Sequence[int],
    gone: set[JobKey],
) -> list[_Shift]:
    """Compare the rank of a row of each page with the lake's rank of its job.

    Returns:
        One shift per page that has a usable row; an empty list if the server ignores offsets.
    """
    chosen = [
        (frame, info, rank, _choose_row(frame, info))
        for (frame, info), rank in zip(pages, ranks, strict=True)
    ]
    chosen = [each for each in chosen if each[0].height]  # no usable row, or beyond the end of the list
    if not chosen:
        return []
    instants = [frame["created_at"][row] for frame, _, _, row in chosen]
    newer, same = _count_newer_and_same(task, instants, gone)
    # Rejected rows and forgotten jobs may stand anywhere in the list.
    unplaced = task.count_missing(sorted({*task.before.rejected, *task.staging.names}))
    unplaced += len(task.list_forgotten())
    total = head.totals[1] if task.before.total_kind != "unusable" else None
    shifts: list[_Shift] = []
    for (frame, info, rank, row), instant in zip(chosen, instants, strict=True):
        before = newer[instant] - row
        if before < head.rows <= rank:  # a page of the head, although a deeper one was asked for
            return []
        grown = None if total is None or info.total is None else info.total - total
        ties = max(0, same[instant] - 1)
        shifts.append(_Shift(rank, rank - before, ties + unplaced, info.rows - frame.height, grown))
    return shifts


def _choose_row(frame: pl.DataFrame, info: PageInfo) -> int:
    """Return the index of a row whose job has no tie; 0 if there is none.

    Ties stand side by side, so those of a row inside the page are in the page, too. Where rows of the page were rejected,
    only the first one's place is known.
    """
    if frame.height < 3 or info.rows != frame.height:
        return 0
    inner = frame["created_at"].is_unique()[1:-1].arg_true()
    return int(inner[0]) + 1 if inner.len() else 0


def _count_newer_and_same(
    task: Task, instants: Sequence[datetime], gone: set[JobKey]
) -> tuple[dict[datetime, int], dict[datetime, int]]:
    """Return, for each instant, how many jobs were created after it and how many at it, vanished ones left out."""
    created = pl.col("created_at")
    keys = sorted(set(instants))
    staged = keep_latest(task.staging.frame()).select(*KEY, "created_at")
    near = task.read_lake_near(staged)
    fresh = staged.join(near, on=[*KEY, "created_at"], how="anti")
    # A fresh row that the lake has at another instant has moved: it counts where it is listed now.
    excluded = pl.concat([build_key_frame(gone), fresh.select(KEY)])
    counts = [
        expression.sum().alias(f"{name}{n}")
        for n, key in enumerate(keys)
        for name, expression in (("newer", created > pl.lit(key)), ("same", created == pl.lit(key)))
    ]
    # The rest of the lake is counted by its instants alone: its ids are most of its bytes.
    frames = [
        (1, task.lake.select("created_at")),
        (-1, task.find_in_lake(excluded).lazy()),
        (1, fresh.lazy()),
    ]
    found = [(sign, frame.select(counts).collect().row(0, named=True)) for sign, frame in frames]
    newer = {key: sum(sign * (each[f"newer{n}"] or 0) for sign, each in found) for n, key in enumerate(keys)}
    same = {key: sum(sign * (each[f"same{n}"] or 0) for sign, each in found) for n, key in enumerate(keys)}
    return newer, same


def _count_arrivals(task: Task, head: Head) -> int | None:
    """Read the head again, down to what was its newest job, and return how many jobs have appeared; None if refused."""
    if head.newest is None:
        return None
    before = task.staging.frame().select(KEY)
    batch = len(task.staging.batches)
    try:
        task.walk("arrivals", Walk(narrow(NEWEST_FIRST, company_id=task.company_id), until=head.newest))
    except (CursorRefused, RequestRefused):
        return None
    late = pl.concat(
        [before.clear(), *(frame.select(KEY) for _, frame in task.staging.numbered(start=batch))]
    )
    return late.unique().join(before, on=KEY, how="anti").height


def _fit_arrivals(shifts: Sequence[_Shift], arrivals: int) -> bool:
    """Return whether arrivals explain the shifts: a page read later may shift more than an earlier one, never less."""
    least = 0
    for shift in shifts:
        least = max(least, shift.least)
        if least > min(arrivals, shift.most):
            return False
    return True
