"""The five common answers on Spark and in DuckDB, over the same lake, on the cores of this machine.

    . .ci/spark-environment && $SPARK_PYTHON tests/benchmarks/on_spark.py [--jobs 10000000]

Each figure is the cheapest of three runs in a session that has answered before, so that neither start-up nor compilation
counts: the CPU time of the Java process, and of this one. docs/engines.md shows the table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from answers import make_lake
from measure import count, table
from pyspark.sql import SparkSession

from pleo_extract import connect
from pleo_extract.spark import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

ASKED: Final = (
    "failure_rates('month')",
    "duration_stats('month')",
    "throughput('month')",
    "failure_reasons('month')",
    "within(600, 'month')",
)
RUNS: Final = 3
HEAD: Final = ("", "DuckDB CPU s", "Spark CPU s", "times", "DuckDB wall s", "Spark wall s")


def measure(ask: Callable[[], object], count_cpu: Callable[[], float]) -> tuple[float, float]:
    """Return the CPU and wall seconds of the cheapest run, after one that does not count."""
    found = []
    for _ in range(RUNS + 1):
        cpu, wall = count_cpu(), time.perf_counter()
        ask()
        found.append((count_cpu() - cpu, time.perf_counter() - wall))
    return min(found[1:])


def _ask_duckdb(con: duckdb.DuckDBPyConnection, text: str) -> object:
    return con.sql(text).fetchall()


def _ask_spark(spark: SparkSession, text: str) -> object:
    return spark.sql(text).collect()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=10_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder, "lake")
        make_lake(lake, asked.jobs)
        builder = SparkSession.builder.master("local[*]").config("spark.driver.memory", "6g")
        spark = builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()
        spark.sparkContext.setLogLevel("OFF")
        java = Path(f"/proc/{spark.sparkContext._gateway.proc.pid}/stat")

        def count_java() -> float:
            fields = java.read_text(encoding="ascii").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        answers(spark, lake, only=[each.partition("(")[0] for each in ASKED])
        con = connect(lake)
        rows = []
        for each in ASKED:
            text = f"SELECT * FROM {each}"
            ours = measure(partial(_ask_duckdb, con, text), time.process_time)
            theirs = measure(partial(_ask_spark, spark, text), count_java)
            rows.append([each, ours[0], theirs[0], theirs[0] / ours[0], ours[1], theirs[1]])
        spark.stop()
    print(f"{count(asked.jobs)} jobs, {os.cpu_count()} cores\n")
    print(table(HEAD, rows))


if __name__ == "__main__":
    main()
