"""A process that hands each line it reads to a child, which dumps, and dies or worse at a chosen storage call.

Children are forked, because a fresh interpreter takes a second, and in advance, because polars starts threads when it
is imported and so must be imported by each of them anew.

    {"job": 1, "lake": …, "url": …, "result": file, "what": "dump", "options": {…}, "fail": ["kill", "before", 17]}

For each child it prints ``{"job": 1, "pid": …}``, and ``{"job": 1, "status": …}`` when it stops or ends; a status is
what `os.waitpid` gives. `fail` says what happens (``kill``, ``stop``, ``term``, ``int``, ``eio``, ``full``), when (``before``,
``after`` or ``half`` of it done) and at which storage call, counted from 1.
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
from tap import Tap

if TYPE_CHECKING:
    from collections.abc import Callable

EARLY = (httpx, msgspec, ssl)
"""Imported once; the rest in each child."""
LATE = (
    "polars",
    "pleo_extract.sync.dump",
    "pleo_extract.cli",
    "pleo_extract.sandbox",
    "pleo_extract.lake.disk",
)
STOCK = 2
"""Children made in advance."""
HANGS = 240.0
"""Seconds after which a child says where it hangs, and ends."""

KILLED = 86
WRITING = (
    "append_line",
    "protect_file",
    "link_file",
    "make_folder",
    "remove_file",
    "remove_tree",
    "rename",
    "replace_file",
    "sync_folder",
    "write_file",
)
"""The functions of `pleo_extract.lake.disk` that change something."""
SIGNALS = {"term": signal.SIGTERM, "int": signal.SIGINT, "stop": signal.SIGSTOP}


class Failpoint:
    """Stands before and after each storage call, counts them, and strikes at one."""

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
                self.strike()
            result = function(*args, **more)
            if here and self.when == "after":
                self.strike()
            return result

        return call

    def strike(self) -> None:
        """Die, or be told to."""
        if self.what == "kill":
            os._exit(KILLED)
        os.kill(os.getpid(), SIGNALS[self.what])


def _do_half(name: str, path: Path, data: bytes = b"", *_: Any) -> None:
    """Half of what a call does that does more than one thing."""
    if name in {"write_file", "append_line"}:
        with path.open("ab") as file:
            file.write(data[: len(data) // 2])
    if name == "remove_tree" and path.is_dir():
        inside = sorted(path.iterdir())
        for each in inside[::2]:
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def dump(job: dict[str, Any]) -> dict[str, Any]:
    """One dump in this process; how it ended."""
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
    """Import all that a dump needs: afterwards it may not be able to."""
    with tempfile.TemporaryDirectory() as folder:
        dump({"lake": f"{folder}/lake", "world": {"jobs": 10}})
        dump({"lake": f"{folder}/lake", "world": {"jobs": 10}, "advance": 86_400})


def repair(job: dict[str, Any]) -> dict[str, Any]:
    """One repair in this process; what it did."""
    from pleo_extract.lake.folder.repair import repair_lake  # noqa: PLC0415 - see LATE

    return {"code": 0, "error": "", "receipt": {"done": repair_lake(job["lake"]).done}}


def command_line(job: dict[str, Any]) -> dict[str, Any]:
    """The command line in this process, which it ends."""
    import pleo_extract.cli  # noqa: PLC0415 - see LATE
    from pleo_extract.sandbox import API_KEY  # noqa: PLC0415 - as above

    os.environ["PLEO_API_KEY"] = API_KEY
    sys.argv = ["pleo-extract", "dump", job["lake"], "--base-url", job["url"], "--quiet"]
    pleo_extract.cli.main()


def run(job: dict[str, Any]) -> None:
    """What the child does."""
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
    """A process in waiting."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        self.job = 0
        self.pid = os.fork()
        if not self.pid:
            os.close(self.writing)
            live(reading)
        os.close(reading)

    def take(self, line: bytes) -> None:
        """Give it its job."""
        self.job = json.loads(line)["job"]
        os.write(self.writing, line + b"\n")
        os.close(self.writing)
        tell({"job": self.job, "pid": self.pid})


def live(reading: int) -> None:
    """A child: import what is heavy, wait for the job, do it, leave without any further ado."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for name in LATE:
            import_module(name)
        with os.fdopen(reading, "rb") as file:
            text = file.readline()  # there may be no end: siblings have the other side too
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
    """Read jobs, hand them out, tell how the children end, until there is nothing more to read."""
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
    """A line on stdout."""
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
