"""The columns of the data source as Spark types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyspark.sql import types

from pleo_extract.contract import EXTRA, FIELDS

if TYPE_CHECKING:
    from pleo_extract.contract import Kind

__all__ = ["FAILURES", "SCHEMA"]

_SPARK_TYPES: Final[dict[Kind, types.DataType]] = {
    "uuid": types.StringType(),
    "text": types.StringType(),
    "json": types.StringType(),
    "instant": types.TimestampType(),
    "int32": types.IntegerType(),
    "int64": types.LongType(),
    "bool": types.BooleanType(),
}

SCHEMA: Final = types.StructType(
    [
        types.StructField(field.column, _SPARK_TYPES[field.kind], not field.required)
        for field in (*FIELDS, EXTRA)
    ]
)
"""One row per job, with the columns of `pleo_extract.COLUMNS`; instants are TIMESTAMP, to the microsecond."""
FAILURES: Final = types.StructType(
    [
        types.StructField("company_id", types.StringType()),
        types.StructField("code", types.IntegerType(), nullable=False),
        types.StructField("message", types.StringType(), nullable=False),
    ]
)
"""One row per company that could not be read, with the exit code that a dump would have and the message of the error."""
