"""Many accounts read side by side: stalest first, those that failed last time last, each let go of when it is done."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.fetch.workers import PATIENCE
from pleo_extract.lake.staging import find_resumable
from pleo_extract.sync.account import FEW_JOBS, is_small

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from pleo_extract.lake.layout import Manifest
    from pleo_extract.lake.store import Store
    from pleo_extract.sync.account import AccountDump

__all__ = ["read_all"]

THREADS: Final = 8
"""Accounts read at once."""
GROUP: Final = 50
"""Accounts whose rows are read from the lake together, at most."""

Groups = SimpleQueue["list[AccountDump]"]


def read_all(
    accounts: Sequence[AccountDump],
    lake: Store,
    base: Manifest | None,
    read: Callable[[AccountDump], None],
    *,
    every: float,
) -> Generator[list[AccountDump], None, None]:
    """Read these accounts, up to eight at once; where one raises, all stop, and stage what they hold.

    Yields:
        After each `every` seconds, while others are still being read: the accounts that are done since the last time.
        Those that are done after the last of these are not yielded: the run is over then.
    """
    todo, done, stopped = _line_up(accounts, lake, base), SimpleQueue["AccountDump"](), Event()

    def work() -> None:
        while group := _take(todo):
            _hold_rows(group, lake, base)
            for account in group:
                if stopped.is_set():
                    return
                read(account)
                account.forget_trace()
                done.put(account)

    threads = min(THREADS, len(accounts))
    pool = ThreadPoolExecutor(max_workers=threads)
    futures = {pool.submit(work) for _ in range(threads)}
    try:
        for _ in _pass_time(futures, every):
            if some := list(_drain(done)):
                yield some
    except BaseException:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for each in accounts:
            if (session := each.session) is not None:
                session.stop.set()
        wait(futures, timeout=PATIENCE)
        raise
    pool.shutdown()


def _line_up(accounts: Sequence[AccountDump], lake: Store, base: Manifest | None) -> Groups:
    todo, left = Groups(), find_resumable(lake.layout.staging)
    for account in accounts:
        account.left = left
    most = max(1, min(GROUP, len(accounts) // THREADS // 4))
    for group in _group(_sort_stalest(accounts, lake, base), base, most):
        todo.put(group)
    return todo


def _sort_stalest(accounts: Sequence[AccountDump], lake: Store, base: Manifest | None) -> list[AccountDump]:
    """Return the stalest accounts first, in the order of the lake's rows where they were read by one run.

    Those that failed last time come last, although they are the stalest of all: a dead key or a server that drips
    must not hold a thread while healthy companies wait.
    """
    known = base.accounts if base else {}
    last = lake.last_run()
    failed = last.failed.keys() if last is not None else set()
    never = datetime.min.replace(tzinfo=UTC)

    def rank(account: AccountDump) -> tuple[bool, datetime, str]:
        state = known.get(account.key)
        updated = state.updated_at if state is not None else None
        return (account.name or account.key) in failed, updated or never, account.key

    return sorted(accounts, key=rank)


def _group(accounts: Sequence[AccountDump], base: Manifest | None, most: int) -> Iterator[list[AccountDump]]:
    """The accounts in the order given; small ones side by side, so many at most, whose rows can be held together."""
    known = base.accounts if base else {}
    group: list[AccountDump] = []
    jobs = 0
    for account in accounts:
        before = known.get(account.key)
        size = before.full_jobs if before is not None and is_small(before) else FEW_JOBS
        if group and (len(group) >= most or jobs + size > FEW_JOBS):
            yield group
            group, jobs = [], 0
        group.append(account)
        jobs += size
    if group:
        yield group


def _take(todo: Groups) -> list[AccountDump]:
    """What is next; nothing when all is under way."""
    with suppress(Empty):
        return todo.get_nowait()
    return []


def _pass_time(futures: set[Future[None]], every: float) -> Iterator[None]:
    """Yield after each `every` seconds until all are done; raise what one of them raised."""
    pending = futures
    due = time.monotonic() + every
    while pending:
        left = max(0.0, due - time.monotonic())
        finished, pending = wait(pending, timeout=left, return_when=FIRST_EXCEPTION)
        for future in finished:
            future.result()
        if pending and time.monotonic() >= due:
            yield
            due = time.monotonic() + every


def _drain(done: SimpleQueue[AccountDump]) -> Iterator[AccountDump]:
    """Yield what is in the queue now."""
    with suppress(Empty):
        while True:
            yield done.get_nowait()


def _hold_rows(group: Sequence[AccountDump], lake: Store, base: Manifest | None) -> None:
    """Read what the lake has of these accounts at once: its files would be looked through for each of thousands."""
    companies = [account.company_id for account in group if account.company_id is not None]
    if len(group) == 1 or len(companies) < len(group):
        return  # it reads its own
    company = pl.col("company_id")
    within = company.is_between(pl.lit(min(companies)), pl.lit(max(companies)))
    try:
        rows = lake.scan(base).filter(within, company.is_in(companies)).collect()
    except pl.exceptions.PolarsError:
        return  # a file of the lake is damaged: each account finds that out for itself
    found = rows.partition_by("company_id", as_dict=True)
    for account in group:
        account.rows = found.get((account.company_id,), rows.clear())
