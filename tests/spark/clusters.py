"""Spark clusters on this machine: a standalone master with workers, and programs that run on them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyspark

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MANY_QUESTIONS",
    "PROGRAM",
    "SETTINGS",
    "children",
    "run_program",
    "start_program",
    "start_standalone",
]

# Without the second compiler and parallel garbage collection a process that lives for a minute needs half the CPU.
_JAVA: Final = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
SETTINGS: Final = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": _JAVA,
    "spark.driver.host": "127.0.0.1",
    "spark.executor.extraJavaOptions": _JAVA,
    "spark.sql.adaptive.enabled": "false",  # planning again costs more than these small queries
    "spark.sql.session.timeZone": "America/New_York",
    "spark.sql.shuffle.partitions": "1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
MANY_QUESTIONS: Final = SETTINGS | {
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
"""Settings for one process that plans hundreds of large queries over few rows: Java's second compiler halves the time of
planning, and interpreting an expression takes less time than compiling it. The programs on clusters compile theirs."""
PROGRAM: Final = Path(__file__).with_name("program.py")
_SPARK_CLASS: Final = Path(pyspark.__file__).parent / "bin" / "spark-class"
_STARTED: Final = re.compile(r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")
_WAIT: Final = 60.0


def start_program(folder: Path, master: str, **facts: Any) -> subprocess.Popen[str]:
    """Start `program.py` on a cluster with these settings and options; see its docstring."""
    (folder / "told.json").write_text(json.dumps({"master": master, "settings": SETTINGS, **facts}))
    with (folder / "program.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, PROGRAM, folder], stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder
        )


def run_program(folder: Path, master: str, **facts: Any) -> dict[str, Any]:
    """Run `program.py` to its end and return what it printed."""
    return finish(start_program(folder, master, **facts), folder)


def finish(program: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    """Wait for a program and return what it printed."""
    out, _ = program.communicate(timeout=240)
    assert program.returncode == 0, (folder / "program.log").read_text()[-3000:]
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    return said


@contextmanager
def start_standalone(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Start a standalone master and its workers, with one core each; executors inherit their environment."""
    # Components whose host cannot be configured listen here.
    env = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_JAVA_OPTS": _JAVA}
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: str) -> Path:
        log = folder / f"{name}.log"
        with log.open("wb") as file:
            started.append(
                subprocess.Popen([_SPARK_CLASS, *words], stdout=file, stderr=file, env=env, cwd=folder)
            )
        return log

    where = "org.apache.spark.deploy"
    try:
        log = start("master", f"{where}.master.Master", "-h", "127.0.0.1", "-p", "0", "--webui-port", "0")
        master = _wait_for(log, _STARTED)[1]
        limits = ("-c", "1", "-m", "1g", "--webui-port", "0", "-d", str(folder / "work"))
        for number in range(workers):
            start(f"worker-{number}", f"{where}.worker.Worker", master, "-h", "127.0.0.1", *limits)
        for number in range(workers):
            _wait_for(folder / f"worker-{number}.log", re.compile("Successfully registered with master"))
        yield master, started[1:]
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def children(pid: int) -> list[int]:
    """Return the child processes of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def _wait_for(log: Path, said: re.Pattern[str]) -> re.Match[str]:
    end = time.monotonic() + _WAIT
    while time.monotonic() < end:
        if found := said.search(log.read_text(errors="replace")):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{log.name} does not say {said.pattern}: {log.read_text()[-2000:]}")
