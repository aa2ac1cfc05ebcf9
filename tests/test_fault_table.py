"""Tests of the fault table: every fault has a test, and the table shows each that is not survived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fault_table import FAULTS, NOT_TRIED, faults_of, make_table, missing, names_of_tests, read_report

if TYPE_CHECKING:
    from pathlib import Path

REPORT = """<testsuites><testsuite>
<testcase classname="a" name="test_f1_seconds[first]"/>
<testcase classname="a" name="test_f1_seconds[refresh]"><failure message="no"/></testcase>
<testcase classname="a" name="test_f2_f3_both"/>
<testcase classname="a" name="test_f3_leak"/>
<testcase classname="a" name="test_f3_leak"><error message="the canary was seen"/></testcase>
<testcase classname="a" name="test_f39_full"><skipped type="pytest.skip" message="needs root"/></testcase>
<testcase classname="a" name="test_f51_globs"><skipped type="pytest.xfail" message="known"/></testcase>
<testcase classname="a" name="test_fault_of_another_kind"/>
</testsuite></testsuites>"""


def test_every_fault_has_a_test() -> None:
    """Every fault that can be tested has a test named after it, and no test names an unknown fault."""
    assert missing() == []
    assert set(range(1, 75)) == FAULTS.keys()
    assert {number for name in names_of_tests() for number in faults_of(name)} <= FAULTS.keys()
    assert NOT_TRIED.keys() <= FAULTS.keys()


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("test_f17_repeated_cursor", [17]),
        ("test_f5_f6_f7_cut", [5, 6, 7]),
        ("test_faults", []),
        ("test_f1", []),
        ("test_of_f1_x", []),
    ],
)
def test_names(name: str, numbers: list[int]) -> None:
    """The numbers at the start of a test's name are its faults."""
    assert faults_of(name) == numbers


def test_what_is_not_survived_is_shown(tmp_path: Path) -> None:
    """The table names failures, leaks and expected failures, gives the reason of a skip, and shows a missing test."""
    (tmp_path / "report.xml").write_text(REPORT)
    table, good = make_table(read_report(tmp_path / "report.xml"))
    lines = {line.split()[0]: " ".join(line.split()) for line in table.splitlines() if line.startswith("F")}
    assert not good
    assert lines["F1"] == "F1 429 with seconds 2 1 NOT SURVIVED test_f1_seconds[refresh]"
    assert lines["F2"] == "F2 429 with a date 1 1"
    assert lines["F3"] == "F3 429, no usable Retry-After 2 1 NOT SURVIVED test_f3_leak"
    assert lines["F4"] == "F4 server errors 0 0 NO TEST"
    assert lines["F39"] == "F39 disk full or failing 0 0 1 not tried: needs root"
    assert lines["F25"] == "F25 load on the server 0 0 a goal: measured, not tested"
    assert lines["F51"] == "F51 SQL from outside 1 0 NOT SURVIVED test_f51_globs: known"


def test_all_survived(tmp_path: Path) -> None:
    """The result is good when every fault is tried and survived."""
    cases = "".join(f'<testcase classname="a" name="test_f{number}_x"/>' for number in FAULTS)
    (tmp_path / "report.xml").write_text(f"<testsuite>{cases}</testsuite>")
    assert make_table(read_report(tmp_path / "report.xml"))[1]
