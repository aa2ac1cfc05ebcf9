"""The live API as one frame, or one page of it."""

from __future__ import annotations

import logging
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.client import Client
from pleo_extract.contract import Query
from pleo_extract.core.decode import build_frame
from pleo_extract.core.rows import is_confirmed, keep_latest
from pleo_extract.core.verdict import Verdict, count_arrivals, decide_part, decide_verdict
from pleo_extract.errors import IncompleteWalk, RejectedRows, UsageError
from pleo_extract.fetch.driver import ask_exactly
from pleo_extract.fetch.segments import RowCount, is_moving, meets_arrivals, moves_of, repeated_of, totals_of
from pleo_extract.fetch.selection import check_amount, check_wanted
from pleo_extract.keywords import check_keywords
from pleo_extract.progress import show_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pleo_extract.client import Session
    from pleo_extract.contract import PageInfo
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
"""The most seconds that one load takes by default."""


@contextmanager
def open_client(client: Client | None) -> Iterator[Client]:
    """Open a client from the environment, and close it at the end; a client that is given stays open."""
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
    """Return every export job once as a typed DataFrame, or raise an error that says why that is not possible.

    Args:
        company_id: only jobs of this company; by default the client's company, or all that the credential may see.
        statuses: only jobs in these states (pending, in_progress, failed, completed, completed_with_errors).
        since: only jobs created at or after this instant: a datetime with a time zone, a date (midnight UTC) or
            ISO 8601 text. The API has no date filter. With `since`, the list is read newest first, and only as far as
            needed if the server keeps that order.
        until: only jobs created before this instant.
        client: server and credential; by default from the environment (PLEO_API_KEY and others, see Client).
        progress: whether to show a progress bar; by default on a terminal and in a notebook.
        deadline: seconds that loading may take, an hour by default; None for no limit.

    Returns:
        One row a job, ordered by created_at and id, with the columns of `pleo_extract.COLUMNS`, also when there are no
        rows. Timestamps are in UTC and microseconds, `expires_in` is in seconds.

    Raises:
        UsageError: an argument cannot be used.
        CredentialsError: the credential is missing or has no access.
        ConfigurationError: the server, its certificate or the proxy cannot be used.
        RejectedRows: rows do not fit the contract.
        IncompleteWalk: the list has fewer jobs than the server says, and others when read again.
        ContractError: the pages do not make a list.
        TryLater: the server did not answer properly, or not within the deadline.
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
    is_part = walks[-1].ended == "until"
    if is_part:
        verdict = decide_part(moves_of(walks), totals_of(walks)[0], repeated=repeated_of(walks))
    else:
        verdict = decide_verdict(
            frame.height,
            totals_of(walks),
            moves=moves_of(walks),
            repeated=repeated_of(walks),
            is_moving=is_moving(walks, frame.height),
            meets_arrivals=meets_arrivals(walks),
        )
    if verdict.again:
        first, before = frame, totals_of(walks)
        second, walks = _read_once(session, wanted, segments, on_page)
        frame = keep_latest(pl.concat([first, second]))
        totals = totals_of(walks)
        if is_part:
            again = decide_part(moves_of(walks), totals[0], repeated=repeated_of(walks))
            # Without a total, rows may have come twice because of new jobs.
            # The last page ends elsewhere then: what it holds besides is no part of what is wanted.
            read, read_again = wanted.filter(first), wanted.filter(second)
            is_same = totals[0] is None and is_confirmed(read, read_again, arrivals=None)
            if verdict.name == "incomplete" and (again.name != "incomplete" or is_same):
                verdict = Verdict("complete")
        else:
            confirmed = is_confirmed(first, second, arrivals=count_arrivals(before, totals))
            verdict = decide_verdict(
                frame.height,
                (before[0], totals[1]),
                repeated=repeated_of(walks),
                is_moving=is_moving(walks, second.height),
                previous=frame.height if confirmed else first.height,
                confirmed=confirmed,
            )
    if verdict.name == "incomplete":
        raise IncompleteWalk(
            f"{verdict.why}; the list is not complete. Try again, or use a dump, which keeps what it has read"
        )
    if verdict.why:
        _log.warning("%s: %s", verdict.name, verdict.why)
    return wanted.filter(frame).sort("created_at", "id")


def _read_once(
    session: Session, wanted: Selection, segments: int, on_page: Callable[[Walk], None]
) -> tuple[pl.DataFrame, list[Walk]]:
    """Read what is wanted; return its rows, each job once, and the walks that read them."""
    walks, batches = wanted.start_reading(session, segments, on_page)
    frames: list[pl.DataFrame] = []
    rejected: list[Rejected] = []
    # Closed in any case: a generator that an error's traceback keeps alive would keep signals held.
    with closing(batches):
        for batch in batches:
            frames.append(batch.frame)
            rejected += batch.rejected
    if rejected:
        raise RejectedRows([str(row) for row in rejected])
    return keep_latest(pl.concat(frames)), walks


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page.

    Attributes:
        frame: the rows, with the columns of `load_export_jobs`.
        info: what the server says about the page.
    """

    frame: pl.DataFrame
    info: PageInfo


@check_keywords
def fetch_page(query: Query, *, client: Client | None = None) -> JobPage:
    """Return one page of the list, for a query with any of the endpoint's parameters.

    Raises:
        UsageError: `query` is not a `Query`.
        RejectedRows: rows do not fit the contract.
        PleoExtractError: as `load_export_jobs`.
    """
    if not isinstance(query, Query):
        raise UsageError(f"fetch_page takes a Query first, not a {type(query).__name__}: Query(limit=100)")
    with open_client(client) as source:
        page = ask_exactly(source.start_session(deadline=DEADLINE), query)
    frame, rejected = build_frame([page])
    if rejected:
        raise RejectedRows([str(row) for row in rejected])
    return JobPage(frame, page.info)
