"""One session with the API: send requests, wait, and send again where that may help.

Theory of operation. A request passes five stations, in this order:

1. *Gate* (`gate`): wait for one of the places in flight. The server may allow fewer than we would like; a 429 that
   arrives while other requests are under way halves the number of places.
2. *Window* (`window`): reserve an instant within the rate limit and wait for it. A pause may begin during this wait
   (another thread got a Retry-After): then reserve again. The number of places may be halved during this wait: then go
   back to the gate, since the server has just said that this many are too many.
3. *Request limit*: count the request immediately before it is sent, so that `requests` is what the server saw.
4. *Request deadline*: `transport.Limit` ends the request after `Patience.request_seconds`, or at the session's deadline
   if that is earlier, in every phase.
5. *Answer* (`answer`): a result, a final error, or a `Retryable` failure.

A retry is paid from the session's *retry budget* (`pace.Budget`), which successes refill slowly, and is one of at most
`Patience.attempts` tries of this request. The budget bounds the load that we add to a server in trouble: when every
request fails, each request alone may well be within its attempts, but all of them together are a flood. A refusal for
concurrency while others succeed is not an attempt, since waiting cures it; it costs a tenth of a normal retry, and
after a minute without success for this request it counts like any other failure.

Where the server says how long to wait, the window pauses: all sessions and processes with this credential wait, once.
Otherwise only this request backs off, with full jitter. A wait that would outlast the session's deadline is not begun:
the session fails immediately and says when to come back, so that a scheduler need not wait for a process that sleeps.

`stop` ends every wait and refuses new requests. No lock is held while a thread waits or sends.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import quote_plus

from pleo_extract.client.answer import (
    Answer,
    Retryable,
    Unauthorized,
    forget_frames,
    interpret,
    translate,
)
from pleo_extract.client.runlog import RunLog
from pleo_extract.client.transport import SHORTEST, Failure, Limit, Request
from pleo_extract.client.waits import Waits
from pleo_extract.client.wire import read_body
from pleo_extract.core.habits import Habits
from pleo_extract.core.pace import MINUTE, Budget, Patience, RateWindow, backoff, served_at
from pleo_extract.errors import (
    DeadlineExceeded,
    EchoMismatch,
    PageError,
    RequestRefused,
    RequestsExceeded,
    Stopped,
    TryLater,
    UsageError,
    amount,
    escape,
    span,
)
from pleo_extract.signals import TICK
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from pleo_extract.client.credential import Credential
    from pleo_extract.client.gate import Gate
    from pleo_extract.client.server import Server
    from pleo_extract.client.transport import Transport
    from pleo_extract.client.window import SharedRateWindow
    from pleo_extract.contract import Query
    from pleo_extract.core.pages import PageSize

__all__ = ["Channel", "Clock", "RealClock", "Session"]

T = TypeVar("T")

LONGEST_TARGET: Final = 60_000
"""The most bytes of a path with its query; httpx accepts a URL of 65,536."""
HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
    "User-Agent": f"pleo-extract/{__version__}",
}
LIGHTEN_AFTER: Final = 2
"""Failures of one request (5xx, no answer in time) after which it asks for less: the first one may be chance."""

_quote = lru_cache(maxsize=64)(quote_plus)
"""Cached, because everything but the cursor is the same on every page."""


class Clock(Protocol):
    """The source of time of a client."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that never steps back."""
        ...

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Return after this many seconds, or as soon as `stop` is set."""


class RealClock:
    """The clock of this machine."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def wait(seconds: float, stop: threading.Event) -> None:
        """Return after this many seconds, or as soon as `stop` is set."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not stop.wait(min(left, TICK)):
            pass


@dataclass(frozen=True, slots=True)
class Channel:
    """What all sessions of one client share: the way to the server, the credential, the pace.

    Attributes:
        server: the base URL.
        path: the path of the list on this server.
        transport: what carries requests.
        credential: who asks.
        window: the rate limit.
        patience: how long to wait for what.
        clock: the source of time.
        gate: the places in flight.
        pages: the page size of the server.
        lock: guards the window and the counters of all sessions.
    """

    server: Server
    path: str
    transport: Transport
    credential: Credential
    window: RateWindow | SharedRateWindow
    patience: Patience
    clock: Clock
    gate: Gate
    pages: PageSize
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class _Trouble:
    """What has gone wrong with one request so far.

    Attributes:
        attempts: tries that count against `Patience.attempts`.
        refusals: failures that may mean that the server refuses this query.
        kind: the kind of the last failure.
        same: how many failures of this kind there were in a row.
        since: when this request first failed.
    """

    attempts: int = 0
    refusals: int = 0
    kind: str = ""
    same: int = 0
    since: float = math.inf


class Session:
    """One run over a channel: what it may spend, and what it has spent.

    Attributes:
        channel: what it shares with other sessions of its client.
        log: its warnings.
        requests: how many requests were sent.
        retries: how many of these were sent again after a failure.
        faults: how many failures there were, by kind.
        stop: set this to end all waits and refuse new requests.
        habits: what is known of the server's habits; whoever reads a list learns and uses them.
        pages: the server's page size, which is learned and used likewise.
        served_at: the time of the last answer, by the server's clock where it has one.
    """

    def __init__(
        self,
        channel: Channel,
        deadline: float | None,
        max_requests: int | None = None,
        name: str = "",
        waits: Waits | None = None,
        pages: PageSize | None = None,
    ) -> None:
        self.channel = channel
        self.log = RunLog(name)
        self.requests = 0
        self.retries = 0
        self.faults: Counter[str] = Counter()
        self.stop = threading.Event()
        self.habits = Habits()
        self.served_at = datetime.now(UTC)
        # A size that the user has chosen is the client's, and stands above what a run finds out.
        self.pages = channel.pages if pages is None or channel.pages.is_chosen else pages
        self.on_wait: Callable[[float], None] | None = None  # called when a wait of a second or more begins
        self._waits = Waits(channel.clock.monotonic, waits)
        self._budget = Budget()
        self._max_requests = max_requests
        self._deadline = math.inf if deadline is None else deadline
        self._end = channel.clock.monotonic() + self._deadline

    @property
    def waited(self) -> float:
        """The seconds in which at least one request waited (pace, pauses, back-off)."""
        return self._waits.seconds()

    def fetch(
        self,
        query: Query,
        parse: Callable[[bytes], T],
        *,
        tries: int | None = None,
        lighten: Callable[[], Query | None] | None = None,
    ) -> T:
        """Return what `parse` makes of the answer to this query; send again where that may help.

        Args:
            query: what to ask.
            parse: turns the body into the result. A PageError that it raises counts as a bad body. An EchoMismatch
                counts as the answer to another request: idle connections are closed before the retry.
            tries: after this many timeouts and answers of 5xx the query counts as refused, even while the server
                answers other queries.
            lighten: called after `LIGHTEN_AFTER` of these. It returns a query that asks for less, to continue with, or None.

        Raises:
            RequestRefused: the server answered 400, 413 or 422, for a cursor 404 or 410, or failed `tries` times.
            CredentialsError: the server answered 401, 403 or otherwise 404.
            TryLater: the attempts or the retry budget are used up; its subclasses: deadline, request limit, stop.
            ContractError: the answer is not in the contract.
            ConfigurationError: TLS or the proxy cannot be used.
        """
        params = query.params()
        trouble = _Trouble()
        is_renewed = False
        while True:
            try:
                answer = self._ask(params)
                result = interpret(
                    answer,
                    params,
                    parse,
                    origin=self.channel.credential.origin,
                    server=self.channel.server,
                )
            except Unauthorized as exc:
                if is_renewed or not self.channel.credential.renew(exc.generation):
                    raise exc.error from None
                is_renewed = True
            except Retryable as exc:
                self._record(exc, trouble)
                if tries is not None and trouble.refusals >= tries:
                    with self.channel.lock:
                        self.faults[exc.kind] += 1
                    raise RequestRefused(f"{exc.error}, {tries} times", params=params) from exc.error
                if isinstance(exc.error, EchoMismatch):
                    self.channel.transport.drop_idle()
                self._prepare_retry(exc, trouble)
                if lighten is not None and trouble.refusals == LIGHTEN_AFTER and exc.may_be_refusal:
                    lighter = lighten()
                    params = params if lighter is None else lighter.params()
            else:
                with self.channel.lock:
                    self._budget.earn()
                self.served_at = served_at(answer.headers) or datetime.now(UTC)
                kind = answer.headers.get("content-type", "application/json")
                if "json" not in kind.lower():
                    self.log.warn_once(
                        "type", f"a page came as {escape(kind)!r}, not as JSON; its rows are used"
                    )
                return result

    def _record(self, failure: Retryable, trouble: _Trouble) -> None:
        """Add a failure to what has gone wrong with this request."""
        now = self._now()
        trouble.same = trouble.same + 1 if failure.kind == trouble.kind else 1
        trouble.kind = failure.kind
        trouble.since = min(trouble.since, now)
        # A refusal for concurrency is no attempt while others are served: this request's turn comes later. After a
        # minute it counts, so that a server that serves everybody else cannot hold this request for ever.
        failure.crowded = (
            failure.crowded and now - trouble.since < MINUTE and self.channel.gate.is_served(now)
        )
        trouble.attempts += not failure.crowded
        trouble.refusals += failure.may_be_refusal

    def _prepare_retry(self, failure: Retryable, trouble: _Trouble) -> None:
        """Pay for a retry, log it and wait for it; raise the error when a retry is not allowed."""
        patience, now = self.channel.patience, self._now()
        if failure.kind == "timeout" and now >= self._end - SHORTEST:  # the run's deadline was the request's
            server = self.channel.server
            more = server.doubt if failure.unreachable else ". Give it more time, or come back later"
            error = DeadlineExceeded(
                f"this run's deadline of {self._deadline:g} s was reached before {server.host} had answered{more}"
            )
            error.is_unreachable = failure.unreachable
            raise error from failure.error.__cause__
        self._pay_retry(failure, trouble)
        jitter = backoff(max(1, trouble.attempts), random.random(), patience)  # noqa: S311 - spreads load, guards nothing
        wait = jitter if failure.wait is None else failure.wait + jitter / 10
        if self._now() + wait >= self._end:
            error = DeadlineExceeded(
                f"{failure.error}; the next retry is due in {span(wait)}, after this run's deadline of "
                f"{self._deadline:g} s" + ("" if failure.unreachable else f". Come back in {span(wait)}")
            )
            error.is_unreachable = failure.unreachable
            raise error from failure.error.__cause__
        wait = min(wait, patience.longest_wait)
        if failure.unreachable and self.log.is_first("unreachable"):
            waits = sum(
                backoff(number, 1.0, patience) for number in range(trouble.attempts, patience.attempts)
            )
            self.log.report_unreachable(failure, min(waits, self._end - now))
        else:
            count = self.faults[failure.kind]
            self.log.report_retry(failure, count, wait=wait, now=now, since=trouble.since)
        if failure.wait is None:
            self._wait(wait)
        else:
            with self.channel.lock:
                self.channel.window.pause(self._now(), wait, slower=failure.too_fast)
        with self.channel.lock:
            self.retries += 1

    def _pay_retry(self, failure: Retryable, trouble: _Trouble) -> None:
        """Take the price of a retry from the budget; raise the error when the request or the budget has no more.

        The same kind of bad body several times in a row is the server's doing, not the network's: that is final.
        """
        patience = self.channel.patience
        if isinstance(failure.error, PageError) and trouble.same >= patience.bad_bodies:
            raise failure.error from failure.error.__cause__
        is_last = trouble.attempts >= patience.attempts
        with self.channel.lock:
            self.faults[failure.kind] += 1
            is_paid = not is_last and self._budget.spend(
                timeout=failure.kind == "timeout", crowded=failure.crowded
            )
        if not is_paid:
            tries = amount(trouble.attempts, "try", "tries")
            why = f"after {tries}" if is_last else "this run's retries are used up"
            raise TryLater(f"{failure.error}; {why}. Try again later") from failure.error.__cause__

    def _ask(self, params: list[tuple[str, str]]) -> Answer:
        """Send one request when the gate, the window and the limits allow it."""
        gate = self.channel.gate
        while True:
            with gate.pass_through(self._check):
                self._wait_for_window()
                if gate.is_crowded():
                    continue  # the number was halved during the wait for the window: others go first
                self._count_request()
                with gate.fly() as flight:
                    answer = self._send(params)
                if answer.status == HTTPStatus.OK:
                    gate.succeed(self._now())
                if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                    return replace(answer, crowded=gate.refuse(flight))
                return answer

    def _check(self) -> None:
        """Raise if this session must not wait any longer."""
        if self.stop.is_set():
            raise Stopped("this run was stopped")
        if self._now() >= self._end:
            raise DeadlineExceeded(
                f"this run's deadline of {self._deadline:g} s passed while other requests were under way. "
                "Give it more time, or come back later"
            )

    def _count_request(self) -> None:
        with self.channel.lock:
            if self._max_requests is not None and self.requests >= self._max_requests:
                raise RequestsExceeded(
                    f"this run's limit of {amount(self._max_requests, 'request')} is reached; fetched pages are kept, run again to continue"
                )
            self.requests += 1

    def _wait_for_window(self) -> None:
        """Reserve a place in the rate window and wait for it, again if a pause begins meanwhile."""
        channel = self.channel
        while True:
            with channel.lock:
                now = self._now()
                wait = channel.window.reserve(now)
            if now + wait >= self._end:
                raise DeadlineExceeded(
                    f"the rate limit allows the next request in {span(wait)}, after this run's deadline of "
                    f"{self._deadline:g} s. Give it more time, or come back in {span(wait)}"
                )
            self._wait(wait)
            with channel.lock:
                if not channel.window.is_paused(self._now()):
                    return

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            if seconds >= 1 and self.on_wait is not None:
                self.on_wait(seconds)
            with self._waits.count():
                self.channel.clock.wait(seconds, self.stop)
        if self.stop.is_set():
            raise Stopped("this run was stopped")

    def _now(self) -> float:
        return self.channel.clock.monotonic()

    def _send(self, params: list[tuple[str, str]]) -> Answer:
        """Send one request; return the answer without the credential, or raise the failure as one of ours."""
        channel, patience, credential = self.channel, self.channel.patience, self.channel.credential
        started = self._now()
        left = min(patience.request_seconds, self._end - started)
        limit = Limit(left, self.stop, connect=patience.connect_seconds, read=patience.read_seconds)
        request = Request(self._build_target(params), dict(HEADERS), limit)
        generation = credential.sign(request)
        try:
            reply = channel.transport.send(request)
            try:
                headers = credential.mask_headers(reply.headers)
                body = read_body(reply, headers, lambda: self._now() > started + left)
            finally:
                reply.close()
        except Failure as exc:
            failure = translate(exc, channel.server, credential.mask_text)
        except Stopped as exc:
            forget_frames(exc)
            raise
        else:
            is_page = reply.status == HTTPStatus.OK
            clean = credential.mask_page(body) if is_page else credential.mask(body)
            if is_page and clean is not body:
                self.log.warn_once(
                    "repeated", "the server repeats the credential in its pages; it is masked there"
                )
            return Answer(reply.status, headers, clean, generation)
        # Raised outside the except block. There, Python would make the transport's failure the context of ours, and a
        # traceback would print its text, which may quote the answer and with it the credential.
        raise failure

    def _build_target(self, params: list[tuple[str, str]]) -> str:
        """Return the path with the query."""
        target = self.channel.path
        if params:
            target += "?" + "&".join([f"{name}={_quote(value)}" for name, value in params])
        if len(target) > LONGEST_TARGET:
            raise UsageError("the query is longer than a URL may be; nothing was sent")
        return target
