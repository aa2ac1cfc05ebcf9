"""The data source `pleo_export_jobs`: each task reads several companies with `iter_export_jobs` into Arrow batches.

Theory of operation. Spark plans the read in a Python process next to the driver; that process checks the options and
divides the companies into tasks. A task travels to an executor, which has the credential in its environment: a task
never contains one. If a task fails or loses its executor, Spark runs it again from its start and uses the rows of one
attempt only.

All tasks on one machine share one rate limit, kept in a file that outlives them. So the rate of the whole job is divided
by the number of machines, not by the number of tasks: a limit for each task would be forgotten when the task ends, and
many short tasks together would exceed the rate.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import polars as pl
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.utils import is_remote

from pleo_extract.client import Client, find_exposed
from pleo_extract.errors import ConfigurationError, PleoExtractError, UsageError, escape
from pleo_extract.fetch.iterate import iter_export_jobs
from pleo_extract.spark.options import SAFE_PLACES, read_companies, read_options
from pleo_extract.spark.pushing import bounds_in, companies_in, statuses_in
from pleo_extract.spark.schema import FAILURES, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa
    from pyspark import SparkContext
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.datasource import DataSourceStreamReader, DataSourceWriter, Filter
    from pyspark.sql.types import StructType

    from pleo_extract.client import AccountEntry
    from pleo_extract.spark.options import Options

__all__ = ["count_machines", "list_companies", "register"]

_log = logging.getLogger(__name__)

_PUSHDOWN = "spark.sql.python.filterPushdown.enabled"
_BATCH_ROWS = 2_000
_FAILURE_TYPES = {"company_id": pl.String, "code": pl.Int32, "message": pl.String}

Item = TypeVar("Item")


def register(spark: SparkSession, *, allow_exposed: bool = False) -> None:
    """Register the data source, so that ``spark.read.format("pleo_export_jobs")`` reads the live API in this session.

    It has one row per job, with the columns of `pleo_extract.COLUMNS`. Its options are ``base_url``, ``company_id``,
    ``companies``, ``statuses``, ``since``, ``until``, ``tasks``, ``rate``, ``machines``, ``on_error`` and ``what``; see
    ``pleo_extract.spark.options.OPTIONS``. Each executor takes the credential from its environment (PLEO_API_KEY,
    PLEO_ACCESS_TOKEN or PLEO_TOKEN_COMMAND) or from an accounts.toml. An option that holds a credential is an error.

    When it is called, this turns on filter pushdown (``spark.sql.python.filterPushdown.enabled``), unless the session has
    turned it off, and counts the machines that have an executor, because the rate is divided among them. Spark Connect
    shows no machines: there, set the option ``machines``.

    Every action reads the API again. Write the rows to a table first if you need them more than once.

    Args:
        spark: the session.
        allow_exposed: only warn if a setting of Spark holds the credential.

    Raises:
        ConfigurationError: a setting of Spark holds the credential, or is named after one, such as
            ``spark.executorEnv.PLEO_API_KEY``: Spark shows its settings in event logs, its UI and its REST API.
        PleoExtractError: when the query runs, the errors of `iter_export_jobs`, inside an error of Spark.
    """
    context = _find_context(spark)
    started_with = [] if context is None else context.getConf().getAll()
    if exposed := find_exposed([*started_with, *spark.conf.getAll.items()]):
        problem = (
            f"{', '.join(map(escape, exposed))} holds a credential, and Spark shows its settings in event logs and in its UI; "
            f"{SAFE_PLACES}, and replace the credential"
        )
        if not allow_exposed:
            raise ConfigurationError(problem)
        _log.warning("%s", problem)
    if spark.conf.get(_PUSHDOWN, None) is None:
        spark.conf.set(_PUSHDOWN, "true")
    pushes = str(spark.conf.get(_PUSHDOWN, "false")).lower() == "true"
    settings = {"pushes": pushes, "machines": 1 if context is None else count_machines(context)}
    spark.dataSource.register(type("PleoExportJobs", (ExportJobs,), settings))


def list_companies(frame: DataFrame, column: str = "company_id") -> str:
    """Return the companies of a DataFrame as a value for the option `company_id`: sorted, without duplicates.

    Raises:
        UsageError: a value is not a UUID.
    """
    rows = frame.select(column).distinct().collect()
    return ",".join(sorted(read_companies([str(row[0]) for row in rows if row[0] is not None])))


class ExportJobs(DataSource):
    """The data source. `register` makes a subclass with the settings of one session."""

    pushes: ClassVar[bool] = False
    machines: ClassVar[int] = 1

    @classmethod
    def name(cls) -> str:
        """Return the name for `spark.read.format`."""
        return "pleo_export_jobs"

    def schema(self) -> StructType:
        """Return the columns. Invalid options raise here already, before anything is read."""
        return _schema_of(read_options(self.options, machines=self.machines))

    def reader(self, schema: StructType) -> DataSourceReader:
        """Return the reader. Spark refuses one with `pushFilters` if the session has pushdown off, so there are two."""
        options = read_options(self.options, machines=self.machines)
        if schema != _schema_of(options):
            raise UsageError("the columns of pleo_export_jobs are fixed; leave out .schema(…)")
        return PushingReader(options) if self.pushes else Reader(options)

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: ARG002, N802 - Spark's name
        """Refuse a stream: the API does not say what has changed since the last batch."""
        raise UsageError(
            "pleo_export_jobs cannot be streamed: the API has no way to ask what has changed, and open jobs change. Run "
            "pleo-extract dump on a schedule, into a Delta table, and stream that table"
        )

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceWriter:  # noqa: ARG002, FBT001 - Spark's arguments
        """Refuse to write: the API is read only."""
        raise UsageError("pleo_export_jobs can only be read; write the rows to a table of another format")


def _schema_of(options: Options) -> StructType:
    return FAILURES if options.wants_failures else SCHEMA


@dataclass(frozen=True, slots=True)
class Companies(InputPartition):
    """One task: the companies that it reads, one after the other. A None means all that the credential sees."""

    ids: tuple[str | None, ...] = ()
    accounts: tuple[AccountEntry, ...] = ()


class Reader(DataSourceReader):
    """The reader without filter pushdown: it divides companies into tasks, and reads the companies of a task."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.companies: frozenset[str] | None = None
        self.statuses = frozenset(options.statuses) if options.statuses else None
        self.since, self.until = options.since, options.until

    def partitions(self) -> Sequence[InputPartition]:
        """Return the tasks; their numbers of companies differ by one at most."""
        is_empty_span = self.since is not None and self.until is not None and self.since >= self.until
        if self.statuses == frozenset() or is_empty_span:
            return [Companies()]
        if self.options.accounts:
            accounts = [each for each in self.options.accounts if self._is_wanted(each.company_id)]
            return [Companies(accounts=part) for part in _split_evenly(accounts, self.options.tasks)]
        return [Companies(ids=part) for part in _split_evenly(self._selected_companies(), self.options.tasks)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Return the jobs of one task's companies, or the companies among them that cannot be read."""
        assert isinstance(partition, Companies)
        frames = self._frames(partition)
        return _to_batches(frames, _schema_of(self.options))

    def _selected_companies(self) -> list[str | None]:
        if self.options.companies is not None:
            return [company for company in self.options.companies if self._is_wanted(company)]
        return [None] if self.companies is None else [*sorted(self.companies)]

    def _is_wanted(self, company: str) -> bool:
        return self.companies is None or company in self.companies

    def _frames(self, partition: Companies) -> Iterator[pl.DataFrame]:
        for account in partition.accounts:
            yield from self._read_safely(account.company_id, account.open)
        if partition.ids:
            with Client(self.options.base_url, rate=self.options.rate) as client:
                for company in partition.ids:
                    yield from self._read_safely(company, lambda: nullcontext(client))

    def _read_safely(
        self, company: str | None, open_client: Callable[[], AbstractContextManager[Client]]
    ) -> Iterator[pl.DataFrame]:
        """Yield the frames of a company. With `skips` they are held back until it is read whole; a failure yields nothing."""
        if not (self.options.skips or self.options.wants_failures):
            with open_client() as client:
                yield from self._read(company, client)
            return
        frames: list[pl.DataFrame] = []
        try:
            with open_client() as client:
                read = self._read(company, client)
                frames.extend(frame for frame in read if not self.options.wants_failures)
        except PleoExtractError as exc:
            _log.warning("%s is left out: %s", company or "the whole list", exc)
            row = {"company_id": company, "code": exc.code, "message": str(exc)}
            frames = [pl.DataFrame([row], schema=_FAILURE_TYPES)] if self.options.wants_failures else []
        yield from frames

    def _read(self, company: str | None, client: Client) -> Iterator[pl.DataFrame]:
        return iter(
            iter_export_jobs(
                company_id=company,
                statuses=sorted(self.statuses or ()),
                since=self.since,
                until=self.until,
                client=client,
                progress=False,
            )
        )


class PushingReader(Reader):
    """The reader for a session with filter pushdown."""

    def pushFilters(self, filters: list[Filter]) -> Iterable[Filter]:  # noqa: N802 - Spark's name
        """Restrict what is read to what the filters accept. All filters are returned: Spark applies them again."""
        if self.options.wants_failures:
            return filters
        self.companies = companies_in(filters)
        pushed = statuses_in(filters)
        if pushed is not None:
            self.statuses = pushed if self.statuses is None else self.statuses & pushed
        low, high = bounds_in(filters)
        self.since = max(filter(None, (self.since, low)), default=None)
        self.until = min(filter(None, (self.until, high)), default=None)
        return filters


def _split_evenly(items: Sequence[Item], most: int) -> list[tuple[Item, ...]]:
    """Distribute the items round-robin over at most `most` groups, and at least one."""
    count = max(1, min(most, len(items)))
    return [tuple(items[start::count]) for start in range(count)]


def _to_batches(frames: Iterator[pl.DataFrame], columns: StructType) -> Iterator[pa.RecordBatch]:
    """Yield the frames as Arrow batches with Spark's types. Small frames are joined, because each batch has a fixed cost."""
    schema = to_arrow_schema(columns, timezone="UTC")
    pending: list[pl.DataFrame] = []
    for frame in frames:
        pending.append(frame)
        if sum(each.height for each in pending) >= _BATCH_ROWS:
            yield from pl.concat(pending).to_arrow().cast(schema).to_batches()
            pending = []
    if pending:
        yield from pl.concat(pending).to_arrow().cast(schema).to_batches()


def _find_context(spark: SparkSession) -> SparkContext | None:
    """Return the Spark context of a session; None for one of Spark Connect, which has none."""
    return None if is_remote() else spark.sparkContext


def count_machines(context: SparkContext) -> int:
    """Return the number of hosts that have an executor. If no host has one yet, run an empty job, which waits for one."""
    if context.master.startswith("local"):
        return 1
    if len(_hosts(context)) < 2:
        context.parallelize([0], 1).count()
    hosts = _hosts(context)
    if (driver := context.getConf().get("spark.driver.host")) in hosts and len(hosts) > 1:
        hosts.remove(str(driver))
    return len(set(hosts))


def _hosts(context: Any) -> list[str]:
    """Return the host of each executor, and that of the driver."""
    status = context._jsc.sc().getExecutorMemoryStatus()  # noqa: SLF001 - pyspark has no public way
    keys = context._jvm.scala.jdk.javaapi.CollectionConverters.asJava(status.keys().toSeq())  # noqa: SLF001 - as above
    return [key.rpartition(":")[0] for key in keys]
