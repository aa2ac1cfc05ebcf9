"""The results of the torture suite: a pytest plugin that collects the counts of each test and prints one table.

PYTHONPATH=tests/torture pytest -p tally tests/torture                   the small form, a few minutes
TORTURE=full PYTHONPATH=tests/torture pytest -p tally tests/torture      the full form, hours

With TALLY=FILE the counts are also saved there by scenario; those of other scenarios stay.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from _pytest.terminal import TerminalReporter

__all__ = ["FULL", "Tally", "sample"]

pytest_plugins = ("theatre", "scenes")

FULL = os.environ.get("TORTURE") == "full"
COLUMNS = ("tries", "lost", "double", "wrong", "unreadable", "again")


@dataclass
class Tally:
    """The counts of one scenario.

    Attributes:
        tries: the number of tries.
        lost: jobs that are missing.
        double: jobs that are listed twice.
        wrong: rows of a version that the job never had.
        unreadable: lakes that could not be read or were damaged.
        again: pages fetched a second time, the most of one try.
    """

    scenario: str
    tries: int = 0
    lost: int = 0
    double: int = 0
    wrong: int = 0
    unreadable: int = 0
    again: int = 0

    def count(self, discrepancies: list[Any]) -> None:
        """Add the discrepancies that the sandbox's oracle found."""
        kinds = [each.kind for each in discrepancies]
        self.lost += kinds.count("missing")
        self.double += kinds.count("double")
        self.wrong += len(kinds) - kinds.count("missing") - kinds.count("double")

    def check(self) -> None:
        """Fail if anything was lost, double, wrong or unreadable, or if more than a batch was fetched again."""
        assert self.tries
        assert (self.lost, self.double, self.wrong, self.unreadable) == (0, 0, 0, 0), self
        assert self.again <= 20, self


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[[str], Tally]:
    """Return a function that opens a tally, which the table then shows."""

    def open_one(scenario: str) -> Tally:
        one = Tally(scenario)
        request.node.user_properties.append(("torture", one))
        return one

    return open_one


def sample(count: int, small: int, *, seed: int = 0) -> list[int]:
    """Return the numbers from 1 to `count`: all in the full form, else `small` of them, spread evenly."""
    if FULL or count <= small:
        return list(range(1, count + 1))
    return sorted({1 + (seed + n * count // small) % count for n in range(small)})


def pytest_report_to_serializable(report: pytest.TestReport) -> None:
    """Convert tallies to plain data, so that xdist can send them between processes."""
    properties = getattr(report, "user_properties", [])
    properties[:] = [(k, asdict(v) if isinstance(v, Tally) else v) for k, v in properties]


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print the table."""
    rows = []
    for report in [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]:
        for name, value in report.user_properties:
            if name == "torture" and report.when == "call":
                rows.append(asdict(value) if isinstance(value, Tally) else value)
    if not rows:
        return
    if file := os.environ.get("TALLY"):
        _keep(Path(file), rows)
    width = max(len(row["scenario"]) for row in rows)
    terminalreporter.section("torture")
    terminalreporter.line(f"{'scenario':<{width}}" + "".join(f"{name:>12}" for name in COLUMNS))
    for row in sorted(rows, key=lambda row: str(row["scenario"])):
        terminalreporter.line(
            f"{row['scenario']:<{width}}" + "".join(f"{row[name]:>12,}" for name in COLUMNS)
        )
    sums = {name: sum(row[name] for row in rows) for name in COLUMNS[:-1]}
    sums["again"] = max(row["again"] for row in rows)
    terminalreporter.line(f"{'together':<{width}}" + "".join(f"{sums[name]:>12,}" for name in COLUMNS))


def _keep(file: Path, rows: list[dict[str, Any]]) -> None:
    """Save the counts for the documents; see `torture` in docs/generate.py."""
    reported = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known = {"form": "full" if FULL else "small", "when": f"{datetime.now(UTC):%Y-%m-%d}"}
    reported |= {row["scenario"]: {**row, **known} for row in rows}
    file.write_text(json.dumps(dict(sorted(reported.items())), indent=1) + "\n", encoding="utf-8")
