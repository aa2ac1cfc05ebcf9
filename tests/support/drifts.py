"""Companies whose failure rate stays, or shifts for good, and what `shifts` and `incidents` say about them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final

import duckdb
import polars as pl
from rhythms import name_company
from warehouse_jobs import frame, job, rows_of, warehouse

from pleo_extract.answers.statement import bind_parameters, statements

__all__ = [
    "BEGIN",
    "CLUSTER_SIZE",
    "STEADY",
    "count_alarms",
    "draw_days",
    "find_shift_days",
    "judge_counts",
    "judge_jobs",
    "make_days",
    "steady_rates",
]

np: Any = import_module("numpy")
stats: Any = import_module("scipy.stats")

BEGIN: Final = datetime(2025, 1, 1, tzinfo=UTC)
STEADY: Final = ("independent", "clustered", "month-end", "Mondays")
"""Worlds in which nothing changes for good: exports fail independently; days differ more than that, such as by outages; twice
as many fail on the last three days of a month; twice as many fail on Mondays."""
CLUSTER_SIZE: Final = 38.0
"""Sum of the two parameters of the beta distribution from which the rates of days with clusters come."""
CHARTED: Final = ["company_id", "period", "evidence", "is_shift", "began"]
NAMED: Final = ["company_id", "period", "rate", "usual_rate", "sigmas"]
Judged = tuple[pl.DataFrame, pl.DataFrame]
Judge = Callable[[Any, int], Judged]
"""How to ask `shifts`, with `every_period`, and `incidents` about the failures of each company and day: the columns
`CHARTED` and `NAMED` of their rows."""

_POINTS: Final = """points AS (
    SELECT d.*, CAST($1 AS DOUBLE) AS n, CAST(d.failed AS DOUBLE) AS k, 0 AS vanished FROM dated AS d
)"""
_REASONS: Final = """counts_by_reason AS (
    SELECT d.*, 'not_given' AS reason, d.failed AS finished, 0 AS still_open, 0 AS vanished FROM dated AS d
    UNION ALL
    SELECT d.*, NULL AS reason, $1 - d.failed AS finished, 0 AS still_open, 0 AS vanished FROM dated AS d
)"""
_COUNTED: Final = """WITH companies AS (SELECT '' AS id, TIMESTAMPTZ '2030-01-01' AS now),
company_clocks AS (
    SELECT '*' AS company, FALSE AS is_open, 9e18::BIGINT AS now_ordinal, 0 AS since_ordinal, 0 AS until_ordinal
),
dated AS (
    SELECT
        c.company,
        c.failed,
        TIMESTAMP '2025-01-01' + c.day * INTERVAL 1 DAY AS period,
        NULL::BIGINT AS hour_us,
        epoch_us(TIMESTAMP '2025-01-01' + c.day * INTERVAL 1 DAY) AS ordinal
    FROM counts AS c
),
{},
"""
"""The relations that both answers read, and the first of their own, with the counts in place of jobs."""


def draw_days(luck: Any, rates: Any, daily: int) -> Any:
    """Return how many of `daily` exports fail, for an array of rates: one row per company, one column per day."""
    return luck.binomial(daily, rates)


def make_days(failed: Any, daily: int) -> pl.DataFrame:
    """Return jobs as a frame of the lake: of each company and day `daily` exports, of which the first `failed` failed."""
    companies, days = failed.shape
    no, day, nth = (each.ravel() for each in np.mgrid[0:companies, 0:days, 0:daily])
    columns = pl.DataFrame({"no": no, "day": day, "nth": nth, "failed": nth < failed[no, day]}).select(
        pl.int_range(pl.len()).cast(pl.String).str.zfill(36).alias("id"),
        pl.col("no").replace_strict({n: name_company(n) for n in range(companies)}).alias("company_id"),
        pl.when("failed").then(pl.lit("failed")).otherwise(pl.lit("completed")).alias("status"),
        (pl.lit(BEGIN) + pl.duration(days="day", minutes="nth")).alias("created_at"),
        pl.col("nth").cast(pl.Int64).alias("number_of_items"),
    )
    usual = frame([job(0, started_at=None, completed_at=None, last_updated_at=None)])
    return columns.join(usual.drop(columns.columns), how="cross").select(usual.columns)


def steady_rates(luck: Any, world: str, rate: float, companies: int, days: int = 400) -> Any:
    """Return the rate of each company and day, in a world of `STEADY` in which nothing changes for good."""
    rates = np.full((companies, days), rate)
    dates = [BEGIN + timedelta(days=day) for day in range(days)]
    if world == "clustered":  # beta-binomial: the variance between days is twice that of 40 independent jobs
        return luck.beta(rate * CLUSTER_SIZE, (1 - rate) * CLUSTER_SIZE, rates.shape)
    if world == "month-end":
        rates[:, [(date + timedelta(days=3)).month != date.month for date in dates]] *= 2
    if world == "Mondays":
        rates[:, [date.weekday() == 0 for date in dates]] *= 2
    return rates


def judge_jobs(failed: Any, daily: int) -> Judged:
    """Return the chart of `shifts` and the rows of `incidents` for a lake of these jobs."""
    with warehouse(make_days(failed, daily)) as con:
        return (
            rows_of(con, "FROM shifts('day', every_period := TRUE)").select(CHARTED),
            rows_of(con, "FROM incidents('day')").select(NAMED),
        )


def judge_counts(failed: Any, daily: int) -> Judged:
    """Return what `judge_jobs` returns, from the counts alone: millions of days in the time that it takes for thousands.

    It runs the text of both answers from where they have counted the jobs of each period. test_warehouse_shifts.py checks
    that the rows are those of `judge_jobs`.
    """
    companies, days = failed.shape
    counts = pl.DataFrame(
        {
            "company": np.repeat([name_company(n) for n in range(companies)], days),
            "day": np.tile(np.arange(days), companies),
            "failed": failed.ravel(),
        }
    )
    values = {"grain": "'day'", "tz": "'UTC'", "per_company": "TRUE", "at_least": "10"}
    charts = statements()["shifts"].query
    charts = _COUNTED.format(_POINTS) + charts[charts.index("baselines AS (") :]
    incidents = statements()["incidents"].query
    incidents = _COUNTED.format(_REASONS) + incidents[incidents.index("counts_by_period AS (") :]
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("counts", counts)
        charted = con.sql(bind_parameters(charts, values | {"every_period": "TRUE"}), params=[daily]).pl()
        named = con.sql(bind_parameters(incidents, values | {"every_period": "FALSE"}), params=[daily]).pl()
    return charted.select(CHARTED), named.select(NAMED)


def count_alarms(
    luck: Any,
    *,
    daily: int,
    rate: float,
    companies: int,
    world: str = "independent",
    judge: Judge = judge_jobs,
) -> dict[str, int]:
    """Return how often chance raises an alarm in companies whose rate stays.

    `shifts` counts once for each begin of a shift, however many periods it lasts; `incidents` counts each period. `alarms`
    are the periods in which either begins one. `least` is how many incidents an exact limit would report that knows the
    usual rate, and how much days differ in clusters: failures are whole numbers, so it cannot allow exactly the chance of
    3.2 standard deviations, one in 1,455.
    """
    failed = draw_days(luck, steady_rates(luck, world, rate, companies), daily)
    charted, incidents = judge(failed, daily)
    shifts = charted.filter("is_shift").group_by("company_id", "began").agg(pl.col("period").min())
    days = ["company_id", "period"]
    alarms = pl.concat([shifts.select(days), incidents.select(days)]).unique().height
    usual = stats.binom(daily, rate)
    if world == "clustered":
        usual = stats.betabinom(daily, rate * CLUSTER_SIZE, (1 - rate) * CLUSTER_SIZE)
    least = int((usual.sf(failed[:, 8:] - 1) < stats.norm.sf(3.2)).sum())
    return {
        "judged": charted.height,
        "shifts": shifts.height,
        "incidents": incidents.height,
        "alarms": alarms,
        "least": least,
    }


def find_shift_days(luck: Any, *, companies: int, judge: Judge = judge_jobs) -> tuple[Any, Any]:
    """Return the day after a shift from 4 % to 8 % at 40 exports a day on which `shifts` and `incidents` notice it.

    The shift comes after 220 days. Without notice within 100 days the day is 999.
    """
    rates = np.concatenate([np.full((companies, 220), 0.04), np.full((companies, 100), 0.08)], axis=1)
    charted, incidents = judge(draw_days(luck, rates, 40), 40)
    found = []
    for rows in (charted.filter("is_shift"), incidents):
        days = rows.select(
            "company_id", day=(pl.col("period") - BEGIN.replace(tzinfo=None)).dt.total_days() - 219
        )
        first = dict(days.filter(pl.col("day") > 0).group_by("company_id").min().iter_rows())
        found.append(np.array([first.get(name_company(n), 999) for n in range(companies)]))
    return found[0], found[1]
