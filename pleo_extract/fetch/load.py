"""The live API as frames: all of it at once, in batches, or one page."""

from __future__ import annotations

import logging
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.client import Client
from pleo_extract.core.decode import build_frame
from pleo_extract.core.rows import is_same_list, keep_latest
from pleo_extract.core.verdict import Verdict, decide_verdict
from pleo_extract.errors import IncompleteWalk, RejectedRows
from pleo_extract.fetch.driver import ask
from pleo_extract.fetch.segments import RowCount, totals_of
from pleo_extract.fetch.selection import check_amount, check_wanted
from pleo_extract.keywords import check_keywords
from pleo_extract.progress import show_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pleo_extract.client import Session
    from pleo_extract.contract import PageInfo, Query
    from pleo_extract.core.decode import Rejected
    from pleo_extract.core.walk import Walk
    from pleo_extract.fetch.selection import Instant, Selection

__all__ = [
    "DEADLINE",
    "JobPage",
    "fetch_page",
    "load_export_jobs",
    "open_client",
]

_log = logging.getLogger(__name__)

DEADLINE: Final = 3600.0
"""Seconds that one load may take by default."""


@contextmanager
def open_client(client: Client | None) -> Iterator[Client]:
    """The client given, or one from the environment that is closed at the end."""
    if client is not None:
        yield client
        return
    with Client() as own:
        yield own


@check_keywords
def load_export_jobs(  # noqa: PLR0913 - each is a choice of its own, and all have defaults
    *,
    company_id: str | None = None,
    statuses: Sequence[str] | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    client: Client | None = None,
    progress: bool | None = None,
    deadline: float | None = DEADLINE,
) -> pl.DataFrame:
    """Every export job once, as a typed DataFrame; or an error that says why not.

    Args:
        company_id: one company's jobs; by default the client's company, or all that the credential may see.
        statuses: only jobs in these states (pending, in_progress, failed, completed, completed_with_errors).
        since: only jobs created at or after this instant: a datetime with a time zone, a date (midnight UTC) or
            ISO 8601 text. The API has no date filter: with `since`, the list is read newest first
            and no further than needed, where the server keeps that order.
        until: only jobs created before this instant.
        client: server and credential; by default from the environment (PLEO_API_KEY and others, see Client).
        progress: show a progress bar; by default on a terminal and in a notebook.
        deadline: seconds that it may take, an hour by default; None for as long as it takes.

    Returns:
        One row a job, ordered by created_at and id, with the columns of `pleo_extract.COLUMNS`: timestamps in UTC
        to the microsecond, `expires_in` in seconds. All columns also when there are no rows.

    Raises:
        UsageError: an argument. CredentialsError: no access. RejectedRows: rows that do not fit the contract.
        IncompleteWalk: fewer jobs than the server says there are. ContractError: pages that make no list.
        TryLater: it did not work within the deadline.
    """
    wanted = check_wanted(company_id, statuses, since, until)
    check_amount("deadline", deadline)
    with open_client(client) as source, show_progress("export jobs", show=progress) as update:
        wanted = wanted.for_company_of(source)
        session = source.start_session(deadline=deadline)
        rows = RowCount(session, update)
        return _load(session, wanted, source.in_flight, rows.count)


def _load(
    session: Session, wanted: Selection, segments: int, on_page: Callable[[Walk], None]
) -> pl.DataFrame:
    frame, walks = _read_once(session, wanted, segments, on_page)
    verdict = _judge(frame, walks)
    if verdict.again:
        before, told = frame.height, totals_of(walks)[0]
        more, walks = _read_once(session, wanted, segments, on_page)
        same = is_same_list(frame, more)
        frame = keep_latest(pl.concat([frame, more]))
        verdict = decide_verdict(frame.height, (told, totals_of(walks)[1]), previous=before, confirmed=same)
    if verdict.name == "incomplete":
        raise IncompleteWalk(
            f"{verdict.why}; the list is not complete. Try again, or dump it, which keeps what it gets"
        )
    if verdict.why:
        _log.warning("%s: %s", verdict.name, verdict.why)
    return wanted.keep(frame).sort("created_at", "id")


def _read_once(
    session: Session, wanted: Selection, segments: int, on_page: Callable[[Walk], None]
) -> tuple[pl.DataFrame, list[Walk]]:
    walks, parts = wanted.start_reading(session, segments, on_page)
    frames: list[pl.DataFrame] = []
    rejected: list[Rejected] = []
    with closing(parts):
        for part in parts:
            frames.append(part.frame)
            rejected += part.rejected
    if rejected:
        raise RejectedRows([str(row) for row in rejected])
    return keep_latest(pl.concat(frames)), walks


def _judge(frame: pl.DataFrame, walks: list[Walk]) -> Verdict:
    if walks[-1].ended == "until":
        return Verdict("complete")
    return decide_verdict(frame.height, totals_of(walks))


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page: its rows as a frame with the columns of `load_export_jobs`, and what the server said about it."""

    frame: pl.DataFrame
    info: PageInfo


@check_keywords
def fetch_page(query: Query, *, client: Client | None = None) -> JobPage:
    """One page of the list, for one query with any of the endpoint's parameters.

    Raises:
        RejectedRows: rows that do not fit the contract; else as `load_export_jobs`.
    """
    with open_client(client) as source:
        page = ask(source.start_session(deadline=DEADLINE), query)
    frame, rejected = build_frame([page])
    if rejected:
        raise RejectedRows([str(row) for row in rejected])
    return JobPage(frame, page.info)
