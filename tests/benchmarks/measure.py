"""The parts that all benchmarks share: the server in its own process, measured processes, tables.

CPU is the user and system time of a process and its children, wall the time on the clock, memory the peak of the
largest process. Contenders take turns, and ratios are of medians in the same run: on a shared machine seconds alone
mean little.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import urllib.request
import venv
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Cost", "Killed", "Server", "count", "make_venv", "measure", "medians", "serve", "table", "tell"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VENVS = ROOT / ".bench"
KEY = "plp_benchmark"
HELP = "import sys; sys.argv = ['pleo-extract', '--help']; from pleo_extract.cli import start; start()"
"""A program that runs `pleo-extract --help` in any Python."""


@dataclass(frozen=True)
class Cost:
    """The cost of one process: CPU seconds, wall seconds, peak megabytes."""

    cpu: float
    wall: float
    peak: float


@dataclass(frozen=True)
class Server:
    """The benchmark's server of export jobs."""

    url: str

    def ask(self, path: str) -> dict[str, int]:
        """Request `/seen` or `/grow`, and return the JSON."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as answer:
            counts: dict[str, int] = json.load(answer)
        return counts


@contextmanager
def serve(jobs: int, *more: str) -> Iterator[Server]:
    """Run the benchmark's server in its own process."""
    command = [sys.executable, str(HERE / "server.py"), "--jobs", str(jobs), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(process.stdout.readline().strip())
        finally:
            process.terminate()


_STUB = """
import json, os, sys, time
tell = int(sys.argv[1])
started = time.monotonic()
child = os.fork()
if not child:
    os.close(tell)
    os.execvp(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
told = [os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, time.monotonic() - started, usage.ru_maxrss]
os.write(tell, json.dumps(told).encode())
"""
"""A small process that starts the measured one: the peak memory of a child starts at that of its parent."""


class Killed(SystemExit):
    """A signal has ended a measured process."""


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Run one process to its end and return its cost.

    Raises:
        Killed: a signal has ended the process, such as that of an abort.
        SystemExit: the process failed; the message has its output.
    """
    # With this variable set, every process would compile all modules again, and be charged for it.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as told:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _STUB, str(writing), *command],
            env={**inherited, **(environment or {})},
            pass_fds=[writing],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )
        os.close(writing)
        code, cpu, wall, peak = json.load(told)
    if code:
        raise (Killed if code < 0 else SystemExit)(
            f"{command} ended with {code}: {done.stdout.decode(errors='replace')[-3000:]}"
        )
    return Cost(cpu, wall, peak / 1024)


def medians(costs: Sequence[Cost]) -> Cost:
    """Return the median of each figure."""
    return Cost(
        *(statistics.median(getattr(each, name) for each in costs) for name in ("cpu", "wall", "peak"))
    )


def make_venv(name: str, requirements: Sequence[str]) -> str:
    """Create a virtual environment with these packages, unless it exists; return its Python."""
    folder = VENVS / name
    wanted = hashlib.sha256(json.dumps([*requirements, sys.version]).encode()).hexdigest()
    stamp, python = folder / "stamp", str(folder / "bin" / "python")
    if not stamp.exists() or stamp.read_text(encoding="ascii") != wanted:
        print(f"installing {', '.join(requirements)}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True)
        stamp.write_text(wanted, encoding="ascii")
    return python


def count(number: float) -> str:
    """Format a number with thousands separators."""
    return f"{number:,.0f}"


def tell(cost: Cost) -> dict[str, float]:
    """Return the figures that are saved of a cost."""
    return {"cpu": round(cost.cpu, 2), "peak": round(cost.peak)}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table with aligned columns; floats get two decimals."""
    texts = [[f"{cell:,.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in [list(head), *texts]) for n in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        return (
            "| "
            + " | ".join(
                [first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            + " |"
        )

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(head), rule, *map(line, texts)])
