"""pleo-extract as its users run it, `pleo-extract dump`. Arguments: URL, key, output folder."""

from __future__ import annotations

import os
import sys

TITLE = "pleo-extract dump"
REQUIREMENTS: list[str] = []


def run(url: str, key: str, out: str) -> None:
    """Fetch all jobs into Parquet files below the folder."""
    from pleo_extract.cli import start  # noqa: PLC0415 - a contender imports what it needs when it runs

    os.environ["PLEO_API_KEY"] = key
    sys.argv = ["pleo-extract", "dump", out, "--base-url", url, "--quiet", *sys.argv[4:]]
    if "--rate" not in sys.argv:
        sys.argv += ["--rate", "10000000"]
    start()


if __name__ == "__main__":
    run(*sys.argv[1:4])
