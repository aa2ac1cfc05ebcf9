"""`within` and `time_to_done`, compared with lifelines' curve, statsmodels' variance and interval, and zoneinfo."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from importlib import import_module
from random import Random
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from cases import mostly_slow
from clocks import begin, in_zones
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import SERVER
from warehouse_jobs import START, TERMINAL, A, B, Row, ask, histories, job, parquet, rows_of, warehouse

from pleo_extract.answers import open_warehouse, read_facts
from pleo_extract.answers.statement import GRAINS
from pleo_extract.core.state import AccountKey, SyncState

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

np: Any = import_module("numpy")
lifelines: Any = import_module("lifelines")
duration: Any = import_module("statsmodels.duration.survfunc")
proportion: Any = import_module("statsmodels.stats.proportion")

close = pytest.approx


def lifetime(row: Row, now: datetime) -> tuple[float, bool] | None:
    """Return how long a job has lasted, at least 0, and whether it has ended; None if its end is unknown."""
    if row["status"] not in TERMINAL:
        return max(0.0, (now - row["created_at"]).total_seconds()), False
    ends = (row.get(name) for name in ("completed_at", "expired_at", "last_updated_at"))
    ended = next((at for at in ends if at is not None), None)
    return None if ended is None else (max(0.0, (ended - row["created_at"]).total_seconds()), True)


class Curve:
    """The share of jobs that have ended by a time, by lifelines and statsmodels."""

    def __init__(self, rows: list[Row], now: datetime) -> None:
        found = [lifetime(row, now) for row in rows]
        self.known = [each for each in found if each is not None]
        self.unknown = len(found) - len(self.known)
        self.longest = max((seconds for seconds, _ in self.known), default=0.0)
        if self.known:
            spans, ended = zip(*self.known, strict=True)
            survival = lifelines.KaplanMeierFitter().fit(spans, ended).survival_function_.iloc[:, 0]
            # looked up by numpy: lifelines' own predict takes 8 ms
            self.times, self.survival = survival.index.to_numpy(), survival.to_numpy()
            # statsmodels skips times of 0: it measures time from the entry, and there is none before it
            self.spread = duration.SurvfuncRight([span + 1 for span in spans], ended)

    def done(self, seconds: float) -> tuple[float, float, float] | None:
        """Return the share that has ended, and its interval; None if that is not known."""
        late = sum(span > seconds or (span == seconds and not ended) for span, ended in self.known)
        survival = 1.0
        if self.known:
            survival = float(self.survival[np.searchsorted(self.times, seconds, side="right") - 1])
        if survival == 1:
            if late == 0:
                return None
            return (0.0, *proportion.proportion_confint(0, late, method="wilson"))
        if survival == 0:  # the size is that before the last job ended, or all jobs at risk then
            last = max(span for span, ended in self.known if ended)
            whole = self.size(last - 1e-6) or float(sum(span >= last for span, _ in self.known))
            return (1.0, *proportion.proportion_confint(whole, whole, method="wilson"))
        if late == 0:
            return None
        done, size = 1 - survival, self.size(seconds)
        assert size is not None
        return (done, *proportion.proportion_confint(size * done, size, method="wilson"))

    def size(self, seconds: float) -> float | None:
        """Return the sample size to which Greenwood's variance belongs, if any job has ended by then."""
        place = np.searchsorted(self.spread.surv_times, seconds + 1, side="right") - 1
        if place < 0:
            return None
        survival, error = self.spread.surv_prob[place], self.spread.surv_prob_se[place]
        return float(survival * (1 - survival) / error**2)


@in_zones()
@pytest.mark.parametrize("grain", mostly_slow(GRAINS, quick=3))
def test_a_share_within_a_time_is_kaplan_meiers(grain: str, zone: str) -> None:
    """Counts add up; share and interval are lifelines' and statsmodels', also where open jobs are too young to tell."""
    luck = Random(f"{grain} {zone}")
    now = START + timedelta(days=21)
    rows = draw_jobs(luck, now, timedelta(hours=1) if grain == "hour" else timedelta(days=400))
    together = luck.random() < 0.5
    groups: dict[tuple[Any, Any], list[Row]] = defaultdict(list)
    for row in rows:
        period = None if grain == "all" else begin(row["created_at"], grain, ZoneInfo(zone))
        groups[period, None if together else row["company_id"]].append(row)
    curves = {key: Curve(group, now) for key, group in groups.items()}
    young = 0
    with warehouse(rows, now) as con:
        for seconds in (0, 60, 600, 601.5, 86_400.0):
            call = f"within($t, $g, tz := $z, per_company := {not together}, fill := FALSE)"
            found = rows_of(con, f"FROM {call}", t=seconds, g=grain, z=zone)
            assert {(row["period"], row["company_id"]) for row in found.iter_rows(named=True)} == set(groups)
            assert found.height == len(groups)
            for row in found.iter_rows(named=True):
                check_share(row, curve := curves[row["period"], row["company_id"]], seconds)
                young += 0 < row["too_young"] < len(curve.known)
        for share in (0.01, 0.5, 0.95, 1):
            call = f"time_to_done($q, $g, tz := $z, per_company := {not together}, fill := FALSE)"
            for row in rows_of(con, f"FROM {call}", q=share, g=grain, z=zone).iter_rows(named=True):
                check_time(row, curves[row["period"], row["company_id"]], share)
    assert young >= 2


def draw_jobs(luck: Random, now: datetime, span: timedelta) -> list[Row]:
    """Return 90 jobs of two companies in the span before now, with ties, open jobs and jobs of unknown end."""
    rows = []
    for number in range(90):
        created = (
            now - luck.random() * span if luck.random() < 0.7 else now - luck.random() * timedelta(minutes=20)
        )
        lasted = luck.choice((0, 1, 60, 60, 60, 600, 601.5, 3600, luck.random() * 900))
        fields: Row = {"created_at": created, "completed_at": None, "started_at": None}
        fields["last_updated_at"] = created + timedelta(seconds=lasted) if luck.random() < 0.95 else None
        status = luck.choice(("completed", "completed", "completed_with_errors", "failed", "pending", "new"))
        rows.append(job(number, status, company_id=luck.choice((A, B))) | fields)
    return rows


def check_share(row: Row, curve: Curve, seconds: float) -> None:
    """Check a row of `within`."""
    done = sum(ended and span <= seconds for span, ended in curve.known)
    late = sum(span > seconds or (span == seconds and not ended) for span, ended in curve.known)
    young = len(curve.known) - done - late
    counts = (row["done"], row["late"], row["too_young"], row["left_out"])
    assert counts == (done, late, young, curve.unknown)
    assert row["jobs"] == sum(counts)
    figures = (row["share"], row["low"], row["high"])
    expected = curve.done(seconds)
    assert figures == ((None,) * 3 if expected is None else close(expected, abs=1e-9))
    if young == 0 and done + late:
        wilson = proportion.proportion_confint(done, done + late, method="wilson")
        assert figures == close((done / (done + late), *wilson), abs=1e-9)


def check_time(row: Row, curve: Curve, share: float) -> None:
    """Check a row of `time_to_done`: the first times at which the curve and its bounds reach the share."""
    assert (row["jobs"], row["left_out"]) == (len(curve.known) + curve.unknown, curve.unknown)
    assert row["still_open"] == sum(not ended for _, ended in curve.known)
    reached: list[float | None] = [None] * 3
    for seconds in sorted({0.0} | {span for span, _ in curve.known}):
        # At the age of the last open job, nothing is known beyond; up to it, the curve counts.
        at = curve.done(seconds)
        for place in range(3):
            if at is not None and reached[place] is None and at[place] >= share - 1e-12:
                reached[place] = seconds
    assert (row["seconds"], row["high"], row["low"]) == tuple(reached)


@given(rows=histories(most=60), share=st.sampled_from((0.25, 0.5, 0.9)))
@settings(max_examples=15)
def test_the_time_is_the_one_of_survival(rows: list[Row], share: float) -> None:
    """`survival` reaches the share at the same second as `time_to_done`."""
    now = START + timedelta(days=30)
    with warehouse(rows, now) as con:
        found = rows_of(
            con, "SELECT company_id, seconds FROM time_to_done($q, 'all') WHERE jobs > left_out", q=share
        )
        expected = rows_of(
            con,
            "SELECT company_id, min(seconds) FILTER (survival <= 1 - $q + 1e-12) AS seconds "
            "FROM survival(step := 0) GROUP BY company_id ORDER BY company_id",
            q=share,
        )
    assert found.rows() == expected.rows()


def test_all_open_and_all_unknown_are_known_as_such() -> None:
    """Young open jobs say nothing, old ones that none is done in time, and jobs of unknown end are left out."""
    now = START + timedelta(hours=10)
    rows = [job(n, "pending") for n in range(10)]
    columns = "jobs, done, late, too_young, left_out, share, low, high"
    young = ask(f"SELECT {columns} FROM within(86400)", rows, now)
    assert young.rows() == [(10, 0, 0, 10, 0, None, None, None)]
    _, high = proportion.proportion_confint(0, 10, method="wilson")
    late = ask(f"SELECT {columns} FROM within(600)", rows, now)
    assert late.rows() == [(10, 0, 10, 0, 0, 0, 0, close(high))]
    times = ask("SELECT jobs, still_open, seconds, low, high FROM time_to_done(0.5)", rows, now)
    assert times["seconds"].to_list() == times["high"].to_list() == [None]
    unknown = [job(0, completed_at=None, last_updated_at=None)]
    assert ask(f"SELECT {columns} FROM within()", unknown, now).rows() == [(1, 0, 0, 0, 1, None, None, None)]
    assert ask("SELECT jobs, left_out, seconds FROM time_to_done()", unknown, now).rows() == [(1, 1, None)]


def test_a_vanished_job_is_observed_until_its_last_action(tmp_path: Path) -> None:
    """A job that has vanished while open is too young for a time after the last action on it, and not late."""
    rows = [job(n, "pending", last_updated_at=START + timedelta(hours=n, minutes=3)) for n in range(2)]
    now = START + timedelta(days=9)
    state = SyncState(data_as_of=now, vanished=[(A, rows[0]["id"])])
    facts = read_facts({AccountKey(f"{SERVER} {A}"): state}, now)
    with open_warehouse([parquet(tmp_path / "jobs.parquet", rows)], facts=facts) as con:
        for seconds, late, young in ((180, 2, 0), (181, 1, 1)):
            found = con.execute("SELECT late, too_young FROM within($t)", {"t": seconds}).fetchall()
            assert found == [(late, young)]


@given(rows=histories(most=60), hours=st.integers(0, 30), per_company=st.sampled_from(("TRUE", "FALSE")))
@settings(max_examples=25)
def test_a_backlog_is_what_had_begun_and_not_ended(rows: list[Row], hours: int, per_company: str) -> None:
    """At any instant, the backlog is what a linear search finds, and running are those that had started."""
    at = START + timedelta(seconds=10 + hours * 3600)
    expected: dict[str | None, tuple[int, int, int, datetime | None, int]] = {}
    for company in [None] if per_company == "FALSE" else [A, B]:
        mine = [row for row in rows if row["created_at"] <= at and company in (None, row["company_id"])]
        ages = [(row, lifetime(row, at)) for row in mine]
        inside = [row for row, age in ages if age and (not age[1] or end_of(row, age[0]) > at)]
        running = [row for row in inside if row["started_at"] is not None and row["started_at"] <= at]
        oldest = min((row["created_at"] for row in inside), default=None)
        entries = sum(row["number_of_items"] for row in inside)
        if mine:
            unknown = sum(age is None for _, age in ages)
            expected[company] = (len(inside) - len(running), len(running), entries, oldest, unknown)
    found = ask(
        f"FROM backlog(as_of := $t, per_company := {per_company})", rows, at + timedelta(days=9), t=at
    )
    columns = ["company_id", "waiting", "running", "items", "oldest_at", "left_out"]
    assert {row[0]: row[1:] for row in found.select(columns).iter_rows()} == expected
    assert found["backlog"].to_list() == sorted(found["waiting"] + found["running"], reverse=True)
    for row in found.iter_rows(named=True):
        assert row["oldest_seconds"] == (row["oldest_at"] and (at - row["oldest_at"]).total_seconds())


def end_of(row: Row, lasted: float) -> datetime:
    """Return when a job ended that lasted this long."""
    ended: datetime = row["created_at"] + timedelta(seconds=lasted)
    return ended
