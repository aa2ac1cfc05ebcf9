"""What a run, `status` and `plan` say while rows are read and before they are published."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
from contextlib import redirect_stderr
from datetime import UTC, datetime
from functools import partialmethod
from typing import TYPE_CHECKING

import msgspec
import pytest
from tqdm import tqdm

from pleo_extract import Client, Lake, RequestsExceeded, dump_export_jobs, load_export_jobs
from pleo_extract.cli.log import set_up_log
from pleo_extract.cli.plan import _format_plan
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.lock import Holder
from pleo_extract.progress import show_progress
from pleo_extract.sandbox import API_KEY, Sandbox, World
from pleo_extract.sync.plan import plan_dump

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0


def client_of(world: World, **options: int) -> Client:
    """Return a client of this world that reads one page after the other."""
    settings = {"rate": 100_000, "in_flight": 1, "page_size": 100} | options
    return Client("https://sandbox.invalid", api_key=API_KEY, transport=Sandbox(world), **settings)  # type: ignore[arg-type]


def status_of(lake: Path) -> str:
    """Return what `pleo-extract status` prints."""
    return str(Lake(lake).status())


def interrupt(lake: Path, client: Client) -> None:
    """Leave a first dump behind that has staged some pages."""
    with pytest.raises(RequestsExceeded):
        dump_export_jobs(lake, client=client, progress=False, max_requests=25)


def test_staged_pages_are_counted_until_they_are_published(tmp_path: Path) -> None:
    """Status and plan tell what an interrupted run has staged; the next dump saves it, and its receipt says how much."""
    with client_of(World(jobs=5_000)) as client:
        whole = plan_dump(tmp_path, client=client)
        interrupt(tmp_path, client)
        staged = Lake(tmp_path).status().staged
        assert 2_000 <= staged <= 2_500
        assert f"{staged:,} rows not published yet; the next run continues from them" in status_of(tmp_path)
        planned = plan_dump(tmp_path, client=client)
        assert planned.staged == staged
        assert f"{staged:,} staged by a run that was interrupted" in _format_plan(planned)
        assert whole.requests is not None
        assert planned.requests is not None
        assert planned.requests[0] == whole.requests[0] - staged // 100
        receipt = dump_export_jobs(tmp_path, client=client, progress=False)
        assert receipt.resumed_rows == staged
        assert f"of which an interrupted run had read {staged:,}, " in str(receipt)
        assert receipt.requests < whole.requests[0]
        assert Lake(tmp_path).status().staged == plan_dump(tmp_path, client=client).staged == 0
        again = dump_export_jobs(tmp_path, client=client, progress=False)
        assert (again.resumed_rows, "interrupted" in str(again)) == (0, False)


def test_an_interrupted_full_sync_is_planned(tmp_path: Path) -> None:
    """Where the next run continues a full sync, the plan is of a full sync, less what is staged."""
    with client_of(World(jobs=5_000)) as client:
        dump_export_jobs(tmp_path, client=client, progress=False)
        with pytest.raises(RequestsExceeded):
            dump_export_jobs(tmp_path, client=client, progress=False, max_requests=25, full=True)
        for asked in (False, True):
            planned = plan_dump(tmp_path, client=client, full=asked)
            assert (planned.mode, planned.staged) == ("full", Lake(tmp_path).status().staged)
            assert planned.requests is not None
            assert planned.requests[0] == 50 - planned.staged // 100
            why = "asked for" if asked else "continued from an interrupted run"
            assert f"full sync ({why}): 5,000 jobs at the server" in _format_plan(planned)
        assert dump_export_jobs(tmp_path, client=client, progress=False).mode == "full"
        assert plan_dump(tmp_path, client=client).mode == "refresh"


@pytest.mark.parametrize("forgets", [False, True])
def test_what_no_run_continues_is_not_planned(tmp_path: Path, *, forgets: bool) -> None:
    """Pages staged before the lake changed, or by an incremental sync that a full one follows, save no request."""
    world = World(jobs=5_000)
    with client_of(world) as client:
        dump_export_jobs(tmp_path, client=client, progress=False)
        if forgets:
            Lake(tmp_path).forget(jobs=[load_export_jobs(client=client)["id"][0]])
        with pytest.raises(RequestsExceeded):
            dump_export_jobs(tmp_path, client=client, progress=False, max_requests=25, full=True)
        assert plan_dump(tmp_path, client=client).staged > 0
        state = next(tmp_path.glob("_lake/staging/*/")) / "run.json"
        header = json.loads(state.read_bytes())
        state.write_text(json.dumps(header | {"base": header["base"] + 1}))
        assert (plan_dump(tmp_path, client=client).mode, plan_dump(tmp_path, client=client).staged) == (
            "refresh",
            0,
        )
        state.write_text(json.dumps(header | {"mode": "refresh"}))
        assert (
            plan_dump(tmp_path, client=client).mode,
            plan_dump(tmp_path, client=client, full=True).staged,
        ) == (
            "refresh",
            0,
        )


def test_pages_of_another_company_are_not_this_ones(tmp_path: Path) -> None:
    """Plan counts what is staged for the company it is about; status counts all."""
    world = World(jobs=5_000)
    with client_of(world) as client:
        interrupt(tmp_path, client)
        assert plan_dump(tmp_path, client=client, company_id=world.companies[0]).staged == 0
        assert Lake(tmp_path).status().staged > 0


def test_a_run_at_work_is_named(tmp_path: Path) -> None:
    """While a run holds the lake, status and plan name it; they do not once it has ended, even by a kill."""
    with client_of(World(jobs=300)) as client:
        dump_export_jobs(tmp_path, client=client, progress=False)
        assert Lake(tmp_path).status().running is None
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            sign(tmp_path, process.pid, socket.gethostname())
            assert f"a run (pid {process.pid} on " in status_of(tmp_path)
            assert f"a run is at work on the lake (pid {process.pid} on" in _format_plan(
                plan_dump(tmp_path, client=client)
            )
            process.kill()
            process.wait()
            assert Lake(tmp_path).status().running is None
        sign(tmp_path, 1, "elsewhere")  # nothing is known of the processes of another machine
        assert "a run (pid 1 on elsewhere, since " in status_of(tmp_path)
        sign(tmp_path, -1, socket.gethostname())
        assert Lake(tmp_path).status().running is None


def sign(lake: Path, pid: int, host: str) -> None:
    """Sign the lock file of a lake as a run does."""
    Layout(lake).lock.write_bytes(msgspec.json.encode(Holder(pid=pid, host=host, since=datetime.now(UTC))))


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and keeps what is drawn on it."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.fixture
def every_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tqdm draw after every page, and not ten times a second."""
    monkeypatch.setattr(tqdm, "__init__", partialmethod(tqdm.__init__, mininterval=0, miniters=0))


@pytest.mark.usefixtures("every_draw")
def test_a_bar_of_the_whole_list_has_a_total_a_rate_and_the_page_size() -> None:
    """A whole list is read against its total, with the time left, the rate and the rows of a page."""
    with client_of(World(jobs=1_000)) as client, redirect_stderr(Terminal()) as terminal:
        load_export_jobs(client=client)
    drawn = terminal.getvalue()
    assert "/1000 [" in drawn
    assert " jobs/s" in drawn
    assert "100 a page" in drawn


@pytest.mark.usefixtures("every_draw")
def test_a_bar_has_no_total_where_there_is_none(tmp_path: Path) -> None:
    """An incremental sync and a list since an instant end somewhere in the list: no share of its total is shown."""
    world = World(jobs=1_000)
    with client_of(world) as client:
        with redirect_stderr(Terminal()) as since:
            load_export_jobs(client=client, since="2026-09-01")
        with redirect_stderr(Terminal()) as first:
            dump_export_jobs(tmp_path, client=client)
        world.advance(DAY)
        with redirect_stderr(Terminal()) as second:
            dump_export_jobs(tmp_path, client=client)
    assert "/1000" in first.getvalue()
    for part in (since.getvalue(), second.getvalue()):
        assert " a page" in part
        assert "/1000" not in part
        assert f"/{len(world.visible())} [" not in part


@pytest.mark.usefixtures("every_draw")
def test_a_wait_is_announced_when_it_begins() -> None:
    """When the rate limit makes a run wait, the bar says so before the wait and not after it."""
    terminal = Terminal()
    clock = Waiting(terminal)
    api = Sandbox(World(jobs=300))
    with (
        Client(
            "https://sandbox.invalid", api_key=API_KEY, transport=api, rate=2, page_size=50, clock=clock
        ) as client,
        redirect_stderr(terminal),
    ):
        load_export_jobs(client=client)
    assert clock.announced
    assert all(clock.announced)


class Waiting:
    """A clock on which a wait takes no time; it notes whether the terminal announced it."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.now = 0.0
        self.announced: list[bool] = []

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def wait(self, seconds: float, _stop: object = None) -> None:
        """Advance the time."""
        if seconds >= 1:
            self.announced.append(" jobs, waiting " in self.terminal.getvalue().rpartition("\r")[2])
        self.now += seconds


def test_the_process_of_another_user_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may not be asked exists."""
    with client_of(World(jobs=300)) as client:
        dump_export_jobs(tmp_path, client=client, progress=False)

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    sign(tmp_path, 4_194_304, socket.gethostname())
    monkeypatch.setattr(os, "kill", refuse)
    assert Lake(tmp_path).status().running is not None


def test_a_line_of_the_log_does_not_share_a_line_with_the_bar() -> None:
    """A warning of the command line is a line of its own; the bar is drawn again below it."""
    log = logging.getLogger("pleo_extract")
    handlers, propagates = log.handlers[:], log.propagate
    try:
        with redirect_stderr(io.StringIO()) as shown:
            set_up_log("text", "warning")
            with show_progress("dump", show=True) as tell:
                tell(5, 10, "")
                log.warning("the server cannot be reached")
                tell(6, 10, "")
    finally:
        log.handlers[:], log.propagate = handlers, propagates
    (line,) = [line for line in shown.getvalue().split("\n") if "cannot be reached" in line]
    assert re.fullmatch(r".*\r *\r?\S+ warning the server cannot be reached", line), line
