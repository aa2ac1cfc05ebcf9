"""The data source `pleo_export_jobs`: many companies a task, Arrow batches out, read as `iter_export_jobs` reads.

Options are read where Spark plans, in a Python process beside the driver; a task's companies travel to an executor,
which has the credential in its environment. A task that fails or loses its executor is read again from its start,
and Spark takes the rows of one attempt only.

The pace: all tasks of a machine share one window, which outlasts each of them, so the rate of the whole job is
divided by the machines. A share for each task would be forgotten at its end, and short tasks would go beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import polars as pl
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.pandas.types import to_arrow_schema

from pleo_extract.client import Client
from pleo_extract.errors import UsageError
from pleo_extract.fetch.iterate import iter_export_jobs
from pleo_extract.spark.options import read_companies, read_options
from pleo_extract.spark.pushing import companies_in, statuses_in
from pleo_extract.spark.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.datasource import Filter
    from pyspark.sql.types import StructType

    from pleo_extract.client import AccountEntry
    from pleo_extract.spark.options import Options

__all__ = ["count_machines", "list_companies", "register"]

_PUSHDOWN = "spark.sql.python.filterPushdown.enabled"
_BATCH_ROWS = 2_000

Item = TypeVar("Item")


def register(spark: SparkSession) -> None:
    """Make ``spark.read.format("pleo_export_jobs")`` read the live API in this session.

    One row a job, columns as in `pleo_extract.COLUMNS`, each company's jobs once. Options: ``base_url``,
    ``company_id``, ``companies``, ``statuses``, ``since``, ``until``, ``tasks``, ``rate`` and ``machines``; see
    ``pleo_extract.spark.options.OPTIONS``. Credentials are those of each executor's environment (PLEO_API_KEY,
    PLEO_ACCESS_TOKEN or PLEO_TOKEN_COMMAND), or those that an accounts.toml names; an option that holds one is
    refused.

    Two facts are taken from the session now: whether filters may be pushed (``spark.sql.python.filterPushdown.enabled``,
    off by default), and how many machines have an executor, among which the rate is divided.

    Every action reads the API again: write what you read, and ask that.

    Raises:
        When the query runs, as `iter_export_jobs`, inside Spark's own error.
    """
    pushes = str(spark.conf.get(_PUSHDOWN, "false")).lower() == "true"
    facts = {"pushes": pushes, "machines": count_machines(spark)}
    spark.dataSource.register(type("PleoExportJobs", (ExportJobs,), facts))


def list_companies(frame: DataFrame, column: str = "company_id") -> str:
    """The companies of a DataFrame as the option `company_id` takes them: each once, in order.

    Raises:
        UsageError: a value that is no UUID.
    """
    rows = frame.select(column).distinct().collect()
    return ",".join(sorted(read_companies([str(row[0]) for row in rows if row[0] is not None])))


class ExportJobs(DataSource):
    """The data source as `register` completes it for one session."""

    pushes: ClassVar[bool] = False
    machines: ClassVar[int] = 1

    @classmethod
    def name(cls) -> str:
        """What `format` takes."""
        return "pleo_export_jobs"

    def schema(self) -> StructType:
        """The columns; options that cannot be used are refused here already."""
        read_options(self.options, machines=self.machines)
        return SCHEMA

    def reader(self, schema: StructType) -> DataSourceReader:
        """The reader: Spark refuses one that could push filters in a session that does not."""
        if schema != SCHEMA:
            raise UsageError("the columns of pleo_export_jobs are fixed; leave out .schema(…)")
        options = read_options(self.options, machines=self.machines)
        return PushingReader(options) if self.pushes else Reader(options)


@dataclass(frozen=True, slots=True)
class Companies(InputPartition):
    """One task: these companies one after the other; None among them stands for all that the credential sees."""

    ids: tuple[str | None, ...] = ()
    accounts: tuple[AccountEntry, ...] = ()


class Reader(DataSourceReader):
    """Divides companies into tasks, and reads those of a task."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.companies: frozenset[str] | None = None
        self.statuses = frozenset(options.statuses) if options.statuses else None

    def partitions(self) -> Sequence[InputPartition]:
        """One for each task, equal in companies but for one."""
        if self.statuses == frozenset():
            return [Companies()]
        if self.options.accounts:
            accounts = [each for each in self.options.accounts if self._is_wanted(each.company_id)]
            return [Companies(accounts=part) for part in _deal(accounts, self.options.tasks)]
        return [Companies(ids=part) for part in _deal(self._list(), self.options.tasks)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """The jobs of one task's companies."""
        assert isinstance(partition, Companies)
        return _to_batches(self._frames(partition))

    def _list(self) -> list[str | None]:
        if self.options.companies is not None:
            return [company for company in self.options.companies if self._is_wanted(company)]
        return [None] if self.companies is None else [*sorted(self.companies)]

    def _is_wanted(self, company: str) -> bool:
        return self.companies is None or company in self.companies

    def _frames(self, partition: Companies) -> Iterator[pl.DataFrame]:
        for account in partition.accounts:
            with account.open() as client:
                yield from self._read(account.company_id, client)
        if partition.ids:
            with Client(self.options.base_url, rate=self.options.rate) as client:
                for company in partition.ids:
                    yield from self._read(company, client)

    def _read(self, company: str | None, client: Client) -> Iterator[pl.DataFrame]:
        return iter(
            iter_export_jobs(
                company_id=company,
                statuses=sorted(self.statuses or ()),
                since=self.options.since,
                until=self.options.until,
                client=client,
                progress=False,
            )
        )


class PushingReader(Reader):
    """The same, for a session that pushes filters."""

    def pushFilters(self, filters: list[Filter]) -> Iterable[Filter]:  # noqa: N802 - Spark's name
        """Ask the server for less where it can; Spark applies all filters all the same."""
        self.companies = companies_in(filters)
        pushed = statuses_in(filters)
        if pushed is not None:
            self.statuses = pushed if self.statuses is None else self.statuses & pushed
        return filters


def _deal(items: Sequence[Item], hands: int) -> list[tuple[Item, ...]]:
    """Items dealt out like cards, into one hand at least."""
    count = max(1, min(hands, len(items)))
    return [tuple(items[place::count]) for place in range(count)]


def _to_batches(frames: Iterator[pl.DataFrame]) -> Iterator[pa.RecordBatch]:
    """Frames as Arrow batches of Spark's own types; small ones are put together, since each batch has its price."""
    schema = to_arrow_schema(SCHEMA, timezone="UTC")
    waiting: list[pl.DataFrame] = []
    for frame in frames:
        waiting.append(frame)
        if sum(each.height for each in waiting) >= _BATCH_ROWS:
            yield from pl.concat(waiting).to_arrow().cast(schema).to_batches()
            waiting = []
    if waiting:
        yield from pl.concat(waiting).to_arrow().cast(schema).to_batches()


def count_machines(spark: SparkSession) -> int:
    """How many hosts have an executor; where none has come up yet, a job of nothing waits for the first."""
    context = spark.sparkContext
    if context.master.startswith("local"):
        return 1
    if len(_hosts(context)) < 2:
        context.parallelize([0], 1).count()
    hosts = _hosts(context)
    if (driver := context.getConf().get("spark.driver.host")) in hosts and len(hosts) > 1:
        hosts.remove(str(driver))
    return len(set(hosts))


def _hosts(context: Any) -> list[str]:
    """The host of each executor, the driver's own among them."""
    status = context._jsc.sc().getExecutorMemoryStatus()  # noqa: SLF001 - pyspark has no word for it
    keys = context._jvm.scala.jdk.javaapi.CollectionConverters.asJava(status.keys().toSeq())  # noqa: SLF001 - as above
    return [key.rpartition(":")[0] for key in keys]
