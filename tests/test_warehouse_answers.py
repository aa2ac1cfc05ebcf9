"""The answers, compared with the statistics of other packages and with plain Python."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from cases import mostly_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from warehouse_jobs import (
    START,
    TERMINAL,
    A,
    B,
    Row,
    ask,
    frame,
    histories,
    job,
    rows_of,
    warehouse,
)

from pleo_extract.answers import statements
from pleo_extract.errors import UsageError

# Packages without types, of which the tests use only functions.
if TYPE_CHECKING:
    from collections.abc import Iterable

np: Any = import_module("numpy")
proportion: Any = import_module("statsmodels.stats.proportion")
lifelines: Any = import_module("lifelines")

NOW = START + timedelta(days=30)
close = pytest.approx

# What counts as what


def minutes(number: float) -> datetime:
    """Return an instant after START."""
    return START + timedelta(minutes=number)


@pytest.mark.parametrize(
    ("fields", "outcome", "ended_by", "total"),
    [
        ({"status": "completed", "completed_at": minutes(5)}, "completed", "completed_at", 300),
        (
            {"status": "completed_with_errors", "completed_at": minutes(5)},
            "completed_with_errors",
            "completed_at",
            300,
        ),
        ({"status": "completed"}, "completed", "last_updated_at", 180),
        ({"status": "completed", "last_updated_at": None}, "completed", None, None),
        (
            {"status": "failed", "failure_reason_type": "service_timeout", "expired_at": minutes(61)},
            "failed",
            "expired_at",
            3660,
        ),
        ({"status": "failed", "failure_reason_type": "job_expired"}, "expired", "last_updated_at", 180),
        (
            {"status": "failed", "failure_reason_type": None, "expired_at": minutes(61)},
            "expired",
            "expired_at",
            3660,
        ),
        ({"status": "failed", "failure_reason_type": None}, "failed", "last_updated_at", 180),
        ({"status": "failed", "completed_at": minutes(-1)}, "failed", "completed_at", -60),
        ({"status": "pending"}, "open", None, None),
        ({"status": "in_progress", "completed_at": minutes(5)}, "open", None, None),
        ({"status": "archived", "expired_at": minutes(5)}, "open", None, None),
    ],
)
def test_outcome_and_end_of_a_job(
    fields: Row, outcome: str, ended_by: str | None, total: float | None
) -> None:
    """Only the three known terminal statuses end a job, at its first instant; expired counts as failed."""
    row = ask("FROM job_durations", [{**job(0), "completed_at": None, **fields}]).row(0, named=True)
    assert (row["outcome"], row["ended_by"], row["total_seconds"]) == (outcome, ended_by, total)
    assert row["is_censored"] == (outcome == "open")
    assert row["queue_seconds"] == 60
    assert row["run_seconds"] == (None if total is None else total - 60)


def test_durations_keep_microseconds() -> None:
    """Durations have fractions of a second, and a job that did not start has no queue time."""
    rows = [job(0, started_at=START + timedelta(microseconds=1)), job(1, "pending", started_at=None)]
    assert ask("SELECT queue_seconds FROM job_durations ORDER BY id", rows)["queue_seconds"].to_list() == [
        1e-6,
        None,
    ]


@pytest.mark.parametrize(
    ("grain", "zone", "period"),
    [
        ("hour", "UTC", "2026-03-28 23:00:00"),
        ("day", "UTC", "2026-03-28 00:00:00"),
        ("week", "UTC", "2026-03-23 00:00:00"),
        ("month", "UTC", "2026-03-01 00:00:00"),
        ("quarter", "UTC", "2026-01-01 00:00:00"),
        ("year", "UTC", "2026-01-01 00:00:00"),
        ("all", "UTC", None),
        ("hour", "Europe/Copenhagen", "2026-03-29 00:00:00"),
        ("day", "Europe/Copenhagen", "2026-03-29 00:00:00"),
        ("week", "Asia/Tokyo", "2026-03-23 00:00:00"),
        ("day", "America/New_York", "2026-03-28 00:00:00"),
    ],
)
def test_periods_begin_on_the_clocks_of_the_zone(grain: str, zone: str, period: str | None) -> None:
    """A job belongs to the period of its local time; weeks begin on Monday; `all` is one period."""
    late = job(0, created_at=datetime(2026, 3, 28, 23, 30, tzinfo=UTC))
    for macro in ("failure_rates", "duration_stats", "throughput"):
        answers = ask(
            f"SELECT period::VARCHAR AS p FROM {macro}($grain, tz := $zone)", [late], grain=grain, zone=zone
        )
        assert set(answers["p"]) == {period}


def test_an_unknown_zone_is_an_error() -> None:
    """An unknown zone is an error."""
    with pytest.raises(UsageError, match="Mars"):
        ask("FROM failure_rates('day', tz := 'Mars/Olympus')", [job(0)])


# What all macros have in common


def with_parameters(*names: str) -> list[str]:
    """Return the macros that take these parameters."""
    macros = [s.name for s in statements().values() if s.kind == "macro"]
    return [m for m in macros if {*names} <= {p.name for p in statements()[m].parameters}]


def call(macro: str, *arguments: str) -> str:
    """Format a call with values for the required parameters."""
    given_values = ["NULL" for p in statements()[macro].parameters if p.default is None]
    if macro == "incidents":
        arguments = (*arguments, "at_least := 1", "every_period := TRUE")
    return f"{macro}({', '.join([*given_values, *arguments])})"


@pytest.mark.parametrize("macro", [s.name for s in statements().values() if s.kind == "macro"])
def test_an_empty_lake_answers_with_no_rows(macro: str) -> None:
    """Without files every answer has its columns and types, and no rows."""
    nothing, something = (ask(f"FROM {call(macro)}", rows) for rows in ([], [job(0), job(1, "failed")]))
    assert nothing.height == 0
    assert nothing.schema == something.schema


@pytest.mark.slow
@given(rows=histories())
@settings(max_examples=5)  # each asks nearly every macro
def test_company_id_chooses_a_company(rows: list[Row]) -> None:
    """company_id in any case gives that company's rows of the answer for all."""
    with warehouse(rows, NOW) as con:
        for macro in with_parameters("company_id"):
            one = rows_of(con, f"FROM {call(macro, 'company_id := $c')}", c=A.upper())
            mine = rows_of(con, f"FROM {call(macro)}").filter(pl.col("company_id") == A)
            evidence = ["q"]  # is about all companies of the answer
            one, mine = (each.drop(evidence, strict=False) for each in (one, mine))
            assert_frame_equal(one, mine, abs_tol=1e-12)


@given(rows=histories(), since=st.integers(0, 12), days=st.integers(1, 12))
@settings(max_examples=5)  # each asks nearly every macro
def test_since_and_until_choose_by_created_at(rows: list[Row], since: int, days: int) -> None:
    """`since` and `until` choose jobs created from since up to, but not at, until."""
    first, last = (START + timedelta(seconds=10 + 7200 * n) for n in (since, since + days))
    within = [row for row in rows if first <= row["created_at"] < last]
    ids = [row["id"] for row in within]
    with warehouse(rows, NOW) as con, warehouse(within, NOW) as smaller:
        for macro in with_parameters("since", "until"):
            asked = rows_of(con, f"FROM {call(macro, 'since := $f', 'until := $l')}", f=first, l=last)
            if macro == "recoveries":  # a success may come after until
                expected = rows_of(con, "FROM recoveries()").filter(pl.col("failed_id").is_in(ids))
            elif macro == "downtime":  # a success may come after until, and a failure before since
                continue
            elif macro == "first_pass":  # attempts before since and after until belong to exports in between
                firsts = rows_of(con, "SELECT id FROM attempts WHERE is_first")["id"].to_list()
                assert asked["exports"].sum() == len({*firsts} & {*ids})
                continue
            else:
                expected = rows_of(smaller, f"FROM {call(macro)}")
            assert_frame_equal(asked, expected)


@given(rows=histories())
@settings(max_examples=5)  # each asks nearly every macro
def test_companies_together(rows: list[Row]) -> None:
    """per_company false gives the answer of one company with all jobs, without an id."""
    one = [row | {"company_id": A} for row in rows]
    with warehouse(rows, NOW) as con, warehouse(one, NOW) as single:
        for macro in with_parameters("per_company"):
            if macro == "first_pass":  # jobs of different companies are never attempts of one export
                continue
            together = rows_of(con, f"FROM {call(macro, 'per_company := FALSE')}")
            expected = rows_of(single, f"FROM {call(macro)}")
            by_company = ["company_id", "clusters", "design_effect", "clustered_low", "clustered_high"]
            assert_frame_equal(*(each.drop(by_company, strict=False) for each in (together, expected)))
            assert together["company_id"].null_count() == together.height


@given(rows=histories())
@settings(max_examples=5)  # each asks nearly every macro
def test_no_job_is_dropped_in_silence(rows: list[Row]) -> None:
    """Every answer over periods counts each job as ended, open, or of unknown end."""
    total, parts = len(rows), ("n", "still_running", "unknown")
    with warehouse(rows, NOW) as con:
        for grain in ("hour", "year", "all"):
            rates = rows_of(con, "FROM failure_rates($g)", g=grain)
            assert (rates["jobs"] == rates["finished"] + rates["still_open"]).all()
            assert rates["jobs"].sum() == rows_of(con, "FROM throughput($g)", g=grain)["jobs"].sum() == total
            stats = rows_of(con, "FROM duration_stats($g)", g=grain)
            assert set(stats.group_by("duration").agg(pl.sum_horizontal(parts).sum())["n"]) <= {total}
            assert stats.filter(pl.min_horizontal(parts) < 0).height == 0
        curve = rows_of(con, "FROM survival()")
    left_out = curve.group_by("company_id").agg(pl.col("left_out").first())["left_out"].sum()
    unknown = Counter(row["company_id"] for row in rows if is_unknown(row))
    shown = sum(n for company, n in unknown.items() if company in set(curve["company_id"]))
    assert left_out == shown


def is_unknown(row: Row) -> bool:
    """Return whether a job has ended at an unknown time."""
    return row["status"] in TERMINAL and end(row) is None


def end(row: Row) -> datetime | None:
    """Return when a terminal job ended."""
    instants: list[datetime | None] = [row.get(c) for c in ("completed_at", "expired_at", "last_updated_at")]
    return next((at for at in instants if at is not None), None) if row["status"] in TERMINAL else None


# Rates and reasons


@given(rows=histories(most=60), grain=st.sampled_from(("hour", "day", "month")))
@settings(max_examples=15)
def test_failure_rates_are_wilsons(rows: list[Row], grain: str) -> None:
    """Counts equal Polars', rate and interval statsmodels', to 1e-9; without finished jobs there is no rate."""
    every = {"hour": "1h", "day": "1d", "month": "1mo"}[grain]
    status, reason = pl.col("status"), pl.col("failure_reason_type")
    failed = status == "failed"
    gone = failed & ((reason == "job_expired") | (reason.is_null() & pl.col("expired_at").is_not_null()))
    counted = (
        frame(rows)
        .group_by(
            pl.col("created_at").dt.truncate(every).dt.replace_time_zone(None).alias("period"), "company_id"
        )
        .agg(
            pl.len().cast(pl.Int64).alias("jobs"),
            status.is_in(TERMINAL).sum().cast(pl.Int64).alias("finished"),
            failed.sum().cast(pl.Int64).alias("failed"),
            gone.fill_null(value=False).sum().cast(pl.Int64).alias("expired"),
            (status == "completed_with_errors").sum().cast(pl.Int64).alias("with_errors"),
            (~status.is_in(TERMINAL)).sum().cast(pl.Int64).alias("still_open"),
        )
        .sort("period", "company_id")
    )
    rates = ask("FROM failure_rates($g, fill := FALSE)", rows, g=grain)
    assert_frame_equal(rates.select(counted.columns), counted)
    for row in rates.iter_rows(named=True):
        if row["finished"]:
            low, high = proportion.proportion_confint(row["failed"], row["finished"], method="wilson")
            expected: tuple[Any, ...] = (row["failed"] / row["finished"], low, high)
            assert (row["rate"], row["low"], row["high"]) == close(expected, abs=1e-9)
            assert 0 <= row["low"] <= row["rate"] <= row["high"] <= 1
        else:
            assert (row["rate"], row["low"], row["high"]) == (None, None, None)


@given(rows=histories(most=60))
@settings(max_examples=12)
def test_failure_reasons_add_up(rows: list[Row]) -> None:
    """Each reason has one row, and both shares have Wilson's interval."""
    reasons = ask("FROM failure_reasons('all', per_company := FALSE)", rows)
    failed = [row for row in rows if row["status"] == "failed"]
    words = Counter(
        row["failure_reason_type"] or ("job_expired" if row.get("expired_at") else "not_given")
        for row in failed
    )
    assert dict(reasons.select("reason", "jobs").iter_rows()) == words
    assert reasons["jobs"].is_sorted(descending=True)
    finished = sum(row["status"] in TERMINAL for row in rows)
    for row in reasons.iter_rows(named=True):
        assert (row["failed"], row["finished"]) == (len(failed), finished)
        for rate, whole in (("share", len(failed)), ("rate", finished)):
            low, high = proportion.proportion_confint(row["jobs"], whole, method="wilson")
            found = (row[rate], row[f"{rate}_low"], row[f"{rate}_high"])
            assert found == close((row["jobs"] / whole, low, high), abs=1e-9)


# Durations


@given(rows=histories(most=60))
@settings(max_examples=15)
def test_duration_stats_are_exact(rows: list[Row]) -> None:
    """n, mean, percentiles and maximum equal numpy's and Polars' to 1e-9 for all durations."""
    stats = ask("FROM duration_stats('all')", rows)
    assert set(stats["company_id"]) == {row["company_id"] for row in rows}
    for row in stats.iter_rows(named=True):
        mine = [other for other in rows if other["company_id"] == row["company_id"]]
        values = [v for v in (duration(other, row["duration"]) for other in mine) if v is not None]
        assert row["n"] == len(values)
        figures = [row[name] for name in ("mean", "p50", "p90", "p95", "p99", "max")]
        if values:
            quantiles = np.quantile(values, [0.5, 0.9, 0.95, 0.99])
            assert figures == close([np.mean(values), *quantiles, max(values)], abs=1e-9)
            others = [pl.Series(values).quantile(q, "linear") for q in (0.5, 0.9, 0.95, 0.99)]
            assert figures[1:5] == close(others, abs=1e-9)
        else:
            assert figures == [None] * 6
        running = [other for other in mine if other["status"] not in TERMINAL]
        if row["duration"] == "queue":
            running = [other for other in running if other["started_at"] is None]
        assert row["still_running"] == len(running)


def duration(row: Row, which: str) -> float | None:
    """Return one of a job's three durations, seconds."""
    begin = row["started_at"] if which == "run" else row["created_at"]
    finish = row["started_at"] if which == "queue" else end(row)
    return None if begin is None or finish is None else float((finish - begin).total_seconds())


@given(rows=histories(most=60), step=st.sampled_from((0, 1, 30)))
@settings(max_examples=20)
def test_survival_is_kaplan_meiers(rows: list[Row], step: int) -> None:
    """Curve, numbers at risk and log-log band equal lifelines' to 1e-9 at every row and step."""
    as_of = START + timedelta(seconds=3600)
    curve = ask("FROM survival(per_company := FALSE, step := $s)", rows, as_of, s=step)
    lasted = [(span, row["status"] in TERMINAL) for row in rows if (span := age(row, as_of)) is not None]
    if not lasted:
        assert curve.height == 0
        return
    spans, ended = zip(*lasted, strict=True)
    fitter = lifelines.KaplanMeierFitter().fit(spans, ended)
    times = list(fitter.survival_function_.index)
    band = fitter.confidence_interval_.to_numpy()
    assert curve["seconds"][0] == 0
    assert curve["seconds"].is_unique().all()
    assert curve["ended"].sum() == sum(ended)
    assert curve["censored"].sum() == len(ended) - sum(ended)
    assert curve["at_risk"].to_list() == [
        len(spans) - n for n in (curve["ended"] + curve["censored"]).cum_sum().shift(1, fill_value=0)
    ]
    if step == 0:
        assert curve["seconds"].to_list() == times
    for row in curve.iter_rows(named=True):
        place = bisect_right(times, row["seconds"]) - 1
        survival = float(fitter.survival_function_.iloc[place, 0])
        assert row["survival"] == close(survival, abs=1e-9)
        if survival == 0:
            assert (row["low"], row["high"]) == (None, None)
        elif survival == 1:
            assert (row["low"], row["high"]) == (1, 1)
        else:
            assert (row["low"], row["high"]) == close(tuple(map(float, band[place])), abs=1e-9)


def age(row: Row, now: datetime) -> float | None:
    """Return how long a job has lasted, at least 0."""
    until = end(row) if row["status"] in TERMINAL else now
    return None if until is None else max(0.0, (until - row["created_at"]).total_seconds())


def test_survival_counts_open_jobs() -> None:
    """`survival` counts an open job as not done, which a plain percentile ignores."""
    rows = [job(n, completed_at=START + timedelta(hours=n, minutes=1)) for n in range(9)] + [
        job(9, "pending")
    ]
    curve = ask("FROM survival()", rows, START + timedelta(hours=33))
    assert curve.select("seconds", "at_risk", "survival").rows() == [
        (0, 10, 1),
        (60, 10, close(0.1)),
        (86400, 1, close(0.1)),
    ]
    assert curve["low"][1] < 0.1 < curve["high"][1]


# Throughput, recoveries, lists


@given(rows=histories(most=60))
@settings(max_examples=12)
def test_throughput_is_of_exported_jobs(rows: list[Row]) -> None:
    """Throughput counts only exported jobs with a known run time."""
    found = ask("FROM throughput('all')", rows)
    for row in found.iter_rows(named=True):
        mine = [other for other in rows if other["company_id"] == row["company_id"]]
        done = [other for other in mine if other["status"] in {"completed", "completed_with_errors"}]
        timed = [(d, other["number_of_items"]) for other in done if (d := duration(other, "run")) is not None]
        spent = sum(d for d, _ in timed)
        assert row["items"] == sum(other["number_of_items"] for other in mine)
        assert row["exported_items"] == sum(other["number_of_items"] for other in done)
        assert (row["exported_jobs"], row["timed_jobs"]) == (len(done), len(timed))
        assert row["run_seconds"] == close(spent, abs=1e-9)
        speed = sum(n for _, n in timed) / spent if spent > 0 else None
        assert row["items_per_run_second"] == (None if speed is None else close(speed, abs=1e-9))
        assert row["still_open"] == len(mine) - len([other for other in mine if other["status"] in TERMINAL])


@given(rows=histories())
@settings(max_examples=15)
def test_recoveries_find_the_next_success(rows: list[Row]) -> None:
    """For each failed job the next success of the company is found, as a linear search finds it."""
    expected = []
    for company in (A, B):
        mine = [(at, row["id"], row) for row in rows if row["company_id"] == company and (at := end(row))]
        mine.sort(key=lambda each: each[:2])
        for place, (at, name, row) in enumerate(mine):
            if row["status"] != "failed":
                continue
            later = mine[place + 1 :]
            wins = [n for n, (_, _, other) in enumerate(later) if other["status"] != "failed"]
            success = later[wins[0]] if wins else None
            expected.append(
                {
                    "failed_id": name,
                    "is_first": place == 0 or mine[place - 1][2]["status"] != "failed",
                    "recovered_id": success and success[1],
                    "attempts": wins[0] + 1 if wins else len(later),
                    "seconds": ((success[0] if success else NOW) - at).total_seconds(),
                    "is_censored": success is None,
                }
            )
    found = ask("FROM recoveries()", rows, NOW)
    assert found["failed_at"].is_sorted(descending=True)
    schema = {
        name: found.schema[name]
        for name in ("failed_id", "is_first", "recovered_id", "attempts", "seconds", "is_censored")
    }
    assert_frame_equal(
        found.select(schema.keys()).sort("failed_id"), pl.DataFrame(expected, schema).sort("failed_id")
    )


def test_stuck_jobs_are_overdue_at_the_instant() -> None:
    """Jobs are stuck that are open longer than expires_in after their last action, to the second."""
    rows = [
        job(0, "in_progress"),
        job(1, "pending", last_updated_at=None, started_at=None),
        job(2, "archived", expires_in=60),
        job(3, "failed"),
        job(4, "completed"),
        job(5, "pending", company_id=B),
    ]
    updated = START + timedelta(minutes=3)
    due = ask("FROM stuck_jobs(as_of := $t)", rows, NOW, t=updated + timedelta(hours=1))
    assert due.height == 0
    late = ask("FROM stuck_jobs(as_of := $t)", rows, NOW, t=updated + timedelta(hours=1, seconds=1))
    assert late.select("id", "overdue_seconds", "age_seconds", "waiting").rows() == [
        (rows[0]["id"], 1, 3781, 1)
    ]
    now = ask("FROM stuck_jobs()", rows, START + timedelta(hours=6, minutes=3))
    assert now["id"].to_list() == [rows[n]["id"] for n in (0, 1, 2)]
    assert now["overdue_seconds"].to_list() == [5 * 3600, 4 * 3600 + 180, 4 * 3600 - 60]
    assert now["waiting"].to_list() == [2, 1, 0]
    assert now["last_action_at"].to_list() == [
        updated,
        START + timedelta(hours=1),
        updated + timedelta(hours=2),
    ]


@given(
    rows=histories(most=60),
    which=st.sampled_from(("total", "queue", "run")),
    q=st.sampled_from((0, 0.5, 0.95, 1)),
)
@settings(max_examples=15)
def test_slow_jobs_are_above_their_companys_quantile(rows: list[Row], which: str, q: float) -> None:
    """Slow are exactly the jobs above numpy's quantile, open ones by their age."""
    expected = {}
    for company in (A, B):
        mine = [row for row in rows if row["company_id"] == company]
        known = [v for v in (duration(row, which) for row in mine) if v is not None]
        for row in mine:
            lasted = duration(row, which)
            if lasted is None and row["status"] not in TERMINAL:
                begin = row["started_at"] if which == "run" else row["created_at"]
                lasted = None if begin is None else (NOW - begin).total_seconds()
            if known and lasted is not None and lasted > (limit := float(np.quantile(known, q))):
                expected[row["id"]] = (lasted, limit, len(known), duration(row, which) is None)
    found = ask("FROM slow_jobs($q, $d)", rows, NOW, q=q, d=which)
    for row in found.iter_rows(named=True):
        lasted, limit, n, open_yet = expected.pop(row["id"])
        assert (row["seconds"], row["limit_seconds"]) == close((lasted, limit), abs=1e-9)
        assert (row["n"], row["is_censored"]) == (n, open_yet)
        assert row["times"] == (close(lasted / limit) if limit > 0 else None)
    assert expected == {}


def lasting(seconds: Iterable[float], company: str = A) -> list[Row]:
    """Return jobs of a company that took these times from creation to end."""
    return [
        job(
            n,
            company_id=company,
            created_at=START,
            started_at=START,
            completed_at=START + timedelta(seconds=took),
        )
        | {"id": f"{company[7]}{n:035d}"}
        for n, took in enumerate(float(each) for each in seconds)
    ]


@pytest.mark.parametrize("spread", mostly_slow([0.0, 1.0, 0.2, 2.0], quick=2))
def test_slow_jobs_lists_what_is_unusual(spread: float) -> None:
    """Without a quantile, a company without unusual jobs has no rows, and an unusual job is found among few others."""
    luck = np.random.default_rng(15)
    usual = [np.exp(luck.normal(4, spread, size)).clip(0, 60_000) for size in (20_000, 5000)]
    assert ask("FROM slow_jobs()", lasting(usual[0], A) + lasting(usual[1], B), NOW).height <= 1
    few = usual[0][:40]
    limit = np.exp(4 + spread * 1.349 * 6)  # twice as far above the median as the limit, and more
    found = ask("FROM slow_jobs()", lasting([*few, max(limit, 150)]), NOW)
    assert found["id"].to_list()[:1] == [lasting(range(41))[-1]["id"]]
    assert found.height <= 2


@given(
    rows=histories(most=120),
    which=st.sampled_from(("total", "queue", "run")),
)
@settings(max_examples=15)
def test_slow_jobs_are_beyond_the_outer_fence(rows: list[Row], which: str) -> None:
    """The limit is Tukey's outer fence of the logarithms, from numpy's quartiles, and needs 20 known durations."""
    found = ask("FROM slow_jobs(duration := $d)", rows, NOW, d=which)
    for company in (A, B):
        ended = (duration(row, which) for row in rows if row["company_id"] == company)
        known = [seconds for seconds in ended if seconds is not None]
        mine = found.filter(pl.col("company_id") == company)
        if len(known) < 20:
            assert mine.height == 0
            continue
        quartiles = np.maximum(np.quantile(known, [0.25, 0.75]), 1)
        limit = quartiles[1] * max(1.25, quartiles[1] / quartiles[0]) ** 3
        assert mine.filter(~pl.col("is_censored")).height == sum(seconds > limit for seconds in known)
        assert mine["limit_seconds"].to_list() == close([limit] * mine.height)


def test_slow_jobs_refuse_what_they_do_not_know() -> None:
    """An unknown duration or quantile is an error."""
    for arguments, said in (
        ("duration := 'sleep'", "use total, queue or run"),
        ("1.5", "use a quantile from 0 to 1"),
    ):
        with pytest.raises(UsageError, match=said):
            ask(f"FROM slow_jobs({arguments})", [job(0)])
