"""Servers on the loopback interface: start them, wait until they listen, end them."""

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
"""The tools that `.ci/contract` installed."""
PATIENCE: Final = 60.0
"""Seconds that a server may take until it listens."""
LISTENING: Final = re.compile(r"Prism is listening on (http://\S+)")


def clean_environment(**more: str) -> dict[str, str]:
    """Return this environment without proxies and without the settings of our command line."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("PLEO_", "SCHEMATHESIS_"))
    }
    return {**kept, "PYTHONWARNINGS": "default", **more}


def find_free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(command: Sequence[str | Path], log: Path, listening: re.Pattern[str]) -> Iterator[str]:
    """Run a server until the block ends; yield the URL that it prints when it listens."""
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
        # Signal the whole process group: the node of PyPI starts the real one as a child.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def run_prism(arguments: Sequence[str | Path], log: Path) -> Iterator[str]:
    """Run Prism until the block ends; yield its URL. `arguments`: ``proxy`` or ``mock`` and their arguments."""
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
