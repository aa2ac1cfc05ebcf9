"""F63: a server that limits the requests in flight, over real sockets and in real time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from canary import CANARY
from test_client import Clock, client_of, says

from pleo_extract import Client, dump_accounts, dump_export_jobs, scan_lake
from pleo_extract.client import read_accounts
from pleo_extract.contract import Query
from pleo_extract.core.decode import parse_page
from pleo_extract.core.pace import Patience
from pleo_extract.errors import DeadlineExceeded, TryLater
from pleo_extract.sandbox import RequestLike, Response, Rules, Sandbox, World, serve

if TYPE_CHECKING:
    from pathlib import Path


class Narrow:
    """A server that accepts this many requests at the same time, and answers others with 429 and Retry-After: 1."""

    def __init__(self, app: Any, allowed: int, latency: float) -> None:
        self.app = app
        self.allowed = allowed
        self.latency = latency
        self.requests = 0
        self.refused = 0
        self._inside = 0
        self._lock = threading.Lock()

    def __call__(self, request: RequestLike) -> Response:
        """Answer or refuse the request."""
        with self._lock:
            self.requests += 1
            if self._inside >= self.allowed:
                self.refused += 1
                return Response(429, {"retry-after": "1"}, b"too many at once")
            self._inside += 1
        try:
            time.sleep(self.latency)
            answer: Response = self.app(request)
            return answer
        finally:
            with self._lock:
                self._inside -= 1


@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_f63_a_first_dump_finds_how_many(allowed: int, tmp_path: Path) -> None:
    """With the default in-flight a first dump of 5,000 jobs succeeds, and few of its requests are refused."""
    sandbox = Sandbox(World(jobs=5_000), rules=Rules(max_limit=100), api_keys={CANARY: None})
    narrow = Narrow(sandbox, allowed, 0.12)
    with serve(narrow) as running, Client(running.url, api_key=CANARY, rate=10_000) as client:  # type: ignore[arg-type]
        receipt = dump_export_jobs(tmp_path / "lake", client=client, progress=False)
    assert receipt.code == 0
    assert receipt.verdict == "complete"
    assert scan_lake(tmp_path / "lake").collect().height == 5_000
    assert narrow.refused <= 20
    assert receipt.waited <= 10  # the seconds of Retry-After, counted once for all requests


def test_f63_accounts_of_one_credential_share_the_number(tmp_path: Path) -> None:
    """All companies of one key share the limit that the server shows to one of them, and all are read."""
    world = World(jobs=300, companies=24)
    narrow = Narrow(Sandbox(world, api_keys={CANARY: None}), 2, 0.02)
    (tmp_path / "key").write_text(CANARY)
    (tmp_path / "key").chmod(0o600)
    with serve(narrow) as running:  # type: ignore[arg-type]
        entries = [
            f'[[account]]\ncompany_id = "{each}"\napi_key_file = "key"\nrate = 10000'
            for each in world.companies
        ]
        (tmp_path / "accounts.toml").write_text(f'base_url = "{running.url}"\n' + "\n".join(entries))
        accounts = read_accounts(tmp_path / "accounts.toml")
        _, receipts = dump_accounts(tmp_path / "lake", accounts, progress=False)
    assert {each.code for each in receipts} == {0}
    assert narrow.refused <= 24


def test_f63_a_refusal_while_others_are_served_is_no_attempt() -> None:
    """Refusals while others succeed count as attempts of a request only after a minute."""
    clock, begun, over = Clock(), threading.Event(), threading.Event()
    refused = 0

    def app(request: RequestLike) -> Response:
        nonlocal refused
        if "limit=2" in request.query:
            refused += 1
            return says(429, retry_after="7")(request)
        begun.set()
        over.wait(20)
        return says()(request)

    client = client_of(app, clock=clock, patience=Patience(request_seconds=1e6))
    run = client.start_session()

    def serve_others() -> None:
        while not over.wait(0.001):
            client._channel.gate.succeed(clock.now)

    threads = [
        threading.Thread(target=run.fetch, args=(Query(limit=1), parse_page)),
        threading.Thread(target=serve_others),
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    try:
        with pytest.raises(TryLater, match="after 8 tries"):
            run.fetch(Query(limit=2), parse_page)
    finally:
        over.set()
        for thread in threads:
            thread.join(20)
    assert refused >= 8 + 5  # 60 s hold at least five waits of 7 s and their jitter
    assert run._budget.tokens >= 500 - 7 * 5 - 9 / 2


def test_f63_the_wait_for_a_place_ends_with_the_run() -> None:
    """A request that waits for its turn in flight ends at the deadline of the run."""
    clock, begun, over = Clock(), threading.Event(), threading.Event()

    def app(request: RequestLike) -> Response:
        begun.set()
        over.wait(20)
        return says()(request)

    client = client_of(app, clock=clock, in_flight=1)
    other = threading.Thread(target=client.start_session().fetch, args=(Query(), parse_page))
    other.start()
    assert begun.wait(20)
    run = client.start_session(deadline=5)
    clock.now += 6
    with pytest.raises(DeadlineExceeded, match="while other requests were under way"):
        run.fetch(Query(), parse_page)
    over.set()
    other.join(20)
