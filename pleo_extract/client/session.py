"""One run: asks, waits, asks again where that may help, within one budget of time and retries."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import quote_plus

import httpx

from pleo_extract.client.answer import (
    FOREIGN,
    Answer,
    Retryable,
    Unauthorized,
    forget_frames,
    interpret,
    translate,
)
from pleo_extract.client.server import drop_idle
from pleo_extract.client.waits import Waits
from pleo_extract.client.wire import drop_surplus, limit_time, read_body
from pleo_extract.contract import PATH
from pleo_extract.core.habits import Habits
from pleo_extract.core.pace import MINUTE, Budget, Patience, RateWindow, backoff
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
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from pleo_extract.client.credential import Credential
    from pleo_extract.client.gate import Gate
    from pleo_extract.client.window import SharedRateWindow
    from pleo_extract.contract import Query

__all__ = ["Channel", "Clock", "RealClock", "Session"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

LONGEST_TARGET: Final = 60_000
"""Bytes of a path with its query; httpx takes 65,536 of a URL."""
HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
    "User-Agent": f"pleo-extract/{__version__}",
}
SILENCE: Final = 5.0
"""Seconds that a request may be in trouble before it is said; each silence after that is twice the last."""

_quote = lru_cache(maxsize=64)(quote_plus)
"""All but the cursor is the same on every page."""


class Clock(Protocol):
    """Time as the client sees it."""

    def monotonic(self) -> float:
        """Seconds of a clock that never steps back."""

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Return after so many seconds, or as soon as `stop` is set."""


class RealClock:
    """The machine's own time."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def wait(seconds: float, stop: threading.Event) -> None:
        """Wait, or stop at once."""
        stop.wait(seconds)


@dataclass(frozen=True, slots=True)
class Channel:
    """What all runs of one client share: the way to the server, the credential, the pace."""

    server: httpx.URL
    transport: httpx.BaseTransport
    networked: bool
    credential: Credential
    window: RateWindow | SharedRateWindow
    patience: Patience
    clock: Clock
    gate: Gate
    lock: threading.Lock = field(default_factory=threading.Lock)


class Session:
    """One run over a line: what it may spend, and what it has spent.

    Attributes:
        requests: sent. retries: of these, sent again. faults: why, by kind.
        known: unknown statuses that need no warning any more; runs may share it.
        stop: set it to end all waits and refuse new requests.
        habits: what is known of the server's; whoever reads a list learns and heeds them.
    """

    def __init__(
        self,
        line: Channel,
        deadline: float | None,
        max_requests: int | None = None,
        name: str = "",
        waits: Waits | None = None,
    ) -> None:
        self.line = line
        self.name = name
        self.requests = 0
        self.retries = 0
        self.faults: Counter[str] = Counter()
        self.known: set[str] = set()
        self.stop = threading.Event()
        self.habits = Habits()
        self._clock = line.clock
        self._waits = Waits(line.clock.monotonic, waits)
        self._budget = Budget()
        self._deadline = deadline
        self._max_requests = max_requests
        self._warned: set[str] = set()
        self._told: dict[str, tuple[float, float]] = {}
        self._end = self._clock.monotonic() + deadline if deadline is not None else float("inf")
        self._target = line.server.raw_path.rstrip(b"/") + PATH.encode()
        self._headers = httpx.Request("GET", line.server, headers=HEADERS).headers

    @property
    def waited(self) -> float:
        """Seconds in which a request waited (pace, pauses, backoff); those of several at once count once."""
        return self._waits.seconds()

    def fetch(self, query: Query, read: Callable[[bytes], T], *, tries: int | None = None) -> T:
        """Ask once, again where that may help, and give back what `read` makes of the body.

        Args:
            query: what to ask.
            read: turns the body into the result; a PageError that it raises counts as a bad answer, an EchoMismatch
                as an answer to another request: idle connections are closed before the next try.
            tries: timeouts and answers of 5xx after which this query counts as refused, whatever others get.

        Raises:
            RequestRefused: 400, 422, or 5xx `tries` times. CredentialsError: 401, 403, 404. TryLater: it did not work for too long.
            ContractError: an answer the contract does not have. ConfigurationError: TLS, proxy.
        """
        params = query.params()
        alike: list[str] = []
        attempt = 0
        renewed = False
        since = math.inf
        refusals = 0
        while True:
            try:
                answer = self._ask(params)
                result = interpret(answer, params, read, origin=self.line.credential.origin)
            except Unauthorized as exc:
                if renewed or not self.line.credential.renew(exc.generation):
                    raise exc.error from None
                renewed = True
            except Retryable as exc:
                alike = [*alike, exc.kind] if alike[-1:] in ([], [exc.kind]) else [exc.kind]
                now = self._clock.monotonic()
                since = min(since, now)
                # Refused while others are served is no attempt: it is this request's turn later, but not for ever.
                exc.crowded = exc.crowded and now - since < MINUTE and self.line.gate.is_served(now)
                attempt += not exc.crowded
                refusals += exc.may_be_refusal
                if tries is not None and refusals >= tries:
                    with self.line.lock:
                        self.faults[exc.kind] += 1
                    raise RequestRefused(f"{exc.error}, {tries} times", params=params) from exc.error
                if isinstance(exc.error, EchoMismatch):
                    drop_idle(self.line.transport)
                self._before_retry(attempt, exc, alike, since)
            else:
                with self.line.lock:
                    self._budget.earn()
                kind = answer.headers.get("content-type", "application/json")
                if "json" not in kind.lower():
                    self.warn_once(
                        "type", f"a page came as {escape(kind)!r}, not as JSON; its rows are taken"
                    )
                return result

    def warn_once(self, about: str, message: str) -> None:
        """Log a warning, the first of this run that is about this; a thousand pages are no thousand warnings."""
        if self._is_first(about):
            _log.warning("%s", message, extra={"run": self.name})

    def _is_first(self, about: str) -> bool:
        with self.line.lock:
            known = about in self._warned
            self._warned.add(about)
        return not known

    def _tell_wait(self, failure: Retryable, wait: float, since: float) -> None:
        """Log why there is a wait: as a warning once a request has been in trouble for long, the next after twice as long.

        So a passing fault is no line, and no mail from cron; an outage is one at once, and of an hour a dozen.
        """
        now = self._clock.monotonic()
        with self.line.lock:
            count = self.faults[failure.kind]
            due, pause = self._told.get(failure.kind, (-math.inf, SILENCE))
            if loud := now >= due and now + wait - since >= SILENCE:
                self._told[failure.kind] = (now + 2 * pause, 2 * pause)
        often = f" ({count} times so far)" if count > 1 else ""
        _log.log(
            logging.WARNING if loud else logging.INFO,
            "%s%s; asking again in %s",
            failure.error,
            often,
            span(wait),
            extra={"run": self.name},
        )

    def _tell_unreachable(self, failure: Retryable, attempt: int) -> None:
        """Log at once that there is no way to the server, and for how long it is tried: else a run looks as if it hung."""
        patience = self.line.patience
        waits = sum(backoff(number, 1.0, patience) for number in range(attempt, patience.attempts))
        left = min(waits, self._end - self._clock.monotonic())
        _log.warning(
            "the server cannot be reached (%s); it is tried again for %s at most",
            failure.error,
            span(left),
            extra={"run": self.name},
        )

    def _before_retry(self, attempt: int, failure: Retryable, alike: list[str], since: float) -> None:
        """Wait as the failure asks, or raise what it means when waiting will not help any more.

        `since` is when this request failed first.
        """
        patience = self.line.patience
        if isinstance(failure.error, PageError) and len(alike) >= patience.bad_bodies:
            raise failure.error from failure.error.__cause__
        with self.line.lock:
            self.faults[failure.kind] += 1
            last = attempt >= patience.attempts
            is_late = failure.kind == "timeout"
            paid = not last and self._budget.spend(timeout=is_late, crowded=failure.crowded)
        if not paid:
            spent = f"after {amount(attempt, 'try', 'tries')}" if last else "this run's retries are used up"
            raise TryLater(f"{failure.error}; {spent}. Try again later") from failure.error.__cause__
        jitter = backoff(max(1, attempt), random.random(), patience)  # noqa: S311 - spreads load, guards nothing
        wait = jitter if failure.wait is None else failure.wait + jitter / 10
        if self._clock.monotonic() + wait >= self._end:
            raise DeadlineExceeded(
                f"{failure.error}; the wait of {span(wait)} that is due would outlast this run's deadline of "
                f"{self._deadline:g} s. Come back in {span(wait)}"
            ) from failure.error.__cause__
        wait = min(wait, patience.longest_wait)
        if failure.unreachable and self._is_first("unreachable"):
            self._tell_unreachable(failure, attempt)
        else:
            self._tell_wait(failure, wait, since)
        if failure.wait is not None:
            with self.line.lock:
                self.line.window.pause(self._clock.monotonic(), wait, slower=failure.too_fast)
        else:
            self._wait(wait)
        with self.line.lock:
            self.retries += 1

    def _ask(self, params: list[tuple[str, str]]) -> Answer:
        while True:
            with self.line.gate.pass_through(self._check):
                self._wait_for_place()
                if self.line.gate.is_crowded():  # halved while this one waited for the pace: others go first
                    continue
                self._count_request()
                return self._fly(params)

    def _check(self) -> None:
        """Raise if this run is not to wait any longer."""
        if self.stop.is_set():
            raise Stopped("this run was stopped")
        if self._clock.monotonic() >= self._end:
            raise DeadlineExceeded(
                f"this run's deadline of {self._deadline:g} s passed while other requests were under way. "
                "Give it more time, or come back later"
            )

    def _count_request(self) -> None:
        with self.line.lock:
            if self._max_requests is not None and self.requests >= self._max_requests:
                raise RequestsExceeded(
                    f"this run may send {amount(self._max_requests, 'request')}, and has; what was fetched is kept, run again to go on"
                )
            self.requests += 1

    def _fly(self, params: list[tuple[str, str]]) -> Answer:
        """Send a request, and tell the gate what came of it."""
        gate = self.line.gate
        with gate.fly() as flight:
            answer = self._send(params)
        if answer.status == httpx.codes.OK:
            gate.succeed(self._clock.monotonic())
        if answer.status == httpx.codes.TOO_MANY_REQUESTS:
            return replace(answer, crowded=gate.refuse(flight))
        return answer

    def _wait_for_place(self) -> None:
        line = self.line
        while True:
            with line.lock:
                now = self._clock.monotonic()
                wait = line.window.reserve(now)
            if now + wait >= self._end:
                raise DeadlineExceeded(
                    f"this run's deadline of {self._deadline:g} s would pass while waiting {span(wait)} for the next "
                    f"request the pace allows. Give it more time, or come back in {span(wait)}"
                )
            self._wait(wait)
            with line.lock:
                if not line.window.is_paused(self._clock.monotonic()):
                    return

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            with self._waits.count():
                self._clock.wait(seconds, self.stop)
        if self.stop.is_set():
            raise Stopped("this run was stopped")

    def _send(self, params: list[tuple[str, str]]) -> Answer:
        patience = self.line.patience
        started = self._clock.monotonic()
        left = min(patience.request_seconds, self._end - started)
        read = max(0.05, min(patience.read_seconds, left))
        connect = max(0.05, min(patience.connect_seconds, left))
        timeout = {"connect": connect, "read": read, "write": read, "pool": max(0.05, left)}
        request = self._write_request(params, timeout)
        generation = self.line.credential.sign(request)
        mask = self.line.credential
        try:
            with limit_time(max(0.05, left), self.stop):
                response = self.line.transport.handle_request(request)
                try:
                    headers = {name: mask.mask_text(value) for name, value in response.headers.items()}
                    body = read_body(response, headers, lambda: self._clock.monotonic() > started + left)
                    drop_surplus(response)
                finally:
                    response.close()
        except FOREIGN as exc:
            forget_frames(exc)
            failure = translate(exc, self.line.server.host, mask.mask_text)
        except Stopped as exc:
            forget_frames(exc)
            raise
        else:
            is_page = response.status_code == httpx.codes.OK
            cleaned = mask.mask_page(body) if is_page else mask.mask(body)
            if is_page and cleaned is not body:
                self.warn_once(
                    "repeated", "the server repeats the credential in its pages; it is masked there"
                )
            return Answer(response.status_code, headers, cleaned, generation)
        raise failure  # here, where the foreign error, whose text may quote the answer, is no context of it

    def _write_request(self, params: list[tuple[str, str]], timeout: dict[str, float]) -> httpx.Request:
        server, headers, target = self.line.server, self._headers, self._target
        if params:
            target += b"?" + "&".join([f"{name}={_quote(value)}" for name, value in params]).encode()
        if len(target) > LONGEST_TARGET:
            raise UsageError("the query is longer than a URL may be; nothing was sent")
        extensions: dict[str, object] = {"timeout": timeout}
        if self.line.networked:  # building a URL costs httpx more than sending the request
            extensions["target"] = target
            return httpx.Request("GET", server, headers=headers, extensions=extensions)
        return httpx.Request("GET", server.copy_with(raw_path=target), headers=headers, extensions=extensions)
