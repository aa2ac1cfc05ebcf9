"""A walk driven to its end: `paging` says what to ask, `client` asks, `decode` makes frames of the answers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pleo_extract.decode import Page, build_frame, parse_page
from pleo_extract.errors import PleoExtractError, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import polars as pl

    from pleo_extract.client import Run
    from pleo_extract.contract import Query
    from pleo_extract.decode import Rejected
    from pleo_extract.paging import Walk

__all__ = ["ask", "narrow", "read_batches"]

BATCH_PAGES: Final = 20
BATCH_BYTES: Final = 16 * 2**20
"""A batch is full with the page that reaches either."""


def ask(run: Run, query: Query, number: int = 1) -> Page:
    """One page."""
    return run.fetch(query, partial(parse_page, number=number))


def narrow(query: Query, *, company_id: str | None = None, statuses: tuple[str, ...] = ()) -> Query:
    """The same query for one company, for some statuses."""
    return replace(query, company_id=company_id, statuses=statuses)


def read_batches(
    run: Run, walk: Walk, on_page: Callable[[Walk, Run], None] | None = None
) -> Iterator[tuple[pl.DataFrame, list[Rejected]]]:
    """The walk's rows in typed frames of up to 20 pages, with the rows that do not fit the contract.

    What was read before an error is given out before the error is raised.
    """
    steps = walk.steps()
    query = next(steps)
    held: list[Page] = []
    while True:
        try:
            try:
                page = ask(run, query, walk.pages + 1)
            except RequestRefused as refusal:
                query = steps.throw(refusal)
                continue
            query = steps.send(page.info)
        except StopIteration:
            held.append(page)
            break
        except PleoExtractError:
            if held:
                yield build_frame(held)
            raise
        held.append(page)
        if on_page is not None:
            on_page(walk, run)
        if len(held) >= BATCH_PAGES or sum(len(each.body) for each in held) >= BATCH_BYTES:
            yield build_frame(held)
            held = []
    if on_page is not None:
        on_page(walk, run)
    yield build_frame(held)
