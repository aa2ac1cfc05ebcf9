"""Servers under way on the loopback interface: started, waited for, ended by their own process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["TOOLS", "clean_environment", "find_free_port", "run_prism", "run_server"]

TOOLS: Final = Path(__file__).parents[2] / ".venv-contract"
"""What `.ci/contract` installed."""
PATIENCE: Final = 60.0
"""Seconds a server may take to listen."""
LISTENING: Final = re.compile(r"Prism is listening on (http://\S+)")


def clean_environment(**more: str) -> dict[str, str]:
    """This environment without what would lead requests elsewhere, or tell our command line whom to ask."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("PLEO_", "SCHEMATHESIS_"))
    }
    return {**kept, "PYTHONWARNINGS": "default", **more}


def find_free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(command: Sequence[str | Path], log: Path, listening: re.Pattern[str]) -> Iterator[str]:
    """A server until the block ends; gives the URL that its output names once it listens."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            start_new_session=True,
        )
    try:
        yield _await_url(process, log, listening)
    finally:
        # Its whole group, of which it is the first: PyPI's node is a program that starts the real one.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def run_prism(arguments: Sequence[str | Path], log: Path) -> Iterator[str]:
    """Prism until the block ends; gives its URL. `arguments`: ``proxy`` or ``mock`` and what belongs to it."""
    prism = TOOLS / "node_modules/.bin/prism"
    place = ["--host", "127.0.0.1", "--port", str(find_free_port())]
    with run_server([prism, *arguments, *place], log, LISTENING) as url:
        yield url


def _await_url(process: subprocess.Popen[bytes], log: Path, listening: re.Pattern[str]) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if found := listening.search(log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.05)
    said = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} does not listen (exit code {process.poll()}); it said:\n{said}")
