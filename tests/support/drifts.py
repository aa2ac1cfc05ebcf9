"""Companies whose failure rate stays, or shifts for good, and what `shifts` and `incidents` say about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final

import polars as pl
from rhythms import name_company
from warehouse_jobs import frame, job, rows_of, warehouse

__all__ = [
    "BEGIN",
    "CLUSTER_SIZE",
    "STEADY",
    "count_alarms",
    "draw_days",
    "find_shift_days",
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


def count_alarms(
    luck: Any, *, daily: int, rate: float, companies: int, world: str = "independent"
) -> dict[str, int]:
    """Return how often chance raises an alarm in companies whose rate stays.

    `shifts` counts once for each begin of a shift, however many periods it lasts; `incidents` counts each period. `alarms`
    are the periods in which either begins one. `least` is how many incidents an exact limit would report that knows the
    usual rate, and how much days differ in clusters: failures are whole numbers, so it cannot allow just one in 740.
    """
    failed = draw_days(luck, steady_rates(luck, world, rate, companies), daily)
    jobs = make_days(failed, daily)
    with warehouse(jobs) as con:
        judged = rows_of(con, "SELECT count(*) AS n FROM shifts('day', every_period := TRUE)").item()
        shifts = rows_of(
            con, "SELECT company_id, min(period) AS period FROM shifts('day') GROUP BY company_id, began"
        )
        incidents = rows_of(con, "SELECT company_id, period FROM incidents('day')")
    alarms = pl.concat([shifts.select(incidents.columns), incidents]).unique().height
    usual = stats.binom(daily, rate)
    if world == "clustered":
        usual = stats.betabinom(daily, rate * CLUSTER_SIZE, (1 - rate) * CLUSTER_SIZE)
    least = int((usual.sf(failed[:, 8:] - 1) < stats.norm.sf(3)).sum())
    return {
        "judged": judged,
        "shifts": shifts.height,
        "incidents": incidents.height,
        "alarms": alarms,
        "least": least,
    }


def find_shift_days(luck: Any, *, companies: int) -> tuple[Any, Any]:
    """Return the day after a shift from 4 % to 8 % at 40 exports a day on which `shifts` and `incidents` notice it.

    The shift comes after 220 days. Without notice within 100 days the day is 999.
    """
    rates = np.concatenate([np.full((companies, 220), 0.04), np.full((companies, 100), 0.08)], axis=1)
    jobs = make_days(draw_days(luck, rates, 40), 40)
    found = []
    with warehouse(jobs) as con:
        for macro in ("shifts", "incidents"):
            rows = rows_of(con, f"FROM {macro}('day')").with_columns(
                day=(pl.col("period") - BEGIN.replace(tzinfo=None)).dt.total_days() - 219
            )
            first = dict(
                rows.filter(pl.col("day") > 0).group_by("company_id").agg(pl.col("day").min()).iter_rows()
            )
            found.append(np.array([first.get(name_company(n), 999) for n in range(companies)]))
    return found[0], found[1]
