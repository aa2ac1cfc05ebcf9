"""The answers on Spark: the statements of `sql/` as views and table functions, from the text that DuckDB reads.

Spark has two functions less than that text needs, `epoch_us` and `error`, which are made here, and three parts of its
own in `sql/parts/spark/`. All else is the same text. Spark keeps the settings under which a view or function was made:
those are made in UTC and with errors for what cannot be computed, whatever the session is set to.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyspark.sql import functions
from pyspark.sql.types import TimestampType

from pleo_extract.answers.facts import SnapshotFacts, read_facts
from pleo_extract.answers.statement import (
    GIVEN,
    PRIVATE,
    SPANS,
    bind,
    check_value,
    parts,
    statements,
    with_relations,
)
from pleo_extract.errors import LakeError, UsageError
from pleo_extract.lake.store import open_lake
from pleo_extract.spark.schema import SCHEMA
from pleo_extract.zones import to_utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyspark.sql import DataFrame, SparkSession

    from pleo_extract.answers import Parameter, Statement
    from pleo_extract.lake.store import Store

__all__ = ["answers"]

SETTINGS: Final = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "true"}
"""What every definition is made under, and keeps."""

MISSING: Final = {
    "epoch_us(t TIMESTAMP) RETURNS BIGINT": "unix_micros(t)",
    "error(message STRING) RETURNS STRING": "raise_error(message)",
}
"""Functions that DuckDB has and Spark has by another name."""

TYPES: Final = {
    "VARCHAR": "STRING",
    "TIMESTAMPTZ": "TIMESTAMP",
    "BIGINT": "BIGINT",
    "DOUBLE": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
}
"""Types of parameters, DuckDB's and Spark's."""


def answers(
    spark: SparkSession,
    lake: str | Path | DataFrame,
    *,
    as_of: datetime | int | None = None,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> None:
    """Make the views and functions of `pleo_extract.connect` in a Spark session, over a lake.

    Views: `export_jobs`, `job_durations`, `vanished`, `companies`, `snapshot`. Table functions, with the parameters and columns
    that ``pleo-extract sql --list`` and ``--describe`` name: ``SELECT * FROM failure_rates('month')``,
    ``SELECT * FROM slow_jobs(q => 0.9)``. Periods are TIMESTAMP_NTZ, all other instants TIMESTAMP. As in any SQL, rows
    have an order where the query says ORDER BY.

    All of them are temporary: they belong to this session, and replace what has their names in it.

    Args:
        spark: the session. It may be in any time zone: periods are in UTC, or in the `tz` of the question.
        lake: the folder of a lake of Parquet, or the folder or URL of a Delta table, of which one snapshot is resolved
            once: the files that the manifest or Delta's log lists, and no others. Spark needs nothing of Delta's for
            it: files in an object store are copied first, as for `connect`. Or a DataFrame with the columns of
            `pleo_extract.COLUMNS`, such as one that Delta's own reader made.
        as_of: for a lake, the snapshot that was current at this instant, or that has this number. For a DataFrame
            the instant that "now" means for open jobs; by default the latest instant in it.
        storage_options: how the object store of a Delta table is reached, as for `connect`.
        workspace: where copies of its files are kept. All executors must be able to read it, or the lake's folder.

    Raises:
        LakeError: there is no such lake, or a column is missing. UsageError: no such snapshot is kept, or an instant
        without a time zone.
    """
    with _settings(spark):
        if isinstance(lake, str | Path):
            kept = open_lake(lake, storage_options=storage_options, workspace=workspace)
            jobs, facts = _read(spark, kept, as_of)
        else:
            _refuse_options(storage_options, workspace)
            jobs, facts = lake, SnapshotFacts(_check_instant(as_of))
        _check_columns(jobs)
        columns = [functions.col(field.name).cast(field.dataType) for field in SCHEMA]
        jobs.select(*columns).createOrReplaceTempView("export_jobs")
        _name_companies(spark, facts)
        _define(spark, facts)


def _read(spark: SparkSession, lake: Store, as_of: datetime | int | None) -> tuple[DataFrame, SnapshotFacts]:
    """The jobs of one snapshot, and what its lake says beside them."""
    opened = lake.open(as_of)
    if opened is None:
        return spark.createDataFrame([], SCHEMA), SnapshotFacts()
    manifest = opened.manifest
    asked = as_of if isinstance(as_of, datetime) else None
    facts = read_facts(manifest.accounts, manifest.made_at, asked=asked)
    files = [_literal_path(file) for file in opened.files]
    if not files:
        return spark.createDataFrame([], SCHEMA), facts
    return spark.read.schema(SCHEMA).parquet(*files), facts


def _literal_path(file: Path) -> str:
    """A path as Spark takes it for itself, whatever is in it that would be a pattern elsewhere."""
    return "file://" + reduce(
        lambda text, sign: text.replace(sign, "\\" + sign), "\\{}[]*?", str(file.absolute())
    )


def _check_instant(as_of: datetime | int | None) -> datetime | None:
    if isinstance(as_of, int):
        raise UsageError(
            "as_of is the number of a snapshot; a DataFrame has none, give an instant with a time zone"
        )
    return None if as_of is None else to_utc(as_of, "as_of")


def _refuse_options(storage_options: Mapping[str, str] | None, workspace: str | Path | None) -> None:
    if storage_options or workspace:
        raise UsageError("a DataFrame is read by Spark: storage options and a workspace belong to a lake")


def _check_columns(jobs: DataFrame) -> None:
    if missing := [name for name in SCHEMA.names if name not in jobs.columns]:
        raise LakeError(f"these are no export jobs: there is no column {missing[0]!r}")


def _name_companies(spark: SparkSession, facts: SnapshotFacts) -> None:
    rows = [(company, name, facts.nows.get(company)) for company, name, _ in facts.companies()]
    frame = spark.createDataFrame(rows, "id STRING, name STRING, now TIMESTAMP")
    frame.createOrReplaceTempView("companies")


def _define(spark: SparkSession, facts: SnapshotFacts) -> None:
    for signature, body in MISSING.items():
        spark.sql(f"CREATE OR REPLACE TEMPORARY FUNCTION {signature} RETURN {body}")
    spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW snapshot AS {_snapshot(facts)}")
    for statement in statements().values():
        if statement.name in GIVEN:
            continue  # made already
        comment = f"COMMENT {_literal(statement.summary + chr(10) * 2 + statement.definition)}"
        if statement.kind == "view":
            query = with_relations(statement.query, {PRIVATE: _gone(facts)})
            spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW {statement.name} {comment} AS {query}")
        else:
            spark.sql(_function(statement, comment))


def _snapshot(facts: SnapshotFacts) -> str:
    names = ("as_of", "data_as_of", "now")
    instants = [
        f"TIMESTAMP {_literal(each.astimezone(UTC).isoformat())}"
        for each in facts.instants()
        if each is not None
    ]
    if instants:
        return f"SELECT {', '.join(f'{each} AS {name}' for each, name in zip(instants, names, strict=True))}"
    latest = [f"max(j.{field.name})" for field in SCHEMA if isinstance(field.dataType, TimestampType)]
    found = ", ".join(f"greatest({', '.join(latest)}) AS {name}" for name in names)
    return f"SELECT {found} FROM export_jobs AS j"  # noqa: S608 - columns of the contract


def _gone(facts: SnapshotFacts) -> str:
    """The keys of vanished jobs."""
    if not facts.vanished:
        return "SELECT CAST(NULL AS STRING) AS company_id, CAST(NULL AS STRING) AS id WHERE FALSE"
    packed = _literal(",".join(f"{company} {job}" for company, job in facts.vanished))
    each = f"SELECT explode(split({packed}, ',')) AS entry"
    return f"SELECT split_part(v.entry, ' ', 1) AS company_id, split_part(v.entry, ' ', 2) AS id FROM ({each}) AS v"  # noqa: S608 - the text is escaped


def _function(statement: Statement, comment: str) -> str:
    """CREATE FUNCTION, with the parts that the statement reads as its WITH."""
    body = with_relations(statement.query, {part.name: part.query for part in parts("spark").values()})
    values = {p.name: f"{statement.name}.{p.name}" for p in statement.parameters}
    for p in statement.parameters:
        if check := check_value(statement, p.name, values[p.name], "STRING"):
            refused = f"CAST(error({check[1]}) AS {TYPES[p.type]})"
            values[p.name] = f"(CASE WHEN {check[0]} THEN {values[p.name]} ELSE {refused} END)"
    for since, until in SPANS:
        if since in values:
            values[since] = _refuse_empty(since, values[since], values[until])
    declared = ", ".join(map(_declare, statement.parameters))
    return (
        f"CREATE OR REPLACE TEMPORARY FUNCTION {statement.name}({declared}) RETURNS TABLE {comment} "
        f"RETURN {bind(body, values)}"
    )


def _refuse_empty(name: str, since: str, until: str) -> str:
    """`since`, unless it is not before `until`; that is an error once a job is read."""
    said = f"concat('{name} ', {since}, ' is not before {name.replace('since', 'until')} ', {until})"
    return f"(CASE WHEN {since} >= {until} THEN CAST(error({said}) AS TIMESTAMP) ELSE {since} END)"


def _declare(parameter: Parameter) -> str:
    default = "" if parameter.default is None else f" DEFAULT {parameter.default}"
    return f"{parameter.name} {TYPES[parameter.type]}{default}"


def _literal(text: str) -> str:
    """A text as Spark's SQL literal, in which a backslash would begin an escape."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def _settings(spark: SparkSession) -> Iterator[None]:
    """The session with the settings that definitions are made under; afterwards as it was."""
    before = {name: spark.conf.get(name) for name in SETTINGS}
    try:
        for name, value in SETTINGS.items():
            spark.conf.set(name, value)
        yield
    finally:
        for name, said in before.items():
            if said is not None:
                spark.conf.set(name, said)
