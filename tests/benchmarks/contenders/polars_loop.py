"""httpx and polars, as one writes it in a notebook. Arguments: URL, key, output folder, rows of a page."""

from __future__ import annotations

import sys
from pathlib import Path

TITLE = "httpx + polars"
REQUIREMENTS = ["httpx", "polars"]
TIMES = ["createdAt", "startedAt", "completedAt", "expiredAt", "lastUpdatedAt"]


def run(url: str, key: str, out: str, limit: str = "100") -> None:
    """Fetch all jobs into Parquet files below the folder."""
    import httpx  # noqa: PLC0415 - only in its own environment
    import polars as pl  # noqa: PLC0415 - as above

    rows: list[dict[str, object]] = []
    params: dict[str, str | int] = {"limit": int(limit)}
    with httpx.Client(base_url=url, auth=(key, "")) as client:
        while True:
            page = client.get("/v3/export-jobs", params=params).raise_for_status().json()
            rows += page["data"]
            if not page["pagination"]["hasNextPage"]:
                break
            params["after"] = page["pagination"]["endCursor"]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    frame = frame.with_columns(
        pl.col(column).str.to_datetime(time_unit="us", time_zone="UTC")
        for column in TIMES
        if column in frame.columns
    )
    for (month,), part in frame.group_by(pl.col("createdAt").dt.strftime("%Y-%m")):
        folder = Path(out, f"month={month}")
        folder.mkdir(parents=True)
        part.write_parquet(folder / "jobs.parquet")


if __name__ == "__main__":
    run(*sys.argv[1:5])
