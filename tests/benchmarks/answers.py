"""Answers over ten million jobs on disk, compared with the same aggregates by hand in DuckDB, Polars and pandas.

    python tests/benchmarks/answers.py [--jobs 10000000] [--runs 3] [--all]

Each run is a whole process; the contenders take turns. A formula makes the lake, directly in the layout of a dump.
*By hand* is the shortest text that gives the same numbers from plain Parquet, without views, macros, intervals or
options; its result is compared with the answer first. `--all` shows time and memory of every answer.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import msgspec
import polars as pl
from measure import Cost, count, measure, medians, table
from polars.testing import assert_frame_equal

from pleo_extract import POLARS_SCHEMA, connect
from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.lake.layout import FORMAT, FileEntry, Layout, Manifest

MONTHS = 36
COMPANIES = 20
HEAD = ("", "CPU s", "times ours", "wall s", "peak MB")
DURATIONS = """
WITH timed AS (
    SELECT company_id, date_trunc('month', created_at) AS period,
           epoch_us(started_at) - epoch_us(created_at) AS queue,
           epoch_us(coalesce(completed_at, expired_at, CASE WHEN status = 'failed' THEN last_updated_at END)) AS ended,
           epoch_us(started_at) AS started, epoch_us(created_at) AS created
    FROM read_parquet('{files}', hive_partitioning = false)
), measured AS (
    SELECT company_id, period, unnest(['queue', 'run', 'total']) AS duration,
           unnest([queue, ended - started, ended - created]) / 1e6 AS seconds
    FROM timed
)
SELECT period, company_id, duration, count(seconds) AS n, avg(seconds) AS mean,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50, percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds) AS p90,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95, percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds) AS p99,
       max(seconds) AS max
FROM measured GROUP BY ALL ORDER BY ALL
"""
RATES = """
SELECT date_trunc('month', created_at) AS period, company_id, count(*) AS jobs,
       count(*) FILTER (WHERE status IN ('completed', 'completed_with_errors', 'failed')) AS finished,
       count(*) FILTER (WHERE status = 'failed') AS failed, failed / finished AS rate
FROM read_parquet('{files}', hive_partitioning = false) GROUP BY ALL ORDER BY ALL
"""
OURS = {
    "duration_stats": "FROM duration_stats('month') ORDER BY ALL",
    "failure_rates": "FROM failure_rates('month') ORDER BY ALL",
}
COMPARE = "FROM compare('2023-01-01', '2024-07-01', '2024-07-01', '2026-01-01')"
ASK = "import sys; from pleo_extract import connect; print(connect(sys.argv[1]).sql(sys.argv[2]).pl().height)"
BY_HAND = "import sys, duckdb; duckdb.execute('SET TimeZone = \\'UTC\\''); print(duckdb.sql(sys.argv[2]).pl().height)"
POLARS = """
import sys, polars as pl
rates = (
    pl.scan_parquet(sys.argv[1] + "/**/*.parquet", hive_partitioning=False)
    .group_by(pl.col("created_at").dt.truncate("1mo").alias("period"), "company_id")
    .agg(
        pl.len().alias("jobs"),
        pl.col("status").is_in(["completed", "completed_with_errors", "failed"]).sum().alias("finished"),
        (pl.col("status") == "failed").sum().alias("failed"),
    )
    .sort("period", "company_id")
    .collect()
)
print(rates.height)
"""
PANDAS = """
import sys, pandas as pd
from pathlib import Path
files = sorted(Path(sys.argv[1]).glob("*/*.parquet"))
jobs = pd.concat([pd.read_parquet(file, columns=["created_at", "company_id", "status"], partitioning=None) for file in files])
jobs["period"] = jobs["created_at"].dt.strftime("%Y-%m")
jobs["finished"] = jobs["status"].isin(["completed", "completed_with_errors", "failed"])
jobs["failed"] = jobs["status"] == "failed"
rates = jobs.groupby(["period", "company_id"]).agg(jobs=("status", "size"), finished=("finished", "sum"), failed=("failed", "sum"))
print(len(rates))
"""


def make_lake(root: Path, jobs: int, companies: int = COMPANIES) -> None:
    """Write a lake of `jobs` jobs of `companies` companies over three years, in the form that a dump leaves."""
    layout = Layout(root)
    layout.objects.mkdir(parents=True)
    layout.snapshots.mkdir()
    entries = []
    for number in range(MONTHS):
        start = datetime(2023 + number // 12, 1 + number % 12, 1, tzinfo=UTC)
        frame = _month(start, jobs // MONTHS + (number < jobs % MONTHS), number, companies)
        path = f"created_month={start:%Y-%m}/part-0.parquet"
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", compression_level=1, row_group_size=100_000)
        (root / path).parent.mkdir()
        (root / path).write_bytes(buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        name = f"{start:%Y-%m}-{digest}"
        (layout.objects / name).hardlink_to(root / path)
        entries.append(
            FileEntry(path=path, rows=frame.height, bytes=buffer.tell(), sha256=digest, object=name)
        )
    made = datetime(2026, 1, 1, tzinfo=UTC)
    manifest = Manifest(
        format=FORMAT,
        snapshot=1,
        server="https://sandbox.invalid",
        made_at=made,
        rows=jobs,
        files=entries,
        library="0",
        accounts={
            AccountKey.of("https://sandbox.invalid", None): SyncState(verdict="complete", full_at=made)
        },
    )
    layout.manifest_file(1).write_bytes(msgspec.json.encode(manifest))
    layout.current.write_text("1\n", encoding="ascii")


def _month(start: datetime, jobs: int, seed: int, companies: int) -> pl.DataFrame:
    """Return one month's jobs: 4 % failed, a few still open."""
    n = pl.int_range(jobs, dtype=pl.UInt64)
    mixed = n.hash(seed)
    name = pl.concat_str(
        (n.hash(seed + 1_000) % 10**12).cast(pl.String).str.zfill(12),
        (mixed % 10**12).cast(pl.String).str.zfill(12),
    )
    created = pl.lit(start) + pl.duration(seconds=n * (27 * 86_400) / jobs)
    started = created + pl.duration(seconds=5 + mixed % 300)
    ended = started + pl.duration(seconds=30 + mixed % 1_700)
    kind = mixed % 1_000
    status = (
        pl.when(kind < 40)
        .then(pl.lit("failed"))
        .when(kind < 42)
        .then(pl.lit("pending"))
        .when(kind < 100)
        .then(pl.lit("completed_with_errors"))
        .otherwise(pl.lit("completed"))
    )
    company = (mixed // 1_000 % companies).cast(pl.String).str.zfill(12)
    columns = {
        "id": pl.concat_str(
            name.str.slice(0, 8),
            *(pl.concat_str(pl.lit("-"), name.str.slice(at, 4)) for at in (8, 12, 16)),
            pl.lit("-"),
            name.str.slice(12, 12),
        ),
        "company_id": pl.concat_str(pl.lit("0000000c-0000-4000-8000-"), company),
        "status": status,
        "created_at": created,
        "started_at": pl.when(status != "pending").then(started),
        "completed_at": pl.when(status.str.starts_with("completed")).then(ended),
        "last_updated_at": pl.when(status != "pending").then(ended).otherwise(created),
        "expires_in": pl.lit(3600),
        "is_interactive": n % 3 == 0,
        "number_of_items": (mixed % 200).cast(pl.Int64),
        "vendor_based_bookkeeping": pl.lit(False),  # noqa: FBT003 - a value, not a switch
        "failure_reason_type": pl.when(status == "failed").then(pl.lit("accounting_system_unreachable")),
        "failure_reason": pl.when(status == "failed").then(
            pl.lit("The accounting system did not answer in time")
        ),
    }
    made = [columns.get(name, pl.lit(None)).cast(kind).alias(name) for name, kind in POLARS_SCHEMA.items()]
    return pl.select(made).sort("company_id", "created_at", "id")


def _check(lake: Path, files: str) -> None:
    """Check that both ways give the same numbers."""
    con, plain = connect(lake), duckdb.connect()
    plain.execute("SET TimeZone = 'UTC'")
    keys = {"duration_stats": ["period", "company_id", "duration"], "failure_rates": ["period", "company_id"]}
    for name, by_hand in (("duration_stats", DURATIONS), ("failure_rates", RATES)):
        wanted = plain.sql(by_hand.format(files=files)).pl().with_columns(pl.col("period").cast(pl.Date))
        ours = con.sql(OURS[name]).pl().with_columns(pl.col("period").cast(pl.Date)).select(wanted.columns)
        order = keys[name]
        assert_frame_equal(ours.sort(order), wanted.sort(order), rel_tol=1e-9, check_dtypes=False)


def run(jobs: int, runs: int, *, everything: bool) -> list[list[object]]:
    """Return a row for each query and contender."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder, "lake")
        make_lake(lake, jobs)
        files = f"{lake}/**/*.parquet"
        _check(lake, files)
        python = [sys.executable, "-c"]
        questions: dict[str, dict[str, list[str]]] = {
            "duration_stats": {
                "ours": [*python, ASK, str(lake), OURS["duration_stats"]],
                "DuckDB by hand": [*python, BY_HAND, "", DURATIONS.format(files=files)],
            },
            "failure_rates": {
                "ours": [*python, ASK, str(lake), OURS["failure_rates"]],
                "DuckDB by hand": [*python, BY_HAND, "", RATES.format(files=files)],
                "Polars by hand": [*python, POLARS, str(lake)],
                "pandas by hand": [*python, PANDAS, str(lake)],
            },
            "survival": {"ours": [*python, ASK, str(lake), "FROM survival()"]},
        }
        if everything:
            for name in (
                "failure_reasons",
                "incidents",
                "recoveries",
                "slow_jobs",
                "stuck_jobs",
                "throughput",
            ):
                questions[name] = {"ours": [*python, ASK, str(lake), f"FROM {name}()"]}
            questions["compare"] = {"ours": [*python, ASK, str(lake), COMPARE]}
        rows: list[list[object]] = []
        for question, ways in questions.items():
            costs: dict[str, list[Cost]] = {way: [] for way in ways}
            for _ in range(runs + 1):
                for way, command in ways.items():
                    costs[way].append(measure(command))
            middle = {way: medians(each[1:]) for way, each in costs.items()}
            for way, cost in middle.items():
                rows.append(
                    [f"{question}, {way}", cost.cpu, cost.cpu / middle["ours"].cpu, cost.wall, cost.peak]
                )
    return rows


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    print(f"{count(asked.jobs)} jobs, medians of {asked.runs} runs in turn\n")
    print(table(HEAD, run(asked.jobs, asked.runs, everything=asked.all)))


if __name__ == "__main__":
    main()
