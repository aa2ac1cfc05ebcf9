"""Every answer of `sql/` on Spark and on DuckDB: the same SQL text, the same lakes, equal results to 1e-9."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl
import pytest
from canary import CANARY
from lakes import SERVER, dump, make_lake
from polars.testing import assert_frame_equal
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from warehouse_jobs import Row, job

from pleo_extract import Client, connect, dump_export_jobs, scan_lake
from pleo_extract.answers import statements
from pleo_extract.cli.ddl import register_statements
from pleo_extract.contract import COLUMNS, POLARS_SCHEMA
from pleo_extract.core.state import SyncState
from pleo_extract.errors import LakeError, UsageError
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import API_KEY, Sandbox, World
from pleo_extract.spark import answers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyspark.sql import SparkSession

    from pleo_extract.answers import Parameter, Statement

SAMPLE: Final = Path(__file__).parents[2] / "data" / "sample"
A, B = scan_lake(SAMPLE).select(pl.col("company_id").unique().sort()).collect()["company_id"][:2]
VALUES: Final[dict[str, list[str]]] = {
    "grain": ["'hour'", "'week'", "'quarter'", "'all'"],
    "fill": ["TRUE", "FALSE"],
    "split_by": ["'weekday_hour'", "'created_by'", "'number_of_items'", "'is_interactive'"],
    "tz": ["'Europe/Copenhagen'", "'America/New_York'"],
    "company_id": [f"'{A.upper()}'"],
    "since": ["'2026-03-02T07:00:00Z'", "'2026-03-09T10:00:00+02:00'"],
    "until": ["'2026-04-02T02:30:00Z'"],
    "since_a": ["'2026-03-01T00:00:00Z'"],
    "until_a": ["'2026-03-15T00:00:00Z'"],
    "since_b": ["'2026-03-15T00:00:00Z'"],
    "until_b": ["'2026-11-01T00:00:00Z'"],
    "per_company": ["FALSE"],
    "at_least": ["1", "3"],
    "every_period": ["TRUE"],
    "every_company": ["TRUE"],
    "once_in_days": ["30.0", "0.5"],
    "longest_days": ["400.0"],
    "as_of": ["'2026-03-20T00:00:00Z'"],
    "q": ["0.0", "0.5", "1.0", "0.37"],
    "duration": ["'queue'", "'run'"],
    "seconds": ["60.0", "0.0", "1e6"],
    "share": ["0.5", "1.0"],
    "step": ["0.0", "0.5", "3600.0"],
}
"""The values of each parameter to try besides its default."""


def odd_jobs() -> list[Row]:
    """Return 300 odd jobs of two companies: ties, unknown statuses; missing, reversed or fractional instants."""
    luck = Random(11)
    statuses = ("completed", "completed", "completed_with_errors", "failed", "failed", "pending", "archived")
    jobs = []
    for number in range(300):
        created = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=luck.choice((0, 1, 7)) + 173 * number)
        started = created + timedelta(seconds=luck.choice((0, 1.5, 30, 30.000001, 600, -2)))
        ended = started + timedelta(seconds=luck.choice((0, 2.25, 90, 7200, -1)))
        status = luck.choice(statuses)
        over = status in {"completed", "completed_with_errors", "failed"}
        ends = luck.choice(("completed_at", "completed_at", "expired_at", "last_updated_at", None))
        jobs.append(
            job(number, status, company_id=luck.choice((A, A, B)), created_at=created)
            | {"started_at": luck.choice((started, started, None)), "completed_at": None}
            | {"last_updated_at": luck.choice((created, None))}
            | ({ends: ended} if over and ends else {})
            | {"failure_reason_type": luck.choice(("a'b", "service_timeout", "job_expired", None))}
            | {"number_of_items": luck.choice((0, 1, 2**40)), "expires_in": luck.choice((0, 3600))}
        )
    return jobs


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the lakes to query, by name."""
    root = tmp_path_factory.mktemp("lakes")
    made_at = datetime(2026, 5, 1, 12, tzinfo=UTC)
    odd = root / "it's [an] odd {lake} *"
    (empty := root / "empty").mkdir()
    odd.mkdir()
    return {
        "sample": SAMPLE,
        "odd": make_lake(odd, odd_jobs(), made_at, names={A: "O'Reilly \\ Søn"}),
        "empty": empty,
    }


@pytest.fixture(scope="module")
def sample(spark: SparkSession) -> SparkSession:
    """Return a session of its own with some answers over the sample; creating them takes Spark half a minute."""
    session = spark.newSession()
    answers(
        session,
        SAMPLE,
        only={*map(name_of, ASKED_OF_SAMPLE), "failure_reasons", "throughput", "incidents", "survival"},
    )
    return session


def calls(statement: Statement, tried: set[tuple[str, str]]) -> Iterator[str]:
    """Yield a call of a macro with only its required arguments, then calls that give each parameter a value.

    Each question takes Spark seconds, so there are only as many as it takes until all values of these parameters are in
    `tried`, to which they are added.
    """
    if statement.kind == "view":
        yield f"SELECT * FROM {statement.name}"
        return
    required = [p for p in statement.parameters if p.default is None]
    yield call(statement, {p: VALUES[p.name][0] for p in required})
    if statement.name == "compare":  # below, its bounds win over the grain
        yield from (
            f"SELECT * FROM compare(grain => {grain}, tz => {VALUES['tz'][0]})"
            for grain in VALUES["grain"][:2]
        )
    first = sorted(statements()).index(statement.name)  # so that values meet others in each macro
    for turn in count(first):
        said = {}
        for place, parameter in enumerate(statement.parameters):
            values = [*VALUES[parameter.name], parameter.default or "NULL"]
            if statement.name in {"compare", "downtime", "incidents", "shifts"} and parameter.name == "grain":
                values.remove("'all'")
            new = (value for value in values[:-1] if (parameter.name, value) not in tried)
            said[parameter] = next(new, values[(turn + place) % len(values)])
        new_values = {(p.name, value) for p, value in said.items() if value in VALUES[p.name]} - tried
        if turn > first and not new_values:
            return
        tried |= new_values
        yield call(statement, said)


def call(statement: Statement, said: dict[Parameter, str]) -> str:
    """Format a call in SQL that both engines accept."""
    given = ", ".join(f"{parameter.name} => {value}" for parameter, value in said.items())
    return f"SELECT * FROM {statement.name}({given})"


def name_of(question: str) -> str:
    """Return the view or macro that a question asks."""
    return question.removeprefix("SELECT * FROM ").partition("(")[0]


TRIED: Final[set[tuple[str, str]]] = set()
QUESTIONS: Final = [question for statement in statements().values() for question in calls(statement, TRIED)]
FIRST: Final = {next(calls(statement, set())) for statement in statements().values()}
"""One question to each view and macro."""
OF_NOW: Final = {
    "vanished",
    "attempts",
    "failure_rates",
    "first_pass",
    "stuck_jobs",
    "survival",
    "time_to_done",
    "within",
    "backlog",
    "downtime",
    "recoveries",
    "snapshot",
    "companies",
}
"""The views and macros whose answer depends most on when the data was read, and on what has vanished."""
ASKED_OF_NOW: Final = [
    question for question in QUESTIONS if question in FIRST and name_of(question) in OF_NOW
]
"""One question to each of them, which is asked of the odd jobs with vanished ones only: each takes Spark seconds."""
ASKED_OF_SAMPLE: Final = [
    question
    for question in QUESTIONS
    if question in FIRST and "(" in question and name_of(question) not in OF_NOW
]
"""One question to each of the other macros, which is asked of the sample only."""


def test_spark_answers_as_duckdb_does(spark: SparkSession, lakes: dict[str, Path]) -> None:
    """Spark and DuckDB give equal columns and rows for all views, and for all macros with several sets of arguments."""
    answers(spark, lakes["odd"])
    questions = [q for q in QUESTIONS if q not in {*ASKED_OF_NOW, *ASKED_OF_SAMPLE}]
    assert compare_answers(spark, lakes["odd"], questions) >= len(questions) * 2 // 3, "most found nothing"


def test_some_answers_over_the_sample(sample: SparkSession) -> None:
    """Some of the questions have equal answers over thousands of jobs too."""
    assert compare_answers(sample, SAMPLE, ASKED_OF_SAMPLE) >= len(ASKED_OF_SAMPLE) * 2 // 3, (
        "most found nothing"
    )


def test_some_answers_over_a_lake_without_jobs(spark: SparkSession, lakes: dict[str, Path]) -> None:
    """Without jobs, some of the questions have equal columns and rows too."""
    some = QUESTIONS[::12]
    answers(spark, lakes["empty"], only=map(name_of, some))
    compare_answers(spark, lakes["empty"], some)


def compare_answers(spark: SparkSession, lake: Path, questions: Sequence[str]) -> int:
    """Compare the answers of both engines, and return how many have rows."""
    answered = 0
    with connect(lake) as con:
        for question in questions:
            expected = plain(con.sql(question).pl())
            frame = plain(pl.DataFrame(pl.from_arrow(spark.sql(question).toArrow())))
            try:
                assert_frame_equal(frame, expected, rel_tol=1e-9, abs_tol=1e-9)
            except AssertionError as exc:
                raise AssertionError(f"{question}: {exc}") from exc
            answered += expected.height > 0
    return answered


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Convert a frame so that results of both engines compare: integers of one width, instants in UTC, sorted rows."""
    casts: dict[str, pl.DataType] = {}
    for column, kind in frame.schema.items():
        if kind.is_integer():
            casts[column] = pl.Int64()
        elif isinstance(kind, pl.Datetime):
            casts[column] = pl.Datetime("us", "UTC" if kind.time_zone else None)
    return frame.with_columns(pl.col(column).cast(kind) for column, kind in casts.items()).sort(
        [*sorted(frame.columns, key=lambda c: frame.schema[c].is_float())]
    )


def test_f58_now_and_vanished_jobs_are_duckdbs(spark: SparkSession, tmp_path: Path) -> None:
    """On Spark each company has its own now, and vanished jobs are marked and not stuck, as in DuckDB."""
    made_at = datetime(2026, 3, 15, tzinfo=UTC)
    lake = make_lake(tmp_path, odd_jobs(), made_at, names={A: "Acme", B: ""})
    layout = Layout(lake)
    statuses = ("pending", "failed", "completed")
    lost = [[row for row in odd_jobs() if row["status"] == status][:5] for status in statuses]
    gone = [(row["company_id"], row["id"]) for rows in lost for row in rows]
    states = {
        A: SyncState(data_as_of=made_at + timedelta(days=2), vanished=gone),
        B: SyncState(data_as_of=made_at),
    }
    accounts = {f"{SERVER} {company}": state for company, state in states.items()}
    manifest = msgspec.structs.replace(layout.manifest(1), accounts=accounts)
    layout.manifest_file(1).write_bytes(msgspec.json.encode(manifest))
    answers(spark, lake, only=OF_NOW)
    with connect(lake) as con:
        assert con.sql("SELECT count(*) FROM vanished").fetchall() == [(15,)]
    compare_answers(spark, lake, ASKED_OF_NOW)


def test_every_parameter_is_tried() -> None:
    """Every parameter of the answers has values to try, and each value is given in a question."""
    asked = {p.name for statement in statements().values() for p in statement.parameters}
    assert asked == VALUES.keys()
    missing = {(name, value) for name, values in VALUES.items() for value in values} - TRIED
    assert not missing


def test_the_session_stays_as_it_was(spark: SparkSession) -> None:
    """Periods are in UTC whatever the session's zone, and the session's settings do not change."""
    spark.conf.set("spark.sql.ansi.enabled", "false")
    answers(spark, SAMPLE, only=["failure_rates"])
    assert spark.conf.get("spark.sql.session.timeZone") == "America/New_York"
    assert spark.conf.get("spark.sql.ansi.enabled") == "false"
    spark.conf.unset("spark.sql.ansi.enabled")
    question = "SELECT min(period) AS first, sum(jobs) AS jobs FROM failure_rates('year')"
    before = spark.sql(question).collect()
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    assert spark.sql(question).collect() == before
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    assert before[0].asDict() == {"first": datetime(2025, 1, 1), "jobs": 3_000}  # noqa: DTZ001 - it has none


def test_a_wrong_argument_is_an_error(sample: SparkSession) -> None:
    """An unknown grain, duration, zone or quantile is an error that names the valid ones."""
    for question, said in (
        ("failure_reasons('fortnight')", "use hour, day, week, month, quarter, year or all"),
        ("slow_jobs(duration => 'nap')", "use total, queue or run"),
        ("slow_jobs(q => 1.5)", "invalid q 1.5: use a quantile from 0 to 1"),
        ("throughput('month', '2026-01-01')", "invalid company_id 2026-01-01: use the UUID of a company"),
        ("failure_reasons(since => '2026-03-02', until => '2026-03-01')", "is not before until 2026-03-01"),
        ("failure_reasons(tz => 'Mars/Base')", "Mars/Base"),
        ("failure_reasons(tz => NULL)", "invalid tz null: use the name of a time zone"),
        ("incidents('all')", "invalid grain all: use hour, day, week, month, quarter or year"),
        ("incidents(at_least => NULL)", "invalid at_least null: use a number of jobs, at least 1"),
        ("survival(step => -5)", r"invalid step -5.0: use seconds, at least 0"),
    ):
        with pytest.raises((PySparkException, Py4JJavaError), match=said):
            sample.sql(f"SELECT * FROM {question}").collect()


def test_a_function_says_what_it_means(sample: SparkSession) -> None:
    """DESCRIBE FUNCTION EXTENDED gives the same definition as `pleo-extract sql --describe`."""
    rows = sample.sql("DESCRIBE FUNCTION EXTENDED slow_jobs").collect()
    assert statements()["slow_jobs"].summary in " ".join(row[0] for row in rows)


def test_only_what_is_asked_for_is_created(spark: SparkSession) -> None:
    """`only` creates these views and functions, and those that they read."""
    other = spark.newSession()
    answers(other, SAMPLE, only=["first_pass"])
    assert other.sql("SELECT sum(attempts) FROM first_pass('all')").first() == (3_000,)
    assert other.table("attempts").count() == 3_000
    with pytest.raises(PySparkException, match="silences"):
        other.sql("SELECT * FROM silences()")
    with pytest.raises(UsageError, match="no view or macro 'first_parse'; did you mean first_pass"):
        answers(other, SAMPLE, only=["first_parse"])


def test_the_folder_is_the_dataset(spark: SparkSession, tmp_path: Path) -> None:
    """Spark reads each job once from the folder of a lake with several snapshots, and months as text."""
    sandbox = Sandbox(World(jobs=400, days=90, seed=12), api_keys={CANARY: None})
    for _ in range(3):
        dump(tmp_path / "lake", sandbox)
        sandbox.world.advance(3 * 86_400)
    assert Layout(tmp_path / "lake").numbers() == [1, 2, 3]
    found = spark.read.parquet(str(tmp_path / "lake"))
    ids = sorted(row["id"] for row in found.select("id").collect())
    assert ids == scan_lake(tmp_path / "lake").collect()["id"].sort().to_list()


def test_a_dataframe_is_a_lake_too(spark: SparkSession, lakes: dict[str, Path]) -> None:
    """Any DataFrame with the columns can be queried; its now is its latest instant or `as_of`."""
    jobs = spark.read.parquet(str(SAMPLE)).select("*").withColumnRenamed("absent", "x")
    answers(spark, jobs.select(*reversed(jobs.columns)), only=())
    assert list(spark.table("export_jobs").columns) == list(COLUMNS)
    with connect(SAMPLE) as con:
        latest = con.sql(
            "SELECT greatest(max(created_at), max(started_at), max(completed_at), max(expired_at), "
            "max(last_updated_at)) AS latest FROM export_jobs"
        ).pl()
    assert instant(spark) == latest.item()
    answers(spark, jobs, only=(), as_of=datetime(2026, 12, 1, tzinfo=UTC))
    assert instant(spark) == datetime(2026, 12, 1, tzinfo=UTC)
    with pytest.raises(UsageError, match="time zone"):
        answers(spark, jobs, as_of=3)
    with pytest.raises(LakeError, match="no column 'status'"):
        answers(spark, jobs.drop("status"))


def test_a_delta_table_is_a_lake_too(spark: SparkSession, tmp_path: Path) -> None:
    """Spark reads exactly the files that the Delta log lists, of the current version and of older ones."""
    world = World(jobs=400, days=60)
    table = tmp_path / "it's {a} table"
    heights = []
    with Client("http://127.0.0.1:1", api_key=API_KEY, transport=Sandbox(world), rate=10_000_000) as client:
        for _ in range(3):
            dump_export_jobs(table, format="delta", client=client)
            heights.append(scan_lake(table).collect().height)
            world.advance(86_400)
    listed = scan_lake(table).collect()
    lying = pl.concat(pl.read_parquet(path, hive_partitioning=False) for path in table.glob("*/*.parquet"))
    assert lying.height > listed.height > heights[0]
    some = QUESTIONS[::12]
    answers(spark, table, only=map(name_of, some))
    found = plain(pl.DataFrame(pl.from_arrow(spark.table("export_jobs").toArrow())))
    assert_frame_equal(found.sort("id"), plain(listed).sort("id"))
    compare_answers(spark, table, some)
    answers(spark, table, only=(), as_of=1)
    assert spark.table("export_jobs").count() == heights[0]
    with pytest.raises(UsageError, match="no version 9"):
        answers(spark, table, as_of=9)
    with pytest.raises(UsageError, match="belong to a lake"):
        answers(spark, spark.table("export_jobs"), workspace=tmp_path)


def instant(spark: SparkSession) -> Any:
    """Parse the instant that is now."""
    return pl.DataFrame(pl.from_arrow(spark.sql("SELECT now FROM snapshot").toArrow())).item()


def test_a_lake_that_is_none_is_an_error(spark: SparkSession, tmp_path: Path) -> None:
    """A missing folder and an expired snapshot are errors."""
    with pytest.raises(LakeError, match="there is no lake"):
        answers(spark, tmp_path / "none")
    with pytest.raises(UsageError):
        answers(spark, SAMPLE, as_of=99)


def test_the_schema_is_the_lakes(sample: SparkSession) -> None:
    """`export_jobs` has the columns and types of every other frame, whatever the session's zone."""
    frame = plain(pl.DataFrame(pl.from_arrow(sample.table("export_jobs").limit(1).toArrow())))
    assert list(frame.schema) == list(POLARS_SCHEMA)


def test_ddl_registers_a_folder(spark: SparkSession) -> None:
    """The statements of `pleo-extract ddl` make the sample a table of Spark with each job once, and months as partitions."""
    text = register_statements("spark", "jobs_of_a_folder", SAMPLE.as_uri(), is_delta=False)
    try:
        for statement in text.rstrip(";").split(";"):
            spark.sql(statement)
        found = pl.DataFrame(spark.table("jobs_of_a_folder").toArrow())
        assert found.drop("created_month").sort("id").equals(scan_lake(SAMPLE).collect().sort("id"))
        assert spark.sql("SHOW PARTITIONS jobs_of_a_folder").count() == found["created_month"].n_unique()
    finally:
        spark.sql("DROP TABLE IF EXISTS jobs_of_a_folder")
