"""The data source in one process: its options, its requests to the server, its rows."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from canary import CANARY
from pyspark.errors import PySparkException
from pyspark.sql import functions
from pyspark.sql.datasource import EqualNullSafe, EqualTo, GreaterThan, In, Not

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.core.pace import RATE
from pleo_extract.errors import ConfigurationError, UsageError
from pleo_extract.sandbox import Rules, Sandbox, World, serve
from pleo_extract.spark import list_companies, register
from pleo_extract.spark.options import read_options
from pleo_extract.spark.pushing import companies_in, statuses_in
from pleo_extract.spark.schema import FAILURES
from pleo_extract.spark.source import Companies, Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

    from pleo_extract.sandbox import Served

COMPANIES = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(10_000)]
A, B = COMPANIES[:2]


@pytest.fixture(scope="module")
def api() -> Sandbox:
    """Return a sandbox that stands still, whose only key is the canary."""
    return Sandbox(World(jobs=900, companies=6), api_keys={CANARY: None})


@pytest.fixture
def server(api: Sandbox) -> Iterator[Served]:
    """Serve the sandbox on a port, with an empty request log."""
    api.requests.clear()
    with serve(api) as running:
        yield running


def read(spark: SparkSession, server: Served, **options: Any) -> DataFrame:
    """Return the frame of the data source."""
    register(spark)
    return spark.read.format("pleo_export_jobs").options(base_url=server.url, rate=100_000, **options).load()


def frame_of(jobs: DataFrame) -> pl.DataFrame:
    """Return the rows of a Spark frame as a Polars frame."""
    frame = pl.DataFrame(pl.from_arrow(jobs.toArrow()))
    return frame.with_columns(pl.col(pl.Datetime).dt.convert_time_zone("UTC"))


def asked(api: Sandbox, name: str) -> set[tuple[str, ...]]:
    """Return the values of a parameter that the server received."""
    return {tuple(ask.parameters.get(name, ())) for ask in api.requests}


def test_all_companies_of_a_credential(spark: SparkSession, api: Sandbox, server: Served) -> None:
    """Without a company one task reads all jobs of the credential, once, with the contract's types."""
    jobs = read(spark, server)
    frame = frame_of(jobs)
    assert frame.schema == POLARS_SCHEMA
    assert jobs.rdd.getNumPartitions() == 1
    assert api.truth(frame.to_dicts(), api.world.now) == []


def test_companies_from_a_file(spark: SparkSession, api: Sandbox, server: Served, tmp_path: Path) -> None:
    """Each company of a file is read once, whatever its case; blank lines and comments are skipped."""
    one, two = api.world.companies[:2]
    (tmp_path / "list.txt").write_text(f"# ours\n{one.upper()}\n\n{two}\n{one}\n")
    frame = frame_of(read(spark, server, companies=str(tmp_path / "list.txt")))
    assert api.truth(frame.to_dicts(), api.world.now, companies=frozenset({one, two})) == []


def test_companies_of_an_accounts_file(
    spark: SparkSession, api: Sandbox, server: Served, tmp_path: Path
) -> None:
    """The executor reads each company with the credential that the accounts file names."""
    one, two = api.world.companies[:2]
    (tmp_path / "key-of-two").write_text(CANARY)
    (tmp_path / "key-of-two").chmod(0o600)
    (tmp_path / "accounts.toml").write_text(
        f'base_url = "{server.url}"\n'
        f'[[account]]\ncompany_id = "{one}"\napi_key_env = "PLEO_API_KEY"\n'
        f'[[account]]\ncompany_id = "{two}"\napi_key_file = "key-of-two"\n'
    )
    register(spark)
    source = spark.read.format("pleo_export_jobs").option("companies", str(tmp_path / "accounts.toml"))
    frame = frame_of(source.load())
    assert api.truth(frame.to_dicts(), api.world.now, companies=frozenset({one, two})) == []
    with pytest.raises(PySparkException, match="rate for each company"):
        source.option("rate", "10").load()


def test_companies_of_a_dataframe(spark: SparkSession) -> None:
    """The companies of a DataFrame are distinct, sorted and without nulls; a value that is not a UUID is refused."""
    frame = spark.createDataFrame([(B,), (A.upper(),), (A,), (None,)], "company_id STRING")
    assert list_companies(frame) == f"{A},{B}"
    with pytest.raises(UsageError):
        list_companies(spark.createDataFrame([("x",)], "id STRING"), "id")


def test_ten_thousand_companies_fit_into_an_option(spark: SparkSession, server: Served) -> None:
    """10,000 companies fit into one option as text with commas, which `list_companies` makes."""
    assert read(spark, server, company_id=",".join(COMPANIES)).rdd.getNumPartitions() == 100


def test_filters_travel_to_the_server(spark: SparkSession, api: Sandbox, server: Served) -> None:
    """Filters on a company and on known statuses reach the server; other values stay in Spark and match nothing."""
    company = api.world.companies[0]
    jobs = read(spark, server)
    col = functions.col
    everything = frame_of(jobs)
    for condition, expected, companies, statuses in (
        (col("company_id") == company, pl.col("company_id") == company, {(company,)}, {()}),
        (
            col("status").isin("failed", "pending"),
            pl.col("status").is_in(["failed", "pending"]),
            {()},
            {("failed", "pending")},
        ),
        (
            (col("company_id") == company) & (col("status") == "failed") & (col("number_of_items") > 3),
            (pl.col("company_id") == company)
            & (pl.col("status") == "failed")
            & (pl.col("number_of_items") > 3),
            {(company,)},
            {("failed",)},
        ),
        (col("status") == "archived", pl.lit(value=False), {()}, {()}),
        (col("company_id") == company.upper(), pl.lit(value=False), set(), set()),
        ((col("status") == "failed") & (col("status") == "pending"), pl.lit(value=False), set(), set()),
    ):
        api.requests.clear()
        frame = frame_of(jobs.where(condition))
        assert frame.sort("id").equals(everything.filter(expected).sort("id")), str(condition)
        assert (asked(api, "company_id"), asked(api, "statuses")) == (companies, statuses), str(condition)


def test_bounds_of_created_at_spare_requests(spark: SparkSession, api: Sandbox, server: Served) -> None:
    """With a lower bound on created_at, the list is read newest first, down to it; Spark applies the bounds again."""
    jobs = read(spark, server)
    everything = frame_of(jobs).sort("created_at", "id")
    whole = len(api.requests)
    low, high = everything["created_at"][-60], everything["created_at"][-20]
    at = pl.col("created_at")
    created = functions.col("created_at")
    for condition, expected, is_bounded in (
        (created >= low, at >= low, True),
        ((created > low) & (created <= high), (at > low) & (at <= high), True),
        (
            created.between(low, high) & (functions.col("status") == "completed"),
            at.is_between(low, high),
            True,
        ),
        (created == low, at == low, True),
        (created < high, at < high, False),
        ((created > high) & (created < low), pl.lit(value=False), True),
    ):
        api.requests.clear()
        frame = frame_of(jobs.where(condition)).sort("created_at", "id")
        wanted = everything.filter(expected)
        if "completed" in str(condition):
            wanted = wanted.filter(pl.col("status") == "completed")
        assert frame.select("id", at).equals(wanted.select("id", at)), str(condition)
        assert (len(api.requests) < whole) is is_bounded, str(condition)


def test_pushdown_is_on_unless_the_session_says_otherwise(spark: SparkSession) -> None:
    """`register` turns filter pushdown on where nobody has decided."""
    name = "spark.sql.python.filterPushdown.enabled"
    spark.conf.unset(name)
    try:
        register(spark)
        assert spark.conf.get(name) == "true"
        spark.conf.set(name, "false")
        register(spark)
        assert spark.conf.get(name) == "false"
    finally:
        spark.conf.set(name, "true")


def test_companies_that_cannot_be_read_are_left_out_or_listed(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With on_error=skip the others are read, and what=failures says which company failed, and why."""
    api = Sandbox(World(jobs=300, companies=3), api_keys={CANARY: None}, rules=Rules(max_limit=20))
    good, broken, other = api.world.companies
    answer = Sandbox.__call__

    def answer_some(self: Sandbox, request: Any) -> Any:
        said = answer(self, request)
        is_late = "after=" in request.query  # the first page is read, so that rows of it would be left
        return replace(said, status=403, body=b"{}") if broken in request.query and is_late else said

    monkeypatch.setattr(Sandbox, "__call__", answer_some)
    companies = {"company_id": f"{good},{broken},{other}"}
    with serve(api) as server:
        with pytest.raises(PySparkException, match="CredentialsError"):
            read(spark, server, **companies).count()
        frame = frame_of(read(spark, server, on_error="skip", **companies))
        assert set(frame["company_id"]) == {good, other}
        assert api.truth(frame.to_dicts(), api.world.now, companies=frozenset({good, other})) == []
        failures = read(spark, server, what="failures", **companies)
        assert failures.schema == FAILURES
        (failure,) = failures.where("code = 77").collect()
    assert failure.company_id == broken
    assert "403" in failure.message


def test_a_stream_and_a_table_are_refused_in_words(
    spark: SparkSession, server: Served, tmp_path: Path
) -> None:
    """A stream, a write and a table are refused, and the message says what to do."""
    jobs = read(spark, server)
    with pytest.raises(
        PySparkException, match="cannot be streamed: the API has no way to ask what has changed"
    ):
        spark.readStream.format("pleo_export_jobs").option("base_url", server.url).load().writeStream.format(
            "noop"
        ).option("checkpointLocation", str(tmp_path / "checkpoint")).start().awaitTermination(60)
    with pytest.raises(PySparkException, match="can only be read"):
        jobs.limit(1).write.format("pleo_export_jobs").mode("append").save()


def test_sql_makes_a_view_and_no_table(spark: SparkSession, server: Served) -> None:
    """A temporary view reads the API with each query; a table is refused with a message that names the view."""
    register(spark)
    using = f"USING pleo_export_jobs OPTIONS (base_url '{server.url}', rate '100000')"
    with pytest.raises(PySparkException, match=r"has no path: .* use CREATE TEMPORARY VIEW"):
        spark.sql(f"CREATE TABLE live {using}")
    spark.sql(f"CREATE TEMPORARY VIEW live {using}")
    assert spark.table("live").count() == read(spark, server).count()


def test_a_session_that_pushes_nothing(spark: SparkSession, api: Sandbox, server: Served) -> None:
    """Queries work when Spark pushes no filters."""
    spark.conf.set("spark.sql.python.filterPushdown.enabled", "false")
    try:
        jobs = read(spark, server)
        failed = frame_of(jobs.where("status = 'failed'"))
    finally:
        spark.conf.set("spark.sql.python.filterPushdown.enabled", "true")
    assert asked(api, "statuses") == {()}
    assert failed.height == sum(job["status"] == "failed" for job in api.world.visible())


def test_the_server_is_asked_with_the_executors_key(spark: SparkSession, server: Served) -> None:
    """An unknown key is an error that says how to set the key for the executors."""
    stranger = Sandbox(World(jobs=3), api_keys={"plp_other": None})
    with serve(stranger) as other, pytest.raises(PySparkException, match="CredentialsError"):
        read(spark, other).count()


@pytest.mark.parametrize("name", ["api_key", "apiKey", "PLEO_API_KEY", "access_token", "password", "secret"])
def test_a_credential_is_no_option(spark: SparkSession, server: Served, name: str) -> None:
    """An option with a credential is refused with a message that does not show it."""
    with pytest.raises(
        PySparkException, match=r"put PLEO_API_KEY into the environment of the workers"
    ) as caught:
        read(spark, server, **{name: CANARY})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("spark.executorEnv.PLEO_API_KEY", "x"), ("spark.executor.extraJavaOptions.note", f"-Dkey={CANARY}")],
)
def test_a_setting_that_shows_the_credential_is_refused(
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
) -> None:
    """Spark writes its settings into event logs: `register` names the setting, never its value."""
    monkeypatch.setenv("PLEO_API_KEY", CANARY)
    spark.conf.set(name, value)
    try:
        with pytest.raises(ConfigurationError, match=f"^{name} holds a credential") as caught:
            register(spark)
        register(spark, allow_exposed=True)
    finally:
        spark.conf.unset(name)
    assert CANARY not in str(caught.value)
    assert name in caplog.text
    register(spark)


def test_a_schema_of_ones_own_is_refused(spark: SparkSession, server: Served) -> None:
    """A schema given by the user is refused: the columns are those of the contract."""
    register(spark)
    source = spark.read.format("pleo_export_jobs").schema("id STRING").option("base_url", server.url)
    with pytest.raises(PySparkException, match="columns of pleo_export_jobs are fixed"):
        source.load().count()


# Without a session


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"limit": "3"}, "unknown option 'limit'"),
        ({"company_id": "acme"}, "not a UUID"),
        ({"company_id": A, "companies": "list.txt"}, "give one of them"),
        ({"statuses": "archived"}, "unknown status"),
        ({"since": "2026-01-01T00:00:00"}, "no time zone"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "not before"),
        ({"rate": "0"}, "whole number from 1"),
        ({"tasks": "-1"}, "whole number from 1"),
        ({"machines": "²"}, "whole number from 1"),
        ({"base_url": "http://example.com"}, "https"),
        ({"companies": "no/such/file"}, "cannot read"),
        ({"on_error": "ignore", "company_id": A}, "on_error must be fail or skip"),
        ({"what": "rows", "company_id": A}, "what must be jobs or failures"),
        ({"on_error": "skip"}, "need company_id or companies"),
        ({"what": "failures"}, "need company_id or companies"),
    ],
)
def test_what_cannot_be_used_is_refused(given: dict[str, str], said: str) -> None:
    """Wrong options are refused before the read, with a message that names the error."""
    with pytest.raises((UsageError, ConfigurationError), match=said):
        read_options(given, machines=1)


def test_the_rate_is_divided_by_the_machines() -> None:
    """The rate is divided by the number of machines, counts one if it is unknown, and is at least one a minute."""
    assert read_options({}, machines=1).rate == RATE
    assert read_options({"RATE": "90"}, machines=4).rate == 22
    assert read_options({"rate": "90", "machines": "2"}, machines=4).rate == 45
    assert read_options({"rate": "3"}, machines=4).rate == 1


@pytest.mark.parametrize(
    ("count", "tasks", "sizes"),
    [(10_000, None, {100}), (50, None, {1}), (101, None, {1, 2}), (10, "3", {3, 4}), (1, "5", {1})],
)
def test_companies_are_dealt_out_evenly(count: int, tasks: str | None, sizes: set[int]) -> None:
    """Companies are split evenly over at most 100 tasks by default, each company in one task."""
    given = {"company_id": ",".join(COMPANIES[:count])} | ({"tasks": tasks} if tasks else {})
    parts = Reader(read_options(given, machines=1)).partitions()
    assert len(parts) == min(count, int(tasks or 100))
    dealt = [part.ids for part in parts if isinstance(part, Companies)]
    assert {len(ids) for ids in dealt} == sizes
    assert sorted(str(company) for ids in dealt for company in ids) == COMPANIES[:count]


def test_tasks_can_travel(tmp_path: Path) -> None:
    """A task of an accounts file can be pickled and contains no secret."""
    (tmp_path / "key-of-a").write_text(CANARY)
    (tmp_path / "key-of-a").chmod(0o600)
    (tmp_path / "accounts.toml").write_text(f'[[account]]\ncompany_id = "{A}"\napi_key_file = "key-of-a"\n')
    reader = Reader(read_options({"companies": str(tmp_path / "accounts.toml")}, machines=1))
    sent = pickle.dumps((reader, reader.partitions()))
    assert CANARY.encode() not in sent
    _, (part,) = pickle.loads(sent)
    with part.accounts[0].open() as client:
        assert client.company_id == A


def test_which_filters_are_understood() -> None:
    """Equality and IN, joined by AND, are pushed down; other filters stay with Spark."""
    company, status = ("company_id",), ("status",)
    assert companies_in([]) is None
    assert companies_in([In(company, (A, B)), EqualTo(company, A)]) == frozenset({A})
    assert companies_in([EqualNullSafe(company, B), EqualTo(status, "failed")]) == frozenset({B})
    assert companies_in([EqualTo(company, "x"), Not(EqualTo(company, A))]) == frozenset()
    assert companies_in([EqualTo(company, None)]) == frozenset()
    assert statuses_in([GreaterThan(status, "a"), Not(EqualTo(status, "failed"))]) is None
    assert statuses_in([In(status, ("failed", "archived"))]) is None
    assert statuses_in([In(status, ("failed", "pending")), EqualTo(status, "failed")]) == frozenset(
        {"failed"}
    )
    assert statuses_in([EqualTo(status, "failed"), EqualTo(status, "archived")]) == frozenset({"failed"})
