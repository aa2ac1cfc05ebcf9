"""A program for Spark's own environment that reads tables as `answers` does, one after another, in one session.

Each line of standard input is JSON with a `uri`, its `options`, the `workspace` for copies and the `file` for all rows.
For each it prints a line with the number of jobs in `job_durations`.

"""

from __future__ import annotations

import json
import sys

import polars as pl
from pyspark.sql import SparkSession
from spark.clusters import MANY_QUESTIONS

from pleo_extract.spark import answers


def main() -> None:
    """Read tables until standard input closes."""
    builder = SparkSession.builder.master("local[2]")
    for name, value in MANY_QUESTIONS.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    for line in sys.stdin:
        reported = json.loads(line)
        answers(
            spark,
            reported["uri"],
            only=["job_durations"],
            storage_options=reported["options"],
            workspace=reported["workspace"],
        )
        rows = pl.DataFrame(pl.from_arrow(spark.table("export_jobs").toArrow()))
        rows.write_parquet(reported["to"])
        counted = spark.sql("SELECT count(*) AS jobs FROM job_durations").collect()
        print(json.dumps(counted[0].asDict()), flush=True)  # noqa: T201 - it is how it answers
    spark.stop()


if __name__ == "__main__":
    main()
