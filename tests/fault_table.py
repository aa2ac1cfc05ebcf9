"""The fault table: `python tests/fault_table.py` runs the tests of every fault and prints which are survived.

The name of a test begins with the numbers of its faults: `test_f17_repeated_cursor`, `test_f5_f6_...`. The exit
code is 1 if a test fails or a fault has no test.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FAULTS", "NOT_TRIED", "Row", "faults_of", "make_table", "missing", "names_of_tests"]

FAULTS: Final = {
    1: "429 with seconds",
    2: "429 with a date",
    3: "429, no usable Retry-After",
    4: "server errors",
    5: "connection reset",
    6: "body cut short",
    7: "body byte by byte",
    8: "silence",
    9: "200 that is not a page",
    10: "bytes that are not JSON",
    11: "small body, huge page",
    12: "redirects",
    13: "no host, bad certificate",
    14: "token refused or expired",
    15: "one company refused",
    16: "cursor refused",
    17: "cursors in a loop",
    18: "next page, but no cursor",
    19: "empty pages",
    20: "wrong total",
    21: "list that ends early",
    22: "row on two pages",
    23: "list that changes",
    24: "parameters ignored",
    25: "load on the server",
    26: "unknown values",
    27: "rows that break the types",
    28: "numbers out of range",
    29: "unusual timestamps",
    30: "unknown fields",
    31: "hostile texts",
    32: "same id, two companies",
    33: "unusual UUIDs",
    34: "killed at any moment",
    35: "power loss",
    36: "stopped by a signal",
    37: "two writers",
    38: "stale lock, fork",
    39: "disk full or failing",
    40: "clock jumps",
    41: "foreign files in the lake",
    42: "lake of another version",
    43: "damaged lake",
    44: "reader during publish",
    45: "little memory",
    46: "object store fails",
    47: "object store conflicts",
    48: "secret leaked",
    49: "other hosts",
    50: "paths from the server",
    51: "SQL from outside",
    52: "HTML from the server",
    53: "formulas in CSV",
    54: "control characters",
    55: "other users of the machine",
    56: "supply chain",
    57: "run resumed hours later",
    58: "now that stands still",
    59: "no echo",
    60: "total of another kind",
    61: "new terminal status",
    62: "deep offsets refused",
    63: "concurrency limit",
    64: "job moved to another month",
    65: "endless response",
    66: "response to other request",
    67: "flipped bits on disk",
    68: "malicious lake folder",
    69: "credential echoed back",
    70: "symlinks out of the lake",
    71: "unusual machine",
    72: "read by others",
    73: "another engine commits",
    74: "key in cluster settings",
}
"""A short name of each fault, by number; at most 26 characters, the width of the column."""
NOT_TRIED: Final = {
    25: "a goal: measured, not tested",
    56: "a goal: checked at each release",
    74: "needs a cluster: tested by .ci/spark",
}
"""The faults without a test, and why."""

HERE: Final = Path(__file__).parent
_DEFINED: Final = re.compile(r"^ *(?:async )?def (test_f\d\w*)\(", re.MULTILINE)


def faults_of(test: str) -> list[int]:
    """Return the numbers of the faults that a test's name begins with."""
    found = re.match(r"test((?:_f\d+)+)_", test)
    return [int(number) for number in re.findall(r"\d+", found[1])] if found else []


def names_of_tests() -> Iterator[str]:
    """Yield the names of all tests that are named after faults."""
    for path in sorted(HERE.rglob("test_*.py")):
        yield from _DEFINED.findall(path.read_text(encoding="utf-8"))


def missing() -> list[int]:
    """Return the faults that need a test and have none."""
    tested = {number for name in names_of_tests() for number in faults_of(name)}
    return sorted(FAULTS.keys() - tested - NOT_TRIED.keys())


class Row:
    """The results of one fault.

    Attributes:
        tried: the number of cases that ran.
        survived: the number of cases that passed.
        lost: the cases that failed.
        skipped: the number of skipped cases by reason.
    """

    def __init__(self) -> None:
        self.tried = 0
        self.survived = 0
        self.lost: list[str] = []
        self.skipped: Counter[str] = Counter()

    def count(self, case: ET.Element) -> None:
        """Add one case of the report."""
        name, bad = case.get("name", "?"), [case.find(tag) for tag in ("failure", "error")]
        skipped = case.find("skipped")
        if skipped is not None and skipped.get("type") == "pytest.skip":
            self.skipped[skipped.get("message", "")] += 1
            return
        self.tried += 1
        if skipped is not None:  # an expected failure
            self.lost.append(f"{name}: {skipped.get('message', '')}")
        elif any(each is not None for each in bad):
            self.lost.append(name)
        else:
            self.survived += 1


def read_report(path: Path) -> Mapping[int, Row]:
    """Read the rows from a JUnit report. A case with a failure and an error is listed twice, and counts once."""
    rows: defaultdict[int, Row] = defaultdict(Row)
    cases: dict[tuple[str | None, str | None], ET.Element] = {}
    for case in ET.parse(path).iter("testcase"):
        key = case.get("classname"), case.get("name")
        if key not in cases or len(case):
            cases[key] = case
    for case in cases.values():
        for number in faults_of(case.get("name", "")):
            rows[number].count(case)
    return rows


def make_table(rows: Mapping[int, Row]) -> tuple[str, bool]:
    """Return the table as text, and whether every fault is survived."""
    lines = ["fault                           tried  survived"]
    good = True
    for number, name in FAULTS.items():
        row = rows.get(number, Row())
        notes = [f"NOT SURVIVED {lost}" for lost in row.lost]
        notes += [f"{count} not tried: {why}" for why, count in row.skipped.items()]
        if not row.tried and not row.skipped:
            notes.append(NOT_TRIED.get(number, "NO TEST"))
        good = good and not row.lost and (bool(row.tried or row.skipped) or number in NOT_TRIED)
        first, *more = textwrap.wrap("; ".join(notes), 70) or [""]
        lines.append(f"F{number:<3} {name:<26} {row.tried:>6} {row.survived:>9}  {first}".rstrip())
        lines += [f"{'':<49}{each}" for each in more]
    tried, survived = sum(row.tried for row in rows.values()), sum(row.survived for row in rows.values())
    lines.append(f"{'all':<31} {tried:>6} {survived:>9}")
    return "\n".join(lines), good


def main() -> int:
    """Run the tests named after faults and print the table; pass the command line's arguments to pytest."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        names = " or ".join(f"test_f{digit}" for digit in range(1, 10))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "",
            "-k",
            names,
            f"--junitxml={report}",
            "--tb=short",
        ]
        with_torture = [
            "-p",
            "tally",
            "-o",
            "norecursedirs=.* __pycache__ benchmarks contract browser cluster spark stores",
        ]
        paths = [str(HERE / "torture"), *filter(None, [os.environ.get("PYTHONPATH")])]
        ended = subprocess.run(
            [*command, *with_torture, *sys.argv[1:], str(HERE)],
            check=False,
            cwd=HERE.parent,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        if not report.exists():
            return ended.returncode or 1
        table, good = make_table(read_report(report))
    sys.stdout.write(f"\n{table}\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
