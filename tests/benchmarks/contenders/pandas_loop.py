"""requests and pandas: the script that most people write first. Arguments: URL, key, output folder, rows of a page."""

from __future__ import annotations

import sys
from pathlib import Path

TITLE = "requests + pandas"
REQUIREMENTS = ["requests", "pandas", "pyarrow"]
TIMES = ["createdAt", "startedAt", "completedAt", "expiredAt", "lastUpdatedAt"]


def run(url: str, key: str, out: str, limit: str = "100") -> None:
    """Fetch all jobs into Parquet files below the folder."""
    import pandas as pd  # noqa: PLC0415 - only in its own environment
    import requests  # noqa: PLC0415 - as above

    rows: list[dict[str, object]] = []
    params: dict[str, object] = {"limit": int(limit)}
    with requests.Session() as session:
        session.auth = (key, "")
        while True:
            response = session.get(f"{url}/v3/export-jobs", params=params)
            response.raise_for_status()
            page = response.json()
            rows += page["data"]
            if not page["pagination"]["hasNextPage"]:
                break
            params["after"] = page["pagination"]["endCursor"]
    frame = pd.DataFrame(rows)
    for column in TIMES:
        if column in frame:
            frame[column] = pd.to_datetime(frame[column], utc=True)
    frame["month"] = frame["createdAt"].dt.strftime("%Y-%m")
    Path(out).mkdir()
    frame.to_parquet(out, partition_cols=["month"])


if __name__ == "__main__":
    run(*sys.argv[1:5])
