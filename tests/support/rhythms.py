"""Companies whose rhythm of exports is known, and how soon and how often `silences` names them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import polars as pl
from warehouse_jobs import frame, job, rows_of

from pleo_extract.answers import SnapshotFacts, open_warehouse

__all__ = [
    "EPOCH",
    "RHYTHMS",
    "ask_silences",
    "count_false_alarms",
    "draw_instants",
    "find_delays",
    "name_company",
    "to_instant",
]

np: Any = import_module("numpy")

EPOCH: Final = datetime(2025, 9, 1, tzinfo=UTC)
"""A Monday: when all histories begin."""
OFFICE: Final = (0, 0, 0, 0, 0, 0, 1, 5, 12, 14, 14, 12, 7, 11, 13, 12, 9, 4, 1, 0, 0, 0, 0, 0)
FLAT: Final = (1,) * 24
NIGHTLY: Final = (0, 0, 1, *(0,) * 21)
RHYTHMS: Final[dict[str, tuple[float, tuple[int, ...], float, float, float]]] = {
    "40 a day, in office hours": (40, OFFICE, 0.12, 1, 0),
    "10 a day, three times as many at month-end": (10, OFFICE, 0.12, 3, 0),
    "10 a day, failed ones tried again": (10, OFFICE, 0.12, 1, 0.2),
    "2 a day, in office hours": (2, OFFICE, 0.05, 1, 0),
    "2 a day, at any time": (2, FLAT, 1, 1, 0),
    "about one, every night": (1, NIGHTLY, 1, 1, 0),
}
"""Rhythms: jobs on a workday, weights of the hours, weekends and month-ends against workdays, share of retried jobs."""


def name_company(number: int) -> str:
    """Return the id of a company."""
    return f"{number:08d}-0000-4000-8000-000000000000"


def weigh_hours(rhythm: str, days: int) -> Any:
    """Return how many jobs the rhythm has on average in each hour after EPOCH, without retries."""
    daily, hours, weekend, month_end, _ = RHYTHMS[rhythm]
    dates = [EPOCH + timedelta(days=n) for n in range(days)]
    ends = np.array([each.day <= 3 or (each + timedelta(days=2)).month != each.month for each in dates])
    weights = np.array([weekend if each.weekday() >= 5 else 1.0 for each in dates])
    return np.outer(
        daily * np.where(ends, weights * month_end, weights), np.array(hours) / sum(hours)
    ).ravel()


def draw_instants(luck: Any, rhythm: str, days: int) -> Any:
    """Draw the created_at of a company's jobs, sorted: whole seconds after EPOCH, over `days` days.

    Jobs come independently of each other, with the intensity of the rhythm; a share of them is tried again within
    minutes, up to five times.
    """
    by_hour, retried = weigh_hours(rhythm, days), RHYTHMS[rhythm][-1]
    counts = luck.poisson(by_hour) if rhythm != "about one, every night" else (by_hour > 0).astype(int)
    starts = np.repeat(np.arange(len(counts)) * 3600.0, counts)
    found = [starts + luck.uniform(0, 3600, len(starts))]
    again = found[0]
    for _ in range(5):
        again = again[luck.random(len(again)) < retried]
        again = again + 60 + luck.exponential(900, len(again))
        found.append(again)
    return np.floor(np.sort(np.concatenate(found)))


def make_jobs(companies: dict[str, Any]) -> pl.DataFrame:
    """Return completed jobs of these companies, as a frame of the lake; of each the seconds after EPOCH are given."""
    columns = pl.concat(
        pl.DataFrame({"company_id": company, "created_at": EPOCH.timestamp() * 1e6 + times * 1e6})
        for company, times in companies.items()
    ).select(
        pl.int_range(pl.len()).cast(pl.String).str.zfill(36).alias("id"),
        "company_id",
        pl.from_epoch(pl.col("created_at").cast(pl.Int64), time_unit="us").dt.replace_time_zone("UTC"),
    )
    usual = frame([job(0, started_at=None, completed_at=None, last_updated_at=None)])
    return columns.join(usual.drop(columns.columns), how="cross").select(usual.columns)


def ask_silences(companies: dict[str, Any], nows: dict[str, float], **arguments: object) -> pl.DataFrame:
    """Return `silences` of these companies, each at its own now, in the order of the companies; all have a row."""
    facts = SnapshotFacts(EPOCH, nows={company: to_instant(now) for company, now in nows.items()})
    given = "".join(f", {name} := ${name}" for name in arguments)
    with TemporaryDirectory() as folder:
        file = Path(folder, "jobs.parquet")
        make_jobs(companies).write_parquet(file)
        with open_warehouse([file], facts=facts) as con:
            con.execute("SET threads = 1")  # so that the same numbers are added in the same order
            found = rows_of(con, f"FROM silences(every_company := TRUE{given})", **arguments)
    return pl.DataFrame({"company_id": list(companies)}).join(
        found, on="company_id", how="left", maintain_order="left"
    )


def to_instant(seconds: float) -> datetime:
    """Return the instant that is this number of seconds after EPOCH."""
    return EPOCH + timedelta(seconds=float(seconds))


def find_delays(luck: Any, rhythm: str, count: int) -> pl.DataFrame:
    """Return when companies are named that send their last job at a random hour of a weekday, in their 28th week.

    Columns: `hours` from the last job until the company is named, by bisection to a few minutes, `expected_jobs` and
    `usual_jobs` then.
    """
    companies = {}
    for number in range(count):
        times = draw_instants(luck, rhythm, 28 * 7)
        weekdays = times[(times > 27 * 7 * 86_400) & (times < (27 * 7 + 5) * 86_400)]
        companies[name_company(number)] = times[times <= luck.choice(weekdays)]
    low, high = np.zeros(count), np.full(count, 45 * 24.0)
    while (high - low).max() > 0.1:
        middle = (low + high) / 2
        nows = {
            each: companies[each][-1] + 3600 * hours for each, hours in zip(companies, middle, strict=True)
        }
        is_named = ask_silences(companies, nows)["is_silent"].to_numpy()
        low, high = np.where(is_named, low, middle), np.where(is_named, middle, high)
    nows = {each: companies[each][-1] + 3600 * hours for each, hours in zip(companies, high, strict=True)}
    found = ask_silences(companies, nows)
    assert found["is_silent"].all()
    return found.select("expected_jobs", "usual_jobs", hours=pl.Series(high))


def count_false_alarms(luck: Any, rhythm: str, years: int) -> tuple[int, float]:
    """Return how many gaps are named at their end, of companies that never go silent, and in how many company years.

    Each company is judged in the half year after its first one. Only its four longest gaps are asked about, by the
    jobs that are truly expected in them; the others are shorter.
    """
    companies, nows = {}, {}
    for year in range(2 * years):
        times = draw_instants(luck, rhythm, 52 * 7)
        expected = count_expected(rhythm, times)
        later = np.flatnonzero(times[:-1] > 26 * 7 * 86_400)
        for rank, place in enumerate(later[np.argsort(np.diff(expected)[later])[-4:]]):
            name = name_company(10 * year + rank)
            companies[name], nows[name] = times[max(0, place - 20_000) : place + 1], times[place + 1] - 0.5
    return int(ask_silences(companies, nows)["is_silent"].sum()), years


def count_expected(rhythm: str, times: Any) -> Any:
    """Return the number of jobs that the rhythm has on average up to each of these instants."""
    by_hour = np.concatenate([[0.0], np.cumsum(weigh_hours(rhythm, 53 * 7))])
    return np.interp(times / 3600, np.arange(len(by_hour)), by_hour)
