"""The closing reads of a sync: the requests that make its rows true as of now.

Theory of operation. Staged pages may be days old: since then jobs have ended and others have begun. So the run that
publishes first reads everything that can have changed:

1. the open list (`statuses` = pending, in_progress);
2. the head of the list, newest first, down to the rows that are already staged, or to a given key;
3. every job that lake or staging holds as unsettled and that 1 and 2 did not show, at its rank (`find_jobs`).

Rows change only from unsettled to settled, and new jobs only appear at the head. Together the three therefore bring
all rows to the instant at which they begin, and that instant is the account's `data_as_of`. This is why staging has no
age at which it turns wrong.

The head walk may be cut short too. What it has staged stays as *segments*. The next run first continues each segment to
where the next older one begins, or to the lower end, and then reads the head down to the newest segment:

    newest  |--- head, read last ---|-- segment 1 --> continued --|-- segment 0 --> continued --| until
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import COLUMNS, KEY, instant_key
from pleo_extract.core.order import weakest
from pleo_extract.core.pages import SAFE
from pleo_extract.core.ranks import group_ranks
from pleo_extract.core.rows import OPEN, is_beyond
from pleo_extract.core.state import stop_line
from pleo_extract.core.verdict import count_replaced
from pleo_extract.core.walk import BY_CREATION, NEWEST_FIRST, Walk
from pleo_extract.errors import CursorRefused, RequestRefused
from pleo_extract.fetch.driver import Driver, is_full
from pleo_extract.fetch.segments import moves_of, narrow, repeated_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pleo_extract.contract import Key
    from pleo_extract.core.state import JobKey
    from pleo_extract.core.walk import Checkpoint
    from pleo_extract.sync.task import Task

__all__ = ["MANY_SOUGHT", "Head", "find_jobs", "read_from_start", "read_head"]

SLACK: Final = 20
"""Rows that a page for one job begins before the job's expected rank, because jobs appear and vanish meanwhile."""
MANY_SOUGHT: Final = 1_000
"""Above this many jobs, one walk over the list is cheaper than looking up each."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """The result of reading the newest jobs.

    Attributes:
        as_of: when the closing reads began (UTC).
        batch: the number of the first batch that they staged.
        order: the weakest order that a segment proves.
        oldest: the oldest key of all segments.
        newest: the newest key of all segments, see `Checkpoint`.
        ended: True if the segments reach the end of the list.
        ended_now: True if the head walk alone reached the end, so that this run has read the whole list.
        rows: how many rows the head walk alone read.
        totals: `total` on the first and on the last page of the head walk.
        replaced: how many rows came twice that may have taken the place of others.
    """

    as_of: datetime
    batch: int
    order: str
    oldest: Key | None
    newest: Key | None
    ended: bool
    ended_now: bool
    rows: int
    totals: tuple[int | None, int | None]
    replaced: int


def read_head(task: Task, phase: str, until: Key | None) -> Head:
    """Read the open list, then the list newest first down to `until`; segments that earlier runs staged are reused.

    Raises:
        CursorRefused, RequestRefused: the list cannot be read newest first.
    """
    walks = _continue_segments(task, phase, until)
    as_of, batch = task.clock(), len(task.staging.batches)
    _read_open(task)
    ends = [stop_line(newest) for walk in walks if (newest := walk.checkpoint.newest) is not None]
    ends += [] if until is None else [until]
    segment = max(task.staging.checkpoints(phase), default=-1) + 1
    query = narrow(NEWEST_FIRST, company_id=task.company_id)
    head = task.walk(phase, Walk(query, until=max(ends, default=None)), segment)
    walks.append(head)
    seen = [walk.checkpoint for walk in walks]
    newest_keys = [each.newest for each in seen if each.newest is not None]
    return Head(
        as_of=as_of,
        batch=batch,
        order=weakest(walk.order for walk in walks),
        oldest=min((each.furthest for each in seen if each.furthest is not None), default=None),
        newest=max(newest_keys, default=None),
        ended=any(walk.ended == "end" for walk in walks),
        ended_now=head.ended == "end",
        rows=head.checkpoint.rows,
        totals=head.checkpoint.totals,
        replaced=count_replaced(repeated_of(walks), moves_of(walks)[0]),
    )


def _continue_segments(task: Task, phase: str, until: Key | None) -> list[Walk]:
    """Continue each staged segment to the next older one, or to `until`, and return their walks, oldest first."""
    query, walks = narrow(NEWEST_FIRST, company_id=task.company_id), list[Walk]()
    end = until
    for segment, checkpoint in _sort_segments(task.staging.checkpoints(phase)):
        walk = Walk(query, until=end, checkpoint=checkpoint)
        if not walk.ended:
            task.walk(phase, walk, segment)
        walks.append(walk)
        assert checkpoint.newest is not None
        line = stop_line(checkpoint.newest)
        end = line if until is None else max(line, until)
    return walks


def _sort_segments(checkpoints: dict[int, Checkpoint]) -> list[tuple[int, Checkpoint]]:
    """Return the segments oldest first. Leave out those without rows or without a proven order: they may have gaps."""
    useful = [(n, each) for n, each in checkpoints.items() if each.first is not None and each.order != "none"]
    return sorted(useful, key=lambda item: item[1].first or ("", ""))


def _read_open(task: Task) -> None:
    """Read the open jobs. Stop at the first page with another status: this server ignores `statuses`.

    A failure here is harmless, because jobs that the open list does not show are looked up by rank. A server that ignores
    `statuses` is not asked again before the next full sync.
    """
    if not task.session.habits.filters:
        return
    query = replace(narrow(BY_CREATION, company_id=task.company_id, statuses=OPEN), limit=SAFE)
    # A filtered list loses its cursor whenever the job that it points to ends, so this walk may restart more often.
    driver = Driver(task.session, Walk(query, restarts=5), on_page=task.on_page)
    try:
        goes_on = True
        while goes_on:
            goes_on = driver.step()
            if driver.pages and not driver.pages[-1].info.statuses.issubset(OPEN):
                goes_on = task.session.habits.filters = False
            if is_full(driver.pages) or not goes_on:
                task.add("open", driver.take_batch())
    except (CursorRefused, RequestRefused) as exc:
        _log.info("%s: the open list could not be read: %s", task.evidence.account, exc)
    finally:
        task.evidence.count_walk(driver.walk)


def read_from_start(task: Task) -> tuple[datetime, int, tuple[int | None, int | None]]:
    """Read the open list, then an unordered list from its start to the first page that is already staged unchanged.

    Returns:
        When the reads began (UTC), the number of the first batch that they staged, and `total` on the first and on the
        last page.
    """
    as_of, first_batch = task.clock(), len(task.staging.batches)
    _read_open(task)
    walk = Walk(narrow(BY_CREATION, company_id=task.company_id))
    driver = Driver(task.session, walk, on_page=task.on_page)
    try:
        goes_on = True
        while goes_on:
            goes_on = driver.step()
            if not driver.pages:  # the sorting was refused; the next request asks for a simpler one
                continue
            batch = driver.take_batch()
            goes_on = goes_on and not (batch.frame.height and _is_staged(task, batch.frame))
            task.add("start", batch)
    finally:
        task.evidence.count_walk(walk)
    return as_of, first_batch, walk.checkpoint.totals


def _is_staged(task: Task, rows: pl.DataFrame) -> bool:
    """Return whether staging holds every one of these rows unchanged. `expires_in` is ignored: it may count down."""
    compared = [column for column in COLUMNS if column != "expires_in"]
    left = rows
    for frame in task.staging.pages():
        left = left.join(frame, on=compared, how="anti", nulls_equal=True)
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
    """Look up jobs by rank, or by a walk down to the oldest of them, and stage what is found.

    A job's rank in the newest-first list is the number of jobs created after it. The page at that offset must hold it.
    Where several jobs lie close together, one page serves them all. If the page does not reach the job's instant, the
    pages before and after it are read too.

    Args:
        task: the account's sync.
        jobs: their created_at, company_id and id.
        count_newer: returns, for each expression, how many jobs of the list match it.
        walk_down: walk down the list if ranks do not lead to the jobs.

    Returns:
        The jobs that the server does not list; None if some could not be looked up.
    """
    query, left = narrow(NEWEST_FIRST, company_id=task.company_id), jobs
    ranks: list[int] = []
    if jobs.height <= MANY_SOUGHT:
        keys = [(instant_key(created), name) for created, name in jobs.select("created_at", "id").iter_rows()]
        ranks = count_newer([is_beyond(key) for key in keys])
    size = task.session.pages.usual
    slack = min(SLACK, size // 4)
    groups = group_ranks(ranks, page=size, slack=slack)
    if ranks and len(groups) <= max(ranks) // size + 1:  # else a walk down costs no more pages
        neighbour = size - slack
        for shift in (0, -neighbour, neighbour):
            read = task.read_pages(
                "rank",
                [
                    replace(query, offset=max(0, offset + shift), limit=max(SAFE, size if shift else rows))
                    for offset, rows in groups
                ],
            )
            if read is None:
                break
            pages = [frame for frame, _ in read]
            left = task.drop_rejected(left.join(pl.concat(pages), on=KEY, how="anti"))
            # A page that spans a job's instant and does not show the job proves that it is gone.
            if all(_is_spanned(pages, created) for created in left["created_at"]):
                return set(left.select(KEY).iter_rows())
    if not walk_down:
        return None
    created = left["created_at"].min()
    batch = len(task.staging.batches)
    task.walk("deep", Walk(query, until=(instant_key(created), "")))  # type: ignore[arg-type]
    met = [frame.select(KEY) for n, frame in task.staging.numbered() if n >= batch]
    left = task.drop_rejected(left.join(pl.concat([left.select(KEY).clear(), *met]), on=KEY, how="anti"))
    return set(left.select(KEY).iter_rows())


def _is_spanned(pages: list[pl.DataFrame], created: object) -> bool:
    """Return whether a page holds both older and newer jobs than this instant."""
    return any(page["created_at"].min() < created < page["created_at"].max() for page in pages if page.height)  # type: ignore[operator]
