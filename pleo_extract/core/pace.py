"""When to ask: the rate limit, the number of requests in flight, and the retry budget.

Theory of operation. Three limits stand between a run and its next request, and each answers another refusal:

- `RateWindow` is the rate limit: at most `rate` requests in any 60 seconds. It remembers when the last ones were due,
  and gives each new one a place, now or later. All processes that share a credential share one window, in a file:
  two schedulers with a window each sent 1,000 requests a minute together. A server's `Retry-After` pauses the window,
  so everybody waits once.
- `InFlight` is the limit on concurrency. A server that serves two requests at a time answers a third one with 429.
  A lower rate does not help there, since two slow requests are two at any rate; fewer at a time do. So a 429 that comes
  while other requests are in flight halves their number, and every `RECOVER_AFTER` successes raise it by one, up to
  where it began: additive increase, multiplicative decrease, as in TCP. A burst of 429s is one signal, so requests that
  were sent before the last halving do not halve it again. A 429 that comes with nothing else in flight is about the
  rate: if it names a wait, the window then sends a fifth less for a minute. Without one, the request only backs off: some
  proxies answer so by chance, and a few of them in a minute would stop a run for the rest of it.
- `Budget` is the retry budget of one run. Failures spend its tokens and successes earn them back slowly, so that a
  server that is down is not asked for ever. A refusal for concurrency costs a tenth of any other, since it says that
  the server is well.

Everything here is arithmetic on instants that the caller passes in (seconds of a monotonic clock) and on random
numbers that the caller draws. `client` holds the lock and does the waiting.

Rules of this room: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import UsageError
from pleo_extract.zones import assume_utc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = [
    "FASTEST",
    "MINUTE",
    "RATE",
    "RATE_LIMIT",
    "Budget",
    "Flight",
    "InFlight",
    "Patience",
    "RateWindow",
    "backoff",
    "retry_after",
    "served_at",
]

RATE: Final = 500
"""Requests a minute that Pleo asks integrations to stay within; its limit is 600."""
RATE_LIMIT: Final = 600
"""Requests a minute that Pleo allows."""
FASTEST: Final = 10_000_000
"""The highest rate that may be set, in requests a minute: a window remembers each request."""
MINUTE: Final = 60.0
RECOVER_AFTER: Final = 20
"""Successes after which one more request may be in flight."""
SLACK: Final = 0.05
"""Seconds added to the window: the server starts its minute when a request arrives, later than we do."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for an answer, and how often to ask again.

    Attributes:
        request_seconds: time for one request, from sending to the last byte.
        read_seconds: time between two reads.
        connect_seconds: time to connect.
        attempts: tries of one request.
        longest_wait: longest `Retry-After` that is honoured, in seconds; a longer one is cut to this.
        first_backoff: longest wait before the first retry, in seconds; it doubles with each retry.
        last_backoff: longest wait before any retry, in seconds.
        bad_bodies: bad bodies of one kind in a row after which the server is to blame, not the network.
    """

    request_seconds: float = 60.0
    read_seconds: float = 30.0
    connect_seconds: float = 10.0
    attempts: int = 8
    longest_wait: float = 120.0
    first_backoff: float = 1.0
    last_backoff: float = 60.0
    bad_bodies: int = 3


class RateWindow:
    """The rate limit: at most `rate` requests in any 60 seconds.

    Args:
        rate: requests in any 60 seconds.
        state: what `state()` of an earlier window returned, to continue from there.
    """

    def __init__(self, rate: int = RATE, state: Sequence[float] = ()) -> None:
        if not isinstance(rate, int) or isinstance(rate, bool) or not 1 <= rate <= FASTEST:
            shown = f"more than {FASTEST:,}" if isinstance(rate, int) and rate > 1 else repr(rate)
            raise UsageError(f"rate must be a whole number of requests a minute from 1, not {shown}")
        self.rate = rate
        self._due: deque[float] = deque(state[1:], maxlen=max(rate, RATE_LIMIT))
        self._not_before = state[0] if state else -math.inf

    def reserve(self, now: float) -> float:
        """Take the next free place, and return the seconds to wait for it."""
        due = max(now, self._not_before)
        if len(self._due) >= self.rate:
            due = max(due, self._due[-self.rate] + MINUTE + SLACK)
        if self._due:
            due = max(due, self._due[-1])
        self._due.append(due)
        return due - now

    def foresee(self, now: float, requests: int, gap: float = 0.0) -> float:
        """Return the seconds that this many requests would take, at `gap` seconds each; no place is taken."""
        ahead = RateWindow(self.rate, self.state())
        # Once the window holds no other requests than these, every round takes as long as the one before.
        rounds = max(0, (requests - 1) // self.rate - 2)
        end = now
        for _ in range(requests - rounds * self.rate):
            end += ahead.reserve(end) + gap
        return end - now + rounds * max(MINUTE + SLACK, self.rate * gap)

    def is_paused(self, now: float) -> bool:
        """Return whether a pause is under way."""
        return now < self._not_before

    def pause(self, now: float, seconds: float, *, slower: bool = False) -> None:
        """Give out no place for `seconds` from now; if `slower`, give out a fifth less in the minute after that.

        Several answers may ask for the same pause. The rate is lowered once.
        """
        if slower and not self.is_paused(now):
            self._due.extend([now + seconds] * (self.rate // 5))
        self._not_before = max(self._not_before, now + seconds)

    def state(self) -> list[float]:
        """Return what a later window continues from: the end of the pause, then when requests were due, oldest first."""
        return [self._not_before, *self._due]


@dataclass(slots=True, eq=False)
class Flight:
    """One request in flight.

    Attributes:
        crowd: the most requests that were in flight with it, itself included.
        era: how often the number in flight had been halved when it was sent.
    """

    crowd: int
    era: int


class InFlight:
    """The number of requests that may be in flight: halved by refusals, raised by successes.

    Attributes:
        limit: how many may be in flight now.
    """

    def __init__(self, most: int) -> None:
        self.limit = most
        self._most = most
        self._era = 0
        self._successes = 0
        self._last_success = -math.inf
        self._flights: set[Flight] = set()

    def begin(self) -> Flight:
        """Note that a request is being sent."""
        flight = Flight(len(self._flights) + 1, self._era)
        for other in self._flights:
            other.crowd = max(other.crowd, flight.crowd)
        self._flights.add(flight)
        return flight

    def end(self, flight: Flight) -> None:
        """Note that a request is over, answered or not."""
        self._flights.discard(flight)

    def succeed(self, now: float) -> None:
        """Note that a request brought a page."""
        self._last_success = now
        self._successes += 1
        if self._successes >= RECOVER_AFTER:
            self._successes = 0
            self.limit = min(self._most, self.limit + 1)

    def refuse(self, flight: Flight) -> bool:
        """Note a 429, and return whether it was about the number in flight; else it was about the rate."""
        if flight.crowd < 2:
            return False
        if flight.era == self._era:
            self._era += 1
            self._successes = 0
            self.limit = max(1, (min(self.limit, flight.crowd) + 1) // 2)
        return True

    def is_served(self, now: float) -> bool:
        """Return whether a request succeeded in the last minute: then the server refuses some requests, not all."""
        return now - self._last_success < MINUTE


class Budget:
    """The retry budget of one run: failures spend tokens, successes earn them back."""

    def __init__(self, tokens: int = 500) -> None:
        self._most = tokens
        self.tokens: float = tokens

    def spend(self, *, timeout: bool = False, crowded: bool = False) -> bool:
        """Pay for one retry, and return whether enough tokens were left.

        A retry costs 5 tokens, 10 after a timeout, and half a token if the server refused it for the number in flight.
        """
        price = 0.5 if crowded else 10 if timeout else 5
        if self.tokens < price:
            return False
        self.tokens -= price
        return True

    def earn(self) -> None:
        """Earn one token for a request that succeeded."""
        self.tokens = min(self._most, self.tokens + 1)


def backoff(attempt: int, chance: float, patience: Patience) -> float:
    """Return the seconds to wait before retry number `attempt` (from 1), with full jitter.

    `chance` is a random number from [0, 1).
    """
    return chance * min(patience.last_backoff, patience.first_backoff * 2.0 ** min(attempt - 1, 30))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a 429 or 503 asks to wait; None if it does not say, or not in a usable form.

    A date counts from the answer's own Date, since our clock may be wrong. Source: RFC 9110, section 10.2.3.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), 1e9)
    until, now = _parse_date(text), served_at(headers)
    if until is None or now is None:
        return None
    seconds = (until - now).total_seconds()
    return seconds if seconds > 0 else None


def served_at(headers: Mapping[str, str]) -> datetime | None:
    """Return the time of an answer by the server's clock; None if it does not say. Source: RFC 9110, section 6.6.1."""
    return _parse_date(headers.get("date", ""))


def _parse_date(text: str) -> datetime | None:
    try:
        return assume_utc(parsedate_to_datetime(text))  # asctime's form names no zone, and means UTC
    except (ValueError, IndexError, OverflowError):
        return None
