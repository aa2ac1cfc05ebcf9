"""Periods: when each begins, which are not over, and the hour that comes twice; compared with zoneinfo."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from cases import mostly_slow
from clocks import begin, in_zones
from lakes import SERVER
from polars.testing import assert_frame_equal
from warehouse_jobs import A, B, Row, ask, job, parquet, rows_of, warehouse

from pleo_extract.answers import open_warehouse, read_facts, statements
from pleo_extract.core.state import AccountKey, SyncState

if TYPE_CHECKING:
    from pathlib import Path

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
GRAINS = ("hour", "day", "week", "month", "quarter", "year")
WITH_PERIODS = [
    s.name
    for s in statements().values()
    if {"grain", "per_company", "since"} <= {p.name for p in s.parameters}
]
WITH_FILL = [s.name for s in statements().values() if any(p.name == "fill" for p in s.parameters)]
BACK = datetime(2025, 10, 26, 1, tzinfo=UTC)
"""When clocks in Copenhagen are set back: 02:00 to 03:00 comes twice."""


def find_bounds(instant: datetime, grain: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return when the period that contains an instant begins and ends: both are instants in UTC."""
    clock = begin(instant, grain, zone)
    if grain == "hour":
        past = instant.astimezone(zone).replace(tzinfo=None) - clock
        return instant - past, instant - past + HOUR
    longest = {"day": 30 * HOUR, "week": 8 * DAY, "month": 32 * DAY, "quarter": 93 * DAY, "year": 367 * DAY}
    later = begin(clock.replace(tzinfo=zone) + longest[grain], grain, zone)
    return clock.replace(tzinfo=zone).astimezone(UTC), later.replace(tzinfo=zone).astimezone(UTC)


@in_zones()
@pytest.mark.parametrize("grain", mostly_slow(GRAINS, quick=3))
def test_when_periods_begin_and_whether_they_are_over(grain: str, zone: str) -> None:
    """starts_at is the instant at which the period begins; it is partial if now, since or until lie within it."""
    luck, place = Random(f"{grain} {zone}"), ZoneInfo(zone)
    step = 12 * HOUR if grain == "hour" else 40 * DAY
    rows = [job(n, "failed", created_at=BACK + luck.uniform(-1, 1) * step) for n in range(150)]
    for row in rows[:100]:
        row["status"] = "completed"
    now, since, until = (BACK + share * step for share in (0.51, -0.77, 0.83))
    called = f"(grain := $g, tz := $z, since := $s{{}}, per_company := {luck.choice(('TRUE', 'FALSE'))})"
    with warehouse(rows, now) as con:
        for macro in WITH_PERIODS:
            for bound in ("", ", until := $u"):
                call = macro + called.format(bound)
                values: dict[str, object] = {"g": grain, "z": zone, "s": since}
                values |= {"u": until} if bound else {}
                if macro == "incidents":
                    call = call.replace(")", ", at_least := 1, every_period := TRUE)")
                elif macro == "shifts":
                    call = call.replace(")", ", every_period := TRUE)")
                elif macro in WITH_FILL:
                    call = call.replace(")", ", fill := FALSE)")
                found = {
                    row["starts_at"]: (row["period"], row["is_partial"])
                    for row in rows_of(con, f"FROM {call}", **values).iter_rows(named=True)
                }
                expected = {}
                for row in rows:
                    if row["created_at"] >= since and (not bound or row["created_at"] < until):
                        first, last = find_bounds(row["created_at"], grain, place)
                        is_partial = last > now or first < since or bool(bound and last > until)
                        expected[first] = (begin(row["created_at"], grain, place), is_partial)
                if macro in ("incidents", "failure_reasons", "shifts"):  # these leave out periods
                    assert found.items() <= expected.items()
                else:
                    assert found == expected
                    assert {is_partial for _, is_partial in found.values()} >= {True}


@in_zones("Australia/Lord_Howe")
@pytest.mark.parametrize("grain", mostly_slow(["day", "all", *(g for g in GRAINS if g != "day")], quick=3))
def test_periods_without_jobs_have_rows(grain: str, zone: str) -> None:
    """Between a company's first job and its now or until, each period has a row; those without jobs have zeros and nulls."""
    luck, place = Random(f"{grain} {zone}"), ZoneInfo(zone)
    step = DAY if grain == "hour" else 90 * DAY
    rows = [
        job(n, luck.choice(("failed", "completed", "pending")), company_id=luck.choice((A, B)))
        | {"created_at": BACK + luck.uniform(-1, 1) ** 3 * step, "created_by": luck.choice((None, A))}
        for n in range(30)
    ]
    since, now, until = (BACK + share * step for share in (-0.5, 0.9, 0.7))
    for macro in WITH_FILL:
        splits = ("NULL", "'created_by'") if "split_by" in statements()[macro].signature else ("NULL",)
        for end, bound in ((now, ""), (until, ", until := $u")):
            split_by = luck.choice(splits)
            call = f"{macro}(grain := $g, tz := $z, since := $s, per_company := {luck.choice(('TRUE', 'FALSE'))}{bound}"
            call += f", split_by := {split_by}" if len(splits) > 1 else ""
            values: dict[str, object] = {"g": grain, "z": zone, "s": since} | ({"u": until} if bound else {})
            with warehouse(rows, now) as con:
                filled = rows_of(con, f"FROM {call})", **values)
                without = rows_of(con, f"FROM {call}, fill := FALSE)", **values)
            keys = [k for k in ("company_id", "split", "duration") if k in filled.columns]
            kept = filled.join(without.select("starts_at", *keys), on=["starts_at", *keys], nulls_equal=True)
            assert_frame_equal(kept, without, check_row_order=False)
            added = filled.join(without, on=["starts_at", *keys], how="anti", nulls_equal=True)
            if grain == "all":
                assert added.height == 0
                continue
            expected = set()
            for owner in without.select(keys).unique().iter_rows():
                mine = without.filter(
                    pl.all_horizontal(
                        pl.col(k).eq_missing(pl.lit(v)) for k, v in zip(keys, owner, strict=True)
                    )
                )
                first = mine["starts_at"].min()
                assert isinstance(first, datetime)
                while first < end:
                    if first not in set(mine["starts_at"]):
                        expected.add((begin(first, grain, place), first, *owner))
                    first = find_bounds(first, grain, place)[1]
            assert set(added.select("period", "starts_at", *keys).iter_rows()) == expected
            assert added.height == len(expected)
            assert expected or grain not in ("hour", "day")
            counts = added.select(pl.exclude("starts_at", "period", "is_partial", *keys)).unique()
            assert counts.height <= 1
            assert {value for row in counts.rows() for value in row if value is not None} <= {0}
            assert filled["starts_at"].is_sorted()


@in_zones("Australia/Lord_Howe")
@pytest.mark.parametrize("grain", mostly_slow(GRAINS, quick=3))
def test_an_outage_is_divided_between_its_periods(grain: str, zone: str) -> None:
    """Hours without exports are those of a linear search, each period with its part; open outages last until now."""
    luck, place = Random(f"down {grain} {zone}"), ZoneInfo(zone)
    step = DAY if grain == "hour" else 90 * DAY
    rows = [
        job(n, luck.choice(("failed", "failed", "completed", "pending")), company_id=luck.choice((A, B)))
        for n in range(40)
    ]
    for row in rows:
        row["created_at"] = BACK + luck.uniform(-1, 1) * step
        row["last_updated_at"] = luck.choice((None, row["created_at"] + luck.random() * step / 9))
        row["completed_at"] = None
    since, now, until = (BACK + share * step for share in (-0.5, 0.95, 0.7))
    for first, last in ((None, None), (since, None), (since, until)):
        found = ask(
            "FROM downtime($g, tz := $z, since := $s, until := $u)",
            rows,
            now,
            g=grain,
            z=zone,
            s=first,
            u=last,
        )
        expected = {}
        for company in (A, B):
            mine = [row for row in rows if row["company_id"] == company]
            inside = [
                r["created_at"]
                for r in mine
                if (first or r["created_at"]) <= r["created_at"] < (last or now + DAY * 999)
            ]
            end, begun = last or now, min(inside)
            while begun < end:
                start, stop = find_bounds(begun, grain, place)
                left, right = max(start, first or start), min(stop, end)
                shares = [
                    max(timedelta(), min(right, over) - max(left, down)) / HOUR
                    for down, over in outages_of(mine)
                ]
                shares = [share for share in shares if share > 0]
                expected[start, company] = (
                    len(shares),
                    sum(shares),
                    max(shares, default=0),
                    sum(shares) / ((right - left) / HOUR),
                    stop > now or left > start or bool(last and stop > last),
                )
                begun = stop
        columns = ("starts_at", "company_id", "outages", "hours", "longest", "share", "is_partial")
        got = {tuple(row[:2]): tuple(row[2:]) for row in found.select(columns).iter_rows()}
        assert got.keys() == expected.keys()
        for key, figures in got.items():
            assert figures == pytest.approx(expected[key], abs=1e-9)
        assert found["hours"].sum() > 0


def outages_of(rows: list[Row]) -> list[tuple[datetime, datetime]]:
    """Return from when to when a company's exports did not work; an open outage has no end."""
    ended = sorted(
        (row for row in rows if row["status"] != "pending" and row["last_updated_at"]),
        key=lambda row: row["last_updated_at"],
    )
    found, down = [], None
    for row in ended:
        if row["status"] == "failed":
            down = down or row["last_updated_at"]
        elif down:
            found.append((down, row["last_updated_at"]))
            down = None
    return [*found, *([(down, datetime.max.replace(tzinfo=UTC))] if down else [])]


def test_the_last_instant_of_a_period_is_its_end() -> None:
    """A period that ends at now, or at until, is over; one that begins at since is whole."""
    rows = [job(n) for n in range(72)]
    last = rows[0]["created_at"] + 3 * DAY
    for now, partial in ((last, False), (last - timedelta(microseconds=1), True)):
        found = ask("FROM failure_rates('day')", rows, now)["is_partial"].to_list()
        assert found == [False, False, partial]
    bounds = "since := '2026-03-02', until := '2026-03-03'"
    assert ask(f"FROM throughput('day', {bounds})", rows, last)["is_partial"].to_list() == [False]
    whole = ask("FROM failure_rates('all', until := '2026-03-03')", rows, last)
    assert whole.select("starts_at", "is_partial").rows() == [(None, False)]
    assert ask("FROM failure_rates('all')", rows, last)["is_partial"].to_list() == [True]


def test_each_company_has_a_now_of_its_own(tmp_path: Path) -> None:
    """A period is over for a company that was read after it, and not for one that was read within it; for all, the latest."""
    rows = [job(n, company_id=(A, B)[n % 2]) for n in range(48)]
    noon = rows[0]["created_at"] + 1.5 * DAY
    states = {A: SyncState(data_as_of=noon), B: SyncState(data_as_of=noon + DAY)}
    facts = read_facts({AccountKey(f"{SERVER} {owner}"): state for owner, state in states.items()}, noon)
    with open_warehouse([parquet(tmp_path / "jobs.parquet", rows)], facts=facts) as con:
        asked = "SELECT company_id, is_partial FROM failure_rates('day'{}) WHERE period = '2026-03-02' ORDER BY ALL"
        assert con.sql(asked.format("")).fetchall() == [(A, True), (B, False)]
        assert con.sql(asked.format(", per_company := FALSE")).fetchall() == [(None, False)]
        only = con.sql(asked.format(f", per_company := FALSE, company_id := '{A}'")).fetchall()
        assert only == [(None, True)]


def test_the_hour_that_comes_twice_is_two_periods_and_each_is_judged() -> None:
    """In autumn two hours show the same clock: each has its own row, baseline and verdict."""
    bad = BACK  # the second 02:00 in Copenhagen
    rows: list[Row] = []
    for hour in range(-20, 5):
        created = BACK + hour * HOUR
        statuses = ["failed"] * (20 if created == bad else 1) + ["completed"] * 20
        rows += [job(len(rows) + n, each, created_at=created) for n, each in enumerate(statuses)]
    zone = "Europe/Copenhagen"
    rates = ask("FROM failure_rates('hour', tz := $z, fill := FALSE)", rows, z=zone)
    assert rates.height == 25
    twice = rates.filter(rates["period"].is_duplicated())
    assert twice.select("starts_at", "failed").rows() == [(BACK - HOUR, 1), (BACK, 20)]
    assert {str(period) for period in twice["period"]} == {"2025-10-26 02:00:00"}
    found = ask("FROM incidents('hour', tz := $z)", rows, z=zone)
    assert found.select("starts_at", "past", "failed").rows() == [(BACK, 20, 20)]
    charted = ask("FROM incidents('hour', tz := $z, every_period := TRUE)", rows, z=zone)
    assert charted["past"].to_list() == [*range(8, 21), 20, 21, 22, 23]
    durations = ask("FROM duration_stats('hour', tz := $z, fill := FALSE)", rows, z=zone)
    assert durations.filter(duration="queue")["n"].to_list() == rates["jobs"].to_list()
    reasons = ask("FROM failure_reasons('hour', tz := $z)", rows, z=zone)
    assert reasons.select("failed", "finished").rows() == rates.select("failed", "finished").rows()


@pytest.mark.parametrize("macro", [*WITH_FILL, "downtime"])
def test_a_job_in_the_year_1_does_not_make_millions_of_rows(macro: str) -> None:
    """Periods are filled from 2000 on: a job dated long before has its row, and no answer runs for minutes."""
    begin_of_time = datetime(1, 1, 2, tzinfo=UTC)
    rows = [job(0), job(1, created_at=begin_of_time, started_at=begin_of_time, completed_at=begin_of_time)]
    with warehouse(rows, BACK + 90 * DAY) as con:
        found = rows_of(con, f"SELECT DISTINCT period FROM {macro}(grain := 'day') ORDER BY period")["period"]
    assert found.dt.year().is_in([1, *range(2000, 2027)]).all()
    assert macro == "downtime" or found[0].year == 1
    assert 9_000 < len(found) < 10_000
