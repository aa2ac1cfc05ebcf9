"""F71: unusual machines: no time zones, no home, closed streams, a terminal that hangs up, ASCII only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from canary import CANARY

import pleo_extract
from pleo_extract import scan_lake
from pleo_extract.sandbox import Rules, Sandbox, World, serve
from pleo_extract.signals import hold_signals

if TYPE_CHECKING:
    from collections.abc import Iterator
JOBS = 120
PROGRAM = [sys.executable, "-m", "pleo_extract"]
NO_ZONES = "import sys; sys.modules['tzdata'] = None; from pleo_extract.cli import start; start()"
"""Run the command line without the package `tzdata`; PYTHONTZPATH hides the zones of the system."""
NOBODY = "import pwd; pwd.getpwuid = lambda number: {}[number]; from pleo_extract.cli import start; start()"
"""Run the command line as a user without an entry in passwd, as containers do."""


class Machine:
    """A server on a real socket, and a folder to run programs in."""

    def __init__(self, folder: Path, url: str, sandbox: Sandbox) -> None:
        self.lake = folder / "lake"
        self.sandbox = sandbox
        self.environment = os.environ | {
            "PLEO_BASE_URL": url,
            "PLEO_API_KEY": CANARY,
            "PYTHONPATH": str(Path(pleo_extract.__file__).parents[1]),
        }

    def run(
        self, *words: str, program: list[str] = PROGRAM, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end with these variables changed; None removes one."""
        changed = self.environment | environment
        return subprocess.run(
            [*program, *words],
            env={name: value for name, value in changed.items() if value is not None},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=60,
        )

    def rows(self) -> int:
        """Return the number of jobs in the lake."""
        return scan_lake(self.lake).collect().height if self.lake.exists() else 0

    def last_run(self) -> dict[str, Any]:
        """Return the record of the last run."""
        found: dict[str, Any] = json.loads((self.lake / "_lake/last_run.json").read_text())
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Return a machine and a running server."""
    sandbox = Sandbox(World(jobs=JOBS, days=30), rules=Rules(max_limit=20), api_keys={CANARY: None})
    with serve(sandbox) as running:
        yield Machine(tmp_path, running.url, sandbox)


def test_f71_time_zones_of_the_package(machine: Machine) -> None:
    """Without time zones in the system, those of the package `tzdata` are used."""
    done = machine.run("dump", str(machine.lake), PYTHONTZPATH="")
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.rows() == JOBS


def test_f71_no_time_zones(machine: Machine) -> None:
    """Without any time zones a dump says so before it sends anything, and makes no lake."""
    done = machine.run("dump", str(machine.lake), program=[sys.executable, "-c", NO_ZONES], PYTHONTZPATH="")
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "no time zone database" in done.stderr
    assert "pip install tzdata" in done.stderr
    assert machine.sandbox.requests == []
    assert not machine.lake.exists()


def test_f71_unknown_user_without_home(machine: Machine) -> None:
    """An unknown user without HOME can dump; only the rate limit is not shared with other processes."""
    done = machine.run(
        "dump", str(machine.lake), program=[sys.executable, "-c", NOBODY], HOME=None, XDG_CACHE_HOME=None
    )
    assert done.returncode == 0, done.stderr
    assert "the pace is not shared with other processes, because" in done.stderr
    assert "(there is no home folder); set XDG_CACHE_HOME" in done.stderr
    assert machine.rows() == JOBS


def test_f71_no_home_for_a_table(machine: Machine) -> None:
    """Without a folder for the copies of a Delta table, the configuration error says how to name one."""
    done = machine.run(
        "dump",
        "s3://bucket/table",
        program=[sys.executable, "-c", NOBODY],
        HOME=None,
        XDG_CACHE_HOME=None,
        AWS_ACCESS_KEY_ID="x",
        AWS_SECRET_ACCESS_KEY="x",
    )
    assert done.returncode == 78, done.stderr
    assert "--workspace" in done.stderr
    assert machine.sandbox.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_f71_closed_streams(closed: str, machine: Machine) -> None:
    """A dump with closed streams works and ends with its own code: 0, or 77 with a wrong key."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM]
    done = machine.run("dump", str(machine.lake), program=shell)
    assert done.returncode == 0, done.stderr
    assert machine.rows() == JOBS
    assert machine.run("dump", str(machine.lake), program=shell, PLEO_API_KEY="plp_wrong").returncode == 77


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_f71_closed_streams_of_every_command(closed: str, machine: Machine) -> None:
    """Every command without output streams ends with 0."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM]
    lake = str(machine.lake)
    assert machine.run("dump", lake).returncode == 0
    asked = [
        ("sql", "--lake", lake, "--format", kind, "from snapshot") for kind in ("table", "csv", "parquet")
    ]
    others = [
        ("verify", lake),
        ("status", lake),
        ("plan", lake),
        ("repair", lake),
        ("merge", lake, f"{lake}-2"),
        ("report", lake, "-o", f"{lake}.html"),
        ("catalogue", lake, "-o", f"{lake}.duckdb"),
        ("changes", lake, "--since", "1"),
        ("sql", "--list"),
        ("demo", "--out", f"{lake}-3", "--jobs", "100"),
    ]
    for command in [*asked, *(others if "2" in closed else [])]:
        done = machine.run(*command, program=shell)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), (command, done.stderr)


@pytest.mark.parametrize("progress", ["None", "True"])
def test_f71_no_streams_at_all(progress: str, machine: Machine) -> None:
    """Under pythonw, without stdout and stderr, loading and dumping work, with and without a progress bar."""
    code = (
        "import sys, os; sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None\n"
        "from pleo_extract import dump_export_jobs, load_export_jobs\n"
        f"frame = load_export_jobs(progress={progress})\n"
        f"receipt = dump_export_jobs({str(machine.lake)!r}, progress={progress})\n"
        f"os._exit(0 if frame.height == receipt.lake_rows == {JOBS} else 9)"
    )
    assert machine.run(program=[sys.executable, "-c", code]).returncode == 0
    assert machine.rows() == JOBS


def test_f71_nobody_reads_stdout(machine: Machine) -> None:
    """A dump whose stdout is a closed pipe works and ends with 0."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*PROGRAM, "dump", str(machine.lake)],
            env=machine.environment,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.rows() == JOBS


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_f71_characters_that_the_terminal_lacks(encoding: str, machine: Machine, tmp_path: Path) -> None:
    """Names outside the terminal's encoding do not fail a command, on stdout, on stderr or in the C locale."""
    (tmp_path / "key").write_text("plp_wrong")
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "accounts.toml").write_text(
        f'base_url = "{machine.environment["PLEO_BASE_URL"]}"\n[[account]]\nname = "Kaffe 東京"\n'
        f'company_id = "{machine.sandbox.world.companies[0]}"\napi_key_file = "key"\n'
        f'[[account]]\nname = "Kaffe København"\n'
        f'company_id = "{machine.sandbox.world.companies[1]}"\napi_key_file = "key"\n',
        encoding="utf-8",
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    machine.environment |= plain | {"PYTHONWARNINGS": "error"}
    done = machine.run("dump", str(machine.lake), "--accounts", str(tmp_path / "accounts.toml"))
    assert done.returncode == 77, done.stderr
    assert "Traceback" not in done.stderr
    shown = machine.run("status", str(machine.lake))
    assert (shown.returncode, shown.stderr) == (0, "")
    name = "東京" if encoding == "ascii" else "\\u6771\\u4eac"  # click writes UTF-8 where there is only ASCII
    assert f"Kaffe {name}" in done.stderr
    assert f"Kaffe {name}" in shown.stdout


def start_slow(machine: Machine, *before: str) -> subprocess.Popen[str]:
    """Start a dump with slow responses, and return it when some of them have arrived."""
    machine.sandbox.rules = replace(machine.sandbox.rules, latency=0.2)
    process = subprocess.Popen(
        [*before, *PROGRAM, "dump", str(machine.lake), "--in-flight", "1"],
        env=machine.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(machine.sandbox.requests) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.fixture
def heard() -> Iterator[None]:
    """Make child processes receive SIGHUP, even if nohup started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heard")
def test_f71_hung_up(machine: Machine) -> None:
    """SIGHUP ends a dump with 129 as SIGTERM does with 143; the next run resumes."""
    process = start_slow(machine)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 129
    assert said == "pleo-extract: hung up; fetched pages are kept, run again to continue\n"
    assert (machine.last_run()["code"], machine.last_run()["error"]) == (129, "hung up")
    machine.sandbox.rules = replace(machine.sandbox.rules, latency=0.0)
    assert machine.run("dump", str(machine.lake)).returncode == 0
    assert machine.last_run()["receipt"]["resumed"]
    assert machine.rows() == JOBS


def test_f71_hung_up_under_nohup(machine: Machine) -> None:
    """A dump started with nohup survives SIGHUP."""
    process = start_slow(machine, "sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")
    assert machine.rows() == JOBS


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_f71_told_to_end_in_the_background(name: str, machine: Machine) -> None:
    """A dump in the background of a script, where shells ignore SIGINT, still ends on SIGTERM."""
    process = start_slow(machine, "sh", "-c", f'trap "" {name}; exec "$@"', "sh")
    process.send_signal(signal.Signals[f"SIG{name}"])
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.Signals[f"SIG{name}"]


def test_f71_hung_up_as_it_publishes() -> None:
    """SIGHUP during a publish takes effect after the snapshot is complete, like SIGTERM."""
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _frame: heard.append(number))
    try:
        with hold_signals():
            signal.raise_signal(signal.SIGHUP)
            assert heard == []
        assert heard == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)
