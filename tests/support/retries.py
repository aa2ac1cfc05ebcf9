"""Exports of which it is known which job repeats which, and companies whose true rates are known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from random import Random
from typing import Any, Final

import polars as pl
from warehouse_jobs import frame, job, recorded, rows_of, warehouse

from pleo_extract.sandbox.life import SECOND, Job, to_micros
from pleo_extract.sandbox.population import CompanyQueue, QueuedJob, draw_companies, draw_times

__all__ = [
    "WORLDS",
    "Retries",
    "World",
    "count_wrong_links",
    "draw_retries",
    "draw_world",
    "measure_coverage",
]

np: Any = import_module("numpy")

BEGIN: Final = datetime(2026, 1, 5, tzinfo=UTC)
APRIL: Final = datetime(2026, 4, 1, tzinfo=UTC)


@dataclass(slots=True)
class RecordingQueue(CompanyQueue):
    """A company's queue that records which job each retry repeats.

    Attributes:
        repeated: the number of a retry in the queue, and the id of the job that it repeats.
        before: the id of each retry, and the id of the job that it repeats.
    """

    repeated: dict[int, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)

    def _draw_job(self, queued: QueuedJob) -> Job:
        job = CompanyQueue._draw_job(self, queued)
        if queued.number in self.repeated:
            self.before[job.id] = self.repeated[queued.number]
        return job

    def _retry(self, job: Job, queued: QueuedJob) -> None:
        added = self.added
        CompanyQueue._retry(self, job, queued)
        if self.added > added:
            self.repeated[self.added] = job.id


@dataclass(frozen=True, slots=True)
class Retries:
    """Jobs, and which of them truly repeat another.

    Attributes:
        rows: the records of the API.
        first: the id of the first attempt of each job's export, by the job's id.
        number: the number of each attempt, by the job's id.
    """

    rows: list[dict[str, Any]]
    first: dict[str, str]
    number: dict[str, int]


def draw_retries(seed: int, *, days: int = 60, daily: float = 60, items: float | None = None) -> Retries:
    """Draw the jobs of five companies, which people retry after a failure: 60 %, after 15 minutes on average.

    For a tenth of the time the accounting systems of some companies cannot be reached. `items` is the median number of
    entries of an export, by default that of the sandbox: about 20.
    """
    begin = to_micros(BEGIN)
    end = to_micros(BEGIN + timedelta(days=days))
    outage = (begin + (end - begin) * 6 // 10, begin + (end - begin) * 7 // 10)
    rows: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    number: dict[str, int] = {}
    for drawn in draw_companies(5, seed=seed, daily=daily):
        company = replace(drawn, items=items or drawn.items)
        queue = RecordingQueue(company, seed, outage)
        luck = Random(f"{seed} {company.id}")
        for created in sorted(draw_times(luck, begin, end, round(daily * days * company.share))):
            queue.add(created, latest=end)
        for each in queue.run(end):
            before = queue.before.get(each.id)
            first[each.id] = first[before] if before else each.id
            number[each.id] = number[before] + 1 if before else 1
            rows.append(each.record(end + 86_400 * SECOND))
    return Retries(rows, first, number)


def count_wrong_links(seed: int, *, items: float | None = None) -> dict[str, int]:
    """Return how many links of `attempts` there are, how many are wrong, and how many retries there are and are missed."""
    truth = draw_retries(seed, items=items)
    known = pl.DataFrame({"id": list(truth.first), "first": list(truth.first.values())})
    with warehouse(recorded(truth.rows)) as con:
        found = rows_of(con, "FROM attempts").join(known, on="id")
    linked = found.filter(~pl.col("is_first"))
    retried = found.filter(pl.col("id") != pl.col("first"))
    return {
        "jobs": found.height,
        "links": linked.height,
        "wrong": linked.filter(pl.col("export_id") != pl.col("first")).height,
        "retries": retried.height,
        "missed": retried.filter("is_first").height,
    }


@dataclass(frozen=True, slots=True)
class World:
    """Jobs of many companies with one rate, and how they fail.

    Attributes:
        failing: the chance that a first attempt fails.
        failing_again: the chance that a retry fails.
        retried: the chance that a failed attempt is tried again.
        outages: the chance that a day has an outage, in which seven of ten first attempts of three hours fail.
    """

    failing: float = 0.05
    failing_again: float = 0.05
    retried: float = 0.0
    outages: float = 0.0


WORLDS: Final = {
    "independent": World(),
    "failed exports tried again, twice on average": World(failing_again=0.6, retried=0.8),
    "outages of three hours, on one day of ten": World(outages=0.1),
    "both": World(failing_again=0.6, retried=0.8, outages=0.1),
}
DAILY: Final = 40


def draw_attempts(luck: Any, world: World, *, companies: int, days: int) -> pl.DataFrame:
    """Return the attempts of companies with 40 exports a day between 6:00 and 18:00.

    Columns: `company` and `day` as numbers, `at` as seconds after midnight, `items`, `failed`, and `attempt` from 0.
    """
    count = companies * days * DAILY
    frame_of = np.repeat(np.arange(companies * days), DAILY)
    at = luck.uniform(6 * 3600, 18 * 3600, count)
    began = np.where(luck.random(companies * days) < world.outages, luck.uniform(6, 15, companies * days), 99)
    since_outage = at / 3600 - began[frame_of]
    is_out = (since_outage > 0) & (since_outage < 3)
    failed = luck.random(count) < np.where(is_out, 0.7, world.failing)
    items = luck.integers(1, 2_000, count)
    pieces = []
    for attempt in range(20):
        pieces.append(
            pl.DataFrame(
                {
                    "company": frame_of // days,
                    "day": frame_of % days,
                    "at": at,
                    "items": items,
                    "failed": failed,
                }
            ).with_columns(attempt=pl.lit(attempt))
        )
        again = failed & (luck.random(len(failed)) < world.retried)
        frame_of, at, items = (
            frame_of[again],
            at[again] + 90 + luck.exponential(300, again.sum()),
            items[again],
        )
        failed = luck.random(again.sum()) < world.failing_again
    return pl.concat(pieces)


def draw_world(luck: Any, world: World, *, companies: int, days: int = 30) -> pl.DataFrame:
    """Return the jobs of `draw_attempts`, created in April 2026, as a frame of the lake."""
    columns = draw_attempts(luck, world, companies=companies, days=days)
    created = pl.lit(APRIL) + pl.duration(days="day", microseconds=(pl.col("at") * 1e6).cast(pl.Int64))
    rows = columns.select(
        pl.int_range(pl.len()).cast(pl.String).str.zfill(36).alias("id"),
        pl.format("{}-0000-4000-8000-000000000000", pl.col("company").cast(pl.String).str.zfill(8)).alias(
            "company_id"
        ),
        pl.when("failed").then(pl.lit("failed")).otherwise(pl.lit("completed")).alias("status"),
        created.alias("created_at"),
        (created + pl.duration(seconds=60)).alias("last_updated_at"),
        pl.col("items").alias("number_of_items"),
    )
    usual = frame([job(0, started_at=None, completed_at=None)])
    return rows.join(usual.drop(rows.columns), how="cross").select(usual.columns)


def measure_coverage(luck: Any, world: World, *, companies: int) -> dict[str, float]:
    """Return how often the intervals of a month contain the true rate, which 3,000 companies show."""
    many = draw_attempts(luck, world, companies=3_000, days=30)
    rate = many.select(pl.col("failed").mean()).item()
    passed = 1 - many.filter(attempt=0).select(pl.col("failed").mean()).item()
    with warehouse(draw_world(luck, world, companies=companies)) as con:
        rates = rows_of(con, "FROM failure_rates('month')")
        first = rows_of(con, "FROM first_pass('month')")
    return {
        "companies": companies,
        "wilson": rates.select(pl.lit(rate).is_between("low", "high").mean()).item(),
        "clustered": rates.select(pl.lit(rate).is_between("clustered_low", "clustered_high").mean()).item(),
        "first_pass": first.select(pl.lit(passed).is_between("low", "high").mean()).item(),
        "design_effect": rates["design_effect"].median(),
    }
