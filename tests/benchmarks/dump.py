"""A first dump beside the careful script: whole processes, in turn, against one sandbox. Prints a table.

    python tests/benchmarks/dump.py [--jobs 100000] [--runs 5]

CPU is user and system time of the process, memory its peak; each run gets a new folder. The sandbox runs in a
process of its own and is not counted. Ratios are of the medians; the rows of both are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
KEY = "plp_sandbox"
COMPARE = """
import sys, polars as pl
ours, theirs = (pl.read_parquet(glob, hive_partitioning=False).sort("id") for glob in sys.argv[1:])
assert ours.drop("extra").equals(theirs.select(ours.drop("extra").columns)), "the two do not hold the same rows"
"""
"""Run in a process of its own: a child's peak memory starts from its parent's."""


def start_sandbox(jobs: int) -> tuple[subprocess.Popen[str], str]:
    """A sandbox in its own process, and its address."""
    command = [sys.executable, "-m", "pleo_extract", "sandbox", "--port", "0", "--jobs", str(jobs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "PLEO_BASE_URL=" in line:
            return process, line.split("PLEO_BASE_URL=")[1].strip()
    raise SystemExit("the sandbox did not start")


def run(command: list[str]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak megabytes of one process."""
    environment = os.environ | {"PLEO_API_KEY": KEY}
    with tempfile.TemporaryFile() as output:
        started = os.times().elapsed
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{command} ended with {process.returncode}: {output.read().decode()}")
    return usage.ru_utime + usage.ru_stime, os.times().elapsed - started, usage.ru_maxrss / 1024


def main() -> None:
    """Run both in turn, compare what they wrote, print medians and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    process, url = start_sandbox(asked.jobs)
    figures: dict[str, list[tuple[float, float, float]]] = {"dump": [], "careful": []}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(asked.runs + 1):
                lake, plain = Path(folder, f"lake-{number}"), Path(folder, f"plain-{number}")
                dump = [
                    "-m",
                    "pleo_extract",
                    "dump",
                    str(lake),
                    "--base-url",
                    url,
                    "--rate",
                    "10000000",
                    "--quiet",
                ]
                figures["dump"].append(run([sys.executable, *dump]))
                figures["careful"].append(
                    run([sys.executable, str(HERE / "careful.py"), url, KEY, str(plain)])
                )
                run([sys.executable, "-c", COMPARE, f"{lake}/current/*/*.parquet", f"{plain}/*/*.parquet"])
    finally:
        process.terminate()
        process.wait()
    medians = {
        name: [statistics.median(values) for values in zip(*runs[1:], strict=True)]
        for name, runs in figures.items()
    }
    print(f"{asked.jobs:,} jobs, {asked.runs} runs each after a warm-up, medians")
    print(f"{'':10}{'CPU s':>10}{'wall s':>10}{'peak MB':>10}")
    for name, values in medians.items():
        print(f"{name:10}" + "".join(f"{value:>10.2f}" for value in values))
    ratios = [ours / theirs for ours, theirs in zip(medians["dump"], medians["careful"], strict=True)]
    print(f"{'ratio':10}" + "".join(f"{value:>10.2f}" for value in ratios))


if __name__ == "__main__":
    main()
