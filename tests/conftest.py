"""What many tests share: a small world, and a client that speaks to its sandbox in process."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from pleo_extract import Client
from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CANARY = API_KEY


class FakeClock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """The seconds waited so far."""
        return self.now

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Let the time pass at once."""
        with self._lock:
            self.now += seconds


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No credential of the developer's, and no window shared with other tests or programs."""
    for name in [name for name in os.environ if name.startswith("PLEO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def segments_whatever_the_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox in process answers at once; long lists are cut into segments all the same."""
    monkeypatch.setattr("pleo_extract.extract.reading.WORTH_SECONDS", 1e-9)


@pytest.fixture
def clock() -> FakeClock:
    """Time that passes only by waiting."""
    return FakeClock()


@pytest.fixture
def open_client(clock: FakeClock) -> Iterator[Callable[[Sandbox], Client]]:
    """Opens clients of sandboxes, in process and with a fake clock; closes them at the end."""
    opened: list[Client] = []

    def open_one(sandbox: Sandbox) -> Client:
        client = Client(
            "http://127.0.0.1:1", api_key=API_KEY, transport=sandbox, clock=clock, rate=10_000_000
        )
        opened.append(client)
        return client

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture
def make_sandbox() -> Callable[..., Sandbox]:
    """Makes sandboxes: `jobs`, `faults` and any of the rules by name."""

    def make(jobs: int = 300, faults: str = "", seed: int = 7, **rules: object) -> Sandbox:
        return Sandbox(World(jobs=jobs, seed=seed), rules=Rules(**rules), faults=faults)  # type: ignore[arg-type]

    return make
