"""F36 at every wait of a dump: after SIGTERM it ends within seconds."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from canary import CANARY

import pleo_extract
from pleo_extract.sandbox import Request, Rules, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


PROGRAM = [sys.executable, "-m", "pleo_extract"]
PEM = Path(__file__).parent / "tls/loopback.pem"
SOON = 15.0
"""Seconds in which the dump must end, less than any of the waits. On an idle machine it takes two."""
LONG = 60.0
"""Seconds that a test waits until the dump reaches the stalled request."""


@dataclass
class Stalling:
    """A server that answers some requests like the sandbox, each on its own connection, and then stalls."""

    sandbox: Sandbox
    answered: int
    listening: socket.socket
    stalls: Callable[[Stalling, socket.socket], None]
    context: ssl.SSLContext | None = None
    latency: float = 0.05
    """Seconds per response; a slow list is read in segments, by several threads."""
    requests: int = 0
    stalled: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def port(self) -> int:
        """Return the port of the server."""
        return int(self.listening.getsockname()[1])

    @property
    def url(self) -> str:
        """Return the address of the server."""
        return f"http{'s' if self.context else ''}://127.0.0.1:{self.port}"

    def accept(self) -> None:
        """Accept connections, each in its own thread."""
        threads: list[threading.Thread] = []
        crammed: list[socket.socket] = []
        while not self.over.is_set():
            if self.stalls is refuse_more and self.requests >= self.answered:
                crammed = cram(self.port)
                self.note()
                self.over.wait()
                break
            with suppress(TimeoutError):
                connection, _ = self.listening.accept()
                threads.append(threading.Thread(target=self.attend, args=[connection]))
                threads[-1].start()
        for thread in threads:
            thread.join()
        for each in crammed:
            each.close()

    def is_reached(self, times: int) -> bool:
        """Return whether the dump is waiting for the stalled response."""
        if self.stalled < times or self.stalls is not refuse_more:
            return self.stalled >= times
        # The format of /proc: the port of a pending connection, in state SYN_SENT (02).
        sought = [line.split()[2:4] for line in Path("/proc/net/tcp").read_text().splitlines()]
        return [f"0100007F:{self.port:04X}", "02"] in sought

    def attend(self, connection: socket.socket) -> None:
        """Answer one request, or stall."""
        with suppress(OSError), connection:
            connection.settimeout(LONG)
            with self.lock:
                early = self.stalls is say_nothing and self.requests >= self.answered
            if early:
                say_nothing(self, connection)
                return
            with (
                self.context.wrap_socket(connection, server_side=True)
                if self.context
                else connection as stream
            ):
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (data := stream.recv(65536)):
                        return
                    head += data
                with self.lock:
                    self.requests += 1
                    answers = self.requests <= self.answered
                if answers:
                    stream.sendall(self.answer(head))
                else:
                    self.stalls(self, stream)

    def answer(self, head: bytes) -> bytes:
        """Return the response of the sandbox."""
        first, *lines = head.decode().split("\r\n")
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        response = self.sandbox(Request(method, path, query, headers))
        self.over.wait(self.latency)
        return (
            write_head(response.status, *map(": ".join, response.headers.items()), length=len(response.body))
            + response.body
        )

    def note(self) -> None:
        """Count one more stalled request."""
        with self.lock:
            self.stalled += 1


def cram(port: int) -> list[socket.socket]:
    """Fill the queue of a socket that nobody accepts from."""
    waiting: list[socket.socket] = []
    while True:
        one = socket.socket()
        one.settimeout(0.3)
        try:
            one.connect(("127.0.0.1", port))
        except TimeoutError:
            one.close()
            return waiting
        waiting.append(one)


def write_head(status: int, *lines: str, length: int = 0) -> bytes:
    """Return a status line and headers."""
    return "\r\n".join(
        [f"HTTP/1.1 {status} Said", *lines, f"Content-Length: {length}", "Connection: close", "", ""]
    ).encode()


def refuse_more(server: Stalling, _: socket.socket) -> None:
    """Let connections hang: nobody accepts, and the kernel's queue is full."""


def say_nothing(server: Stalling, _: socket.socket) -> None:
    """Stay silent, during the TLS handshake or before the head."""
    server.note()
    server.over.wait(LONG)


def drip_head(server: Stalling, stream: socket.socket) -> None:
    """Send endless headers."""
    stream.sendall(b"HTTP/1.1 200 OK\r\n")
    server.note()
    while not server.over.wait(0.1):
        stream.sendall(b"X-More: and more\r\n")


def drip_body(server: Stalling, stream: socket.socket) -> None:
    """Send a body byte by byte."""
    stream.sendall(write_head(200, "Content-Type: application/json", length=100_000) + b"{")
    server.note()
    while not server.over.wait(0.1):
        stream.sendall(b" ")


def ask_to_wait(server: Stalling, stream: socket.socket) -> None:
    """Answer 429 with Retry-After of two minutes."""
    stream.sendall(write_head(429, "Retry-After: 120"))
    server.note()


def fail(server: Stalling, stream: socket.socket) -> None:
    """Answer 503 each time, so that the back-off grows."""
    stream.sendall(write_head(503))
    server.note()


def crowd(server: Stalling, stream: socket.socket) -> None:
    """Answer 429 once to lower the number in flight, then nothing, so that other requests wait for their turn."""
    with server.lock:
        first = server.requests == server.answered + 1
    if first:
        time.sleep(0.2)  # other requests are in flight by now
        stream.sendall(write_head(429, "Retry-After: 0"))
    else:
        say_nothing(server, stream)


PHASES: dict[str, tuple[Callable[[Stalling, socket.socket], None], bool, int]] = {
    "connect": (refuse_more, False, 1),
    "handshake": (say_nothing, True, 1),
    "head": (say_nothing, False, 1),
    "dripping head": (drip_head, False, 1),
    "dripping body": (drip_body, False, 1),
    "retry-after": (ask_to_wait, False, 1),
    "backoff": (fail, False, 3),
    "gate": (crowd, False, 1),
}
"""The fault, whether the server uses TLS, and how often the fault has happened before the signal."""


@contextmanager
def stall(phase: str, answered: int) -> Iterator[Stalling]:
    """Serve a list that stalls after some pages."""
    stalls, tls, _ = PHASES[phase]
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(PEM)
    sandbox = Sandbox(World(jobs=2_000, days=100), rules=Rules(max_limit=10), api_keys={CANARY: None})
    listening = socket.create_server(("127.0.0.1", 0), backlog=0 if stalls is refuse_more else 64)
    listening.settimeout(0.1)
    server = Stalling(sandbox, answered, listening, stalls, context)
    accepting = threading.Thread(target=server.accept)
    accepting.start()
    try:
        yield server
    finally:
        server.over.set()
        accepting.join()
        listening.close()


@dataclass
class Ended:
    """A dump that got SIGTERM, and how it ended."""

    code: int
    said: str
    seconds: float


def tell(
    command: list[str],
    folder: Path,
    is_reached: Callable[[], bool],
    send: Callable[[subprocess.Popen[bytes]], None] = subprocess.Popen.terminate,
) -> Ended:
    """Start a dump, wait until it is waiting, send SIGTERM, and return how it ended."""
    environment = os.environ | {
        "PLEO_API_KEY": CANARY,
        "PYTHONPATH": str(Path(pleo_extract.__file__).parents[1]),
    }
    errors = folder / "stderr"
    with errors.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stderr=file, stdout=file)
        try:
            until = time.monotonic() + LONG
            while not is_reached():
                assert process.poll() is None, errors.read_text()
                assert time.monotonic() < until, errors.read_text()
                time.sleep(0.02)
            time.sleep(0.3)  # an answer has been read by now, and what it asks for is being done
            assert process.poll() is None, errors.read_text()
            began = time.monotonic()
            send(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SOON)
            return Ended(process.poll() or 0, errors.read_text(), time.monotonic() - began)
        finally:
            process.kill()
            process.wait()


def send_to_worker(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a thread other than the main one, as the kernel may: nothing wakes the main thread then."""
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        blocked = int(re.findall(r"SigBlk:\s*(\w+)", (task / "status").read_text())[0], 16)
        if int(task.name) != process.pid and not blocked >> (signal.SIGTERM - 1) & 1:
            ctypes.CDLL(None).tgkill(process.pid, int(task.name), signal.SIGTERM)
            return
    raise AssertionError("no other thread takes this signal")


def check(reported: Ended, lake: Path) -> None:
    """Check that the dump ended in time, with its code, and recorded it."""
    assert reported.code == 143, reported
    said = "pleo-extract: terminated; fetched pages are kept, run again to continue"
    assert reported.said.splitlines()[-1] == said
    last = json.loads((lake / "_lake/last_run.json").read_text())
    assert (last["code"], last["error"]) == (143, "terminated")


@pytest.mark.slow
@pytest.mark.parametrize("answered", [0, 2, 12])
@pytest.mark.parametrize("phase", PHASES)
def test_f36_in_every_phase(phase: str, answered: int, tmp_path: Path) -> None:
    """SIGTERM ends a dump in every phase, with one thread or with several in segments."""
    lake = tmp_path / "lake"
    with stall(phase, answered) as server:
        command = [*PROGRAM, "dump", str(lake), "--base-url", server.url, "--in-flight", "4", "--quiet"]
        command += ["--ca-file", str(PEM)] if server.context else []
        reported = tell(command, tmp_path, lambda: server.is_reached(PHASES[phase][2]))
    check(reported, lake)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_f36_in_every_phase_of_many_accounts(phase: str, tmp_path: Path) -> None:
    """SIGTERM ends a dump of many accounts, whose signal thread does not wait itself."""
    lake = tmp_path / "lake"
    with stall(phase, 0 if PHASES[phase][1] else 7) as server:
        accounts = write_accounts(tmp_path, server)
        command = [*PROGRAM, "dump", str(lake), "--accounts", str(accounts), "--quiet"]
        reported = tell(command, tmp_path, lambda: server.is_reached(PHASES[phase][2]))
    check(reported, lake)


@pytest.mark.parametrize("phase", ["retry-after", "backoff", "head", "gate"])
@pytest.mark.parametrize(("accounts", "answered"), [("one", 0), ("one", 1), ("one", 12), ("many", 7)])
def test_f36_if_another_thread_gets_the_signal(
    phase: str, accounts: str, answered: int, tmp_path: Path
) -> None:
    """SIGTERM ends a dump although the kernel did not deliver it to the thread that handles it."""
    lake = tmp_path / "lake"
    with stall(phase, answered) as server:
        where = (
            ["--accounts", str(write_accounts(tmp_path, server))]
            if accounts == "many"
            else ["--base-url", server.url, "--in-flight", "4"]
        )
        command = [*PROGRAM, "dump", str(lake), *where, "--quiet"]
        reported = tell(command, tmp_path, lambda: server.is_reached(PHASES[phase][2]), send_to_worker)
    check(reported, lake)


def test_f36_of_a_sandbox_if_another_thread_gets_the_signal(tmp_path: Path) -> None:
    """SIGTERM ends a sandbox likewise, whose main thread only waits."""
    command = [*PROGRAM, "sandbox", "--port", "0", "--jobs", "10"]
    said = tmp_path / "stderr"
    reported = tell(command, tmp_path, lambda: "pleo-extract dump" in said.read_text(), send_to_worker)
    assert (reported.code, reported.said.splitlines()[-1]) == (143, "pleo-extract: terminated")


def write_accounts(folder: Path, server: Stalling, rate: int = 500) -> Path:
    """Write an accounts file of all companies of a server."""
    lines = [f'base_url = "{server.url}"']
    lines += [
        f'[[account]]\ncompany_id = "{company}"\nrate = {rate}\napi_key_env = "PLEO_API_KEY"'
        for company in server.sandbox.world.companies
    ]
    path = folder / "accounts.toml"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("accounts", ["one", "many"])
def test_f36_as_it_waits_for_the_pace(accounts: str, tmp_path: Path) -> None:
    """SIGTERM ends a dump that waits for the rate limit."""
    lake, rate = tmp_path / "lake", 6
    with stall("head", 1_000) as server:
        where = (
            ["--accounts", str(write_accounts(tmp_path, server, rate))]
            if accounts == "many"
            else ["--base-url", server.url]
        )
        command = [*PROGRAM, "dump", str(lake), *where, "--quiet", "--rate", str(rate)]
        reported = tell(command, tmp_path, lambda: server.requests == rate)
    check(reported, lake)


LOOKS_UP = """
import ctypes, os, pathlib, socket

def look_up(*_):
    pathlib.Path(os.environ["BEGUN"]).touch()
    library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_lock(lock)

socket.getaddrinfo = look_up
from pleo_extract.cli import start
start()
"""
"""Run the command line with a name lookup that hangs and, like the real call, ignores signals."""


def test_f36_as_it_looks_up_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM ends a dump during a name lookup, which the C library does not interrupt."""
    lake, begun = tmp_path / "lake", tmp_path / "begun"
    monkeypatch.setenv("BEGUN", str(begun))
    command = [
        sys.executable,
        "-c",
        LOOKS_UP,
        "dump",
        str(lake),
        "--base-url",
        "https://pleo.invalid",
        "--quiet",
    ]
    check(tell(command, tmp_path, begun.exists), lake)
