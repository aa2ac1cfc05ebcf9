"""`split_by`: each value's rows are those of a lake with only its jobs; values compared with zoneinfo and Polars."""

from __future__ import annotations

from datetime import datetime, timedelta
from importlib import import_module
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from cases import mostly_slow
from clocks import in_zones
from hypothesis import given, settings
from polars.testing import assert_frame_equal
from warehouse_jobs import START, A, B, Row, ask, frame, histories, job, rows_of, warehouse

from pleo_extract.answers import statements
from pleo_extract.answers.statement import GRAINS, SPLITS

rates: Any = import_module("statsmodels.stats.rates")

NOW = START + timedelta(days=40)
SIZES = (0, 1, 9, 10, 99, 100, 999, 1000, 9_999, 10_000, 2**40)
DAYS = ("1 Monday", "2 Tuesday", "3 Wednesday", "4 Thursday", "5 Friday", "6 Saturday", "7 Sunday")
WITH_SPLITS = [s.name for s in statements().values() if any(p.name == "split_by" for p in s.parameters)]


def draw_jobs(luck: Random) -> list[Row]:
    """Return 120 jobs over 40 days, across the days on which clocks in Copenhagen and New York are set forward."""
    rows = []
    for number in range(120):
        status = luck.choice(("failed", "failed", "completed", "completed_with_errors", "in_progress"))
        created = START + timedelta(seconds=luck.randrange(40 * 86_400))
        ended = created + timedelta(seconds=luck.choice((1, 60, 60, 900.5)))
        rows.append(
            job(number, status, company_id=luck.choice((A, B)), created_at=created)
            | {"started_at": created, "completed_at": None, "last_updated_at": ended}
            | {"created_by": luck.choice((None, A, B)), "is_interactive": luck.random() < 0.5}
            | {"number_of_items": luck.choice(SIZES), "vendor_based_bookkeeping": luck.random() < 0.2}
        )
    return rows


def value_of(row: Row, split_by: str, zone: str) -> str | None:
    """Return the value by which a job is split."""
    clock: datetime = row["created_at"].astimezone(ZoneInfo(zone))
    if split_by == "number_of_items":
        digits = len(str(row["number_of_items"]))
        if row["number_of_items"] == 0 or digits > 4:
            return "10000+" if digits > 4 else "0"
        return f"{10 ** (digits - 1)}-{10**digits - 1}"
    if split_by == "created_by":
        found: str | None = row["created_by"]
        return found
    if split_by in ("is_interactive", "vendor_based_bookkeeping"):
        return "true" if row[split_by] else "false"
    day, hour = DAYS[clock.weekday()], f"{clock.hour:02}"
    return {"weekday": day, "hour": hour, "weekday_hour": f"{day} {hour}"}[split_by]


@in_zones()
@pytest.mark.parametrize("split_by", SPLITS)
@pytest.mark.parametrize("grains", mostly_slow([3, len(GRAINS)]))
def test_a_split_answers_as_a_lake_with_only_its_jobs(grains: int, split_by: str, zone: str) -> None:
    """Each value's rows are the answer about its jobs alone, at each grain; no job is in none or in two of them."""
    luck = Random(f"{split_by} {zone}")
    rows = draw_jobs(luck)
    values = {row["id"]: value_of(row, split_by, zone) for row in rows}
    # An export counts where it was first tried, so that it needs all its attempts.
    exports = dict(ask("SELECT id, export_id FROM attempts", rows, NOW).iter_rows())
    for grain in luck.sample(GRAINS, grains):
        call = f"(grain := $g, tz := $z, per_company := {luck.choice(('TRUE', 'FALSE'))}"
        macro, value = luck.choice(WITH_SPLITS), luck.choice(sorted(set(values.values()), key=str))
        owner = exports if macro == "first_pass" else dict(zip(values, values, strict=True))
        mine = [row for row in rows if values[owner[row["id"]]] == value]
        with warehouse(rows, NOW) as con, warehouse(mine, NOW) as only:
            found = rows_of(con, f"FROM {macro}{call}, split_by := $s)", g=grain, z=zone, s=split_by)
            expected = rows_of(only, f"FROM {macro}{call})", g=grain, z=zone)
        assert_frame_equal(
            found.filter(pl.col("split").eq_missing(pl.lit(value))).drop("split"), expected.drop("split")
        )
        assert set(found["split"]) <= set(values.values())
        if macro == "failure_rates":
            assert found["jobs"].sum() == len(rows)
            assert set(found["split"]) == set(values.values())


def test_an_export_counts_where_it_was_first_tried() -> None:
    """An export that is tried again in another hour is one export of its first hour, with all its attempts."""
    rows = [job(n, status) for n, status in enumerate(("failed", "failed", "completed", "completed"))]
    for split_by, expected in (
        ("hour", [("00", 1, 0, 1, 3), ("03", 1, 1, 0, 1)]),
        ("number_of_items", [("10-99", 2, 1, 1, 4)]),
    ):
        asked = "SELECT split, exports, passed, passed_later, attempts FROM first_pass('all', split_by := $s)"
        assert ask(asked, rows, s=split_by).rows() == expected
    unsplit = ask("SELECT split, exports FROM first_pass('all')", rows)
    assert unsplit.rows() == [(None, 2)]


def test_sizes_and_hours_are_in_order() -> None:
    """Values sort as what they mean: sizes, days of the week, hours."""
    rows = [job(n, number_of_items=size) for n, size in enumerate(SIZES * 16)]
    sizes = ask("FROM failure_rates('all', split_by := 'number_of_items')", rows)
    assert sizes["split"].to_list() == ["0", "1-9", "10-99", "100-999", "1000-9999", "10000+"]
    assert sizes["jobs"].to_list() == [16, 32, 32, 32, 32, 32]
    days = ask("FROM failure_rates('all', split_by := 'weekday')", rows)
    assert days["split"].to_list() == list(DAYS)
    hours = ask("FROM failure_rates('all', split_by := 'weekday_hour')", rows)
    assert hours["split"].to_list() == [f"{day} {hour:02}" for day in DAYS for hour in range(24)]


@given(rows=histories(most=60))
@settings(max_examples=20)
def test_failures_per_entry_have_the_interval_of_a_poisson_rate(rows: list[Row]) -> None:
    """Entries are those of finished jobs; the rate for each 1,000 and its interval equal statsmodels' to 1e-9."""
    found = ask("FROM failure_rates('day')", rows)
    status = pl.col("status")
    counted = (
        frame(rows)
        .filter(status.is_in(("failed", "completed", "completed_with_errors")))
        .group_by(pl.col("created_at").dt.truncate("1d").alias("starts_at"), "company_id")
        .agg(pl.col("number_of_items").sum().alias("entries"), (status == "failed").sum().alias("hits"))
    )
    joined = found.join(counted, on=["starts_at", "company_id"], how="left")
    for row in joined.iter_rows(named=True):
        assert row["items"] == (row["entries"] or 0)
        figures = [row[name] for name in ("failures_per_1000_items", "per_1000_low", "per_1000_high")]
        if not row["entries"]:
            assert figures == [None] * 3
            continue
        low, high = rates.confint_poisson(row["hits"], row["entries"] / 1000, method="score")
        assert figures == pytest.approx([1000 * row["hits"] / row["entries"], low, high], abs=1e-9)
