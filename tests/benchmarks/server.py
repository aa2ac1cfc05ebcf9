"""The benchmark's server: a list of export jobs made by a formula, served as fast as Python can.

    python tests/benchmarks/server.py --jobs 100000 [--companies 20] [--latency-ms 50] [--rate 500] [--refuse 0.05] [--flaky 0.05]
        [--keys PREFIX] [--days 1095] [--page 100]

It implements the part of the contract that the contenders use: `limit` (at most `--page`), `after`, `offset`, `company_id`,
sorting by createdAt and id in both directions, `statuses` of open jobs, the echo. Job `n` is the same in every run: the
jobs are evenly spread over three years, or `--days`, and the last 40 are open.

    --rate     more requests in any 60 seconds get 429
    --refuse   this share of the companies gets 403
    --flaky    this share of the requests gets 503
    --keys     company `n` needs the key `PREFIX_n`; others get 401

`/grow?new=150&ended=40` adds jobs and ends open ones. `/seen` returns the number of requests, the most in 60 seconds,
and the most connections at the same time.
"""

from __future__ import annotations

import argparse
import json
import socket
import socketserver
import threading
import time
from base64 import b64encode
from collections import deque
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from urllib.parse import parse_qs, urlsplit

__all__ = ["Jobs", "main"]

FIRST: Final = datetime(2023, 1, 1)  # noqa: DTZ001 - everything here is UTC, and a naive datetime formats faster
DAYS: Final = 3 * 365
OPEN: Final = 40
SPREAD: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""An odd number, so that multiplication gives every job number a different id."""
DIGITS: Final = str.maketrans("0123456789", "ABCDEFGHIJ")
NUMBERS: Final = str.maketrans("ABCDEFGHIJ", "0123456789")


def company(number: int) -> str:
    """Return the id of a company, counted from 0."""
    return f"{number + 1:08x}-0000-4000-8000-{number + 1:012x}"


class Jobs:
    """The jobs by number, and the pages of them. Job `n` belongs to company `n` modulo the number of companies."""

    def __init__(self, count: int, companies: int = 20, days: int = DAYS, most: int = 100) -> None:
        self.count = count
        self.most = most
        self.companies = companies
        self.open_from = max(0, count - OPEN)
        self.step = days * 86_400 / count

    def grow(self, new: int, ended: int) -> None:
        """Add `new` jobs, and end `ended` of the open ones."""
        self.count += new
        self.open_from = min(self.count, self.open_from + ended)

    def row(self, n: int) -> str:
        """Return job `n` as JSON."""
        mixed = n * SPREAD & (1 << 128) - 1
        name = f"{mixed:032x}"
        created = int(n * self.step)
        at = (FIRST + timedelta(seconds=created)).isoformat()
        started = (FIRST + timedelta(seconds=created + 5 + n % 50)).isoformat()
        ended = (FIRST + timedelta(seconds=created + 60 + mixed % 900)).isoformat()
        if n >= self.open_from:
            end = f'"pending","lastUpdatedAt":"{at}Z"'
        elif mixed % 29 == 0:
            end = (
                f'"failed","startedAt":"{started}Z","lastUpdatedAt":"{ended}Z",'
                '"failureReasonType":"accounting_system_unreachable","failureReason":"The accounting system did not answer in time"'
            )
        else:
            end = f'"completed","startedAt":"{started}Z","completedAt":"{ended}Z","lastUpdatedAt":"{ended}Z"'
        who = f'"createdBy":"{company(n % 7)}",' if n % 3 == 0 else ""
        return (
            f'{{"id":"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}","companyId":"{company(n % self.companies)}",'
            f'{who}"createdAt":"{at}Z","expiresIn":86400,"isInteractive":{"true" if n % 3 == 0 else "false"},'
            f'"numberOfItems":{mixed % 200},"vendorBasedBookkeeping":false,"status":{end}}}'
        )

    def page(self, asked: dict[str, list[str]]) -> bytes:
        """Return one page as JSON."""
        limit = min(int(asked.get("limit", ["100"])[0]), self.most)
        orders = asked.get("sorting_order", [])
        down = bool(orders) and orders[0].startswith("DESC")
        ordered = self._listed(asked)[:: -1 if down else 1]
        start = int(asked.get("offset", ["0"])[0])
        if "after" in asked:
            start = ordered.index(int(asked["after"][0].translate(NUMBERS))) + 1
        numbers = ordered[start : start + limit]
        understood: dict[str, object] = {"parameters": asked, "limit": limit}
        if orders:
            understood |= {"sortingKeys": asked["sorting_keys"], "sortingOrder": orders}
        about: dict[str, object] = {
            "hasNextPage": start + len(numbers) < len(ordered),
            "hasPreviousPage": start > 0,
            "total": len(ordered),
            "currentRequestPagination": understood,
        }
        if numbers:
            about["startCursor"] = str(numbers[0]).translate(DIGITS)
            about["endCursor"] = str(numbers[-1]).translate(DIGITS)
        return f'{{"data":[{",".join(map(self.row, numbers))}],"pagination":{json.dumps(about)}}}'.encode()

    def _listed(self, asked: dict[str, list[str]]) -> range:
        """Return the numbers of the requested jobs, oldest first."""
        low = self.open_from if "statuses" in asked else 0
        if "company_id" not in asked:
            return range(low, self.count)
        number = int(asked["company_id"][0][:8], 16) - 1
        return range(low + (number - low) % self.companies, self.count, self.companies)


class _Gate:
    """Counts requests and connections, and decides which requests are refused."""

    def __init__(
        self, rate: int | None, refused: float, flaky: float = 0, keys: str = "", slow: str = ""
    ) -> None:
        self.requests = 0
        self.most = 0
        self.most_connections = 0
        self._connections: set[socket.socket] = set()
        self._rate = rate
        self._refused = refused
        self._flaky = flaky
        self._keys = keys
        self._slow = slow
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()

    def meet(self, connection: socket.socket) -> None:
        """Note a request on this connection, and count the connections that clients hold open."""
        with self._lock:
            if connection not in self._connections:
                self._connections.add(connection)
                found = sum(not _is_closed(each) for each in self._connections)
                self.most_connections = max(self.most_connections, found)

    def leave(self, connection: socket.socket) -> None:
        """Note that the server has closed a connection."""
        with self._lock:
            self._connections.discard(connection)

    def is_refused(self, asked: dict[str, list[str]]) -> bool:
        """Return whether the company is refused: every twentieth, with 0.05."""
        number = int(asked.get("company_id", ["1"])[0][:8], 16)
        return self._refused > 0 and number % round(1 / self._refused) == 0

    def is_slow(self, target: str) -> bool:
        """Return whether the answer to this request comes a byte a second."""
        return bool(self._slow) and self._slow in target

    def is_known(self, asked: dict[str, list[str]], head: bytes) -> bool:
        """Return whether the key is that of the company."""
        if not self._keys:
            return True
        number = int(asked["company_id"][0][:8], 16) - 1
        return b64encode(f"{self._keys}_{number}:".encode()) in head

    def is_down(self) -> bool:
        """Return whether this request fails: every twentieth, with 0.05."""
        return self._flaky > 0 and self.requests % round(1 / self._flaky) == 0

    def let_in(self) -> bool:
        """Return whether the rate limit allows one more request, and count it."""
        now = time.monotonic()
        with self._lock:
            while self._recent and self._recent[0] <= now - 60:
                self._recent.popleft()
            if self._rate is not None and len(self._recent) >= self._rate:
                return False
            self._recent.append(now)
            self.requests += 1
            self.most = max(self.most, len(self._recent))
        return True


def _is_closed(connection: socket.socket) -> bool:
    """Return whether the client has closed the connection, even if its handler has not noticed yet."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def __init__(self, jobs: Jobs, gate: _Gate, latency: float, *args: object) -> None:
        self._jobs, self._gate, self._latency = jobs, gate, latency
        super().__init__(*args)  # type: ignore[arg-type]

    def handle(self) -> None:
        try:
            self._serve()
        finally:
            self._gate.leave(self.connection)

    def _serve(self) -> None:
        while head := self.rfile.readline():
            more = []
            while (line := self.rfile.readline()) not in (b"\r\n", b"\n", b""):
                more.append(line)
            target = head.split(b" ")[1].decode("ascii")
            data = self._answer(target, b"".join(more))
            if self._gate.is_slow(target):
                with suppress(OSError):  # the client gives up
                    for place in range(len(data)):
                        time.sleep(1)
                        self.wfile.write(data[place : place + 1])
            else:
                self.wfile.write(data)

    def _answer(self, target: str, head: bytes) -> bytes:
        path, asked = urlsplit(target).path, parse_qs(urlsplit(target).query)
        status, more = "200 OK", ""
        if path.endswith("/v3/export-jobs"):
            self._gate.meet(self.connection)
            if self._latency:
                time.sleep(self._latency)
            if self._gate.is_refused(asked):
                status, body = "403 Forbidden", b"{}"
            elif not self._gate.is_known(asked, head):
                status, body = "401 Unauthorized", b"{}"
            elif self._gate.let_in():
                body = self._jobs.page(asked)
                if self._gate.is_down():
                    status, body = "503 Service Unavailable", b"{}"
            else:
                status, body, more = "429 Too Many Requests", b"{}", "Retry-After: 1\r\n"
        elif path == "/grow":
            self._jobs.grow(int(asked["new"][0]), int(asked["ended"][0]))
            body = b"{}"
        else:
            seen = {"requests": self._gate.requests, "most": self._gate.most}
            body = json.dumps({**seen, "connections": self._gate.most_connections}).encode()
        start = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        return start.encode() + body


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    """Print the address and serve until stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--rate", type=int)
    parser.add_argument("--companies", type=int, default=20)
    parser.add_argument("--refuse", type=float, default=0)
    parser.add_argument("--flaky", type=float, default=0)
    parser.add_argument("--keys", default="")
    parser.add_argument("--slow", default="", help="the company whose answers come a byte a second")
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--page", type=int, default=100)
    asked = parser.parse_args()
    jobs = Jobs(asked.jobs, asked.companies, asked.days, asked.page)
    gate = _Gate(asked.rate, asked.refuse, asked.flaky, asked.keys, asked.slow)
    handler = partial(_Handler, jobs, gate, asked.latency_ms / 1000)
    with _Server(("127.0.0.1", 0), handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
