"""When to ask: the window of requests, the waits that a server asks for, the retries that a run may spend.

Everything here is arithmetic on instants that the caller passes in (seconds of a monotonic clock) and on
random numbers that the caller draws. `client` holds the lock and does the waiting.
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
]

RATE: Final = 500
"""Requests a minute that Pleo asks integrations to stay within; its limit is 600."""
RATE_LIMIT: Final = 600
"""Requests a minute that Pleo allows."""
FASTEST: Final = 10_000_000
"""Requests a minute that anybody may ask for; a window remembers each."""
MINUTE: Final = 60.0
RECOVER_AFTER: Final = 20
"""Successes after which one more request may be under way at once."""
SLACK: Final = 0.05
"""Seconds added to the window, since the server's clock starts later than ours."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what.

    Attributes:
        request_seconds: for one request, from sending to the last byte.
        read_seconds: between two reads. connect_seconds: to connect.
        attempts: tries of one request.
        longest_wait: seconds a server may ask us to wait at once; more is cut to this.
        first_backoff, last_backoff: seconds; the jittered wait doubles from the first to the last.
        bad_bodies: the same kind of bad body so many times running is the server's fault, not the network's.
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
    """At most `rate` requests in any minute: remembers when the last ones were due.

    Args:
        rate: requests in any 60 seconds.
        state: from `state()` of a window before, to go on from.
    """

    def __init__(self, rate: int = RATE, state: Sequence[float] = ()) -> None:
        if not isinstance(rate, int) or isinstance(rate, bool) or not 1 <= rate <= FASTEST:
            shown = f"more than {FASTEST:,}" if isinstance(rate, int) and rate > 1 else repr(rate)
            raise UsageError(f"rate must be a whole number of requests a minute from 1, not {shown}")
        self.rate = rate
        self._due: deque[float] = deque(state[1:], maxlen=max(rate, RATE_LIMIT))
        self._not_before = state[0] if state else -math.inf

    def reserve(self, now: float) -> float:
        """Take the next free place; returns the seconds to wait for it."""
        due = max(now, self._not_before)
        if len(self._due) >= self.rate:
            due = max(due, self._due[-self.rate] + MINUTE + SLACK)
        if self._due:
            due = max(due, self._due[-1])
        self._due.append(due)
        return due - now

    def foresee(self, now: float, requests: int, gap: float = 0.0) -> float:
        """Seconds until so many requests would be done, `gap` seconds each, the next one begun now; takes no place."""
        ahead = RateWindow(self.rate, self.state())
        # Once the window holds these requests only, all goes on as in the round before.
        rounds = max(0, (requests - 1) // self.rate - 2)
        end = now
        for _ in range(requests - rounds * self.rate):
            end += ahead.reserve(end) + gap
        return end - now + rounds * max(MINUTE + SLACK, self.rate * gap)

    def is_paused(self, now: float) -> bool:
        """Whether a pause was asked for that is not over yet."""
        return now < self._not_before

    def pause(self, now: float, seconds: float, *, slower: bool = False) -> None:
        """Send nothing for `seconds` from now, whoever asks; `slower`: and a fifth less in the minute after that.

        Several answers may ask for the same pause: the rate is lowered once.
        """
        if slower and not self.is_paused(now):
            self._due.extend([now + seconds] * (self.rate // 5))
        self._not_before = max(self._not_before, now + seconds)

    def state(self) -> list[float]:
        """What to remember of it: the end of the pause, then when requests were due, oldest first."""
        return [self._not_before, *self._due]


@dataclass(slots=True, eq=False)
class Flight:
    """One request under way. `crowd`: the most that were under way with it, itself included."""

    crowd: int
    era: int


class InFlight:
    """How many requests may be under way at once: found as TCP finds a bandwidth, and not fought.

    Theory of operation: a server that takes two requests at once answers a third with 429 while it serves the two.
    A lower rate does not help, since two slow requests are two at any rate; fewer at once does. So such a refusal
    halves the number, and every `RECOVER_AFTER` successes raise it by one, up to where it began (additive increase,
    multiplicative decrease). Six refusals of one burst are one signal: those that were sent before the last halving
    say nothing new. A 429 that came with nothing else under way is about the rate.
    """

    def __init__(self, most: int) -> None:
        self.limit = most
        self._most = most
        self._era = 0
        self._successes = 0
        self._last_success = -math.inf
        self._flights: set[Flight] = set()

    def begin(self) -> Flight:
        """Note that a request is sent."""
        flight = Flight(len(self._flights) + 1, self._era)
        for other in self._flights:
            other.crowd = max(other.crowd, flight.crowd)
        self._flights.add(flight)
        return flight

    def end(self, flight: Flight) -> None:
        """Note that its answer is there, or will not come."""
        self._flights.discard(flight)

    def succeed(self, now: float) -> None:
        """Note a page."""
        self._last_success = now
        self._successes += 1
        if self._successes >= RECOVER_AFTER:
            self._successes = 0
            self.limit = min(self._most, self.limit + 1)

    def refuse(self, flight: Flight) -> bool:
        """Note a 429; return whether it was for the number at once, and not for the rate."""
        if flight.crowd < 2:
            return False
        if flight.era == self._era:
            self._era += 1
            self._successes = 0
            self.limit = max(1, (min(self.limit, flight.crowd) + 1) // 2)
        return True

    def is_served(self, now: float) -> bool:
        """Return whether a request succeeded in the last minute: the server refuses some, not all."""
        return now - self._last_success < MINUTE


class Budget:
    """What one run may spend on retries: tokens, spent by failures and slowly earned back by successes."""

    def __init__(self, tokens: int = 500) -> None:
        self._most = tokens
        self.tokens: float = tokens

    def spend(self, *, timeout: bool = False, crowded: bool = False) -> bool:
        """Pay for one retry: 5 tokens, 10 after a timeout, half of one where others are served; False if too few are left."""
        price = 0.5 if crowded else 10 if timeout else 5
        if self.tokens < price:
            return False
        self.tokens -= price
        return True

    def earn(self) -> None:
        """A request succeeded."""
        self.tokens = min(self._most, self.tokens + 1)


def backoff(attempt: int, chance: float, patience: Patience) -> float:
    """Seconds to wait before retry number `attempt` (from 1), with full jitter; `chance` is drawn from [0, 1)."""
    return chance * min(patience.last_backoff, patience.first_backoff * 2.0 ** min(attempt - 1, 30))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a 429 or 503 asks to wait, or None when it does not say so usably.

    A date counts from the answer's own Date, never from our clock. Source: RFC 9110, section 10.2.3.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), 1e9)
    until, now = _date(text), _date(headers.get("date", ""))
    if until is None or now is None:
        return None
    seconds = (until - now).total_seconds()
    return seconds if seconds > 0 else None


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return assume_utc(moment)  # asctime's form names no zone, and means UTC
