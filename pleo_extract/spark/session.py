"""The answers on Spark: the statements of `sql/` as views and table functions, from the same text as on DuckDB.

Spark lacks functions that the text uses; they are created here, see `RENAMED_FUNCTIONS`. Three parts have a version for
Spark in `sql/parts/spark/`. Everything else is the same text.

Spark stores the settings of the session with each view and function. They are created with the time zone UTC and with
ANSI errors for what cannot be computed, so the session itself may use any settings.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyspark.sql import functions

from pleo_extract.answers.facts import SnapshotFacts, read_facts
from pleo_extract.answers.names import read_kept_names
from pleo_extract.answers.statement import (
    ENGINE_VIEWS,
    TIME_RANGES,
    VANISHED_KEYS,
    bind_parameters,
    check_value,
    find_statement,
    in_order_of_creation,
    one_sided,
    parts,
    range_error,
    snapshot_query,
    vanished_keys_query,
    with_relations,
)
from pleo_extract.errors import LakeError, UsageError
from pleo_extract.lake.store import open_lake, open_to_read
from pleo_extract.spark.schema import SCHEMA
from pleo_extract.zones import to_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from pyspark.sql import DataFrame, SparkSession

    from pleo_extract.answers import Parameter, Statement
    from pleo_extract.lake.store import Store

__all__ = ["answers"]

SETTINGS: Final = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "true"}
"""The settings with which every view and function is created, and which it keeps."""

RENAMED_FUNCTIONS: Final = {
    "epoch_us(t TIMESTAMP) RETURNS BIGINT": "unix_micros(t)",
    "error(message STRING) RETURNS STRING": "raise_error(message)",
    "make_timestamptz(micros BIGINT) RETURNS TIMESTAMP": "timestamp_micros(micros)",
    "timezone(zone STRING, clock TIMESTAMP_NTZ) RETURNS TIMESTAMP": "to_utc_timestamp(CAST(clock AS TIMESTAMP), zone)",
}
"""Functions of DuckDB that have another name in Spark."""

TYPES: Final = {
    "VARCHAR": "STRING",
    "TIMESTAMPTZ": "TIMESTAMP",
    "BIGINT": "BIGINT",
    "DOUBLE": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
}
"""Spark's type for each type of a parameter in DuckDB."""


def answers(
    spark: SparkSession,
    lake: str | Path | DataFrame,
    *,
    only: Iterable[str] | None = None,
    as_of: datetime | int | None = None,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> None:
    """Create the views and functions of `pleo_extract.connect` in a Spark session, over one snapshot of a lake.

    Views: `export_jobs`, `job_durations`, `vanished`, `companies`, `snapshot`. Table functions, with the parameters and columns
    that ``pleo-extract sql --list`` and ``--describe`` show: ``SELECT * FROM failure_rates('month')``,
    ``SELECT * FROM slow_jobs(q => 0.9)``. Periods are TIMESTAMP_NTZ, all other instants TIMESTAMP. Rows have no order
    unless the query has an ORDER BY.

    All of them are temporary: they belong to this session, and replace views and functions with the same names in it.

    Args:
        spark: the session. It may use any time zone: periods are in UTC, or in the `tz` of the call.
        lake: the folder of a lake, or the folder or URL of a Delta table; or a DataFrame with the columns of
            `pleo_extract.COLUMNS`, such as one from Delta's own reader. Of a lake, Spark reads exactly the files that
            the manifest or the Delta log lists now. Spark needs no Delta library: files in an object store are copied
            first, as for `connect`.
        only: names of views and functions. Only these are created, with the views that they read, and `export_jobs`,
            `companies` and `snapshot`. Spark takes up to two seconds for each function, half a minute for all of them.
        as_of: for a lake, the snapshot that was current at this instant, or the number of a snapshot. For a DataFrame,
            the instant that counts as now for open jobs; by default the latest instant in it.
        storage_options: how to reach the object store of a Delta table, as for `connect`.
        workspace: the folder for copies of its files. All executors must be able to read it, or the lake's folder.

    Raises:
        LakeError: there is no such lake, or a column is missing.
        TryLater: a first dump to the lake has begun, and none has been completed.
        UsageError: the lake does not keep this snapshot, an instant has no time zone, or there is no view or function of
            a name.
    """
    wanted = None if only is None else [find_statement(name).name for name in only]
    with _settings(spark):
        if isinstance(lake, str | Path):
            store = open_lake(lake, storage_options=storage_options, workspace=workspace)
            jobs, facts = _read_snapshot(spark, store, as_of, read_kept_names(lake))
        else:
            if storage_options or workspace:
                raise UsageError(
                    "storage_options and workspace belong to a lake: Spark itself reads a DataFrame"
                )
            jobs, facts = lake, SnapshotFacts(_check_instant(as_of))
        if missing := [name for name in SCHEMA.names if name not in jobs.columns]:
            raise LakeError(f"the DataFrame is not a table of export jobs: it has no column {missing[0]!r}")
        columns = [functions.col(field.name).cast(field.dataType) for field in SCHEMA]
        jobs.select(*columns).createOrReplaceTempView("export_jobs")
        _create_companies(spark, facts)
        _create_statements(spark, facts, wanted)


def _read_snapshot(
    spark: SparkSession, store: Store, as_of: datetime | int | None, names: Mapping[str, str]
) -> tuple[DataFrame, SnapshotFacts]:
    """Return the jobs of one snapshot, and the facts about it."""
    opened = open_to_read(store, as_of)
    if opened is None:
        return spark.createDataFrame([], SCHEMA), SnapshotFacts()
    facts = read_facts(opened.manifest.accounts, opened.manifest.made_at, as_of=as_of, names=names)
    files = [_escape_path(file) for file in opened.files]
    if not files:
        return spark.createDataFrame([], SCHEMA), facts
    return spark.read.schema(SCHEMA).parquet(*files), facts


def _escape_path(file: Path) -> str:
    """Return a path with its pattern characters escaped, so that Spark reads this file and no other."""
    return "file://" + reduce(
        lambda text, sign: text.replace(sign, "\\" + sign), "\\{}[]*?", str(file.absolute())
    )


def _check_instant(as_of: datetime | int | None) -> datetime | None:
    if isinstance(as_of, int):
        raise UsageError(
            "as_of is the number of a snapshot, but a DataFrame has none: give an instant with a time zone"
        )
    return None if as_of is None else to_utc(as_of, "as_of")


def _create_companies(spark: SparkSession, facts: SnapshotFacts) -> None:
    rows = [(company, name, facts.nows.get(company)) for company, name, _ in facts.companies()]
    frame = spark.createDataFrame(rows, "id STRING, name STRING, now TIMESTAMP")
    frame.createOrReplaceTempView("companies")


def _create_statements(spark: SparkSession, facts: SnapshotFacts, wanted: Sequence[str] | None) -> None:
    for signature, body in RENAMED_FUNCTIONS.items():
        spark.sql(f"CREATE OR REPLACE TEMPORARY FUNCTION {signature} RETURN {body}")
    spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW snapshot AS {snapshot_query(facts, 'TIMESTAMP')}")
    for statement in in_order_of_creation(wanted, "spark"):
        if statement.name in ENGINE_VIEWS:
            continue
        comment = f"COMMENT {_literal(statement.summary + chr(10) * 2 + statement.definition)}"
        if statement.kind == "view":
            query = with_relations(statement.query, {VANISHED_KEYS: vanished_keys_query(facts, _explode)})
            spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW {statement.name} {comment} AS {query}")
        else:
            spark.sql(_create_function(statement, comment))


def _explode(text: str) -> str:
    return f"explode(split({_literal(text)}, ','))"


def _create_function(statement: Statement, comment: str) -> str:
    """Return CREATE FUNCTION for a macro, with the parts that it reads as its WITH clause."""
    body = with_relations(statement.query, {part.name: part.query for part in parts("spark").values()})
    values = {p.name: f"{statement.name}.{p.name}" for p in statement.parameters}
    for p in statement.parameters:
        if check := check_value(statement, p.name, values[p.name], "STRING"):
            failure = f"CAST(error({check[1]}) AS {TYPES[p.type]})"
            values[p.name] = f"(CASE WHEN {check[0]} THEN {values[p.name]} ELSE {failure} END)"
    for since, until in TIME_RANGES:
        if since in values:  # unlike in DuckDB, this is an error only when the first job is read
            failure = f"CAST(error({range_error(since, until, values)}) AS TIMESTAMP)"
            is_empty = f"{values[since]} >= {values[until]}"
            values[since] = f"(CASE WHEN {is_empty} THEN {failure} ELSE {values[since]} END)"
    if "since_a" in values:
        is_one_sided, message = one_sided(values)
        failure = f"CAST(error({message}) AS TIMESTAMP)"
        values["until_a"] = f"(CASE WHEN {is_one_sided} THEN {failure} ELSE {values['until_a']} END)"
    declared = ", ".join(map(_declare, statement.parameters))
    return (
        f"CREATE OR REPLACE TEMPORARY FUNCTION {statement.name}({declared}) RETURNS TABLE {comment} "
        f"RETURN {bind_parameters(body, values)}"
    )


def _declare(parameter: Parameter) -> str:
    default = "" if parameter.default is None else f" DEFAULT {parameter.default}"
    return f"{parameter.name} {TYPES[parameter.type]}{default}"


def _literal(text: str) -> str:
    """Return the text as a literal of Spark's SQL, in which a backslash begins an escape."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def _settings(spark: SparkSession) -> Iterator[None]:
    """Apply `SETTINGS` to the session, and restore its own settings afterwards."""
    before = {name: spark.conf.get(name) for name in SETTINGS}
    try:
        for name, value in SETTINGS.items():
            spark.conf.set(name, value)
        yield
    finally:
        for name, value in before.items():
            if value is not None:
                spark.conf.set(name, value)
