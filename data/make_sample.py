"""Make `data/sample`, a lake of about 3,000 jobs from the sandbox; each run gives the same bytes (`make sample`).

The lake shows five companies over a year, with an incident, retries, expired jobs, jobs that hang and jobs that are
still running. The world's clock stands still during the dump. Values that differ between two runs or two machines
(when, how fast, where) are replaced by constants, so that "now" in the sample is the instant `TAKEN`.
"""
# ruff: noqa: INP001 - a script, not part of a package

from __future__ import annotations

import argparse
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pleo_extract import Client, dump_export_jobs
from pleo_extract.sandbox import API_KEY, Sandbox, World

SAMPLE = Path(__file__).parent / "sample"
TAKEN = datetime(2026, 9, 30, 15, tzinfo=UTC)
"""A Wednesday afternoon at the end of a month: exports are running, and the last week is partial."""

WHEN = TAKEN.strftime("%Y-%m-%dT%H:%M:%SZ")
SETTLED = {
    "run": f"{TAKEN:%Y%m%dT%H%M%SZ}-sample",
    "lake": "data/sample",
    "seconds": 0.0,
    "waited": 0.0,
    "seconds_since_complete": 0.0,
}
"""Values that describe the run, not the jobs. Besides them, every name in `_at` or `_as_of` gets `WHEN`."""
LEFT_OUT = (
    "_lake/lock",
    "_lake/staging",
    "_lake/rejected",
    "_lake/now.csv",
    "_lake/vanished.csv",
    "_lake/objects",
    "_jobs.duckdb",
)
"""What belongs to one machine, and the objects, whose bytes are the same as those of the visible months."""


def make_world() -> World:
    """Return the world of the sample; the documents' examples read it through the API."""
    return World(jobs=3_000, companies=5, seed=21, now=TAKEN, days=364)


def make_sample(lake: Path) -> None:
    """Replace the folder `lake` with a new lake."""
    shutil.rmtree(lake, ignore_errors=True)
    # The host cannot exist, so nobody can update the sample by mistake.
    sandbox = Sandbox(make_world())
    with Client(
        "https://sandbox.invalid", api_key=API_KEY, transport=sandbox, in_flight=1, rate=10_000
    ) as client:
        dump_export_jobs(lake, client=client, progress=False)
    for name in LEFT_OUT:
        found = lake / name
        shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
    for file in (lake / "_lake").rglob("*.json"):
        file.write_text(json.dumps(settle(json.loads(file.read_bytes())), indent=1) + "\n", encoding="utf-8")


def settle(document: Any) -> Any:
    """Return the JSON document with the values that describe one run replaced by constants."""
    if isinstance(document, dict):
        return {name: _settle_value(name, value) for name, value in document.items()}
    return [settle(item) for item in document] if isinstance(document, list) else document


def _settle_value(name: str, value: Any) -> Any:
    if value is None:
        return None
    return WHEN if name.endswith(("_at", "_as_of")) else SETTLED[name] if name in SETTLED else settle(value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "lake", nargs="?", type=Path, default=SAMPLE, help="where to make it [default: data/sample]"
    )
    make_sample(parser.parse_args().lake)
