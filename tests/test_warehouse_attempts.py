"""`attempts` and `first_pass`: retries compared with the truth, and intervals under clustering with statsmodels."""

from __future__ import annotations

import math
from datetime import timedelta
from importlib import import_module
from typing import Any

import polars as pl
import pytest
from cases import mostly_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from retries import APRIL, WORLDS, count_wrong_links, draw_world, measure_coverage
from warehouse_jobs import START, TERMINAL, A, B, Row, ask, job, rows_of, warehouse

np: Any = import_module("numpy")
sm: Any = import_module("statsmodels.api")
proportion: Any = import_module("statsmodels.stats.proportion")
stats: Any = import_module("scipy.stats")

close = pytest.approx
TWO_HOURS = timedelta(hours=2)


@st.composite
def retried_histories(draw: st.DrawFn) -> list[Row]:
    """Draw jobs of which many could be attempts of one export: few users, few sizes, ends around the bounds."""
    rows = []
    seconds = st.sampled_from((0, 1, 3600, 7199, 7200, 7201, 90_000))
    for number in range(draw(st.integers(0, 30))):
        created = START + timedelta(seconds=draw(seconds) + draw(st.integers(0, 8)) * 7_200)
        status = draw(
            st.sampled_from(("failed", "failed", "completed", "completed_with_errors", "pending", "new"))
        )
        lasted = draw(st.none() | seconds)
        ended = None if lasted is None else created + timedelta(seconds=lasted / 2)
        rows.append(
            job(number, status, company_id=draw(st.sampled_from((A, B))), created_at=created)
            | {"completed_at": None, "last_updated_at": ended, "started_at": None}
            | {"created_by": draw(st.sampled_from((None, A))), "number_of_items": draw(st.integers(1, 2))}
            | {"is_interactive": draw(st.booleans())}
        )
    return rows


@given(rows=retried_histories())
@settings(max_examples=40)
def test_attempts_are_linked_as_defined(rows: list[Row]) -> None:
    """A linear search over each company's jobs finds the same exports, numbers and gaps."""
    expected: dict[str, tuple[Row, str, int, float | None]] = {}
    for row in sorted(rows, key=lambda each: (each["created_at"], each["id"])):
        same = ("company_id", "created_by", "is_interactive", "number_of_items", "vendor_based_bookkeeping")
        before = next(
            (
                other
                for other in reversed(list(expected.values()))
                if all(other[0][f] == row[f] for f in same)
            ),
            None,
        )
        gap = (
            row["created_at"] - before[0]["last_updated_at"]
            if before and before[0]["last_updated_at"]
            else None
        )
        if before and before[0]["status"] == "failed" and gap is not None and timedelta() <= gap <= TWO_HOURS:
            expected[row["id"]] = (row, before[1], before[2] + 1, gap.total_seconds())
        else:
            expected[row["id"]] = (row, row["id"], 1, None)
    found = ask("FROM attempts", rows)
    assert found.height == len(rows)
    last = {export: number for _, export, number, _ in expected.values()}
    for row in found.iter_rows(named=True):
        _, export, number, gap_seconds = expected[row["id"]]
        assert (row["export_id"], row["attempt"], row["gap_seconds"]) == (export, number, gap_seconds)
        assert (row["is_first"], row["is_last"]) == (number == 1, number == last[export])


@pytest.mark.parametrize("seed", mostly_slow([1, 2, 3]))
def test_few_links_are_wrong_where_the_truth_is_known(seed: int) -> None:
    """In the sandbox's companies, whose retries are known, at most 3 % of the links are wrong and 3 % are missing."""
    found = count_wrong_links(seed)
    assert found["retries"] > 150
    assert found["wrong"] <= 0.03 * found["links"]
    assert found["missed"] <= 0.03 * found["retries"]


@given(rows=retried_histories(), grain=st.sampled_from(("hour", "day", "month", "all")))
@settings(max_examples=30)
def test_first_pass_counts_exports_by_their_first_attempt(rows: list[Row], grain: str) -> None:
    """Counts equal those that Polars makes of the view `attempts`; open first attempts are counted, not dropped."""
    every = {"hour": "1h", "day": "1d", "month": "1mo", "all": "100y"}[grain]
    passed = pl.col("status").is_in(("completed", "completed_with_errors"))
    with warehouse(rows) as con:
        attempts = rows_of(con, "FROM attempts")
        found = rows_of(con, "FROM first_pass($g, fill := FALSE)", g=grain)
    expected = (
        attempts.sort("attempt")
        .group_by("company_id", "export_id")
        .agg(
            pl.col("created_at").first(),
            pl.col("status").first().is_in(TERMINAL).alias("finished"),
            passed.first().alias("passed"),
            ((pl.col("status").first() == "failed") & passed.any()).alias("passed_later"),
            pl.len().alias("attempts"),
        )
        .group_by(pl.col("created_at").dt.truncate(every).alias("period"), "company_id")
        .agg(
            pl.len().alias("exports"),
            *(pl.col(c).sum() for c in ("finished", "passed", "passed_later", "attempts")),
        )
        .sort("period", "company_id")
    )
    columns = ["company_id", "exports", "finished", "passed", "passed_later", "attempts"]
    assert found.select(columns).rows() == expected.select(columns).rows()
    assert (found["exports"] == found["finished"] + found["still_open"]).all()
    for row in found.iter_rows(named=True):
        assert row["rate"] == (close(row["passed"] / row["finished"]) if row["finished"] else None)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("grain", mostly_slow(["hour", "month", "day", "week", "all"], quick=2))
def test_the_spread_between_clusters_is_statsmodels(world: str, grain: str) -> None:
    """The design effect is that of statsmodels' variance by clusters, the interval Wilson's with Student's quantile."""
    jobs = draw_world(np.random.default_rng(15), WORLDS[world], companies=3, days=18)
    together = grain in ("hour", "all")
    called = f"('{grain}', per_company := {not together})"
    with warehouse(jobs) as con:
        rates = rows_of(con, f"FROM failure_rates{called}")
        first = rows_of(con, f"FROM first_pass{called}")
        ids = rows_of(con, "SELECT id FROM attempts WHERE is_first")["id"]
    checked = 0
    for found, some, value, names in (
        (rates, jobs, "failed", ("clustered_low", "clustered_high")),
        (first, jobs.filter(pl.col("id").is_in(ids.implode())), "completed", ("low", "high")),
    ):
        for row in found.sample(min(30, found.height), seed=1).iter_rows(named=True):
            lasting = {"hour": "1h", "day": "1d", "week": "1w", "month": "1mo"}.get(grain)
            mine = some if together else some.filter(company_id=row["company_id"])
            if lasting:
                mine = mine.filter(pl.col("created_at").dt.truncate(lasting) == row["starts_at"])
            key = "number_of_items" if grain in ("hour", "day") else pl.col("created_at").dt.date()
            cluster = mine.select(pl.struct("company_id", key).rank("dense"))["company_id"].to_numpy()
            hit = (mine["status"] == value).to_numpy().astype(float)
            n, clusters = len(hit), len(set(cluster))
            assert (row["finished"], row["clusters"]) == (n, clusters)
            if clusters < 3:
                assert [row[name] for name in ("design_effect", *names)] == [None] * 3
                continue
            effect, low, high = clustered_interval(hit, cluster)
            checked += bool(0 < hit.sum() < n)
            assert row["design_effect"] == close(effect, rel=1e-9)
            assert (row[names[0]], row[names[1]]) == close((low, high), abs=1e-9)
    assert checked >= 2


def clustered_interval(hit: Any, cluster: Any) -> tuple[float, float, float]:
    """Return the design effect by statsmodels' variance by clusters, and Wilson's interval with Student's quantile."""
    n, clusters, effect = len(hit), len(set(cluster)), 1.0
    if 0 < hit.sum() < n:
        fit = sm.OLS(hit, np.ones(n)).fit(
            cov_type="cluster", cov_kwds={"groups": cluster, "use_correction": False}
        )
        variance = fit.cov_params()[0, 0] * clusters / (clusters - 1)
        effect = max(1.0, variance / (hit.mean() * (1 - hit.mean()) / n))
    alpha = 2 * stats.norm.sf(student(clusters - 1))
    return effect, *proportion.proportion_confint(hit.mean() * n / effect, n / effect, alpha, "wilson")


@pytest.mark.parametrize("world", mostly_slow(WORLDS, quick=2))
@pytest.mark.parametrize("per_company", [True, False])
def test_the_change_of_a_rate_knows_clusters(world: str, *, per_company: bool) -> None:
    """The interval of `compare` joins the clustered intervals of both ranges as Newcombe does."""
    middle = APRIL + timedelta(days=9)
    jobs = draw_world(np.random.default_rng(16), WORLDS[world], companies=4, days=18)
    call = "FROM compare($m, NULL, NULL, $m, per_company := $each) WHERE figure = 'failure_rate'"
    found = ask(call, jobs, m=middle, each=per_company)
    assert found.height == (4 if per_company else 1)
    for row in found.iter_rows(named=True):
        mine = jobs.filter(company_id=row["company_id"]) if per_company else jobs
        sides = []
        for part in (mine.filter(pl.col("created_at") >= middle), mine.filter(pl.col("created_at") < middle)):
            day = pl.struct("company_id", pl.col("created_at").dt.date()).rank("dense")
            hit = (part["status"] == "failed").to_numpy().astype(float)
            _, low, high = clustered_interval(hit, part.select(day).to_series().to_numpy())
            sides.append((hit.mean(), low, high))
        (a, low_a, high_a), (b, low_b, high_b) = sides
        change = b - a
        expected = (
            change,
            change - math.hypot(b - low_b, high_a - a),
            change + math.hypot(high_b - b, a - low_a),
        )
        assert (row["change"], row["low"], row["high"]) == close(expected, abs=1e-9)


@pytest.mark.parametrize("world", mostly_slow(WORLDS, quick=2))
def test_chance_makes_few_differences(world: str) -> None:
    """Of 150 companies whose rate stays, at most one in twelve differs from one half of a month to the next, by no q.

    If one in twenty differs by chance, more than 12 of 150 have a chance of 4 %.
    """
    jobs = draw_world(np.random.default_rng(17), WORLDS[world], companies=150)
    call = "FROM compare($m, NULL, NULL, $m) WHERE figure = 'failure_rate'"
    found = ask(call, jobs, m=APRIL + timedelta(days=15))
    assert found["differs"].sum() <= 12
    assert (found["q"] <= 0.05).sum() == 0


def student(freedom: int) -> float:
    """Return the quantile that the answers use, which is within 0.8 % of scipy's."""
    z = float(stats.norm.ppf(0.975))
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    found: float = z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
    assert found == close(stats.t.ppf(0.975, freedom), rel=0.008)
    return found


@pytest.mark.parametrize("world", mostly_slow(WORLDS, quick=2))
def test_intervals_that_know_clusters_contain_the_truth(world: str) -> None:
    """95 % intervals of 100 companies contain the true rate in at least 88; Wilson's do not where exports are retried.

    If an interval covers 95 %, fewer than 88 of 100 have a chance of 0.1 %; outages of days leave it a little short, as
    docs/answers.md shows for more companies.
    """
    covered = measure_coverage(np.random.default_rng(20261129), WORLDS[world], companies=100)
    assert covered["clustered"] >= 0.86
    assert covered["first_pass"] >= 0.86
    if world == "independent":
        assert covered["wilson"] >= 0.88
    else:
        assert covered["wilson"] <= 0.86
