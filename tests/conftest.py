"""Fixtures that many tests share: a small world, and a client of its sandbox in process."""

from __future__ import annotations

import functools
import logging
import os
import random
import signal
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

import pytest
from canary import (
    CANARY,
    pytest_configure,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    pytest_unconfigure,
    search_later,
)
from hypothesis import HealthCheck, settings

from pleo_extract import Client
from pleo_extract.answers import catalogue
from pleo_extract.answers.definition import Source
from pleo_extract.cli import main
from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World
from pleo_extract.signals import CODES

pytest.register_assert_rewrite("trial")
from trial import Trial  # noqa: E402 - after the registration, so that its assertions show what they compare

# Hypothesis' own limits of time would fail a correct test on a busy machine.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

__all__ = [
    "pytest_configure",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "pytest_unconfigure",
]


class FakeClock:
    """A clock that advances only when a caller waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """Return the seconds waited so far."""
        return self.now

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Advance the clock immediately."""
        with self._lock:
            self.now += seconds


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Start a process more than there are cores: tests wait for disks and for processes that they start."""
    return (yield) + 1


@pytest.fixture(autouse=True)
def own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Remove the developer's credentials, and give each test its own cache folder and log handlers."""
    for name in [name for name in os.environ if name.startswith("PLEO_")]:
        monkeypatch.delenv(name)
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    search_later(cache)
    log = logging.getLogger("pleo_extract")
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.propagate = before[0], before[2]
    log.setLevel(before[1])


@pytest.fixture(autouse=True)
def own_luck(request: pytest.FixtureRequest) -> None:
    """Give each test random numbers of its own that are the same each time: an audit may miss a change by bad luck."""
    random.seed(request.node.nodeid)


@pytest.fixture(scope="session")
def compiled_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], bytes]:
    """Return a function that returns the catalogue of an empty lake, which is made once."""
    compile_one = catalogue._compile  # before `quick_catalogue` replaces it

    @functools.cache
    def make() -> bytes:
        file = tmp_path_factory.mktemp("catalogue") / "_jobs.duckdb"
        compile_one(file, str(file.parent), Source(()), "")
        return file.read_bytes()

    return make


@pytest.fixture(autouse=True)
def quick_catalogue(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    compiled_catalogue: Callable[[], bytes],
) -> None:
    """Give each lake a copy of one catalogue, except in tests marked `catalogue` and in suites of other tools.

    DuckDB takes longer to compile one than most tests take for all else. It also opens the copy only once.
    """
    is_ours = request.path.parent.name in {"tests", "table"}
    if is_ours and request.node.get_closest_marker("catalogue") is None:
        open_one = catalogue.is_readable
        monkeypatch.setattr(catalogue, "_compile", lambda file, *_: file.write_bytes(compiled_catalogue()))
        monkeypatch.setattr(
            catalogue, "is_readable", lambda data: data == compiled_catalogue() or open_one(data)
        )


@pytest.fixture(params=["httpx", "curl"])
def each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test once over each transport that uses the network; return the name of the present one."""
    monkeypatch.setenv("PLEO_TRANSPORT", request.param)
    return str(request.param)


def cut_long_lists(patch: pytest.MonkeyPatch) -> None:
    """Read long lists in segments, although a server in process answers immediately."""
    patch.setattr("pleo_extract.fetch.segments.QUICK_SECONDS", 0)
    patch.setattr("pleo_extract.fetch.segments.WORTH_SECONDS", 1e-9)


@pytest.fixture
def read_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read long lists in segments."""
    cut_long_lists(monkeypatch)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that advances only when a caller waits."""
    return FakeClock()


@pytest.fixture
def open_client(clock: FakeClock) -> Iterator[Callable[[Sandbox], Client]]:
    """Return a function that opens clients of sandboxes in process, with a fake clock; close them at the end."""
    opened: list[Client] = []

    def open_one(sandbox: Sandbox) -> Client:
        sandbox._access.setdefault(("basic", CANARY), None)
        client = Client("http://127.0.0.1:1", api_key=CANARY, transport=sandbox, clock=clock, rate=10_000_000)
        opened.append(client)
        return client

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture
def make_sandbox() -> Callable[..., Sandbox]:
    """Return a function that makes sandboxes from `jobs`, `faults`, `seed` and any of the rules by name."""

    def make(jobs: int = 300, faults: str = "", seed: int = 7, **rules: object) -> Sandbox:
        return Sandbox(
            World(jobs=jobs, seed=seed),
            rules=Rules(**rules),  # type: ignore[arg-type]
            faults=faults,
            api_keys={CANARY: None, API_KEY: None},
        )

    return make


@pytest.fixture(scope="session")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dump the trials' world once; trials copy that lake."""
    return Trial("refresh", tmp_path_factory.mktemp("dumped") / "lake", FakeClock()).lake


@pytest.fixture(params=[pytest.param("first", marks=pytest.mark.slow), "refresh"])
def trial(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    clock: FakeClock,
    dumped: Path,
    read_in_segments: None,
) -> Trial:
    """Return a trial of a refresh, and with the slow tests one of a first dump in segments.

    Both answer a fault by the same rules; a test of what differs asks for the one that it is about.
    """
    return Trial(request.param, tmp_path / "lake", clock, dumped=dumped)


class Said(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def pleo(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Said]]:
    """Return a function that runs `pleo-extract` with these arguments in process."""

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["pleo-extract", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    handlers = {number: signal.getsignal(number) for number in CODES}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
