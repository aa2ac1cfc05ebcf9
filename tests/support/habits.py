"""A second server of the contract, with any combination of the behaviours that the contract leaves open.

It shares no code with the sandbox. It numbers every change to its world and keeps every version of every job, so
that a test can compare rows with the versions that existed between two instants. It is an httpx transport.
"""

from __future__ import annotations

import base64
import functools
import random
import threading
import time
import uuid
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Habits", "Job", "Server", "Version"]

COMPANY = "6f1f4b5e-5f0c-4a8e-9a53-1d3a6c0f2b11"
TERMINAL = ("completed", "completed_with_errors", "failed")
START = datetime(2024, 1, 8, 8, tzinfo=UTC)


@dataclass(frozen=True)
class Habits:
    """The behaviour of one server where the contract says nothing.

    Attributes:
        page: the largest page, rows.
        echo: ``full``, ``absent`` (the optional part) or ``keys`` (sorting keys, no orders).
        sorting: ``honoured``, ``refused`` (400) or ``ignored``.
        total: ``exact``, ``absent``, ``high``, ``low`` (by a constant), ``capped``, ``page`` or ``estimate``.
        offsets: ``taken``, ``400``, ``422``, ``500`` or ``empty``: the response to offsets beyond `deepest`.
        deepest: the largest offset that works.
        statuses: whether the filter works.
        nanoseconds: whether `createdAt` has nine digits, which also order the list.
        ids: how ties are ordered: ``text`` or ``signed`` (as Java compares UUIDs).
        canceled: whether some jobs end in a status that the contract does not list.
        cursor_life: the number of requests after which a cursor is refused.
        cursors: what a cursor names: ``jobs``; ``positions``: then a walk skips a job when one before it is deleted; or
            ``pages``: a number of pages of the request's limit, so that another limit leads elsewhere.
        slow: seconds per response; when slow, a long list is read in segments.
        drift: the chance that the world changes before a response.
        large: the response to limits over 100: ``lowered``, or a status.
        at_once: how many requests are served at the same time, 0 for any number; more get a 429 with `Retry-After: 1`.
            They come together only in a list that is read in segments: see `conftest.cut_long_lists`.
        moves: whether `createdAt` of some jobs changes: ``never``, ``stamped`` (`lastUpdatedAt` changes too) or ``silent``.
        breaks: how rows break the contract for a while: ``never``, ``items`` (a number as text), ``created`` (an unreal
            date), ``status`` or ``id`` (the field is missing).
    """

    page: int = 20
    echo: str = "full"
    sorting: str = "honoured"
    total: str = "exact"
    offsets: str = "taken"
    deepest: int = 100
    statuses: bool = True
    nanoseconds: bool = False
    ids: str = "text"
    canceled: bool = False
    cursor_life: int = 10_000
    cursors: str = "jobs"
    slow: float = 0.0
    drift: float = 0.0
    large: str = "lowered"
    at_once: int = 0
    moves: str = "never"
    breaks: str = "never"

    @classmethod
    def draw(cls, rng: random.Random) -> Habits:
        """Draw habits; about half of them are the default."""
        choices: dict[str, tuple[Any, ...]] = {
            "page": (20, 20, 7, 50),
            "echo": ("full", "full", "absent", "keys"),
            "sorting": ("honoured",) * 8 + ("refused", "ignored"),
            "total": ("exact",) * 4 + ("absent", "high", "low", "capped", "page", "estimate"),
            "offsets": ("taken",) * 4 + ("400", "422", "500", "empty"),
            "deepest": (0, 60, 100, 200),
            "statuses": (True, True, True, False),
            "nanoseconds": (False, False, True),
            "ids": ("text", "text", "signed"),
            "canceled": (False, False, True),
            "cursor_life": (10_000, 10_000, 30),
            "cursors": ("jobs", "jobs", "positions", "pages"),
            "slow": (0.0, 0.0, 0.0, 0.012),
            "drift": (0.0, 0.1, 0.5),
            "large": ("lowered",) * 6 + ("400", "413", "422", "500"),
            "at_once": (0, 0, 2, 5),
            "moves": ("never", "never", "stamped", "silent"),
            "breaks": ("never",) * 4 + ("items", "created", "status", "id"),
        }
        return cls(**{each.name: rng.choice(choices[each.name]) for each in fields(cls)})


Version = tuple[int, dict[str, Any] | None]
"""The number of the change that made the version, and the record: None once the job is deleted, `BROKEN` while its row
breaks the contract."""
BROKEN: dict[str, Any] = {}


@dataclass
class Job:
    """One job and all its versions."""

    id: str
    created: datetime
    nanos: int
    status: str = "pending"
    started: datetime | None = None
    ended: datetime | None = None
    updated: datetime | None = None
    items: int = 1
    reason: str | None = None
    is_deleted: bool = False
    is_broken: bool = False
    versions: list[Version] = field(default_factory=list)

    def between(self, start: int, end: int) -> list[dict[str, Any] | None]:
        """Return the versions that the server had at some time from change `start` to change `end`."""
        following = [number for number, _ in self.versions[1:]] + [end + 1]
        found = [
            row
            for (number, row), until in zip(self.versions, following, strict=True)
            if number <= end and until > start
        ]
        return [None, *found] if self.versions[0][0] > start else found


class Server(httpx.BaseTransport):
    """The server and its world.

    Attributes:
        jobs: all jobs by id, deleted ones included.
        changes: the number of changes so far.
        requests: the number of requests so far.
        refusals: how many of them were refused because too many came at once.
        fail_at: the request from which on `failure` is raised.
        on_request: called for each request, before the world changes.
        on_drift: called after each change that the habit `drift` makes, so that a test can make others.
        has_clock: whether its answers have a Date.
    """

    has_clock = True

    def __init__(self, habits: Habits, seed: int, jobs: int) -> None:
        self.habits = habits
        self.rng = random.Random(seed)
        self.now = START
        self.changes = 0
        self.requests = 0
        self.refusals = 0
        self.failure: BaseException | None = None
        self.fail_at = 0
        self.on_request: Callable[[], None] = lambda: None
        self.on_drift: Callable[[], None] = lambda: None
        self.jobs: dict[str, Job] = {}
        self.wrong_by = self.rng.choice((3, 17, 400))
        self._lock = threading.RLock()
        self._counter = threading.Lock()
        self._given: dict[str, int] = {}
        self._listed: dict[tuple[Any, ...], list[Job]] = {}
        self._inside = 0
        for _ in range(jobs):
            self.now += timedelta(seconds=self.rng.choice((0, 0, 60, 1800, 7200, 40_000)))
            self.finish(self.create())

    # The world.

    def note(self, job: Job) -> None:
        """Store the job's new version."""
        self.changes += 1
        record = None if job.is_deleted else BROKEN if job.is_broken else self._describe(job)
        job.versions.append((self.changes, record))

    def create(self, created: datetime | None = None) -> Job:
        """Create a job now, or in the past."""
        job = Job(
            str(uuid.UUID(int=self.rng.getrandbits(128), version=4)),
            (created or self.now).replace(microsecond=0),
            self.rng.choice((0, 0, 1, 999, 123_456_789, 999_999_999)) if self.habits.nanoseconds else 0,
            items=self.rng.randint(1, 50),
        )
        job.updated = job.created
        self.jobs[job.id] = job
        self.note(job)
        return job

    def start(self, job: Job) -> None:
        """Start a job."""
        job.status, job.started, job.updated = "in_progress", self.now, self.now
        self.note(job)

    def finish(self, job: Job) -> None:
        """End a job."""
        ends = ("completed", "completed", "failed", "completed_with_errors")
        job.status = self.rng.choice((*ends, "canceled") if self.habits.canceled else ends)
        job.reason = "service_timeout" if job.status == "failed" else None
        job.started = job.started or self.now
        job.ended = job.updated = self.now
        self.note(job)

    def change_settled(self) -> Job | None:
        """Change a terminal job, which the contract does not allow."""
        if job := self.pick(lambda job: job.status in TERMINAL):
            job.items += 1
            job.updated = self.now
            self.note(job)
        return job

    def delete(self) -> Job | None:
        """Delete a terminal job."""
        if job := self.pick(lambda job: job.status in TERMINAL):
            job.is_deleted = True
            self.note(job)
        return job

    def backdate(self) -> Job:
        """Insert a completed job in the past, two hours ago or more."""
        first = min((job.created for job in self.jobs.values()), default=START)
        span = max(0.0, (self.now - first).total_seconds() - 7200)
        job = self.create(first + timedelta(seconds=self.rng.random() * span))
        job.status, job.ended = "completed", job.created
        self.note(job)
        return job

    def move(self) -> Job | None:
        """Change the creation of a job, to another month or within its month, which the contract does not allow."""
        if job := self.pick(lambda _job: True):
            first = min(other.created for other in self.jobs.values())
            start = job.created.replace(day=1, hour=0, minute=0, second=0)
            if self.rng.random() < 0.5:
                low, high = start, min(start + timedelta(days=28), self.now)
            else:
                low, high = first, self.now
            job.created = low + timedelta(seconds=int(self.rng.random() * (high - low).total_seconds()))
            if self.habits.moves == "stamped":
                job.updated = self.now
            self.note(job)
        return job

    def break_row(self) -> Job | None:
        """Let the row of a job break the contract until `heal_rows`; it may be any job, and is often an open one."""
        is_open = self.rng.random() < 0.5
        job = self.pick(lambda job: not job.is_broken and (not is_open or job.status not in TERMINAL))
        if job:
            job.is_broken = True
            self.note(job)
        return job

    def heal_rows(self) -> None:
        """Serve each row as the contract says again."""
        for job in self.jobs.values():
            if job.is_broken:
                job.is_broken = False
                self.note(job)

    def pick(self, wanted: Callable[[Job], bool]) -> Job | None:
        """Return a random listed job that matches, or None."""
        found = [job for job in self.jobs.values() if not job.is_deleted and wanted(job)]
        return self.rng.choice(found) if found else None

    def live(self) -> None:
        """Make one regular change: create, start or end a job."""
        self.now += timedelta(seconds=self.rng.choice((0, 1, 30, 600)))
        what = self.rng.random()
        waiting = self.pick(lambda job: job.status == "pending")
        running = self.pick(lambda job: job.status == "in_progress")
        if what < 0.4 or (waiting is None and running is None):
            self.create()
        elif what < 0.7 and waiting is not None:
            self.start(waiting)
        elif running is not None:
            self.finish(running)

    # The endpoint.

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response that the habits give."""
        target = request.extensions.get("target", request.url.raw_path).decode("ascii")
        asked = parse_qs(target.partition("?")[2], keep_blank_values=True)
        headers = {"content-type": "application/json"}
        with self._counter:
            self._inside += 1
            is_crowded = 0 < self.habits.at_once < self._inside
        try:
            if self.habits.slow and not is_crowded:
                time.sleep(self.habits.slow)
            with self._lock:
                self.requests += 1
                self.on_request()
                if self.failure is not None and self.requests >= self.fail_at:
                    raise self.failure
                while self.rng.random() < self.habits.drift:
                    self.live()
                    self.on_drift()
                if is_crowded:
                    self.refusals += 1
                    headers["retry-after"] = "1"
                    status, body = 429, {"type": "error", "message": "too many requests at once"}
                else:
                    status, body = self._answer(asked)
        finally:
            with self._counter:
                self._inside -= 1
        if self.has_clock:
            headers["date"] = format_datetime(self.now.replace(microsecond=0), usegmt=True)
        return httpx.Response(status, json=body, headers=headers)

    def _answer(self, asked: dict[str, list[str]]) -> tuple[int, Any]:
        habits = self.habits
        keys, orders = asked.get("sorting_keys", []), asked.get("sorting_order", [])
        if habits.large != "lowered" and int(asked.get("limit", ["20"])[0]) > 100:
            return int(habits.large), {"type": "error", "message": "limit is too large"}
        if keys and habits.sorting == "refused":
            return 400, {"type": "bad_request", "message": "sorting is not supported"}
        rows = self._list(keys, orders, asked.get("statuses", []), asked.get("company_id", [""])[0])
        limit = min(int(asked.get("limit", ["20"])[0]), habits.page)
        start, offset = 0, asked.get("offset", [None])[0]
        if offset is not None:
            start = int(offset)
            if start > habits.deepest and habits.offsets != "taken":
                if habits.offsets != "empty":
                    return int(habits.offsets), {"type": "error", "message": "result window is too large"}
                rows, start = [], 0
        elif cursor := asked.get("after", [None])[0]:
            place = self._find(cursor, rows, limit)
            if place is None:
                return 400, {"type": "bad_request", "message": "cursor is gone"}
            start = place
        page = rows[start : start + limit]
        more = start + len(page) < len(rows)
        return 200, {
            "data": [self._serve(job) for job in page],
            "pagination": self._describe_page(asked, rows, page, start, more=more),
        }

    def _list(self, keys: list[str], orders: list[str], statuses: list[str], company: str) -> list[Job]:
        """Return the list, sorted; it is sorted again only after a change."""
        # A test may replace the order of ties by one that differs at each request.
        turn = self.requests if "_tie" in vars(self) else 0
        asked = (self.changes, turn, tuple(keys), tuple(orders), tuple(statuses), company)
        if asked not in self._listed:
            self._listed = {asked: self._sort(keys, orders, statuses, company)}
        return self._listed[asked]

    def _sort(self, keys: list[str], orders: list[str], statuses: list[str], company: str) -> list[Job]:
        rows = [job for job in self.jobs.values() if not job.is_deleted and company in ("", COMPANY)]
        if statuses and self.habits.statuses:
            rows = [job for job in rows if job.status in statuses]
        if keys and self.habits.sorting == "honoured":
            for key, order in reversed(list(zip(keys, orders, strict=True))):
                rows.sort(
                    key=self._place if key == "createdAt" else self._tie, reverse=order.startswith("DESC")
                )
        else:
            rows.sort(key=lambda job: (self._place(job), self._tie(job)), reverse=True)
        return rows

    @staticmethod
    def _place(job: Job) -> tuple[datetime, int]:
        return job.created, job.nanos

    def _tie(self, job: Job) -> Any:
        value, halves = _numbers(job.id)
        return value if self.habits.ids == "text" else halves

    def _find(self, cursor: str, rows: list[Job], limit: int) -> int | None:
        """Return the index after the cursor's place; None if the cursor is too old or its job is no longer listed."""
        if self.requests - self._given.get(cursor, -(10**9)) > self.habits.cursor_life:
            return None
        kind, _, name = base64.b32decode(cursor.replace("~", "=")).decode().partition(" ")
        if kind == "page":
            return (int(name) + 1) * limit
        if kind == "position":
            return int(name) + 1
        return next((place + 1 for place, job in enumerate(rows) if job.id == name), None)

    def _describe_page(
        self, asked: dict[str, list[str]], rows: list[Job], page: list[Job], start: int, *, more: bool
    ) -> dict[str, Any]:
        habits = self.habits
        limit = min(int(asked.get("limit", ["20"])[0]), habits.page)
        echo: dict[str, Any] = {"parameters": asked}
        if habits.echo == "full":
            echo["limit"] = min(int(asked.get("limit", ["20"])[0]), habits.page)
            echo |= {name: asked[name][0] for name in ("after", "before") if name in asked}
            echo |= {"offset": int(asked["offset"][0])} if "offset" in asked else {}
        if habits.echo != "absent" and habits.sorting == "honoured" and "sorting_keys" in asked:
            echo["sortingKeys"] = asked["sorting_keys"]
            if habits.echo == "full":
                echo["sortingOrder"] = asked["sorting_order"]
        info: dict[str, Any] = {
            "hasNextPage": more,
            "hasPreviousPage": bool(page) and page[0] is not rows[0],
            "currentRequestPagination": echo,
        }
        if page:
            info["startCursor"], info["endCursor"] = (
                self._make_cursor(page[0], start, limit),
                self._make_cursor(page[-1], start + len(page) - 1, limit),
            )
        count = len(rows)
        totals = {
            "exact": count,
            "high": count + self.wrong_by,
            "low": max(0, count - self.wrong_by),
            "capped": min(count, 100),
            "page": len(page),
            "estimate": round(count * self.rng.uniform(0.9, 1.1)),
        }
        if habits.total != "absent":
            info["total"] = totals[habits.total]
        return info

    def _make_cursor(self, job: Job, place: int, limit: int = 1) -> str:
        name = f"job {job.id}" if self.habits.cursors == "jobs" else f"position {place}"
        if self.habits.cursors == "pages" and (place + 1) % limit == 0:
            name = f"page {place // limit}"
        cursor = base64.b32encode(name.encode()).decode().replace("=", "~")
        self._given[cursor] = self.requests
        return cursor

    def _serve(self, job: Job) -> dict[str, Any]:
        row = self._describe(job)
        if job.is_broken:
            name, value = {
                "items": ("numberOfItems", str(job.items)),
                "created": ("createdAt", "2024-02-30T10:00:00Z"),
                "status": ("status", None),
                "id": ("id", None),
            }[self.habits.breaks]
            row[name] = value
        return row

    def _describe(self, job: Job) -> dict[str, Any]:
        created = job.created.replace(tzinfo=None).isoformat(timespec="seconds")
        created += f".{job.nanos:09d}Z" if self.habits.nanoseconds else "Z"
        return {
            "id": job.id,
            "companyId": COMPANY,
            "status": job.status,
            "createdAt": created,
            "startedAt": _format_time(job.started),
            "completedAt": _format_time(job.ended) if job.status != "failed" else None,
            "expiredAt": None,
            "lastUpdatedAt": _format_time(job.updated),
            "expiresIn": 3600,
            "createdBy": None,
            "isInteractive": False,
            "numberOfItems": job.items,
            "vendorBasedBookkeeping": False,
            "failureReason": None,
            **({"failureReasonType": job.reason} if job.reason else {}),
        }


@functools.cache
def _numbers(job_id: str) -> tuple[int, tuple[int, ...]]:
    """Return the UUID as one number, and as two signed ones; every request sorts by one of them."""
    value = uuid.UUID(job_id).int
    halves = value >> 64, value & (2**64 - 1)
    return value, tuple(half - 2**64 if half >= 2**63 else half for half in halves)


def _format_time(instant: datetime | None) -> str | None:
    # Not strftime, which is ten times slower: every request formats all of its rows.
    return None if instant is None else f"{instant.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
