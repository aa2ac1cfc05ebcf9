"""The program against hostile bytes: no traceback, no file outside the lake, in time, in little memory."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from habits import Habits, Server
from hostile import HARMS, HostileServer
from tally import FULL
from theatre import open_ground

if TYPE_CHECKING:
    from collections.abc import Callable

    from tally import Tally

QUICK = (
    "cut_anywhere",
    "deep",
    "endless_1xx",
    "large_echo",
    "noise",
    "odd_status",
    "stray_page",
    "swapped_values",
)
"""The attacks of the small form; most others last until the deadline of the run."""
ROUNDS = 40 if FULL else 1
"""The number of tries of each attack."""
DEADLINE = 4
GRACE = 5
"""Seconds that a run may take in addition to its deadline and the time to start a process."""
MEMORY = 400 * 2**20
LAUNCHER = """
import os, subprocess, sys
_, status, used = os.wait4(subprocess.Popen(sys.argv[1:], stdout=2).pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss)
"""
"""Starts the program from a small process: the system counts the parent's memory as the child's peak."""
CODES = {0, 65, 74, 75, 76, 77, 78}


def run(lake: Path, url: str, outside: Path) -> tuple[int, str, float, int]:
    """Run one dump; return its exit code, stderr, seconds and peak memory in bytes."""
    command = [sys.executable, "-m", "pleo_extract", "dump", str(lake), "--base-url", url, "--quiet"]
    errors = outside / "stderr"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(outside),
        "PLEO_API_KEY": "plp_fuzz",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    began = time.monotonic()
    with errors.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-S", "-c", LAUNCHER, *command, "--deadline", str(DEADLINE)],
            stdout=subprocess.PIPE,
            stderr=file,
            env=environment,
            check=True,
        )
    code, most = map(int, done.stdout.split())
    text = errors.read_text("utf-8", "replace")
    errors.unlink()
    return code, text, time.monotonic() - began, most * 1024


def measure_start() -> float:
    """Return the seconds that the program takes to start and end on this machine at the moment."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "pleo_extract", "dump", "--help"], check=True, capture_output=True)
    return time.monotonic() - began


@pytest.mark.parametrize("harm", HARMS if FULL else QUICK)
def test_f65_f67_fuzz(harm: str, tally: Callable[[str], Tally]) -> None:
    """Whatever the server sends, a dump ends in time with a documented code, no traceback and no stray file."""
    one, start = tally(f"fuzz, {harm}"), measure_start()
    with open_ground() as ground:
        for seed in range(ROUNDS):
            rng = random.Random(f"{harm} {seed}")
            place = Path(tempfile.mkdtemp(dir=ground))
            inner = Server(Habits(drift=0.2), seed, 60)
            begin = rng.choice((1, 2, 3))
            server = HostileServer(inner, harm, rng, begin=begin, often=rng.choice((0.3, 1.0)))
            try:
                for _ in range(2 if FULL else 1):
                    code, said, seconds, memory = run(place / "lake", server.url, place)
                    one.tries += 1
                    if seconds > DEADLINE + GRACE + 2 * start:  # the machine may be busier than it was
                        start = max(start, measure_start())
                    wrong = [
                        *([f"code {code}"] if code not in CODES else []),
                        *(["traceback"] if "Traceback" in said else []),
                        *([f"{seconds:.1f} s"] if seconds > DEADLINE + GRACE + 2 * start else []),
                        *([f"{memory / 2**20:.0f} MiB"] if memory > MEMORY else []),
                        *(["control bytes"] if any(not c.isprintable() and c != "\n" for c in said) else []),
                    ]
                    if wrong:
                        one.wrong += 1
                        print(harm, seed, wrong, said[-3000:], sep="\n")  # noqa: T201 - pytest shows it where the test fails
                    if {path.name for path in place.iterdir()} - {"lake", ".cache"}:
                        one.unreadable += 1
                        print(harm, seed, list(place.iterdir()))  # noqa: T201 - as above
            finally:
                server.close()
            shutil.rmtree(place)
    one.check()
