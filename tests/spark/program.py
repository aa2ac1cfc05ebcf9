"""A Spark program that reads the API into a Parquet file and reports how long it took.

`FOLDER/told.json` has the `master`, the `settings` of the session and the `options` of the read. The rows go to
`FOLDER/rows.parquet`. The last line of its output is JSON: the seconds of the read, the tasks, and the number of
machines that it counted.

"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import polars as pl
from pyspark.sql import SparkSession

from pleo_extract.spark import register
from pleo_extract.spark.source import count_machines


def main(folder: Path) -> None:
    """Read the API and write the rows."""
    facts = json.loads((folder / "told.json").read_text())
    builder = SparkSession.builder.master(facts["master"])
    for name, value in facts["settings"].items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    register(spark)
    began = time.monotonic()
    jobs = spark.read.format("pleo_export_jobs").options(**facts["options"]).load()
    rows = jobs.toArrow()
    seconds = time.monotonic() - began
    pl.DataFrame(pl.from_arrow(rows)).write_parquet(folder / "rows.parquet")
    said = {
        "seconds": round(seconds, 1),
        "tasks": jobs.rdd.getNumPartitions(),
        "machines": count_machines(spark.sparkContext),
    }
    spark.stop()
    print(json.dumps(said), flush=True)  # noqa: T201 - it is how it answers


if __name__ == "__main__":
    main(Path(sys.argv[1]))
