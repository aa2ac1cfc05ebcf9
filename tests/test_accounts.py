"""Many companies in one process: sharing, release and order. tests/benchmarks/accounts.py tests the full size."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from weakref import WeakSet

import pytest
from canary import CANARY

from pleo_extract import client, dump_accounts, scan_lake, verify_lake
from pleo_extract.client import Session, read_accounts
from pleo_extract.errors import UsageError
from pleo_extract.lake import staging
from pleo_extract.lake.folder.lake import FolderLake
from pleo_extract.sandbox import Sandbox, World, serve
from pleo_extract.sync import pool as many
from pleo_extract.sync.account import AccountDump

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import polars as pl

    from pleo_extract.client import AccountEntry
    from pleo_extract.lake.layout import Manifest
    from pleo_extract.sandbox import RequestLike, Response

pytestmark = pytest.mark.usefixtures("read_in_segments")

COMPANIES = 48


class Ground:
    """A world of many companies and its server.

    Attributes:
        refused: the companies that the server refuses.
        asked: the companies in the order of their first request.
        look: called at each request with the number of companies requested so far.

    """

    def __init__(self, folder: Path) -> None:
        self.world = World(jobs=480, days=60, companies=COMPANIES)
        self.sandbox = Sandbox(self.world, api_keys={CANARY: None})
        self.folder = folder
        self.lake = folder / "lake"
        self.refused: set[str] = set()
        self.asked: dict[str, None] = {}
        self.look: Callable[[int], object] = lambda _number: None
        self._lock = threading.Lock()

    def __call__(self, request: RequestLike) -> Response:
        """Answer the request."""
        (company,) = parse_qs(request.query)["company_id"]
        with self._lock:
            self.asked[company] = None
            self.look(len(self.asked))
        said = self.sandbox(request)
        return replace(said, status=403, body=b"{}") if company in self.refused else said

    def read(self, url: str, companies: tuple[str, ...] | list[str]) -> list[AccountEntry]:
        """Return the accounts of these companies."""
        key = self.folder / "key"
        key.write_text(CANARY)
        key.chmod(0o600)
        entries = [
            f'[[account]]\ncompany_id = "{each}"\napi_key_file = "key"\nrate = 100000' for each in companies
        ]
        (self.folder / "accounts.toml").write_text(f'base_url = "{url}"\n' + "\n".join(entries))
        return read_accounts(self.folder / "accounts.toml")

    def wrong(self) -> list[object]:
        """Return what is wrong with the lake, by the sandbox's oracle."""
        rows = scan_lake(self.lake).collect().drop("extra").to_dicts()
        companies = frozenset(self.world.companies) - self.refused
        return list(self.sandbox.truth(rows, self.world.now, companies=companies))


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Return a world of many companies."""
    return Ground(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("transport", "held"), [("httpx", "_pool.connections"), ("curl", "_idle")])
def test_connections_and_runs_are_of_those_at_work_only(
    ground: Ground, transport: str, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number of companies uses at most eight connections, and the run of a finished one is released."""
    monkeypatch.setenv("PLEO_TRANSPORT", transport)
    connections: set[int] = set()
    runs: set[int] = set()
    alive: WeakSet[Session] = WeakSet()

    def start(*args: Any) -> Session:
        session = Session(*args)
        alive.add(session)
        return session

    monkeypatch.setattr(client, "Session", start)
    ground.refused = set(ground.world.companies[::20])
    with serve(ground) as running:  # type: ignore[arg-type]
        accounts = ground.read(running.url, ground.world.companies)

        def look(number: int) -> None:
            (carrier,) = accounts[0].shared._transports.values()
            connections.add(len(attrgetter(held)(carrier)))
            if number in (COMPANIES // 2, COMPANIES):
                # An account that ends in this instant leaves its session to the next collection.
                until = time.monotonic() + (20 if max(runs, default=0) <= many.THREADS else 0)
                while len(alive) > many.THREADS and time.monotonic() < until:
                    gc.collect()
                runs.add(len(alive))

        ground.look = look
        for _ in range(2):
            _, receipts = dump_accounts(ground.lake, accounts, progress=False)
            failed = {each.account.rpartition(" ")[2] for each in receipts if each.code}
            assert failed == ground.refused
            ground.asked.clear()
    assert max(connections) <= 8
    assert 1 <= max(runs) <= many.THREADS
    assert ground.wrong() == []


@pytest.mark.parametrize("shard", ["1/2", 1, (1,), (1, 2, 3), ("1", "2"), (True, 2)])
def test_a_shard_is_two_numbers(shard: Any, tmp_path: Path) -> None:
    """An invalid shard is refused before the accounts are read."""
    with pytest.raises(UsageError, match=r"^shard must be two whole numbers, as \(1, 4\), not "):
        dump_accounts(tmp_path / "lake", tmp_path / "none.toml", shard=shard)
    assert not (tmp_path / "lake").exists()


def test_accounts_are_of_the_file(ground: Ground, tmp_path: Path) -> None:
    """Accounts that are not from `read_accounts` are refused, and their content is not shown."""
    (entry,) = ground.read("http://127.0.0.1:1", ground.world.companies[:1])
    for accounts, says in (
        ([{"name": "x", "api_key": CANARY}], "there is a dict among them"),
        ([entry, CANARY], "there is a str among them"),
        (None, "there is a NoneType among them"),
        (entry, "a list of accounts, not one AccountEntry"),
    ):
        given: Any = accounts
        with pytest.raises(UsageError, match=f"^accounts must be .*{says}") as caught:
            dump_accounts(tmp_path / "lake", given)
        assert CANARY not in str(caught.value)
    assert not (tmp_path / "lake").exists()


def test_those_read_longest_ago_come_first(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Companies never read come first, then the stalest, whatever their order in the file."""
    monkeypatch.setattr(many, "THREADS", 1)
    first, second, never = (tuple(ground.world.companies[n : n + 4]) for n in (8, 0, 4))
    with serve(ground) as running:  # type: ignore[arg-type]
        for companies in (first, second):
            dump_accounts(ground.lake, ground.read(running.url, companies), progress=False)
        ground.asked.clear()
        entries = ground.read(running.url, ground.world.companies[:12])
        dump_accounts(ground.lake, entries, progress=False)
    assert list(ground.asked) == [*sorted(never), *sorted(first), *sorted(second)]


def test_the_lake_is_looked_through_for_many_at_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh reads the lake's rows of small companies together, and each result is the same as alone."""
    monkeypatch.setattr(many, "THREADS", 2)
    scanned: list[object] = []
    scan = FolderLake.scan

    def counted(self: FolderLake, base: Manifest | None) -> pl.LazyFrame:
        scanned.append(base)
        return scan(self, base)

    with serve(ground) as running:  # type: ignore[arg-type]
        accounts = ground.read(running.url, ground.world.companies)
        dump_accounts(ground.lake, accounts, progress=False)
        ground.world.advance(20 * 86_400)
        monkeypatch.setattr(FolderLake, "scan", counted)
        _, receipts = dump_accounts(ground.lake, accounts, progress=False)
    assert {each.why_full for each in receipts} <= {
        "",
        "the last walk was not complete",
    }  # companies without a job
    assert sum(each.mode == "refresh" for each in receipts) > COMPANIES // 2
    assert len(scanned) == COMPANIES // (COMPANIES // 2 // 4)
    assert ground.wrong() == []


def test_the_staging_folder_is_looked_through_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump lists the staging folder once, not once per company: otherwise its time grows quadratically."""
    looked: list[Path] = []
    find = staging.find_resumable

    def find_resumable(folder: Path) -> staging.Left:
        looked.append(folder)
        return find(folder)

    monkeypatch.setattr(staging, "find_resumable", find_resumable)
    monkeypatch.setattr(many, "find_resumable", find_resumable)
    with serve(ground) as running:  # type: ignore[arg-type]
        dump_accounts(ground.lake, ground.read(running.url, ground.world.companies), progress=False)
    assert len(looked) == 1


def test_a_dump_that_is_told_to_stop_begins_no_other_company(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped dump starts no further company."""
    monkeypatch.setattr(many, "THREADS", 2)
    with serve(ground) as running:  # type: ignore[arg-type]
        accounts = ground.read(running.url, ground.world.companies)

        read = AccountDump.read

        def interrupted(self: AccountDump, *args: Any, **more: Any) -> None:
            read(self, *args, **more)
            if len(ground.asked) >= 10:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(AccountDump, "read", interrupted)
            with pytest.raises(KeyboardInterrupt):
                dump_accounts(ground.lake, accounts, progress=False)
        assert 10 <= len(ground.asked) <= 12
        ground.sandbox.requests.clear()
        _, receipts = dump_accounts(ground.lake, accounts, progress=False)
    assert not any(each.resumed for each in receipts)
    assert len(ground.sandbox.requests) <= COMPANIES + 1 + 2  # the largest has two pages, and closing reads
    assert ground.wrong() == []


def _published(ground: Ground) -> set[str]:
    """Return the ids of the jobs that readers see."""
    if not (ground.lake / "_lake/current").exists():
        return set()
    return set(scan_lake(ground.lake).collect()["id"])


def _list_jobs(ground: Ground, *, without: str) -> set[str]:
    """Return the ids of the jobs of all companies but one."""
    return {job["id"] for job in ground.world.visible() if job["companyId"] != without}


@pytest.mark.parametrize("when", ["every interval", "none is left", "in a group"])
def test_f58_one_slow_company_holds_nobody_back(
    when: str, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow company does not delay the publish of others, nor the reading of those that are read with it.

    The last publish has the receipt of the whole run.
    """
    slow = ground.world.companies[5]
    others: set[str] = set()
    is_published = threading.Event()
    every = timedelta(seconds=0.2) if when == "every interval" else timedelta(minutes=5)
    monkeypatch.setattr(many, "SHORTEST_TAIL", 0.1)

    def answer(request: RequestLike) -> Response:
        until = time.monotonic() + 60
        while slow in request.query and others and not is_published.is_set() and time.monotonic() < until:
            if _published(ground) >= others:
                is_published.set()
            time.sleep(0.05)
        return ground(request)

    with serve(answer) as running:  # type: ignore[arg-type]
        accounts = ground.read(running.url, ground.world.companies)
        if when == "in a group":
            monkeypatch.setattr(many, "THREADS", 2)
            dump_accounts(ground.lake, accounts, progress=False)
            ground.world.advance(20 * 86_400)
            assert not _list_jobs(ground, without=slow) <= _published(ground)
        others |= _list_jobs(ground, without=slow)
        whole, receipts = dump_accounts(ground.lake, accounts, progress=False, publish_every=every)
    assert is_published.is_set()
    assert [each.code for each in receipts] == [0] * COMPANIES
    assert ground.wrong() == []
    assert verify_lake(ground.lake).ok
    opened = FolderLake(ground.lake).open()
    assert opened is not None
    assert opened.manifest.receipt["account"] == f"{COMPANIES} accounts"
    assert opened.manifest.receipt["requests"] >= len(opened.manifest.accounts) == COMPANIES
    assert whole.published
    assert {each.snapshot for each in receipts} == {opened.manifest.snapshot}


def test_f58_cut_after_a_publish_on_the_way(ground: Ground) -> None:
    """An interrupted run keeps what it published and staged, and the next run completes it."""
    slow = ground.world.companies[5]
    others = _list_jobs(ground, without=slow)
    limits = iter([True])

    def answer(request: RequestLike) -> Response:
        until = time.monotonic() + 60
        if slow in request.query and next(limits, False):
            while _published(ground) < others and time.monotonic() < until:
                time.sleep(0.05)
            return replace(ground(request), status=401, body=b"{}")
        return ground(request)

    with serve(answer) as running:  # type: ignore[arg-type]
        accounts = ground.read(running.url, ground.world.companies)
        whole, _ = dump_accounts(ground.lake, accounts, progress=False, publish_every=timedelta(seconds=0.2))
        assert whole.code == 77
        assert _published(ground) == others
        dump_accounts(ground.lake, accounts, progress=False)
    assert ground.wrong() == []


def test_f58_those_that_failed_come_last(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Companies that failed last time are read last, although they are the stalest."""
    monkeypatch.setattr(many, "THREADS", 1)
    ground.refused = set(ground.world.companies[:4])
    with serve(ground) as running:  # type: ignore[arg-type]
        entries = ground.read(running.url, ground.world.companies[:12])
        for _ in range(2):
            ground.asked.clear()
            dump_accounts(ground.lake, entries, progress=False)
    assert set(list(ground.asked)[-4:]) == ground.refused


@pytest.mark.parametrize("every", [timedelta(0), 5, None])
def test_publish_every_is_a_span(every: Any, tmp_path: Path) -> None:
    """An invalid `publish_every` is refused before the accounts are read."""
    with pytest.raises(UsageError, match="publish_every must be a timedelta above 0"):
        dump_accounts(tmp_path / "lake", tmp_path / "none.toml", publish_every=every)


def test_many_threads_decode_a_type_for_the_first_time() -> None:
    """Threads that decode a type together, none having done so before, all get its values: msgspec alone crashes."""
    script = """
import sys, threading
from pleo_extract.lake import strict
from pleo_extract.lake.journal import StagedBatch
sys.setswitchinterval(1e-6)
start, phases = threading.Barrier(8), []
def decode():
    start.wait()
    phases.append(strict.decode(b'{"phase": "full"}', StagedBatch).phase)
threads = [threading.Thread(target=decode) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert phases == ["full"] * 8
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
