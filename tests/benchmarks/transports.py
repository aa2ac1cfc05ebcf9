"""One request over each transport: CPU time without retries, pace, parsing or anything else of a session.

    python tests/benchmarks/transports.py [--requests 1000] [--rounds 5]

The figures are medians over processes that take turns, each with the benchmark's server of 100 rows a page. *load* is the
CPU time until the first answer: the imports, and opening the connection.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from measure import KEY, serve, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TARGET = "/v3/export-jobs?limit=100"
HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "Authorization": KEY}
NAMES = {"bare": "httpx itself", "httpx": "ours: httpx, the default", "curl": "ours: libcurl, `[fast]`"}


def open_bare(url: str) -> Callable[[], object]:
    """Return a function that asks with the transport of httpx."""
    import httpx  # noqa: PLC0415 - each process loads one

    transport, address, headers = (
        httpx.HTTPTransport(trust_env=False),
        httpx.URL(url + TARGET),
        httpx.Headers(HEADERS),
    )

    def ask() -> object:
        answer = transport.handle_request(httpx.Request("GET", address, headers=headers))
        body = answer.read()
        answer.close()
        return body

    return ask


def open_ours(url: str) -> Callable[[], object]:
    """Return a function that asks with a transport of ours."""
    from pleo_extract.client.server import open_transport, resolve_server  # noqa: PLC0415 - as above
    from pleo_extract.client.transport import Limit, Request  # noqa: PLC0415 - as above

    transport, stop = open_transport(resolve_server(url), None, 1, None, None), threading.Event()

    def ask() -> object:
        reply = transport.send(Request(TARGET, dict(HEADERS), Limit(60, stop, connect=10, read=30)))
        body = b"".join(reply.receive())
        reply.close()
        return body

    return ask


def run(name: str, url: str, requests: int) -> None:
    """Print the CPU seconds until the first answer, and of the requests after it."""
    start = time.process_time()
    ask = open_bare(url) if name == "bare" else open_ours(url)
    ask()
    first = time.process_time()
    for _ in range(requests):
        ask()
    print(first - start, time.process_time() - first)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all transports and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "URL"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        name, url = given.one
        run(name, url, given.requests)
        return
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    with serve(100) as server:
        for _ in range(given.rounds):
            for name, found in costs.items():
                command = [sys.executable, __file__, "--requests", str(given.requests)]
                done = subprocess.run(
                    [*command, "--one", name, server.url],
                    env={**os.environ, "PLEO_TRANSPORT": "" if name == "bare" else name},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                load, requests = map(float, done.stdout.split())
                found.append((load, requests))
    rows = [
        (
            NAMES[name],
            f"{statistics.median(load for load, _ in found) * 1000:.0f}",
            f"{statistics.median(spent for _, spent in found) / given.requests * 1_000_000:.0f}",
        )
        for name, found in costs.items()
    ]
    print(table(("", "load, CPU ms", "a request, CPU µs"), rows))


if __name__ == "__main__":
    main()
