"""The pace: rate window, pauses, retry budget, back-off, Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleo_extract.core.pace import (
    MINUTE,
    RATE,
    SLACK,
    Budget,
    Flight,
    InFlight,
    Patience,
    RateWindow,
    backoff,
    retry_after,
)
from pleo_extract.errors import UsageError

ARRIVALS = st.lists(
    st.tuples(
        st.floats(0, 200, allow_nan=False) | st.just(0.0) | st.floats(0, 0.1),
        st.none() | st.floats(0, 200, allow_nan=False),
    ),
    max_size=80,
)
"""The seconds since the previous request, and a pause that the server may ask for then."""


def crowd(dues: list[float], seconds: float = MINUTE) -> int:
    """Return the most requests in any such span, its start included and its end not."""
    return max((sum(due <= other < due + seconds for other in dues) for due in dues), default=0)


class TestWindow:
    """The rate window: at most `rate` requests in any minute, from all threads."""

    @given(st.integers(1, 12), ARRIVALS)
    def test_never_more_than_the_rate_in_any_minute(
        self, rate: int, arrivals: list[tuple[float, float | None]]
    ) -> None:
        """No 60 s have more than `rate` requests, however requests come and pauses fall."""
        window, now = RateWindow(rate), 0.0
        dues: list[float] = []
        for gap, pause in arrivals:
            now += gap
            if pause is not None:
                window.pause(now, pause, slower=bool(rate % 2))
            wait = window.reserve(now)
            assert wait >= 0
            dues.append(round(now + wait, 6))
        assert crowd(dues) <= rate
        assert dues == sorted(dues)

    @given(st.integers(1, 12), st.lists(st.floats(0, 90, allow_nan=False), max_size=60))
    def test_nobody_waits_longer_than_needed(self, rate: int, gaps: list[float]) -> None:
        """A request is due now, a minute after the one `rate` places before, or with the previous one."""
        window, now = RateWindow(rate), 0.0
        dues: list[float] = []
        for gap in gaps:
            now += gap
            due = now + window.reserve(now)
            earliest = max(
                [now, *dues[-1:], *[old + MINUTE + SLACK for old in dues[-rate:][:1] if len(dues) >= rate]]
            )
            assert due == pytest.approx(earliest, abs=1e-6)
            dues.append(due)

    @given(st.integers(1, 5), ARRIVALS)
    def test_nothing_within_a_pause(self, rate: int, arrivals: list[tuple[float, float | None]]) -> None:
        """No request is due within a pause, and a shorter pause does not end a longer one."""
        window, now, until = RateWindow(rate), 0.0, 0.0
        for gap, pause in arrivals:
            now += gap
            if pause is not None:
                window.pause(now, pause)
                until = max(until, now + pause)
            assert window.is_paused(now) is (now < until)
            assert now + window.reserve(now) >= until - 1e-9
        assert not window.is_paused(until)

    @given(st.integers(1, 6), ARRIVALS, st.integers(0, 60), st.sampled_from([0.0, 0.5, 12.0, 40.0]))
    def test_what_is_foreseen_comes_true(
        self, rate: int, arrivals: list[tuple[float, float | None]], requests: int, gap: float
    ) -> None:
        """The estimated time of a number of requests is exact, and the estimate reserves nothing."""
        window, now = RateWindow(rate), 0.0
        for wait, pause in arrivals:
            now += wait
            if pause is not None:
                window.pause(now, pause)
            window.reserve(now)
        before = window.state()
        foreseen = window.foresee(now, requests, gap)
        assert window.state() == before
        end = now
        for _ in range(requests):
            end += window.reserve(end) + gap
        assert foreseen == pytest.approx(end - now)

    def test_a_total_that_lies_is_foreseen_at_once(self) -> None:
        """The estimate for any number of requests takes constant time."""
        assert RateWindow().foresee(0.0, 10**15) == pytest.approx(10**15 / 500 * 60.05, rel=1e-6)

    def test_by_default_five_hundred(self) -> None:
        """By default 500 requests are due immediately and the next after a minute, as Pleo asks."""
        window = RateWindow()
        assert [window.reserve(0.0) for _ in range(500)] == [0.0] * 500
        assert window.reserve(0.0) == pytest.approx(60, abs=0.1)
        assert RATE == window.rate == 500

    @pytest.mark.parametrize("rate", [0, -1, 1.5, True, "500", None])
    def test_a_rate_is_a_whole_number_from_one(self, rate: object) -> None:
        """A rate that is not a positive integer is refused before the first request."""
        with pytest.raises(UsageError, match="rate must be a whole number"):
            RateWindow(rate)  # type: ignore[arg-type]


class TestPause:
    """The effect of a pause on the next minute."""

    @pytest.mark.parametrize(("slower", "left"), [(True, 400), (False, 500)])
    def test_f25_only_a_refusal_for_the_rate_lowers_the_rate(self, *, slower: bool, left: int) -> None:
        """F25: a 429 without others in flight lowers the next minute to four fifths; one for concurrency does not."""
        window = RateWindow(500)
        window.pause(0.0, 30.0, slower=slower)
        dues = [window.reserve(0.0) for _ in range(500)]
        assert sum(due <= 30.0 for due in dues) == left

    def test_f1_many_refusals_are_one_pause(self) -> None:
        """F1: eight responses that ask for the same instant lower the rate once."""
        window = RateWindow(500)
        for n in range(8):
            window.pause(n / 100, 30.0, slower=True)
        dues = [window.reserve(1.0) for _ in range(400)]
        assert max(dues) == pytest.approx(29.07)


class TestInFlight:
    """The number in flight: a refusal while others succeed halves it, twenty successes raise it."""

    @pytest.mark.parametrize(
        ("most", "allowed", "limits"),
        [(8, 2, [8, 4, 2]), (8, 5, [8, 4]), (16, 2, [16, 8, 4, 2]), (8, 1, [8, 4, 2, 1]), (3, 2, [3, 2])],
    )
    def test_f63_the_number_is_found(self, most: int, allowed: int, limits: list[int]) -> None:
        """F63: bursts halve the number until the server accepts all; one burst halves it once."""
        at_once = InFlight(most)
        seen = [at_once.limit]
        while at_once.limit > allowed:
            flights = [at_once.begin() for _ in range(at_once.limit)]
            for n, flight in enumerate(flights):
                at_once.end(flight)
                if n < allowed:
                    at_once.succeed(0.0)
                else:
                    assert at_once.refuse(flight)
            seen.append(at_once.limit)
        assert seen == limits

    def test_f63_twenty_successes_are_one_more(self) -> None:
        """F63: the number recovers by one per 20 successes to its start; a refusal resets the count."""
        at_once = InFlight(4)
        at_once.refuse(_company(at_once, 4)[0])
        assert at_once.limit == 2
        grown = []
        for _ in range(100):
            at_once.succeed(0.0)
            grown.append(at_once.limit)
        assert [grown.index(n) for n in (3, 4)] == [19, 39]
        assert grown[-1] == 4
        for _ in range(19):
            at_once.succeed(0.0)
        at_once.refuse(_company(at_once, 4)[0])
        at_once.succeed(0.0)
        assert at_once.limit == 2

    @pytest.mark.parametrize(("flying", "limit"), [(1, 8), (2, 1), (3, 2), (4, 2), (8, 4)])
    def test_f63_what_was_under_way_counts(self, flying: int, limit: int) -> None:
        """F63: half of the requests really in flight counts; one alone halves nothing."""
        at_once = InFlight(8)
        flights = _company(at_once, flying)
        for flight in flights:
            at_once.end(flight)
        assert at_once.refuse(flights[-1]) is (flying > 1)
        assert at_once.limit == limit

    def test_f63_company_counts_whenever_it_was(self) -> None:
        """F63: the last refusal of a burst still counts as one while others were in flight."""
        at_once = InFlight(8)
        first = at_once.begin()
        second = at_once.begin()
        at_once.end(second)
        assert at_once.refuse(first)

    def test_f63_others_are_served_for_a_minute(self) -> None:
        """F63: a server without a success for a minute refuses everything, not concurrency."""
        at_once = InFlight(8)
        assert not at_once.is_served(0.0)
        at_once.succeed(100.0)
        assert at_once.is_served(159.0)
        assert not at_once.is_served(160.0)

    @given(st.integers(1, 20), st.lists(st.sampled_from(["begin", "page", "refused", "lost"]), max_size=300))
    def test_f63_always_between_one_and_the_most(self, most: int, events: list[str]) -> None:
        """F63: the number in flight stays between one and its start."""
        at_once, flights = InFlight(most), []
        for event in events:
            if event == "begin":
                flights.append(at_once.begin())
            elif flights:
                flight = flights.pop(0)
                at_once.end(flight)
                if event == "page":
                    at_once.succeed(0.0)
                elif event == "refused":
                    at_once.refuse(flight)
            assert 1 <= at_once.limit <= most


def _company(at_once: InFlight, count: int) -> list[Flight]:
    return [at_once.begin() for _ in range(count)]


class TestBudget:
    """The retry budget of one run."""

    def test_prices(self) -> None:
        """500 tokens pay for 100 retries at 5, or 50 timeouts at 10."""
        budget = Budget()
        assert sum(budget.spend(timeout=False) for _ in range(1000)) == 100
        budget = Budget()
        assert sum(budget.spend(timeout=True) for _ in range(1000)) == 50

    def test_f63_a_refusal_in_company_costs_a_tenth(self) -> None:
        """F63: a refusal while others succeed costs half a token: 1,000 use up the budget."""
        budget = Budget()
        assert sum(budget.spend(crowded=True) for _ in range(5000)) == 1000

    def test_successes_earn_slowly_and_not_beyond_the_start(self) -> None:
        """A success earns one token, so five pay for a retry, and never more than the start."""
        budget = Budget()
        for _ in range(1000):
            budget.earn()
        assert budget.tokens == 500
        while budget.spend(timeout=False):
            pass
        for _ in range(4):
            budget.earn()
        assert not budget.spend(timeout=False)
        budget.earn()
        assert budget.spend(timeout=False)

    @given(st.lists(st.sampled_from(["retry", "timeout", "success"]), max_size=400), st.integers(0, 60))
    def test_what_is_spent_was_there(self, events: list[str], tokens: int) -> None:
        """Retries never cost more than the start and the earned tokens."""
        budget, spent = Budget(tokens), 0
        for event in events:
            if event == "success":
                budget.earn()
            elif budget.spend(timeout=event == "timeout"):
                spent += 10 if event == "timeout" else 5
            assert 0 <= budget.tokens <= tokens
        assert spent <= tokens + events.count("success")


class TestBackoff:
    """Back-off with full jitter, doubling from the first to the last bound."""

    @given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
    def test_within_its_bounds(self, attempt: int, chance: float) -> None:
        """A wait is between 0 and the doubled first bound, at most the last."""
        patience = Patience(first_backoff=1, last_backoff=60)
        assert 0 <= backoff(attempt, chance, patience) <= min(60, 2.0 ** min(attempt - 1, 10))

    def test_doubles(self) -> None:
        """A random value of one half waits half of 1, 2, 4 … 60 seconds."""
        waits = [backoff(attempt, 0.5, Patience()) for attempt in range(1, 9)]
        assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


DATE = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def http_date(seconds: float) -> str:
    """Format an instant as an HTTP date."""
    return format_datetime(DATE + timedelta(seconds=seconds), usegmt=True)


class TestRetryAfter:
    """The values of Retry-After, and the resulting wait."""

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("0", 0), ("1", 1), (" 120 ", 120), ("007", 7), ("1000000000", 1e9), ("9" * 400, 1e9)],
    )
    def test_f1_seconds(self, text: str, seconds: float) -> None:
        """F1: whole seconds are the wait, whatever the response's Date."""
        assert retry_after({"retry-after": text}) == seconds
        assert retry_after({"retry-after": text, "date": http_date(0)}) == seconds

    @pytest.mark.parametrize(
        "text",
        [
            http_date(90),
            "Tue, 24 Nov 2026 12:01:30 +0000",
            "Tue, 24 Nov 2026 13:01:30 +0100",
            "Tuesday, 24-Nov-26 12:01:30 GMT",
            "Tue Nov 24 12:01:30 2026",
        ],
    )
    def test_f2_date(self, text: str) -> None:
        """F2: a date in any HTTP format counts from the response's own Date, not from our clock."""
        assert retry_after({"retry-after": text, "date": http_date(0)}) == 90
        assert retry_after({"retry-after": text, "date": "Tue Nov 24 12:00:00 2026"}) == 90

    def test_f2_date_that_says_nothing(self) -> None:
        """F2: a date that is past, equal to Date, or without a Date asks for no wait."""
        assert retry_after({"retry-after": http_date(-3600), "date": http_date(0)}) is None
        assert retry_after({"retry-after": http_date(0), "date": http_date(0)}) is None
        assert retry_after({"retry-after": http_date(90)}) is None
        assert retry_after({"retry-after": http_date(90), "date": "today"}) is None

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "-5",
            "+5",
            "1.5",
            "nan",
            "inf",
            "1e9",
            "soon",
            "5 seconds",
            "5, 10",
            "0x10",
            "\u0665",
            "²",
            "1_000",
        ],
    )
    def test_f3_junk(self, text: str) -> None:
        """F3: a value that is neither whole seconds nor a date asks for no wait."""
        assert retry_after({"retry-after": text, "date": http_date(0)}) is None

    def test_f3_missing(self) -> None:
        """F3: without the header there is no wait."""
        assert retry_after({"date": http_date(0)}) is None
        assert retry_after({}) is None

    @given(
        st.text(max_size=40)
        | st.text("0123456789 :,-+GMTueNov", max_size=40)
        | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} (Nov|Feb|Xyz) \d{1,6} \d{1,3}:\d{1,3}:\d{1,3} [-+]?\w{1,8}"),
        st.text(max_size=30) | st.just(http_date(0)),
    )
    def test_f3_anything(self, text: str, date: str) -> None:
        """F3: any header gives None or a finite number of seconds from 0."""
        seconds = retry_after({"retry-after": text, "date": date})
        assert seconds is None or 0 <= seconds < 10**12
