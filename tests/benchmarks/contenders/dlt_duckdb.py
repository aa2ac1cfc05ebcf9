"""dlt with its rest_api source, to DuckDB. Arguments: URL, key, output folder."""

from __future__ import annotations

import sys
from pathlib import Path

from dlt_rest import pipe

TITLE = "dlt, rest_api to DuckDB"
REQUIREMENTS = ["dlt[duckdb]"]


def run(url: str, key: str, out: str) -> None:
    """Fetch all jobs into a DuckDB file in the folder."""
    import dlt  # noqa: PLC0415 - only in its own environment

    Path(out).mkdir()
    pipe(url, key, out, dlt.destinations.duckdb(f"{out}/jobs.duckdb"))


if __name__ == "__main__":
    run(*sys.argv[1:4])
