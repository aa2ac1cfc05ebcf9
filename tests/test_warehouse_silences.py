"""`silences`: who has gone silent, compared with a computation by numpy and scipy, and with worlds of known rhythm."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta
from importlib import import_module
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from cases import mostly_slow
from clocks import in_zones
from rhythms import (
    EPOCH,
    RHYTHMS,
    ask_silences,
    count_false_alarms,
    draw_instants,
    find_delays,
    name_company,
    to_instant,
)
from warehouse_jobs import A, B, Row, ask, job

np: Any = import_module("numpy")
stats: Any = import_module("scipy.stats")

DAY = 86_400.0
OFFICE = "40 a day, in office hours"


@in_zones()
def test_a_silence_is_measured_by_the_rhythm_before_it(zone: str) -> None:
    """Expected jobs, usual and longest gap, and how unusual it is, equal numpy's and scipy's to 1e-9 in each zone."""
    luck = np.random.default_rng(15)
    companies, nows = {}, {}
    for number, rhythm in enumerate([*RHYTHMS, *RHYTHMS]):
        times = draw_instants(luck, rhythm, int(luck.integers(30, 300)))
        companies[name_company(number)] = times[: -int(luck.integers(1, 30))]
        nows[name_company(number)] = times[-1] + luck.choice([10.0, 3_600.0, DAY / 2, 2 * DAY])
    found = ask_silences(companies, nows, tz=zone)
    answered = 0
    for row in found.iter_rows(named=True):
        expected = measure_silence(companies[row["company_id"]], nows[row["company_id"]], ZoneInfo(zone))
        if expected is None:
            assert row["gaps"] is None
            continue
        answered += 1
        assert row["gaps"] == expected.pop("gaps")
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-7, abs=1e-9)
        assert row["last_job_at"] == to_instant(companies[row["company_id"]][-1])
        assert row["is_silent"] == ((row["once_in_days"] or 0) >= 365)
    assert answered >= 8


def measure_silence(times: Any, now: float, zone: ZoneInfo) -> dict[str, Any] | None:
    """Return the columns of `silences` about one company, computed day by day; None if it is not judged."""
    times = times[times >= times[-1] - 182 * DAY]
    clocks = [to_instant(each).astimezone(zone).replace(tzinfo=None) for each in [*times, now]]
    first, last = clocks[0].date(), clocks[-2].date()
    jobs = Counter(clock.date() for clock in clocks[:-1])
    if (last - first).days <= 14 or len(times) <= 20:
        return None

    def is_month_end(day: date) -> bool:
        return day.day <= 3 or (day + timedelta(days=2)).month != day.month

    whole = [first + timedelta(days=n) for n in range(1, (last - first).days)]
    by_weekday: dict[int, list[date]] = {n: [] for n in range(7)}
    for day in whole:
        if not is_month_end(day):
            by_weekday[day.weekday()].append(day)
    weekdays = {
        n: (sum(jobs[day] for day in days) + 0.5) / max(1, len(days)) for n, days in by_weekday.items()
    }
    ends = [day for day in whole if is_month_end(day)]
    factor = (sum(jobs[day] for day in ends) + 0.5) / (sum(weekdays[day.weekday()] for day in ends) + 0.5)
    hours = Counter((clock.weekday() >= 5, clock.hour) for clock in clocks[:-1])
    shares = {}
    for weekend in (False, True):
        count = sum(hours[weekend, h] for h in range(24))
        for h in range(24):
            both = (hours[True, h] + hours[False, h] + 0.5) / (len(times) + 12)
            shares[weekend, h] = (hours[weekend, h] + 12 * both) / (count + 12)

    def rate(day: date) -> float:
        return weekdays[day.weekday()] * (factor if is_month_end(day) else 1)

    def expect(clock: datetime) -> float:
        weekend = clock.weekday() >= 5
        before = sum(rate(first + timedelta(days=n)) for n in range((clock.date() - first).days))
        past = clock - clock.replace(minute=0, second=0, microsecond=0)
        share = sum(shares[weekend, h] for h in range(clock.hour))
        share += shares[weekend, clock.hour] * (past / timedelta(hours=1))
        return before + rate(clock.date()) * share

    steps = [expect(clock) for clock in sorted(clocks[:-1])] + [expect(clocks[-1])]
    gaps, silence = np.sort(np.maximum(0, np.diff(steps[:-1]))), max(0.0, steps[-1] - steps[-2])
    n, k = len(gaps), len(gaps) // 5
    threshold = gaps[n - k - 1]
    excess = max(0.25, gaps[n - k :].mean() - threshold)
    chance = k / n * stats.f.sf((silence - threshold) / excess, 2, 2 * k)
    return {
        "gaps": n,
        "expected_jobs": silence,
        "usual_jobs": gaps[int(np.ceil(0.99 * n)) - 1],
        "longest_jobs": gaps[-1],
        "once_in_days": (last - first).days / n / chance if silence > threshold else None,
    }


@pytest.mark.parametrize("rhythm", mostly_slow(reversed(RHYTHMS), quick=3))
def test_how_unusual_a_gap_is_said_to_be_is_how_often_it_comes(rhythm: str) -> None:
    """Of gaps of companies that are not silent, no more than a share p is said to have a chance below p.

    The bounds are three standard deviations of a binomial above p; tests/benchmarks/alarms.py measures many more.
    """
    luck = np.random.default_rng(20261129)
    companies, nows = {}, {}
    for number in range(100):
        times = draw_instants(luck, rhythm, 215)
        place = luck.choice(np.flatnonzero((times > 190 * DAY) & (times < 210 * DAY)))
        companies[name_company(number)] = times[: place + 1]
        nows[name_company(number)] = times[place + 1]
    found = ask_silences(companies, nows)
    days = pl.col("last_job_at") - pl.lit(EPOCH)
    assert found.select(days.min()).item() > timedelta(days=182)
    chances = 182 / found["gaps"] / found["once_in_days"].fill_null(1e-9)
    for share in (0.2, 0.1, 0.05, 0.01):
        low = (chances <= share).sum()
        assert low <= 100 * share + 3 * (100 * share * (1 - share)) ** 0.5, share
    assert (chances <= 0.2).sum() >= 10


@pytest.mark.parametrize("rhythm", mostly_slow(["2 a day, in office hours", OFFICE]))
def test_a_silence_from_a_weekday_on_is_named_within_three_usual_gaps(rhythm: str) -> None:
    """A company that stops on a weekday is named before three times its usual gap has passed, by its own rhythm."""
    delays = find_delays(np.random.default_rng(15), rhythm, 5)
    assert (delays["expected_jobs"] <= 3 * delays["usual_jobs"]).all()


def test_chance_names_a_company_about_once_a_year() -> None:
    """In ten company years without a silence, at most twice as many are named as stated: 3 standard deviations more."""
    named, years = count_false_alarms(np.random.default_rng(15), "10 a day, failed ones tried again", 10)
    assert named <= years + 3 * years**0.5


def test_nights_and_weekends_are_no_silence() -> None:
    """A weekend without exports is nothing unusual for a company that rests on weekends; a morning of a Tuesday is."""
    times = draw_instants(np.random.default_rng(3), OFFICE, 28 * 7)
    times = times[times / DAY % 7 < 5]
    friday = (26 * 7 + 4) * DAY + 17 * 3600
    until_friday = times[times < friday]
    tuesday = (27 * 7 + 1) * DAY + 9 * 3600
    until_tuesday = times[times < tuesday]
    found = ask_silences(
        {name_company(n): times for n, times in enumerate([until_friday, until_tuesday])},
        {name_company(0): friday + 2.4 * DAY, name_company(1): tuesday + 0.3 * DAY},
    )
    assert found["is_silent"].to_list() == [False, True]
    assert found["silent_seconds"][0] > 7 * found["silent_seconds"][1]


def days_of(*numbers: int, hour: int = 9) -> list[Row]:
    """Return a job at this hour of each of these days after EPOCH."""
    return [
        job(n, created_at=EPOCH + timedelta(days=day, hours=hour, minutes=n % 7))
        for n, day in enumerate(numbers)
    ]


def test_a_nightly_export_that_is_missing_is_named_the_second_time() -> None:
    """A job that always ran at the same hour is not missed after minutes, but before three of its gaps."""
    rows = days_of(*range(200))
    for hours, named in ((24.5, 0), (36, 0), (49, 1), (72, 1)):
        now = rows[-1]["created_at"] + timedelta(hours=hours)
        assert ask("FROM silences()", rows, now).height == named, hours


def test_who_is_left_out() -> None:
    """Companies with few gaps or a short past are not judged; those that left long ago stay listed, as such and last."""
    rows = days_of(*range(100))
    last = rows[-1]["created_at"]
    asked = "FROM silences(every_company := TRUE)"
    assert ask(asked, rows[:20], rows[19]["created_at"]).height == 0
    assert ask(asked, rows[:21], rows[20]["created_at"]).height == 1
    assert ask(asked, [row | {"created_at": EPOCH} for row in rows], last).height == 0
    assert ask(asked, rows, last + timedelta(days=59)).height == 1
    columns = "SELECT is_silent, has_left FROM silences"
    assert ask(f"{columns}()", rows, last + timedelta(days=60)).rows() == [(True, False)]
    assert ask(f"{columns}()", rows, last + timedelta(days=60, seconds=1)).rows() == [(True, True)]
    assert ask(f"{columns}(longest_days := 90)", rows, last + timedelta(days=61)).rows() == [(True, False)]
    assert ask(f"{columns}()", rows, last + timedelta(days=3650)).rows() == [(True, True)]
    assert ask(asked, rows, last + timedelta(days=3651)).height == 0
    others = [row | {"company_id": B, "created_at": row["created_at"] + timedelta(days=80)} for row in rows]
    both = ask("FROM silences()", rows + others, others[-1]["created_at"] + timedelta(days=5))
    assert both.select("company_id", "has_left").rows() == [(B, False), (A, True)]
    assert ask("FROM silences(once_in_days := 1e12)", rows, last + timedelta(days=3)).height == 0


def test_the_past_can_be_asked() -> None:
    """as_of answers as a lake did that had no later job."""
    times = draw_instants(np.random.default_rng(5), OFFICE, 100)
    instant = 60 * DAY + 11 * 3600
    later = ask_silences({A: times}, {A: 100 * DAY}, as_of=to_instant(instant))
    assert later.equals(ask_silences({A: times[times <= instant]}, {A: instant}))
    assert later["silent_seconds"][0] < DAY
