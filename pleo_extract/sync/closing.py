"""The closing reads of a sync: what makes it true as of now, whatever was staged before.

Staged pages may be days old. Jobs have ended since, others have begun. So the run that publishes reads anew, and last,
whatever can have changed: the open list, the head of the list down to what earlier reading has staged, and every job
that lake or staging holds as unsettled and the open list does not show, at its rank. The instant at which these reads
begin is the one as of which the rows are true.

The newest-first walk may be cut short as well. What it has staged is kept as *stretches*: the next run first takes
each cut stretch on to the next older one, or to the line, and then reads the head down to the newest stretch.

    newest  |--- head, read last ---|-- stretch 1 --> goes on --|-- stretch 0 --> goes on --| line
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import COLUMNS, KEY, instant_key
from pleo_extract.core.order import weakest
from pleo_extract.core.ranks import group_ranks
from pleo_extract.core.rows import OPEN, is_beyond
from pleo_extract.core.state import stop_line
from pleo_extract.core.walk import BY_CREATION, NEWEST_FIRST, PAGE_SIZE, Walk
from pleo_extract.errors import CursorRefused, RequestRefused
from pleo_extract.fetch.driver import Driver
from pleo_extract.fetch.segments import narrow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pleo_extract.contract import Key
    from pleo_extract.core.state import JobKey
    from pleo_extract.core.walk import Checkpoint
    from pleo_extract.sync.task import Task

__all__ = ["MANY_SOUGHT", "Head", "find_jobs", "read_front", "read_start"]

SLACK: Final = 20
"""Rows that a page for one job also shows before its expected rank, since jobs appear and vanish meanwhile."""
MANY_SOUGHT: Final = 1_000
"""More jobs than these are not looked for one by one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """What the closing reads have shown of the newest jobs.

    Attributes:
        as_of: when they began (UTC). batch: the number of the first batch they staged.
        order: proven by every stretch. edge, newest: the oldest and the newest key of all stretches.
        ended: whether these reach to the end of the list. rows: newest rows read by the head alone.
        totals: as the head told them first and last.
    """

    as_of: datetime
    batch: int
    order: str
    edge: Key | None
    newest: Key | None
    ended: bool
    rows: int
    totals: tuple[int | None, int | None]


def read_front(task: Task, phase: str, line: Key | None) -> Head:
    """Read the open list, and the list newest-first down to `line`, over the stretches that earlier runs have staged.

    Raises:
        CursorRefused, RequestRefused: the list cannot be read newest-first.
    """
    newest = narrow(NEWEST_FIRST, company_id=task.company_id)
    walks = _finish_stretches(task, phase, line)
    as_of, batch = task.clock(), len(task.staging.batches)
    _read_open(task)
    seen = [walk.checkpoint for walk in walks]
    tops = [stop_line(each.first) for each in seen if each.first is not None]
    until = max([*tops, *([] if line is None else [line])], default=None)
    segment = max(task.staging.checkpoints(phase), default=-1) + 1
    head = task.walk(phase, Walk(newest, until=until), segment)
    walks.append(head)
    seen = [walk.checkpoint for walk in walks]
    keys = [key for each in seen for key in (each.furthest, each.newest) if key is not None]
    return Head(
        as_of=as_of,
        batch=batch,
        order=weakest(walk.order for walk in walks),
        edge=min(keys, default=None),
        newest=max(keys, default=None),
        ended=any(walk.ended == "end" for walk in walks),
        rows=head.checkpoint.rows,
        totals=head.checkpoint.totals,
    )


def _finish_stretches(task: Task, phase: str, line: Key | None) -> list[Walk]:
    """Take each stretch on to the one that is older, or to the line; returns them, oldest first."""
    query, walks = narrow(NEWEST_FIRST, company_id=task.company_id), list[Walk]()
    until = line
    for segment, mark in _sort_stretches(task.staging.checkpoints(phase)):
        walk = Walk(query, until=until, checkpoint=mark)
        if not walk.ended:
            task.walk(phase, walk, segment)
        walks.append(walk)
        assert mark.first is not None
        until = max(stop_line(mark.first), line) if line is not None else stop_line(mark.first)
    return walks


def _sort_stretches(marks: dict[int, Checkpoint]) -> list[tuple[int, Checkpoint]]:
    """Oldest first, without those that show nothing, or whose order is not proven: these prove no stretch."""
    useful = [(n, mark) for n, mark in marks.items() if mark.first is not None and mark.order != "none"]
    return sorted(useful, key=lambda item: item[1].first or ("", ""))


def _read_open(task: Task) -> None:
    """Read the jobs that are open now, up to the first page that shows that the server ignores `statuses`.

    What the open list does not show is looked for by rank, so one that cannot be had does no harm. A server that ignores
    them is not asked again before the next full sync.
    """
    if not task.session.habits.filters:
        return
    query = narrow(BY_CREATION, company_id=task.company_id, statuses=OPEN)
    driver = Driver(task.session, Walk(query, restarts=5), on_page=task.on_page)
    try:
        goes_on = True
        while goes_on:
            goes_on = driver.step()
            if driver.held and not driver.held[-1].info.statuses.issubset(OPEN):
                goes_on = task.session.habits.filters = False
            if driver.is_full() or not goes_on:
                task.add("open", driver.take())
    except (CursorRefused, RequestRefused) as exc:
        _log.info("%s: the open list could not be read: %s", task.evidence.account, exc)
    finally:
        task.evidence.count_walk(driver.walk)


def read_start(task: Task) -> tuple[datetime, int, tuple[int | None, int | None]]:
    """Read the open list, and a list in no proven order from its start to the first page that is staged as it is.

    Returns:
        When this began (UTC), the number of its first batch, and the totals told first and last.
    """
    as_of, batch = task.clock(), len(task.staging.batches)
    _read_open(task)
    walk = Walk(narrow(BY_CREATION, company_id=task.company_id))
    driver = Driver(task.session, walk, on_page=task.on_page)
    try:
        goes_on = True
        while goes_on:
            goes_on = driver.step()
            if not driver.held:  # the sorting was refused: the next request asks for a simpler one
                continue
            part = driver.take()
            goes_on = goes_on and not (part.frame.height and _is_staged(task, part.frame))
            task.add("start", part)
    finally:
        task.evidence.count_walk(walk)
    return as_of, batch, walk.checkpoint.totals


def _is_staged(task: Task, rows: pl.DataFrame) -> bool:
    """Return whether all these rows are staged as they are; `expires_in` aside, which may count down."""
    said = [column for column in COLUMNS if column != "expires_in"]
    left = rows
    for frame in task.staging.pages():
        left = left.join(frame, on=said, how="anti", nulls_equal=True)
        if left.is_empty():
            return True
    return left.is_empty()


def find_jobs(
    task: Task,
    jobs: pl.DataFrame,
    count_newer: Callable[[Sequence[pl.Expr]], list[int]],
    *,
    walk_down: bool = True,
) -> set[JobKey] | None:
    """Read the pages on which these jobs must stand, or walk down to the oldest, into staging.

    Args:
        task: as whose reading.
        jobs: their `created_at` and key.
        count_newer: counts the jobs of the list that match each of these expressions.
        walk_down: whether to walk down the list where ranks do not lead there.

    Returns:
        Those that are not there; None where some could not be looked for.
    """
    newest, left = narrow(NEWEST_FIRST, company_id=task.company_id), jobs
    ranks: list[int] = []
    if jobs.height <= MANY_SOUGHT:
        keys = [(instant_key(created), name) for created, name in jobs.select("created_at", "id").iter_rows()]
        ranks = count_newer([is_beyond(key) for key in keys])
    offsets = group_ranks(ranks, page=PAGE_SIZE, slack=SLACK)
    if ranks and len(offsets) <= max(ranks) // PAGE_SIZE + 1:
        beside = PAGE_SIZE - SLACK
        for step in (0, -beside, beside):
            pages = task.read_pages("rank", newest, [max(0, offset + step) for offset in offsets])
            if pages is None:
                break
            left = task.without_spoiled(left.join(pl.concat(pages), on=KEY, how="anti"))
            inside = [_lies_on(pages, created) for created in left["created_at"]]
            if all(inside):  # where it must stand it does not
                return set(left.select(KEY).iter_rows())
    if not walk_down:
        return None
    created = left["created_at"].min()
    batch = len(task.staging.batches)
    task.walk("deep", Walk(newest, until=(instant_key(created), "")))  # type: ignore[arg-type]
    met = [frame.select(KEY) for n, frame in task.staging.numbered() if n >= batch]
    left = task.without_spoiled(left.join(pl.concat([left.select(KEY).clear(), *met]), on=KEY, how="anti"))
    return set(left.select(KEY).iter_rows())


def _lies_on(pages: list[pl.DataFrame], created: object) -> bool:
    return any(page["created_at"].min() < created < page["created_at"].max() for page in pages if page.height)  # type: ignore[operator]
