"""`compare` and `incidents`: what changed and what stands out."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module
from itertools import pairwise
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from cases import mostly_slow
from clocks import in_zones
from drifts import make_days
from hypothesis import given, settings
from hypothesis import strategies as st
from warehouse_jobs import (
    START,
    A,
    B,
    Row,
    ask,
    frame,
    job,
    recorded,
)

from pleo_extract.errors import UsageError
from pleo_extract.sandbox import World

# Packages without types, of which the tests use only functions.
np: Any = import_module("numpy")
proportion: Any = import_module("statsmodels.stats.proportion")
multitest: Any = import_module("statsmodels.stats.multitest")
scipy: Any = import_module("scipy.stats")
binom: Any = scipy.binom

close = pytest.approx


def count_back(instant: datetime, grain: str) -> datetime:
    """Return when the period begins that is over or ends at this local time."""
    last = instant - timedelta(microseconds=1)
    midnight = last.replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "hour": last.replace(minute=0, second=0, microsecond=0),
        "day": midnight,
        "week": midnight - timedelta(days=midnight.weekday()),
        "month": midnight.replace(day=1),
        "quarter": midnight.replace(day=1, month=midnight.month - (midnight.month - 1) % 3),
        "year": midnight.replace(day=1, month=1),
    }[grain]


@in_zones("America/St_Johns")
@pytest.mark.parametrize("grain", ["hour", "day", "week", "month", "quarter", "year"])
@pytest.mark.parametrize("now", [datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 3, 30, 12, 20, tzinfo=UTC)])
def test_compare_takes_the_last_two_whole_periods(grain: str, zone: str, now: datetime) -> None:
    """`compare('quarter')` equals `compare` with four bounds, computed with zoneinfo."""
    luck = Random(grain + zone)
    days = {"hour": 0.25, "day": 4, "week": 24, "month": 100, "quarter": 300, "year": 1200}[grain]
    rows = [
        job(
            n,
            luck.choice(("failed", "completed")),
            company_id=luck.choice((A, B)),
            created_at=now - timedelta(seconds=luck.uniform(0, days * 86_400)),
        )
        for n in range(400)
    ]
    place = ZoneInfo(zone)
    local = now.astimezone(place).replace(tzinfo=None)
    ends = count_back(local + timedelta(microseconds=1), grain)
    begins = count_back(ends, grain)
    bounds = [each.replace(tzinfo=place) for each in (count_back(begins, grain), begins, ends)]
    a, b, c = (each.astimezone(UTC) for each in bounds)
    expected = ask("FROM compare($a, $b, $b, $c)", rows, now, a=a, b=b, c=c)
    assert expected.height == 8
    found = ask(f"FROM compare('{grain}', tz := '{zone}')", rows, now)
    assert found.equals(expected)
    assert found.select("a_begins", "a_ends", "b_begins", "b_ends").unique().rows() == [(a, b, b, c)]
    if grain == "month":
        for call in (f"compare(tz := '{zone}')", f"compare(tz := '{zone}', grain := 'month')"):
            assert ask(f"FROM {call}", rows, now).equals(expected)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("compare('all')", "invalid grain all: use hour, day, week, month, quarter or year"),
        ("compare('quarter', '2026-01-01')", "invalid grain quarter beside bounds: use hour, day"),
        ("compare('quarter', NULL, '2026-01-01')", "invalid grain quarter beside bounds: use"),
        ("compare('quartal')", "invalid grain quartal: use hour"),
        ("compare(grain := NULL)", "invalid grain null: use hour"),
        (
            "compare('2026-01-01', '2026-02-01')",
            "invalid bounds: use a bound of a (since_a, until_a) together",
        ),
        ("compare(since_a := '2026-01-01')", "invalid bounds: use a bound of a"),
        ("compare(until_b := '2026-01-01')", "invalid bounds: use a bound of a"),
    ],
)
def test_compare_without_sense(call: str, says: str) -> None:
    """A grain that is none, one beside bounds, and bounds of one range alone are errors."""
    with pytest.raises(UsageError, match=re.escape(says)):
        ask(f"FROM {call}", [job(1)])


@given(counts=st.tuples(*[st.integers(0, 60)] * 4), opened=st.integers(0, 3))
@settings(max_examples=15)
def test_compare_rates_is_newcombes(counts: tuple[int, int, int, int], opened: int) -> None:
    """The interval of the rate's change equals statsmodels' for two proportions, to 1e-9."""
    failed_a, done_a, failed_b, done_b = counts
    rows = stretch(0, failed_a, done_a) + stretch(1, failed_b, done_b, opened)
    found = ask("FROM compare($a, $b, $b, NULL)", rows, a=START, b=START + timedelta(days=30))
    if not rows:
        assert found.height == 0
        return
    row = found.row(0, named=True)
    n_a, n_b = failed_a + done_a, failed_b + done_b
    assert (row["figure"], row["n_a"], row["n_b"], row["still_open_b"]) == ("failure_rate", n_a, n_b, opened)
    if n_a and n_b:
        low, high = proportion.confint_proportions_2indep(
            failed_b, n_b, failed_a, n_a, compare="diff", method="newcomb"
        )
        assert (row["low"], row["high"]) == close((low, high), abs=1e-9)
        assert row["change"] == close(failed_b / n_b - failed_a / n_a)
        assert row["differs"] == (row["low"] > 0 or row["high"] < 0)
    else:
        assert (row["change"], row["low"], row["high"], row["differs"]) == (None,) * 4


def stretch(month: int, failed: int, done: int, opened: int = 0) -> list[Row]:
    """Return jobs of 30 days."""
    statuses = ["failed"] * failed + ["completed"] * done + ["pending"] * opened
    return [
        job(1000 * month + n, status, created_at=START + timedelta(days=30 * month))
        for n, status in enumerate(statuses)
    ]


@given(st.lists(st.integers(1, 50), max_size=40), st.lists(st.integers(1, 50), max_size=40))
@settings(max_examples=15)
def test_compare_medians_joins_order_statistics(first: list[int], second: list[int]) -> None:
    """Medians equal numpy's, with a binomial 95 % interval each from six jobs on, joined by squares."""
    rows = [
        job(
            n,
            created_at=START + timedelta(days=30 * side),
            started_at=START + timedelta(days=30 * side, seconds=s),
        )
        for n, (side, s) in enumerate([(0, s) for s in first] + [(1, s) for s in second])
    ]
    found = ask(
        "FROM compare(NULL, $b, $b, NULL) WHERE figure = 'median_queue_seconds'",
        rows,
        b=START + timedelta(days=15),
    )
    for row in found.iter_rows(named=True):
        for value, values in ((row["value_a"], first), (row["value_b"], second)):
            assert value == (close(float(np.median(values))) if values else None)
        if min(len(first), len(second)) < 6:
            assert (row["low"], row["high"]) == (None, None)
        else:
            (low_a, high_a), (low_b, high_b) = (median_interval(values) for values in (first, second))
            below, above = (
                math.hypot(row["value_b"] - low_b, high_a - row["value_a"]),
                math.hypot(high_b - row["value_b"], row["value_a"] - low_a),
            )
            assert row["change"] == close(row["value_b"] - row["value_a"])
            assert (row["low"], row["high"]) == close(
                (row["change"] - below, row["change"] + above), abs=1e-9
            )


@pytest.mark.parametrize("seed", mostly_slow(range(4)))
def test_changes_of_many_companies_have_a_false_discovery_rate(seed: int) -> None:
    """The q of a figure is scipy's over the companies; alone, it is below 0.05 exactly where `differs` is true."""
    luck = Random(seed)
    rows: list[Row] = []
    for number, company in enumerate("abcdef0123"):
        for half in (0, 1):
            rate, wait = luck.choice((0.1, 0.1, 0.4)), luck.choice((1, 1, 2))
            for n in range(luck.choice((3, 20, 60)) if number else 12):
                created = START + timedelta(days=30 * half, minutes=n)
                fields: Row = {
                    "company_id": f"0000000{company}-0000-4000-8000-000000000000",
                    "created_at": created,
                }
                seconds = (
                    wait * luck.randint(5, 50) if number else 10 + 5 * half
                )  # the first one's do not vary
                fields |= {"started_at": created + timedelta(seconds=seconds)}
                rows.append(job(len(rows), "failed" if luck.random() < rate else "completed", **fields))
    b = START + timedelta(days=15)
    found = ask("FROM compare(NULL, $b, $b, NULL)", rows, b=b)
    unknown = 0
    for _, figures in found.group_by("figure", maintain_order=True):
        known = figures.filter(pl.col("low").is_not_null())
        unknown += figures.height - known.height
        assert figures["q"].null_count() == figures.height - known.height
        rises = (pl.col("change") > 0) | (pl.col("change") == 0)
        margin = (
            pl.when(rises).then(pl.col("change") - pl.col("low")).otherwise(pl.col("high") - pl.col("change"))
        )
        facing = known.select(change=pl.col("change").abs(), margin=margin)
        z = [c / m * scipy.norm.ppf(0.975) if m else math.inf * c if c else 0 for c, m in facing.iter_rows()]
        expected = scipy.false_discovery_control(2 * scipy.norm.sf(z))
        assert known["q"].to_list() == close(list(expected), rel=1e-6, abs=1e-300)
        assert known["q"].to_list() == close(
            list(multitest.multipletests(2 * scipy.norm.sf(z), method="fdr_bh")[1]), rel=1e-6, abs=1e-300
        )
    assert unknown > 0
    for company in found["company_id"].unique():
        alone = ask("FROM compare(NULL, $b, $b, NULL, company_id := $c)", rows, b=b, c=company)
        assert (alone["q"] < 0.05).to_list() == alone["differs"].to_list()


def median_interval(values: list[int]) -> tuple[float, float]:
    """Return the symmetric pair of order statistics that covers the median with at least 95 %."""
    n = len(values)
    rank = math.floor((n + 1 - 1.959963984540054 * math.sqrt(n)) / 2)
    assert 1 - 2 * binom.cdf(rank - 1, n, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(rank + 1, n, 0.5) < 0.95
    ordered = sorted(values)
    return ordered[rank - 1], ordered[n - rank]


# Incidents


@cache
def sandbox_year(
    seed: int, jobs: int = 12_000
) -> tuple[pl.DataFrame, tuple[datetime, datetime], tuple[str, ...]]:
    """Return a year of the sandbox: its jobs, its outage, and the affected companies."""
    world = World(jobs=jobs, companies=4, seed=seed)
    return recorded(world.visible()), world.outage, world.companies[::2]


@pytest.mark.parametrize("seed", mostly_slow([1, 2, 3]))
def test_the_sandboxs_outage_is_found(seed: int) -> None:
    """The outage is an incident of the affected companies, with accounting-system reasons."""
    jobs, (began, ceased), hit = sandbox_year(seed)
    found = ask("FROM incidents('week')", jobs).filter(
        pl.col("period").is_between(
            (began - timedelta(days=7)).replace(tzinfo=None), ceased.replace(tzinfo=None)
        )
    )
    assert set(found["company_id"]) == set(hit)
    assert (
        found["reasons"]
        .str.contains("^(accounting_system_timeout|accounting_system_unreachable|service_unreachable) ")
        .all()
    )
    assert (found["rate"] > found["limit_rate"]).all()


def test_the_sandboxs_other_companies_are_quiet() -> None:
    """Unaffected companies have no more incidents than the stated level."""
    alarms = judged = 0
    for seed in range(1, 9):
        jobs, _, hit = sandbox_year(seed)
        days = ask(
            "FROM incidents('day', every_period := TRUE)", jobs.filter(~pl.col("company_id").is_in(hit))
        )
        alarms, judged = alarms + days.filter("is_incident").height, judged + days.height
    assert judged > 740
    assert alarms <= judged / 740


def test_chance_raises_no_more_alarms_than_stated() -> None:
    """Over many years of one rate at most one judged period in 740 is an incident."""
    luck = Random(20261124)
    for daily, chance in ((12, 0.02), (30, 0.1), (120, 0.05)):
        rows = []
        for year in range(12):
            company = f"{year:08d}-0000-4000-8000-000000000000"
            for day in range(250):
                failed = sum(luck.random() < chance for _ in range(daily))
                rows += [(company, START + timedelta(days=day), "failed")] * failed
                rows += [(company, START + timedelta(days=day), "completed")] * (daily - failed)
        found = ask("FROM incidents('day', every_period := TRUE)", quick(rows))
        assert found.height == 12 * 242
        assert found.filter("is_incident").height <= found.height / 740


@pytest.mark.parametrize("lasting", [1, 2, 5, 30])
def test_an_incident_is_found_from_its_first_period_to_its_last(lasting: int) -> None:
    """All periods of an incident are found, because they do not count as past."""
    failing = [20 - 8 * (day % 2) for day in range(lasting)]
    found = days_beyond([2] * 20 + failing + [2] * 20)
    assert found == list(range(20, 20 + lasting))


def test_what_lasts_becomes_what_is_usual() -> None:
    """A rate that stays high stops being an incident after one to two months."""
    found = days_beyond([2] * 40 + [20] * 120)
    assert found[:30] == list(range(40, 70))
    assert max(found) < 100


def test_a_second_incident_is_judged_by_the_time_without_the_first() -> None:
    """A second incident is found even if the first one was worse."""
    assert days_beyond([2] * 20 + [30] * 3 + [2] * 3 + [14] + [2] * 5) == [20, 21, 22, 26]


def days_beyond(failed: list[int]) -> list[int]:
    """Return the days that are incidents, of 40 jobs each."""
    rows = [
        (A, START + timedelta(days=day), status)
        for day, k in enumerate(failed)
        for status in ["failed"] * k + ["completed"] * (40 - k)
    ]
    periods = ask("FROM incidents('day')", quick(rows))["period"]
    return [(period - START.replace(tzinfo=None)).days for period in periods]


def quick(rows: list[tuple[str, datetime, str]]) -> pl.DataFrame:
    """Return many jobs with only company, creation and status."""
    usual = frame([job(0)])
    columns = pl.DataFrame(rows, schema=["company_id", "created_at", "status"], orient="row")
    return columns.join(usual.drop(columns.columns), how="cross").select(usual.columns)


@given(
    days=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=0, max_size=75)
    | st.lists(st.sampled_from([(0, 12), (1, 11), (0, 14), (12, 1), (9, 3)]), min_size=10, max_size=75),
    at_least=st.sampled_from((1, 10)),
)
@settings(max_examples=12)
def test_control_limits_are_as_defined(days: list[tuple[int, int]], at_least: int) -> None:
    """Baseline, score, spread and limit equal a plain Python computation over the 60 periods before."""
    rows = [
        (A, START + timedelta(days=n), status)
        for n, (failed, done) in enumerate(days)
        for status in ["failed"] * failed + ["completed"] * done
    ]
    found = ask(
        "FROM incidents('day', at_least := $n, every_period := TRUE)", quick(rows) if rows else [], n=at_least
    )
    expected = control_chart([(f, f + d) for f, d in days if f + d >= at_least])
    assert found.height == len(expected)
    for row, chart in zip(found.iter_rows(named=True), expected, strict=True):
        assert (row["usual_rate"], row["sigmas"]) == close(chart[:2], abs=1e-9)
        assert row["limit_rate"] == close(chart[2], abs=1e-9)
        assert row["is_incident"] == (row["sigmas"] > 3.2)
        if abs(row["sigmas"] - 3.2) > 1e-9 and row["limit_rate"] < 1:
            assert row["is_incident"] == (row["rate"] > row["limit_rate"])


@pytest.mark.parametrize("grain", mostly_slow(["day", "month", "hour", "week", "quarter", "year"], quick=2))
def test_discoveries_are_benjamini_and_hochbergs(grain: str) -> None:
    """The q is statsmodels' and scipy's over the companies judged in a period, and the clearest comes first."""
    luck = Random(grain)
    step = timedelta(
        days={"hour": 1 / 24, "day": 1, "week": 7, "month": 31, "quarter": 92, "year": 366}[grain]
    )
    rows = [
        (
            f"0000000{company}-0000-4000-8000-000000000000",
            START + n * step,
            "failed" if failed else "completed",
        )
        for company in "abcdef"
        for n in range(16)
        for failed in luck.choices(
            (True, False), (1, 1 if (company, n) == ("b", 15) else 9), k=luck.choice((4, 12, 40))
        )
    ]
    call = "incidents($g, tz := 'America/New_York', at_least := 1, every_period := TRUE)"
    found = ask(f"FROM {call}", quick(rows), g=grain)
    assert found.group_by("starts_at").len()["len"].max() == 6
    for _, judged in found.group_by("starts_at", maintain_order=True):
        chances = scipy.norm.sf(judged["sigmas"].to_numpy())
        assert judged["q"].to_list() == close(list(scipy.false_discovery_control(chances)), rel=1e-6)
        expected = list(multitest.multipletests(chances, method="fdr_bh")[1])
        assert judged["q"].to_list() == close(expected, rel=1e-6)
        assert judged["sigmas"].is_sorted(descending=True)
    together = ask(f"FROM {call.replace('every', 'per_company := FALSE, every')}", quick(rows), g=grain)
    assert together["q"].to_list() == close(list(scipy.norm.sf(together["sigmas"].to_numpy())), rel=1e-6)


def test_few_days_of_many_companies_have_a_discovery_by_chance() -> None:
    """Where nothing changes in 800 companies, a q of at most 0.05 comes on 5 % of the days at most; sigmas above 3.2 on more."""
    failed = np.random.default_rng(155).binomial(20, 0.2, (800, 40))
    found = ask("FROM incidents('day', every_period := TRUE)", make_days(failed, 20))
    days = found.group_by("period").agg(pl.col("q").min(), pl.col("is_incident").any())
    assert days.height == 32
    assert (days["q"] <= 0.05).sum() <= 4  # 5 or more of 32 have a chance of 2 % if each has 5 %
    assert days["is_incident"].sum() > (days["q"] <= 0.05).sum()


def control_chart(periods: list[tuple[int, int]]) -> list[tuple[float, float, float]]:
    """Return usual rate, sigmas and limit of each judged period, from (failed, finished), in two passes."""
    apart: set[int] = set()
    for begun, chart in enumerate(one_pass(periods, apart)):
        if chart and chart[3] > 3.2:
            usual, past_n, bound = chart[4:]
            for place, (k, n) in enumerate(periods[begun : begun + 30], start=begun):
                deviation = math.sqrt(1 / (4 * n + 2) + 1 / (4 * past_n + 2))
                if (angle(k, n) - usual) / deviation > bound:
                    apart.add(place)
    return [(c[0], c[3], c[1]) for c in one_pass(periods, apart) if c]


def one_pass(periods: list[tuple[int, int]], apart: set[int]) -> list[tuple[float, ...]]:
    """Return usual rate, limit, score, sigmas and bound of each period; empty if not judged."""
    scores: dict[int, float] = {}
    charts: list[tuple[float, ...]] = []
    for place, (k, n) in enumerate(periods):
        before = range(max(0, place - 60), place)
        past = [periods[p] for p in before if p not in apart]
        past_k, past_n = sum(p[0] for p in past), sum(p[1] for p in past)
        charts.append(())
        if not past:
            continue
        usual, deviation = angle(past_k, past_n), math.sqrt(1 / (4 * n + 2) + 1 / (4 * past_n + 2))
        score = (angle(k, n) - usual) / deviation
        moves = [abs(scores[p] - scores[q]) for q, p in pairwise(sorted(scores)) if p in before]
        student = 1 + 2.81 / max(1, len(moves)) + 7.2 / max(1, len(moves)) ** 2
        spread = max(1.0, (sum(moves) / len(moves) if moves else 1.0) / (2 / math.sqrt(math.pi)) * student)
        if place not in apart:
            scores[place] = score
        if len(past) >= 8:
            top = min(math.pi / 2, usual + 3.2 * deviation * spread)
            limit = min(1.0, ((n + 0.75) * math.sin(top) ** 2 - 0.375) / n)
            charts[-1] = (past_k / past_n, limit, score, score / spread, usual, past_n, 3.2 * spread)
    return charts


def angle(k: int, n: int) -> float:
    """Return Anscombe's arcsine of a proportion."""
    return math.asin(math.sqrt((k + 0.375) / (n + 0.75)))
