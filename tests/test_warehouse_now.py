"""What the lake says besides its rows: now for each company, vanished jobs; and the arguments of queries."""

from __future__ import annotations

import stat
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import duckdb
import msgspec
import polars as pl
import pytest
from lakes import SERVER, make_lake
from warehouse_jobs import START, A, B, Row, ask, frame, job, make_catalogue, parquet, rows_of

from pleo_extract import connect, dump_export_jobs, verify_lake
from pleo_extract.answers import SnapshotFacts, open_warehouse, read_facts, statements
from pleo_extract.answers.doors import renew_catalogue
from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.errors import UsageError
from pleo_extract.lake.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pleo_extract import Client
    from pleo_extract.sandbox import Sandbox

pytestmark = pytest.mark.catalogue

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MADE = START + 10 * DAY


def change_accounts(lake: Path, **states: SyncState) -> None:
    """Rewrite the accounts of the manifest, as a run without news does; names are A, B and any."""
    layout = Layout(lake)
    keys = {"A": A, "B": B, "any": "*"}
    accounts = {f"{SERVER} {keys[name]}": state for name, state in states.items()}
    manifest = msgspec.structs.replace(layout.manifest(1), accounts=accounts)
    layout.manifest_file(1).write_bytes(msgspec.json.encode(manifest))


def stuck(con: duckdb.DuckDBPyConnection) -> dict[str, float]:
    """Return companies with a stuck job, and by how many seconds it is overdue."""
    return dict(con.sql("SELECT company_id, overdue_seconds FROM stuck_jobs()").fetchall())


def open_job(company: str, number: int = 0, **fields: Any) -> Row:
    """Return a job that started an hour before the snapshot and expires an hour after its last action."""
    created = MADE - HOUR
    return (
        job(number, "in_progress", company_id=company, created_at=created, last_updated_at=created) | fields
    )


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return a lake of two companies with an open job each, neither overdue."""
    return make_lake(tmp_path, [open_job(A, 1), open_job(B, 2), job(3)], MADE, names={A: "Acme", B: ""})


# Now


def test_f58_a_job_that_hangs_gets_stuck_although_nothing_is_new(lake: Path) -> None:
    """Runs without news advance now, so that an open job becomes overdue."""
    with connect(lake) as con:
        assert stuck(con) == {}
    change_accounts(lake, A=SyncState(data_as_of=MADE + 2 * HOUR), B=SyncState(data_as_of=MADE - HOUR / 2))
    with connect(lake) as con:
        assert stuck(con) == {A: 2 * 3600}
        ages = con.sql(
            "SELECT company_id, max(seconds) FROM survival() WHERE censored > 0 GROUP BY ALL"
        ).fetchall()
        assert dict(ages) == {A: 3 * 3600, B: 1800}
        said = con.sql("SELECT as_of, data_as_of, now FROM snapshot").pl().row(0)
        assert said == (MADE, MADE - HOUR / 2, MADE)
        nows = con.sql("SELECT id, name, now FROM companies").pl().rows()
        assert sorted(nows) == [(A, None, MADE + 2 * HOUR), (B, None, MADE - HOUR / 2)]


def test_f58_a_company_that_cannot_be_read_is_not_called_stuck(tmp_path: Path) -> None:
    """The open job of an unreadable company does not become stuck while others publish."""
    lake = make_lake(tmp_path, [open_job(B, 2), job(3)], MADE + 3 * DAY, names={A: "", B: ""})
    change_accounts(lake, A=SyncState(data_as_of=MADE + 3 * DAY), B=SyncState(data_as_of=MADE))
    with connect(lake) as con:
        assert stuck(con) == {}
        change = con.sql(f"SELECT company_id FROM stuck_jobs(as_of := '{MADE + DAY}')").fetchall()
        assert change == [(B,)]


def test_f58_recoveries_and_slow_jobs_grow_older_by_each_companys_now(tmp_path: Path) -> None:
    """Open failures and open jobs last until their own company's now."""
    rows = [
        job(number, status, company_id=company)
        for company, numbers in ((A, (0, 1)), (B, (2, 3)))
        for number, status in zip(numbers, ("completed", "failed"), strict=True)
    ]
    lake = make_lake(tmp_path, [*rows, open_job(A, 8), open_job(B, 9)], MADE, names={A: "", B: ""})
    nows = {A: MADE + 2 * DAY, B: MADE - HOUR / 4}
    change_accounts(lake, A=SyncState(data_as_of=nows[A]), B=SyncState(data_as_of=nows[B]))
    ended = {row["company_id"]: row["last_updated_at"] for row in rows if row["status"] == "failed"}
    with connect(lake) as con:
        lasting = dict(con.sql("SELECT company_id, seconds FROM recoveries() WHERE is_censored").fetchall())
        slow = dict(con.sql("SELECT company_id, seconds FROM slow_jobs(0.95) WHERE is_censored").fetchall())
    assert lasting == {company: (nows[company] - ended[company]).total_seconds() for company in nows}
    assert slow == {company: (nows[company] - (MADE - HOUR)).total_seconds() for company in nows}


@pytest.mark.parametrize(
    ("states", "nows", "default"),
    [
        ({}, {}, MADE),
        ({"*": SyncState()}, {}, MADE),
        ({"*": SyncState(updated_at=MADE + HOUR)}, {}, MADE + HOUR),
        ({"*": SyncState(data_as_of=MADE - HOUR, updated_at=MADE)}, {}, MADE - HOUR),
        ({A: SyncState(data_as_of=MADE - DAY), B: SyncState()}, {A: MADE - DAY, B: MADE}, MADE),
        ({A: SyncState(data_as_of=MADE + DAY), "*": SyncState(data_as_of=MADE)}, {A: MADE + DAY}, MADE),
        ({A: SyncState(data_as_of=MADE - DAY), "*": SyncState(data_as_of=MADE)}, {A: MADE}, MADE),
    ],
)
def test_f58_whose_now_is_when(
    states: Mapping[str, SyncState], nows: Mapping[str, datetime], default: datetime
) -> None:
    """An account for all companies applies to those without one; the later counts; old lakes use made_at."""
    facts = read_facts({AccountKey(f"{SERVER} {company}"): state for company, state in states.items()}, MADE)
    assert (facts.nows, facts.now, facts.as_of) == (nows, default, MADE)


def test_f58_an_older_instant_has_no_later_now(lake: Path) -> None:
    """With an as_of now is at most as_of."""
    change_accounts(lake, A=SyncState(data_as_of=MADE + 2 * DAY), B=SyncState(data_as_of=MADE - HOUR / 4))
    with connect(lake, MADE + HOUR) as con:
        assert stuck(con) == {A: 3600}
        assert dict(con.sql("SELECT id, now FROM companies").pl().rows()) == {
            A: MADE + HOUR,
            B: MADE - HOUR / 4,
        }
    with connect(lake, 1) as con:
        assert stuck(con) == {A: 2 * 86_400}


def test_f58_the_catalogue_follows(lake: Path) -> None:
    """A session with _jobs.duckdb open sees the new now, names and vanished jobs without a new file."""
    renew_catalogue(lake, run="1")
    written = (lake / "_jobs.duckdb").stat().st_ino
    with duckdb.connect(str(lake / "_jobs.duckdb"), read_only=True) as con:
        assert stuck(con) == {}
        change_accounts(lake, A=SyncState(name='"A, B" ć', data_as_of=MADE + HOUR), B=SyncState())
        renew_catalogue(lake, run="2")
        assert stuck(con) == {A: 3600}
        assert con.sql("SELECT name FROM companies WHERE name IS NOT NULL").fetchall() == [('"A, B" ć',)]
        assert con.sql("SELECT count(*) FROM vanished").fetchall() == [(0,)]
    assert (lake / "_jobs.duckdb").stat().st_ino == written
    gone = (A, open_job(A, 1)["id"])
    change_accounts(lake, A=SyncState(data_as_of=MADE + HOUR, vanished=[gone]))
    renew_catalogue(lake, run="3")
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{lake / '_jobs.duckdb'}' AS jobs")
        assert con.sql("SELECT company_id, id FROM jobs.vanished").fetchall() == [gone]
        assert con.sql("FROM jobs.stuck_jobs()").fetchall() == []
        assert con.sql("SELECT sum(vanished) FROM jobs.failure_rates('all')").fetchall() == [(1,)]


def test_what_the_catalogue_reads_is_for_all_readers(tmp_path: Path) -> None:
    """Every reader of the catalogue may read the files that it uses, and nobody else may write them."""
    folder = tmp_path / "it's [a] {b,c} *"
    folder.mkdir()
    facts = SnapshotFacts(MADE, nows={A: MADE + DAY}, vanished=[(A, job(1)["id"])])
    made = make_catalogue(folder, [job(1), open_job(A, 2)], facts)
    with duckdb.connect(str(made), read_only=True) as con:
        assert stuck(con) == {A: 86_400}
        assert con.sql("SELECT id FROM vanished").fetchall() == [(job(1)["id"],)]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    assert (
        modes["now.csv"] == modes["vanished.csv"] == modes["_jobs.duckdb"] == modes["part-0.parquet"] & 0o755
    )


# Vanished jobs


def test_vanished_jobs_are_counted_and_said() -> None:
    """Every answer that counts jobs also counts the vanished ones, like Polars."""
    rows = [job(n, ("completed", "failed", "pending")[n % 3], company_id=(A, B)[n % 2]) for n in range(24)]
    lost = [(row["company_id"], row["id"]) for row in rows[:9]]
    with open_warehouse([], facts=SnapshotFacts(MADE)) as con:
        assert con.sql("FROM vanished").fetchall() == []
    expected = (
        frame(rows)
        .with_columns(is_vanished=pl.col("id").is_in([job_id for _, job_id in lost]))
        .with_columns(is_over=pl.col("status") != "pending")
    )
    sums = expected.filter("is_vanished")
    with connected(rows, SnapshotFacts(MADE, vanished=lost)) as con:
        listed = rows_of(con, "SELECT company_id, id FROM vanished ORDER BY id").rows()
        assert listed == lost
        flags = rows_of(con, "SELECT id, is_vanished FROM job_durations").sort("id")
        assert flags.equals(expected.select("id", "is_vanished").sort("id"))
        for macro, counted in (
            ("failure_rates", sums.height),
            ("throughput", sums.height),
            ("failure_reasons", sums.filter(status="failed").height),
        ):
            for grain in ("day", "all"):
                assert rows_of(con, f"FROM {macro}('{grain}')")["vanished"].sum() == counted, macro
        stats = rows_of(con, "FROM duration_stats('all', per_company := false) WHERE duration = 'total'")
        assert stats["vanished"].item() == sums.filter("is_over").height
        compared = rows_of(con, f"FROM compare('{START}', '{START + 6 * HOUR}', '{START + 6 * HOUR}', NULL)")
        one = compared.filter(figure="failure_rate").sum()
        assert one.select("vanished_a", "vanished_b").row(0) == (6, 3)


def test_an_open_job_that_vanished_is_not_stuck() -> None:
    """A vanished open job is not stuck, and counts as lasting until its last action."""
    row = open_job(A, 1, last_updated_at=MADE - HOUR / 2)
    facts = SnapshotFacts(MADE + DAY, vanished=[(A, row["id"])])
    with connected([row, job(2), job(3)], facts) as con:
        assert rows_of(con, "FROM stuck_jobs()").height == 0
        assert rows_of(con, f"FROM stuck_jobs(as_of := '{MADE + 9 * DAY}')").height == 0
        assert rows_of(con, "SELECT status FROM vanished").item() == "in_progress"
        assert rows_of(con, "SELECT max(seconds) AS s FROM survival() WHERE censored > 0").item() == 1800
        slow = rows_of(con, "SELECT seconds, is_vanished FROM slow_jobs(0.95) WHERE is_censored")
        assert slow.rows() == [(1800, True)]
    with connected([row, job(2), job(3)], SnapshotFacts(MADE + DAY)) as con:
        assert rows_of(con, "FROM stuck_jobs()").height == 1


@contextmanager
def connected(rows: list[Row], facts: SnapshotFacts) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a warehouse of these jobs and facts."""
    with TemporaryDirectory() as folder:
        file = parquet(Path(folder, "jobs.parquet"), rows)
        with open_warehouse([file], facts=facts) as con:
            yield con


# What a question may be given


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [[], [job(1), job(2, "failed")]], ids=["empty", "some"])
@pytest.mark.parametrize(
    ("parameter", "value", "said"),
    [
        ("tz", "NULL", "invalid tz null: use the name of a time zone, such as Europe/Copenhagen"),
        ("per_company", "NULL", "invalid per_company null: use true or false"),
        ("every_period", "NULL", "invalid every_period null: use true or false"),
        ("every_company", "NULL", "invalid every_company null: use true or false"),
        ("once_in_days", "0", "invalid once_in_days 0.0: use days, above 0"),
        ("longest_days", "4000", "invalid longest_days 4000.0: use days, from 0 to 3650"),
        ("at_least", "NULL", "invalid at_least null: use a number of jobs, at least 1"),
        ("at_least", "0", "invalid at_least 0: use a number of jobs, at least 1"),
        ("at_least", "-3", "invalid at_least -3: use a number of jobs, at least 1"),
        ("step", "NULL", "invalid step null: use seconds, at least 0"),
        ("step", "-5", "invalid step -5.0: use seconds, at least 0"),
        ("step", "'nan'", "invalid step nan: use seconds, at least 0"),
        ("step", "'inf'", "invalid step inf: use seconds, at least 0"),
        ("duration", "NULL", "invalid duration null: use total, queue or run"),
        ("duration", "'nap'", "invalid duration nap: use total, queue or run"),
        ("grain", "NULL", "invalid grain null: use hour"),
        ("q", "2", "invalid q 2.0: use a quantile from 0 to 1"),
        (
            "company_id",
            "'2026-01-01'",
            "invalid company_id 2026-01-01: use the UUID of a company, or NULL for all",
        ),
        ("company_id", "''", "invalid company_id : use the UUID"),
    ],
)
def test_an_argument_that_is_none_is_an_error(
    tmp_path: Path, parameter: str, value: str, said: str, jobs: list[Row]
) -> None:
    """NULL, out-of-range and unknown arguments are plain errors in every client."""
    taking = [s.name for s in statements().values() if any(p.name == parameter for p in s.parameters)]
    assert taking
    for name in taking:
        required = {p.name: "NULL" for p in statements()[name].parameters if p.default is None}
        given = ", ".join(f"{p} := {v}" for p, v in (required | {parameter: value}).items())
        with pytest.raises(UsageError, match=said):
            ask(f"FROM {name}({given})", jobs)
    with duckdb.connect(str(make_catalogue(tmp_path, jobs)), read_only=True) as con:
        for name in taking:
            required = {p.name: "NULL" for p in statements()[name].parameters if p.default is None}
            given = ", ".join(f"{p} := {v}" for p, v in (required | {parameter: value}).items())
            with pytest.raises(duckdb.Error, match=said):
                con.sql(f"FROM {name}({given})").fetchall()


def test_an_unknown_zone_is_an_error() -> None:
    """Every macro with a zone refuses an unknown one."""
    for name, parameters in ((s.name, {p.name for p in s.parameters}) for s in statements().values()):
        for bound in sorted({"since", "as_of"} & parameters) if "tz" in parameters else ():
            for value in ("NULL", "'2026-03-01'"):
                with pytest.raises(UsageError, match="Mars/Base"):
                    ask(f"FROM {name}(tz := 'Mars/Base', {bound} := {value})", [job(1), job(2, "failed")])


def test_a_positional_argument_is_not_taken_for_a_company() -> None:
    """A time in the place of a company is an error that says how to name it, and the UUID may be in upper case."""
    rows = [job(1), job(2, "failed")]
    for call in (
        "failure_rates('month', '2026-03-01')",
        "throughput('day', 'Europe/Rome')",
        "survival('all')",
    ):
        with pytest.raises(UsageError, match="and name other arguments, such as since := …"):
            ask(f"FROM {call}", rows)
    assert ask(f"FROM failure_rates('all', '{A.upper()}')", rows)["jobs"].item() == 2


def test_incidents_need_periods() -> None:
    """`incidents` refuses the grain `all`, which has no past."""
    with pytest.raises(UsageError, match="invalid grain all: use hour, day, week, month, quarter or year"):
        ask("FROM incidents('all')", [job(1)])


def test_every_parameter_is_looked_at() -> None:
    """Every parameter with a default other than NULL refuses NULL."""
    for statement in statements().values():
        for parameter in statement.parameters:
            if parameter.default not in (None, "NULL"):
                needed = {p.name: "NULL" for p in statement.parameters if p.default is None}
                given = ", ".join(f"{n} := {v}" for n, v in {**needed, parameter.name: "NULL"}.items())
                with pytest.raises(UsageError, match=f"^invalid {parameter.name} null: use "):
                    ask(f"FROM {statement.name}({given})", [])


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Europe/Copenhagen", "America/New_York", "Asia/Kathmandu", "UTC"])
@pytest.mark.parametrize("session", ["UTC", "Asia/Tokyo"])
def test_a_bare_date_is_midnight_in_the_zone(tmp_path: Path, zone: str, session: str) -> None:
    """`since` and `until` without an offset are local times of `tz`, as in zoneinfo."""
    rows = [job(n, created_at=datetime(2026, 1, 30, tzinfo=UTC) + n * HOUR / 2) for n in range(48 * 33)]
    bounds = [datetime(2026, month, 1, tzinfo=ZoneInfo(zone)) for month in (2, 3)]
    count = sum(bounds[0] <= row["created_at"] < bounds[1] for row in rows)
    with duckdb.connect(str(make_catalogue(tmp_path, rows)), read_only=True) as con:
        con.execute(f"SET TimeZone = '{session}'")
        for since, until in (
            ("'2026-02-01'", "'2026-03-01'"),
            ("DATE '2026-02-01'", "TIMESTAMP '2026-03-01 00:00:00'"),
            ("'2026-02-01T00:00:00'", "' 2026-03-01 00:00 '"),
            *[(f"'{bounds[0].isoformat()}'", f"'{bounds[1].astimezone(UTC).isoformat()}'")],
            (f"TIMESTAMPTZ '{bounds[0].isoformat()}'", f"'2026-03-01 00:00:00 {zone}'"),
        ):
            asked = f"SELECT sum(jobs) FROM failure_rates('month', since := {since}, until := {until}, tz := '{zone}')"
            assert con.sql(asked).fetchall() == [(count,)], (since, until)
        periods = con.sql(
            f"FROM failure_rates('month', since := '2026-02-01', until := '2026-03-01', tz := '{zone}')"
        )
        assert [row[0] for row in periods.fetchall()] == [datetime(2026, 2, 1)]  # noqa: DTZ001 - a clock's


def test_values_are_bounds_as_literals_are() -> None:
    """A Python date is midnight in the zone, a naive datetime a local time, an aware one an instant."""
    rows = [job(n) for n in range(48)]
    asked = "SELECT sum(jobs) AS n FROM failure_rates('all', since := $since, tz := 'Asia/Tokyo')"
    midnight = datetime(2026, 3, 2, tzinfo=ZoneInfo("Asia/Tokyo"))
    count = sum(row["created_at"] >= midnight for row in rows)
    for since in (
        date(2026, 3, 2),
        midnight.replace(tzinfo=None),
        midnight,
        midnight.astimezone(UTC),
        "2026-03-02",
    ):
        assert ask(asked, rows, since=since)["n"].item() == count


# Small wrong answers


def test_jobs_of_one_second_recover_in_the_order_they_began() -> None:
    """Jobs that ended at the same instant are ordered by creation, not by id."""
    at = START + DAY
    failed = job(1, "failed", id=f"f{job(1)['id'][1:]}", created_at=START, last_updated_at=at)
    success = job(2, "completed", created_at=START + HOUR, completed_at=at)
    row = ask("FROM recoveries()", [success, failed], MADE).row(0, named=True)
    assert (row["recovered_id"], row["seconds"], row["attempts"]) == (success["id"], 0, 1)


def test_items_beyond_any_integer_are_summed_exactly() -> None:
    """Sums of number_of_items are exact decimals without overflow."""
    most = 2**63 - 1
    rows = [job(n, number_of_items=most) for n in range(5)] + [job(7, "failed", number_of_items=1)]
    found = ask("FROM throughput('all')", rows)
    assert found.schema["items"] == found.schema["exported_items"] == pl.Decimal(38, 0)
    assert (int(found["items"].item()), int(found["exported_items"].item())) == (5 * most + 1, 5 * most)
    assert found["items_per_run_second"].item() == pytest.approx(most / 120)


def test_f58_a_run_that_finds_nothing_new_moves_now(
    make_sandbox: Callable[..., Sandbox], open_client: Callable[..., Client], tmp_path: Path
) -> None:
    """A run without news advances now in `connect` and in an open catalogue, without a snapshot."""
    client = open_client(make_sandbox(jobs=50))
    first = dump_export_jobs(tmp_path, client=client)
    asked = "SELECT epoch_us(now), epoch_us(as_of) FROM snapshot"
    with duckdb.connect(str(tmp_path / "_jobs.duckdb"), read_only=True) as con:
        before = con.sql(asked).fetchall()
        second = dump_export_jobs(tmp_path, client=client)
        ((now, as_of),) = con.sql(asked).fetchall()
    assert (second.snapshot, second.published) == (first.snapshot, False)
    assert (now > before[0][0], as_of) == (True, before[0][1])
    with connect(tmp_path) as con:
        assert con.sql(asked).fetchall() == [(now, as_of)]
    assert verify_lake(tmp_path).foreign == ()
