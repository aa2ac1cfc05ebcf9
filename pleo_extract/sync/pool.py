"""Read many accounts in parallel: stalest accounts first, those that failed last time last.

Threads take accounts from one queue. Small companies are queued in groups whose rows are read from the lake together:
ten thousand companies would otherwise mean ten thousand scans of the same files. An account that is done keeps its
outcome only, not its client, session or rows.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from queue import SimpleQueue
from threading import Event, Lock
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.fetch.workers import PATIENCE
from pleo_extract.lake.staging import find_resumable
from pleo_extract.signals import TICK
from pleo_extract.sync.account import FEW_JOBS, Preload, is_small

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from pleo_extract.lake.layout import Manifest
    from pleo_extract.sync.account import AccountDump, Origin

__all__ = ["read_all"]

THREADS: Final = 8
"""Accounts read in parallel."""
GROUP: Final = 50
"""Largest number of accounts whose rows are read from the lake together."""

SHORTEST_TAIL: Final = 20.0
"""Seconds that accounts that are done wait at least for those that are still being read when no other is left."""


class _Group:
    """Accounts whose rows are read from the lake together. Several threads may take accounts from it."""

    def __init__(self, accounts: list[AccountDump]) -> None:
        self._left = deque(accounts)
        self._rows: dict[str | None, pl.DataFrame] | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, origin: Origin) -> tuple[AccountDump, pl.DataFrame | None] | None:
        """Return the next account with its rows, if those were read; None if no account is left."""
        with self._lock:
            if not self._left:
                return None
            if self._rows is None:
                self._rows = _read_rows(self._left, origin)
            account = self._left.popleft()
            return account, self._rows.pop(account.company_id, None)


class _Queue:
    """The groups of a run: first those that nobody has begun, then what is left of the others.

    So a thread whose company is slow leaves the rest of its group to the other threads.
    """

    def __init__(self, groups: Iterable[_Group]) -> None:
        self._waiting = deque(groups)
        self._begun: list[_Group] = []
        self._lock = Lock()

    def next_group(self) -> _Group | None:
        """Return a group with accounts, or None if no account is left."""
        with self._lock:
            if self._waiting:
                self._begun.append(self._waiting.popleft())
                return self._begun[-1]
            self._begun = [group for group in self._begun if group]
            return self._begun[0] if self._begun else None


def read_all(
    accounts: Sequence[AccountDump], origin: Origin, *, every: float
) -> Generator[list[AccountDump], None, None]:
    """Read these accounts in parallel. If one raises, the others stage what they hold and stop.

    Yields:
        At the intervals of `_tick`, while accounts are still being read, those that were done since the last time.
        Accounts that are done after the last interval are not yielded.
    """
    # The staging folder is listed once, not by each of thousands of accounts.
    left = find_resumable(origin.lake.layout.staging)
    todo, done, stopped = _Queue(_make_groups(accounts, origin)), SimpleQueue["AccountDump"](), Event()

    def work() -> None:
        while (group := todo.next_group()) is not None:
            while (taken := group.take(origin)) is not None:
                if stopped.is_set():
                    return
                account, rows = taken
                account.read(origin, Preload(left, rows))
                account.free_memory()
                done.put(account)

    threads = min(THREADS, len(accounts))
    pool = ThreadPoolExecutor(max_workers=threads)
    futures = {pool.submit(work) for _ in range(threads)}
    try:
        for _ in _tick(futures, every):
            if finished := [done.get_nowait() for _ in range(done.qsize())]:
                yield finished
    except BaseException:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for each in accounts:
            if (session := each.session) is not None:
                session.stop.set()
        wait(futures, timeout=PATIENCE)
        raise
    pool.shutdown()


def _make_groups(accounts: Sequence[AccountDump], origin: Origin) -> Iterator[_Group]:
    # Four groups a thread, so that all end together.
    largest = max(1, min(GROUP, len(accounts) // THREADS // 4))
    return map(_Group, _split_into_groups(_sort_stalest(accounts, origin), origin.base, largest))


def _sort_stalest(accounts: Sequence[AccountDump], origin: Origin) -> list[AccountDump]:
    """Return the stalest accounts first; of accounts read by the same run, in the order of the lake's rows.

    Accounts that failed last time come last, although they are the stalest: a revoked key or a slow server must not
    occupy a thread while healthy companies wait.
    """
    known = origin.base.accounts if origin.base else {}
    last = origin.lake.last_run()
    failed = last.failed.keys() if last is not None else set()
    never = datetime.min.replace(tzinfo=UTC)

    def rank(account: AccountDump) -> tuple[bool, datetime, str]:
        state = known.get(account.key)
        updated = state.updated_at if state is not None else None
        return (account.name or account.key) in failed, updated or never, account.key

    return sorted(accounts, key=rank)


def _split_into_groups(
    accounts: Sequence[AccountDump], base: Manifest | None, largest: int
) -> Iterator[list[AccountDump]]:
    """Yield the accounts in groups, in the order given. The rows of a group of several fit into memory together."""
    known = base.accounts if base else {}
    group: list[AccountDump] = []
    jobs = 0
    for account in accounts:
        before = known.get(account.key)
        size = before.full_jobs if before is not None and is_small(before) else FEW_JOBS
        if group and (len(group) >= largest or jobs + size > FEW_JOBS):
            yield group
            group, jobs = [], 0
        group.append(account)
        jobs += size
    if group:
        yield group


def _tick(futures: set[Future[None]], every: float) -> Iterator[None]:
    """Yield from time to time until all futures are done; raise what one of them raised.

    That is every `every` seconds. A thread ends when no account is left to take. From then on those that are done wait for
    the few that are still being read: half as long as the run has lasted, so that a single slow company cannot hold the
    others back until the next interval, and companies of ordinary sizes do not cost a second publish.
    """
    pending = futures
    started = time.monotonic()
    due = started + every
    while pending:
        left = max(0.0, due - time.monotonic())
        finished, pending = wait(pending, timeout=min(left, TICK), return_when=FIRST_COMPLETED)
        for future in finished:
            future.result()
        now = time.monotonic()
        if pending and now >= due:
            yield
            now = time.monotonic()
            due = now + every
        if len(pending) < len(futures):
            due = min(due, now + max(SHORTEST_TAIL, (now - started) / 2))


def _read_rows(group: Sequence[AccountDump], origin: Origin) -> dict[str | None, pl.DataFrame]:
    """Return the lake's rows of these accounts by company, read together; nothing where each account reads its own."""
    companies = [account.company_id for account in group if account.company_id is not None]
    if len(group) == 1 or len(companies) < len(group):
        return {}
    company = pl.col("company_id")
    within = company.is_between(pl.lit(min(companies)), pl.lit(max(companies)))
    try:
        rows = origin.lake.scan(origin.base).filter(within, company.is_in(companies)).collect()
    except pl.exceptions.PolarsError:  # a file of the lake is damaged; each account reports that for itself
        return {}
    found = rows.partition_by("company_id", as_dict=True)
    return {each: found.get((each,), rows.clear()) for each in companies}
