"""Estimate from one request what the next dump would cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import canonical_uuid
from pleo_extract.core.pages import MOST, SAFE
from pleo_extract.core.rows import created_month
from pleo_extract.core.state import FULL_EVERY, AccountKey, binding_of, choose_mode
from pleo_extract.core.walk import NEWEST_FIRST
from pleo_extract.errors import RequestRefused
from pleo_extract.fetch.driver import ask
from pleo_extract.fetch.load import open_client
from pleo_extract.fetch.segments import narrow
from pleo_extract.keywords import check_keywords
from pleo_extract.lake.folder.opening import refuse_other_server
from pleo_extract.lake.layout import scan_files
from pleo_extract.lake.lock import find_holder
from pleo_extract.lake.staging import count_staged_full
from pleo_extract.lake.store import open_lake

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pleo_extract.client import Client
    from pleo_extract.contract import PageInfo, Query
    from pleo_extract.lake.lock import Holder

__all__ = ["DumpPlan", "plan_dump"]

REFRESH_LEAST: Final = 1
"""The fewest requests of an incremental sync besides the pages of new jobs: one page of open jobs."""
REFRESH_MOST: Final = 9
"""As a rule the most: two pages of open jobs, the overlap of an hour, two audited pages, a few jobs at their rank."""


@dataclass(frozen=True, slots=True)
class DumpPlan:
    """An estimate of the next dump. A range goes from the cost if everything fits to the usual maximum.

    Attributes:
        mode: ``full``, or ``refresh`` for an incremental sync.
        why: why the sync is full.
        total: how many jobs the server counts; None if it does not say.
        known: how many jobs of the account the lake holds.
        requests: a range; None if `total` is not known. Each request reads a page.
        seconds: a range, from the latency of the one request and the rate limit, which counts the requests made with the
            same credential in the last minute.
        months: the months that the dump is likely to write; None before the first dump.
        staged: rows that an earlier run has fetched for this dump; they are not asked for again.
        running: the run that is at work on the lake, or None. The estimate is of a dump after it.
    """

    mode: str
    why: str
    total: int | None
    known: int
    requests: tuple[int, int] | None
    seconds: tuple[float, float] | None
    months: tuple[str, ...] | None
    staged: int = 0
    running: Holder | None = None


@check_keywords
def plan_dump(  # noqa: PLR0913 - each is a choice of its own, and all have defaults
    lake: str | Path,
    *,
    company_id: str | None = None,
    client: Client | None = None,
    full: bool = False,
    full_every: timedelta = FULL_EVERY,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> DumpPlan:
    """Request the newest job and return an estimate of what a dump would cost. Nothing is written.

    Args:
        lake: the lake's folder, or the URL of a Delta table; it need not exist yet.
        company_id: one company; by default the client's company, or all that the credential may see.
        client: server and credential; by default from the environment.
        full: estimate a full sync.
        full_every: how often a full sync is due.
        storage_options: options for the object store of a Delta table.
        workspace: the local folder of a Delta table.

    Raises:
        ConfigurationError: the lake holds jobs of another server.

    All other errors are those of `load_export_jobs`.
    """
    store = open_lake(lake, storage_options=storage_options, workspace=workspace)
    opened = store.open() if store.exists() else None
    base = opened.manifest if opened else None
    with open_client(client) as source:
        server = str(source.server).rstrip("/")
        if base is not None:
            refuse_other_server(str(lake), base.server, server)
        company = canonical_uuid(company_id) if company_id is not None else source.company_id
        account = base.accounts.get(AccountKey.of(server, company)) if base else None
        size = 0 if account is None or full else account.page_size
        # A whole page shows how many rows this server gives.
        query = replace(narrow(NEWEST_FIRST, company_id=company), limit=1 if size else MOST)
        info, latency = _request_newest(source, query)
        size = size or (info.rows if info.has_next and info.rows else source.page_size or MOST)
        mode, why = choose_mode(account, now=datetime.now(UTC), full=full, full_every=full_every)
        rows = scan_files(opened.files if opened else ())
        rows = rows if company is None else rows.filter(pl.col("company_id") == company)
        known = int(rows.select(pl.len()).collect().item())
        total = info.total if info.total is not None and info.total >= 0 else None
        binding = binding_of(account) ^ (store.read_forgotten().number() if opened else 0)
        found = count_staged_full(
            store.layout.staging, AccountKey.of(server, company), base=binding, mode=mode
        )
        if found is not None and mode == "refresh":
            mode, why = "full", "continued from an interrupted run"
        staged = min(found or 0, total or 0)
        requests = None if total is None else _count_requests(mode, total - staged, known, page=size)
        return DumpPlan(
            mode=mode,
            why=why,
            total=total,
            known=known,
            requests=requests,
            seconds=None
            if requests is None
            else tuple(round(source.foresee(n, latency), 1) for n in requests),  # type: ignore[arg-type]
            months=_estimate_months(rows, info, total) if base else None,
            staged=staged,
            running=find_holder(store.layout),
        )


def _request_newest(client: Client, query: Query) -> tuple[PageInfo, float]:
    """Return the page of the newest job, or of any job if the server does not sort, and its latency in seconds."""
    session, started = client.start_session(deadline=120), time.monotonic()
    try:
        info = ask(session, query)[0].info
    except RequestRefused:
        info = ask(session, replace(query, sorting_keys=(), sorting_order=()))[0].info
    return info, max(0.0, time.monotonic() - started - session.waited)


def _count_requests(mode: str, total: int, known: int, *, page: int) -> tuple[int, int]:
    if mode == "full":
        pages = max(1, -(-total // page))
        return pages, 2 * pages
    # An incremental sync asks for small pages.
    pages = max(1, -(-max(0, total - known) // min(page, SAFE)))
    return REFRESH_LEAST + pages, REFRESH_MOST + pages


def _estimate_months(rows: pl.LazyFrame, info: PageInfo, total: int | None) -> tuple[str, ...]:
    """Return the months from the lake's newest job to the server's newest."""
    newest = rows.select(pl.col("created_at").max()).collect().item()
    if not info.keys or newest is None:
        return ()
    first, last = newest.date().replace(day=1), datetime.fromisoformat(info.keys[0][0]).date()
    if last < first or total == 0:
        return ()
    months = pl.DataFrame({"created_at": pl.date_range(first, last, "1mo", eager=True)})
    return tuple(months.select(created_month()).to_series())
