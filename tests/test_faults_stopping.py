"""F36 wherever a dump can wait: told to end by SIGTERM, it ends within seconds, whatever it was waiting for."""

from __future__ import annotations

import json
import os
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
"""Seconds in which it must have ended; none of the waits is over by then. On an idle machine it takes two."""
LONG = 60.0
"""Seconds that a test waits for the dump to be where it is to be struck."""


@dataclass
class Stalling:
    """A server that answers some requests as the sandbox does, each on a connection of its own, and then stalls."""

    sandbox: Sandbox
    answered: int
    listening: socket.socket
    stalls: Callable[[Stalling, socket.socket], None]
    context: ssl.SSLContext | None = None
    latency: float = 0.05
    """Of each answer; a list whose pages take a while is read in segments, by several threads."""
    requests: int = 0
    stalled: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.listening.getsockname()[1])

    @property
    def url(self) -> str:
        """Its address."""
        return f"http{'s' if self.context else ''}://127.0.0.1:{self.port}"

    def accept(self) -> None:
        """Take connections, in a thread each."""
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
        """Return whether the dump waits now for what does not come."""
        if self.stalled < times or self.stalls is not refuse_more:
            return self.stalled >= times
        # As /proc has it: a port that a connection is sought to, and no answer (02).
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
        """Return what the sandbox says."""
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
        """One more has stalled."""
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
    """Connections hang: nobody accepts, and the kernel's queue is full."""


def say_nothing(server: Stalling, _: socket.socket) -> None:
    """The connection is there, and silent: as the handshake begins, or instead of a head."""
    server.note()
    server.over.wait(LONG)


def drip_head(server: Stalling, stream: socket.socket) -> None:
    """Headers without end."""
    stream.sendall(b"HTTP/1.1 200 OK\r\n")
    server.note()
    while not server.over.wait(0.1):
        stream.sendall(b"X-More: and more\r\n")


def drip_body(server: Stalling, stream: socket.socket) -> None:
    """A body that comes byte by byte."""
    stream.sendall(write_head(200, "Content-Type: application/json", length=100_000) + b"{")
    server.note()
    while not server.over.wait(0.1):
        stream.sendall(b" ")


def ask_to_wait(server: Stalling, stream: socket.socket) -> None:
    """429, come back in two minutes."""
    stream.sendall(write_head(429, "Retry-After: 120"))
    server.note()


def fail(server: Stalling, stream: socket.socket) -> None:
    """503, each time: the client waits longer and longer."""
    stream.sendall(write_head(503))
    server.note()


def crowd(server: Stalling, stream: socket.socket) -> None:
    """429 once, so that fewer may be under way at once; those that may get no answer, and the others wait for them."""
    with server.lock:
        first = server.requests == server.answered + 1
    if first:
        time.sleep(0.2)  # others are under way by now
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
"""What happens, whether over TLS, and how many times it has happened when the signal is sent."""


@contextmanager
def stall(phase: str, answered: int) -> Iterator[Stalling]:
    """Serve a list of which some pages come."""
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
class Told:
    """A dump that was told to end."""

    code: int
    said: str
    seconds: float


def tell(command: list[str], folder: Path, is_reached: Callable[[], bool]) -> Told:
    """Start a dump, wait until it waits, tell it to end, and see."""
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
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SOON)
            return Told(process.poll() or 0, errors.read_text(), time.monotonic() - began)
        finally:
            process.kill()
            process.wait()


def check(told: Told, lake: Path) -> None:
    """Check that a dump ended as it should, and said so in its record."""
    assert told.code == 143, told
    said = "pleo-extract: terminated; what was fetched is kept, run again to go on"
    assert told.said.splitlines()[-1] == said
    last = json.loads((lake / "_lake/last_run.json").read_text())
    assert (last["code"], last["error"]) == (143, "terminated")


@pytest.mark.parametrize("answered", [0, 2, 12])
@pytest.mark.parametrize("phase", PHASES)
def test_f36_in_every_phase(phase: str, answered: int, tmp_path: Path) -> None:
    """Whether one thread waits for the first answer, or several for probes or for the pages of their segments."""
    lake = tmp_path / "lake"
    with stall(phase, answered) as server:
        command = [*PROGRAM, "dump", str(lake), "--base-url", server.url, "--in-flight", "4", "--quiet"]
        command += ["--ca-file", str(PEM)] if server.context else []
        told = tell(command, tmp_path, lambda: server.is_reached(PHASES[phase][2]))
    check(told, lake)


@pytest.mark.parametrize("phase", PHASES)
def test_f36_in_every_phase_of_many_accounts(phase: str, tmp_path: Path) -> None:
    """The thread that hears the signal is none of those that wait."""
    lake = tmp_path / "lake"
    with stall(phase, 0 if PHASES[phase][1] else 7) as server:
        accounts = write_accounts(tmp_path, server)
        command = [*PROGRAM, "dump", str(lake), "--accounts", str(accounts), "--quiet"]
        told = tell(command, tmp_path, lambda: server.is_reached(PHASES[phase][2]))
    check(told, lake)


def write_accounts(folder: Path, server: Stalling, rate: int = 500) -> Path:
    """An accounts file of all companies of a server."""
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
    """With as many requests a minute as it has sent, a dump waits for the minute to pass."""
    lake, rate = tmp_path / "lake", 6
    with stall("head", 1_000) as server:
        where = (
            ["--accounts", str(write_accounts(tmp_path, server, rate))]
            if accounts == "many"
            else ["--base-url", server.url]
        )
        command = [*PROGRAM, "dump", str(lake), *where, "--quiet", "--rate", str(rate)]
        told = tell(command, tmp_path, lambda: server.requests == rate)
    check(told, lake)


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
"""The command line on a machine whose name servers do not answer: like the real call, this one heeds no signal."""


def test_f36_as_it_looks_up_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up a name is the C library's, which waits for each name server in turn, and for no signal."""
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
