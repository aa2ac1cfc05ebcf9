"""Every public function names its parameters, and refuses unknown ones before any work."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

import pleo_extract
from pleo_extract import Client, dump_export_jobs, load_export_jobs, scan_export_jobs
from pleo_extract.errors import UsageError
from pleo_extract.lake.status import read_status
from pleo_extract.report import write_report
from pleo_extract.sandbox import API_KEY, Sandbox, World
from pleo_extract.sync.plan import plan_dump

if TYPE_CHECKING:
    from pathlib import Path

DOORS = {
    name: getattr(pleo_extract, name)
    for name in pleo_extract.__all__
    if inspect.isfunction(getattr(pleo_extract, name))
} | {"Client": Client, "plan_dump": plan_dump, "read_status": read_status, "write_report": write_report}


def test_doors() -> None:
    """The functions tested below are all public ones."""
    assert {
        "dump_export_jobs",
        "dump_accounts",
        "load_export_jobs",
        "plan_dump",
        "merge_lakes",
    } <= DOORS.keys()


@pytest.mark.parametrize("name", DOORS)
def test_parameters_are_spelled_out(name: str) -> None:
    """No public function takes ``**options``, and every parameter has an annotation."""
    for parameter in inspect.signature(DOORS[name]).parameters.values():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), parameter
        assert parameter.annotation is not parameter.empty, parameter


@pytest.mark.parametrize("name", DOORS)
def test_unknown_keyword(name: str) -> None:
    """An unknown keyword is a TypeError that lists the parameters, before any other check."""
    with pytest.raises(TypeError, match=rf"{name}\S* has no parameter 'qqqqq'; it takes|takes no"):
        _call(DOORS[name], qqqqq=1)


@pytest.mark.parametrize(
    ("door", "wrong", "meant"),
    [
        (dump_export_jobs, "company", "company_id"),
        (dump_export_jobs, "fulll", "full"),
        (dump_export_jobs, "deadlin", "deadline"),
        (load_export_jobs, "companyid", "company_id"),
        (load_export_jobs, "status", "statuses"),
        (Client, "apikey", "api_key"),
        (write_report, "untill", "until"),
        (pleo_extract.Lake.scan, "asof", "as_of"),
        (pleo_extract.Lake.changes, "untl", "until"),
    ],
)
def test_nearest_name(door: Any, wrong: str, meant: str) -> None:
    """The error for a misspelt keyword suggests the nearest name."""
    with pytest.raises(TypeError, match=f"no parameter '{wrong}'; did you mean '{meant}'"):
        _call(door, **{wrong: 1})


def test_nothing_is_done(tmp_path: Path) -> None:
    """A misspelt company sends no request and makes no lake."""
    sandbox = Sandbox(World(jobs=5))
    with (
        Client("http://127.0.0.1:1", api_key=API_KEY, transport=sandbox) as client,
        pytest.raises(TypeError, match="did you mean 'company_id'"),
    ):
        _call(dump_export_jobs, tmp_path / "lake", client=client, company="x")
    assert sandbox.requests == []
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), "60", True])
@pytest.mark.parametrize("door", [load_export_jobs, pleo_extract.iter_export_jobs, scan_export_jobs])
def test_deadline_that_is_none(door: Any, deadline: object) -> None:
    """A deadline is a number of seconds above 0, or None."""
    with pytest.raises(UsageError, match="deadline must be a number above 0"):
        _call(door, deadline=deadline)


def test_deadline_of_a_load() -> None:
    """A load ends at its deadline."""
    sandbox = Sandbox(World(jobs=5), faults="1-9:429")  # asks to wait a second or more
    with (
        Client("http://127.0.0.1:1", api_key=API_KEY, transport=sandbox) as client,
        pytest.raises(pleo_extract.PleoExtractError, match=r"deadline of 0\.5 s"),
    ):
        load_export_jobs(client=client, deadline=0.5)


def _call(door: Any, *args: Any, **given: Any) -> Any:
    """Call a function past the type checker, which refuses these calls."""
    return door(*args, **given)
