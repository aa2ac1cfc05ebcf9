"""Every public function names its parameters, and refuses unknown ones before any work."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest

import pleo_extract
from pleo_extract import (
    Client,
    PleoExtractError,
    Query,
    Receipt,
    dump_export_jobs,
    load_export_jobs,
    scan_export_jobs,
)
from pleo_extract.errors import UsageError
from pleo_extract.lake.status import read_status
from pleo_extract.report import write_report
from pleo_extract.sandbox import API_KEY, Sandbox, World
from pleo_extract.sync.plan import plan_dump

if TYPE_CHECKING:
    from pathlib import Path

GIVEN = (Receipt, PleoExtractError)
"""What only the library itself makes: nobody calls these, so nobody misspells their keywords."""


def _list_doors() -> dict[str, Any]:
    """Return every function and class of `__all__` that a user calls, with the public methods that take parameters."""
    doors: dict[str, Any] = {}
    for name in pleo_extract.__all__:
        door = getattr(pleo_extract, name)
        if inspect.isfunction(door):
            doors[name] = door
        elif inspect.isclass(door) and not issubclass(door, GIVEN):
            doors[name] = door
            for method, function in vars(door).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    parameters = list(inspect.signature(function).parameters)
                    if parameters != ["self"]:
                        doors[f"{name}.{method}"] = function
    return doors


DOORS = _list_doors() | {"plan_dump": plan_dump, "read_status": read_status, "write_report": write_report}


def test_doors() -> None:
    """The functions tested below are all public ones, classes and methods among them."""
    assert {
        "Client",
        "Lake",
        "Lake.changes",
        "Query",
        "Query.at",
        "connect",
        "dump_accounts",
        "dump_export_jobs",
        "fetch_page",
        "load_export_jobs",
        "merge_lakes",
        "plan_dump",
    } <= DOORS.keys()
    assert len(DOORS) >= 25


@pytest.mark.parametrize("name", DOORS)
def test_parameters_are_spelled_out(name: str) -> None:
    """No public function takes ``**options``, and every parameter has an annotation."""
    for parameter in inspect.signature(DOORS[name]).parameters.values():
        if parameter.name == "self":
            continue
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), parameter
        assert parameter.annotation is not parameter.empty, parameter


@pytest.mark.parametrize("name", DOORS)
def test_unknown_keyword(name: str) -> None:
    """An unknown keyword is a TypeError that lists the parameters, before any other check."""
    with pytest.raises(
        TypeError, match=rf"^{re.escape(name)}\(\) has no parameter 'qqqqq'; it takes (?!self)"
    ):
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
        (Query, "limt", "limit"),
        (Query, "sorting_key", "sorting_keys"),
        (Query().at, "ofset", "offset"),
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
