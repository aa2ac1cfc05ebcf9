"""Check that a contender wrote what the server has: every job once, every field. Arguments: folder, number of jobs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import polars as pl
from server import Jobs

from pleo_extract import COLUMNS, POLARS_SCHEMA

FIELDS = [column for column in COLUMNS if column != "extra"]


def snake(name: str) -> str:
    """Convert CamelCase to snake_case."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def read(folder: Path) -> pl.DataFrame:
    """Read what the contender wrote, whatever the format."""
    if messages := list(folder.glob("messages.jsonl")):
        lines = [
            json.loads(line)
            for line in messages[0].read_text(encoding="utf-8").splitlines()
            if line[:1] == "{"
        ]
        rows = [line["record"].get("data", line["record"]) for line in lines if line["type"] == "RECORD"]
        return pl.DataFrame(rows, infer_schema_length=None)
    if (folder / "jobs.duckdb").exists():
        import duckdb  # noqa: PLC0415 - for one contender

        with duckdb.connect(str(folder / "jobs.duckdb"), read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            found: pl.DataFrame = con.sql("SELECT * FROM pleo.export_jobs").pl()
            return found
    files = [path for path in folder.rglob("*.parquet") if "/_dlt_" not in str(path)]
    return pl.concat(
        (pl.read_parquet(path, hive_partitioning=False) for path in files), how="diagonal_relaxed"
    )


def normalise(frame: pl.DataFrame) -> pl.DataFrame:
    """Convert a frame to our columns and types, sorted by id."""
    frame = frame.rename({name: snake(name) for name in frame.columns})
    columns = []
    for name in FIELDS:
        kind = POLARS_SCHEMA[name]
        if name not in frame.columns:
            columns.append(pl.lit(None, kind).alias(name))
        elif isinstance(kind, pl.Datetime) and frame[name].dtype == pl.String:
            columns.append(pl.col(name).str.to_datetime(time_zone="UTC", time_unit="us"))
        else:
            columns.append(pl.col(name).cast(kind))
    return frame.select(columns).sort("id")


def main() -> None:
    """Compare the rows; fail with the first difference."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    jobs = Jobs(count)
    truth = normalise(pl.read_ndjson("\n".join(map(jobs.row, range(count))).encode()))
    found = normalise(read(folder))
    assert found.height == count, f"{found.height} rows, {count} jobs"
    for name in FIELDS:
        assert found[name].equals(truth[name]), f"{name} differs"


if __name__ == "__main__":
    main()
