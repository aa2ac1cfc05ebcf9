from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract.mend import CONTRACT, mend
from pleo_extract.sandbox import API_KEY, TOKEN

if TYPE_CHECKING:
    from pathlib import Path

Note = Callable[[str, str, str], None]
NOTES = pytest.StashKey[list[tuple[str, str, str]]]()
CREDENTIALS = {"basic": {"api_key": API_KEY}, "bearer": {"access_token": TOKEN}}


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the table, and end the servers on SIGTERM, too."""
    config.stash[NOTES] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what each tool checked, and how much of it."""
    reported: dict[tuple[str, str], list[str]] = {}
    for tool, what, count in config.stash[NOTES]:
        reported.setdefault((tool, what), []).append(count)
    rows = [("by", "what", "count"), *((*key, ", ".join(counts)) for key, counts in reported.items())]
    wide, wider = (max(len(row[place]) for row in rows) for place in (0, 1))
    terminalreporter.section("the contract checked by others' tools")
    for row in rows:
        terminalreporter.write_line(f"{row[0]:{wide}}  {row[1]:{wider}}  {row[2]}")


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Return a function that adds a row to the table; rows of the same tool and check are summed."""

    def add(tool: str, what: str, count: str) -> None:
        request.config.stash[NOTES].append((tool, what, count))

    return add


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of our client from the environment."""
    for name in [name for name in os.environ if name.startswith("PLEO_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the mended copy of the contract."""
    path = tmp_path_factory.mktemp("contract") / "mended.yaml"
    path.write_text(mend(CONTRACT.read_text(encoding="utf-8")), encoding="utf-8")
    return path


@pytest.fixture(params=CREDENTIALS)
def credential(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return both kinds of authentication in turn, as arguments of `Client`."""
    return CREDENTIALS[request.param]


def name_kind(credential: dict[str, str]) -> str:
    """Return the name of an authentication, for the table."""
    return next(kind for kind, known in CREDENTIALS.items() if known == credential)
