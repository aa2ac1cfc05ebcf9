"""A process that gives each job it reads to a forked child, which dumps and fails at a chosen storage call.

Children are forked, because a fresh interpreter takes a second to start. They are forked in advance, because Polars
starts threads when it is imported and so each child must import it itself.

    {"job": 1, "lake": …, "url": …, "result": file, "what": "dump", "options": {…}, "fail": ["kill", "before", 17]}

For each child it prints ``{"job": 1, "pid": …}``, and ``{"job": 1, "status": …}`` when the child stops or ends; the
status is that of `os.waitpid`. `fail` is what happens (``kill``, ``stop``, ``term``, ``int``, ``eio``, ``full``), when
(``before`` the call, ``after`` it, or with ``half`` of it done) and at which storage call, counted from 1.
"""

from __future__ import annotations

import errno
import faulthandler
import functools
import json
import os
import resource
import select
import shutil
import signal
import ssl
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
from storage_calls import WRITING
from tap import Tap

if TYPE_CHECKING:
    from collections.abc import Callable

EARLY = (httpx, msgspec, ssl)
"""Modules that are imported before the fork; each child imports the rest."""
LATE = (
    "polars",
    "pleo_extract.sync.dump",
    "pleo_extract.cli",
    "pleo_extract.sandbox",
    "pleo_extract.lake.disk",
)
STOCK = 2
"""The number of children that wait for a job."""
HANGS = 240.0
"""Seconds after which a child prints its tracebacks and ends."""

KILLED = 86
SIGNALS = {"term": signal.SIGTERM, "int": signal.SIGINT, "stop": signal.SIGSTOP}


class Failpoint:
    """Wraps and counts the storage calls, and fails at one of them."""

    def __init__(self, what: str, when: str, at: int) -> None:
        self.what, self.when, self.at = what, when, at
        self.calls: list[str] = []
        disk = import_module("pleo_extract.lake.disk")
        for name in WRITING:
            setattr(disk, name, self._wrap(name, getattr(disk, name)))

    def _wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **more: Any) -> Any:
            self.calls.append(name)
            here = len(self.calls) == self.at
            if here and self.when == "half":
                _do_half(name, *args)
            if here and self.when != "after":
                self.fail()
            result = function(*args, **more)
            if here and self.when == "after":
                self.fail()
            return result

        return call

    def fail(self) -> None:
        """Exit, or send this process a signal."""
        if self.what == "kill":
            os._exit(KILLED)
        os.kill(os.getpid(), SIGNALS[self.what])


def _do_half(name: str, path: Path, data: bytes = b"", *_: Any) -> None:
    """Do half of a call that has several steps."""
    if name in {"write_file", "append_line"}:
        with path.open("ab") as file:
            file.write(data[: len(data) // 2])
    if name == "remove_tree" and path.is_dir():
        inside = sorted(path.iterdir())
        for each in inside[::2]:
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def dump(job: dict[str, Any]) -> dict[str, Any]:
    """Dump in this process and return the result."""
    from pleo_extract import Client, PleoExtractError, dump_export_jobs  # noqa: PLC0415 - see LATE
    from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World  # noqa: PLC0415 - as above

    options = {"deadline": HANGS / 4, **job.get("options", {})}
    if world := job.get("world"):
        sandbox = Sandbox(World(**world), rules=Rules(**job.get("rules", {})))
        sandbox.world.advance(job.get("advance", 0))
        client = Client("http://127.0.0.1:1", api_key=API_KEY, transport=sandbox, rate=10_000_000)
    else:
        client = Client(job["url"], api_key=API_KEY, rate=10_000_000)
    try:
        with client:
            receipt = dump_export_jobs(job["lake"], client=client, progress=False, **options)
    except PleoExtractError as exc:
        return {"code": exc.code, "error": str(exc), "receipt": exc.receipt}
    return {"code": 0, "error": "", "receipt": receipt.to_dict()}


def warm_up() -> None:
    """Import everything that a dump needs: with few file handles or as another user it cannot later."""
    with tempfile.TemporaryDirectory() as folder:
        dump({"lake": f"{folder}/lake", "world": {"jobs": 10}})
        dump({"lake": f"{folder}/lake", "world": {"jobs": 10}, "advance": 86_400})


def repair(job: dict[str, Any]) -> dict[str, Any]:
    """Repair the lake in this process and return what was done."""
    from pleo_extract.lake.folder.repair import repair_lake  # noqa: PLC0415 - see LATE

    return {"code": 0, "error": "", "receipt": {"done": repair_lake(job["lake"]).done}}


def command_line(job: dict[str, Any]) -> dict[str, Any]:
    """Run the command line in this process, which then exits."""
    import pleo_extract.cli  # noqa: PLC0415 - see LATE
    from pleo_extract.sandbox import API_KEY  # noqa: PLC0415 - as above

    os.environ["PLEO_API_KEY"] = API_KEY
    sys.argv = ["pleo-extract", "dump", job["lake"], "--base-url", job["url"], "--quiet"]
    pleo_extract.cli.main()


def run(job: dict[str, Any]) -> None:
    """Do the job and write the result."""
    os.umask(job.get("umask", 0o022))
    if job.get("files") or job.get("user"):
        warm_up()
    what, when, at = job.get("fail") or ("", "", 0)
    tap = None
    if what in {"eio", "full"}:
        tap = Tap(Path(job["lake"]), fail=(at, errno.EIO if what == "eio" else errno.ENOSPC))
        at = 0
    elif job.get("record"):
        tap = Tap(Path(job["lake"]))
    point = Failpoint(what, when, at)
    if files := job.get("files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if user := job.get("user"):
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    started = time.monotonic()
    does = {"dump": dump, "repair": repair, "command": command_line}
    result = does[job.get("what", "dump")](job)
    if job.get("files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    result |= {"calls": point.calls, "seconds": time.monotonic() - started}
    if tap is not None:
        result |= {"operations": tap.count}
        tap.save(Path(job["result"] + ".log"))
    sys.stdout.write(json.dumps(result))


class Child:
    """A forked process that waits for a job."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        self.job = 0
        self.pid = os.fork()
        if not self.pid:
            os.close(self.writing)
            live(reading)
        os.close(reading)

    def take(self, line: bytes) -> None:
        """Send the child its job."""
        self.job = json.loads(line)["job"]
        os.write(self.writing, line + b"\n")
        os.close(self.writing)
        tell({"job": self.job, "pid": self.pid})


def live(reading: int) -> None:
    """Be a child: import the heavy modules, wait for a job, do it and exit without cleanup."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for name in LATE:
            import_module(name)
        with os.fdopen(reading, "rb") as file:
            text = file.readline()  # not read(): siblings hold the other end open, so there is no EOF
        if not text.strip():
            os._exit(0)
        job = json.loads(text)
        os.dup2(os.open(job["result"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
        os.dup2(os.open(job["result"] + ".err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
        faulthandler.dump_traceback_later(HANGS, exit=True)
        run(job)
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001 - shown, and the child must end here
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Give jobs to children and report how the children end, until stdin closes."""
    stock = [Child() for _ in range(STOCK)]
    running: dict[int, Child] = {}
    waiting = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.002 if running else None)
        if readable:
            chunk = os.read(0, 2**16)
            if not chunk:
                break
            *lines, waiting = (waiting + chunk).split(b"\n")
            for line in lines:
                child = stock.pop(0)
                child.take(line)
                running[child.pid] = child
                stock.append(Child())
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if done:
                tell({"job": running[pid].job, "status": status})
                if not os.WIFSTOPPED(status):
                    del running[pid]
    for child in stock:
        os.write(child.writing, b"\n")


def tell(message: dict[str, Any]) -> None:
    """Print a message as a line of JSON."""
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
