"""`pleo-extract ddl`: the statements that register a lake as a table of another engine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from pleo_extract.cli.options import lake_argument
from pleo_extract.errors import UsageError

__all__ = ["ENGINES", "ddl", "register_statements"]

_HIVE: Final = {
    "TIMESTAMP WITH TIME ZONE": "timestamp",
    "VARCHAR": "string",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "BOOLEAN": "boolean",
}
_TRINO: Final = {
    **_HIVE,
    "TIMESTAMP WITH TIME ZONE": "timestamp(6)",
    "VARCHAR": "varchar",
    "INTEGER": "integer",
}
"""The types of each engine, by DuckDB's."""

_FIND_MONTHS: Final = "MSCK REPAIR TABLE {table};"
_HIVE_FOLDER: Final = (
    "CREATE EXTERNAL TABLE {table} (\n{columns}\n)\nPARTITIONED BY (created_month string)\nSTORED AS PARQUET\n"
    "LOCATION {location};\n\n" + _FIND_MONTHS
)
_SPARK_FOLDER: Final = (
    "CREATE TABLE {table} (\n{columns},\n    created_month string\n)\nUSING PARQUET\nPARTITIONED BY (created_month)\n"
    "LOCATION {location};\n\n" + _FIND_MONTHS
)
_TRINO_FOLDER: Final = (
    "CREATE TABLE {table} (\n{columns},\n    created_month varchar\n)\n"
    "WITH (format = 'PARQUET', partitioned_by = ARRAY['created_month'], external_location = {location});\n\n"
    "CALL system.sync_partition_metadata(schema_name => {schema}, table_name => {name}, mode => 'FULL');"
)
_SPARK: Final = (_SPARK_FOLDER, "CREATE TABLE {table} USING DELTA LOCATION {location};")
ENGINES: Final = {
    "athena": (
        _HIVE_FOLDER,
        "CREATE EXTERNAL TABLE {table}\nLOCATION {location}\nTBLPROPERTIES ('table_type' = 'DELTA');",
    ),
    "databricks": _SPARK,
    "hive": (_HIVE_FOLDER, None),
    "spark": _SPARK,
    "trino": (
        _TRINO_FOLDER,
        "CALL system.register_table(schema_name => {schema}, table_name => {name}, table_location => {location});",
    ),
}
"""For each engine the statements for a folder of Parquet, and those for a Delta table."""

EXAMPLES = """\b
Examples:
  pleo-extract ddl data/export_jobs --for spark
  pleo-extract ddl s3://bucket/export_jobs --for trino \\
      --table pleo.export_jobs
"""


@click.command(epilog=EXAMPLES, short_help="Print the statements that register a lake in another engine")
@lake_argument
@click.option("--for", "engine", type=click.Choice(sorted(ENGINES)), required=True, help="The engine")
@click.option(
    "--table",
    default="export_jobs",
    show_default=True,
    metavar="NAME",
    help="The table, with its schema if need be: pleo.export_jobs",
)
@click.option(
    "--location", default="", metavar="URL", help="Where the engine finds LAKE [default: LAKE itself]"
)
def ddl(lake: str | Path, engine: str, table: str, location: str) -> None:
    """Print the statements that make LAKE a table of another engine. Nothing is read or changed.

    A folder of Parquet needs its last statement again after each new month. A Delta table needs nothing more.
    """
    from pleo_extract.lake.store import is_delta

    if not location:
        location = str(lake) if "://" in str(lake) else Path(lake).absolute().as_uri()
    click.echo(register_statements(engine, table, location, is_delta=is_delta(lake)))


def register_statements(engine: str, table: str, location: str, *, is_delta: bool) -> str:
    """Return the statements, in SQL of the engine.

    Raises:
        UsageError: the engine cannot register such a lake, or the table has no name.
    """
    from pleo_extract.contract import DUCKDB_SCHEMA

    template = ENGINES[engine][is_delta]
    if template is None:
        raise UsageError(
            f"{engine} needs a library of its own for Delta tables; register the lake in another engine"
        )
    schema, _, name = table.rpartition(".")
    if not all(part.isidentifier() for part in table.split(".")):
        raise UsageError(f"{table!r} is not the name of a table; give NAME or SCHEMA.NAME")
    types = _TRINO if engine == "trino" else _HIVE
    return template.format(
        table=table,
        schema=_quote(schema.rpartition(".")[2] or "default", engine),
        name=_quote(name, engine),
        location=_quote(location, engine),
        columns=",\n".join(f"    {column} {types[kind]}" for column, kind in DUCKDB_SCHEMA.items()),
    )


def _quote(text: str, engine: str) -> str:
    """Return a literal. Only Trino doubles a quote: to the others, which read Hive's SQL, that would be two literals."""
    from pleo_extract.answers.definition import literal

    return literal(text) if engine == "trino" else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
