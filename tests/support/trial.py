"""A trial: a lake, a server whose faults a test chooses, and the checks before, during and after a dump."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from canary import CANARY

from pleo_extract import Client, dump_export_jobs, load_export_jobs, scan_lake, verify_lake
from pleo_extract.errors import PleoExtractError
from pleo_extract.sandbox import Rules, Sandbox, World, parse_faults, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import polars as pl

    from pleo_extract.client import Clock
    from pleo_extract.sandbox import RequestLike, Response
    from pleo_extract.sync.receipt import Receipt

__all__ = ["PAGE", "Trial", "edit_pages"]

PAGE = 20
"""The rows per page of the trial's server."""
JOBS = 240
DAY = 86_400.0


class Trial:
    """A server, and a lake that is empty (`first`) or 20 days old (`refresh`).

    The first dump reads 12 pages of 20 rows. A refresh asks for the open jobs in its first request, and from the
    second on reads 10 pages of newer jobs. `dumped` is a ready lake of that world to copy; without it the constructor
    dumps one.
    """

    nowhere = "http://127.0.0.1:1"
    """The server's address while it is called in process."""

    def __init__(self, mode: str, lake: Path, clock: Clock, *, dumped: Path | None = None) -> None:
        self.mode = mode
        self.lake = lake
        self.clock = clock
        self.url = self.nowhere
        self.transport: Any = None
        self.options: dict[str, Any] = {"in_flight": 1, "rate": 10_000_000}
        self.sandbox = Sandbox(
            World(jobs=JOBS, days=30),
            rules=Rules(max_limit=PAGE),
            api_keys={CANARY: None},
            tokens={CANARY: None},
        )
        if mode == "refresh":
            if dumped is None:
                self.dump()
            else:
                shutil.copytree(dumped, lake, symlinks=True, ignore=shutil.ignore_patterns("_jobs.duckdb"))
            self.sandbox.world.advance(20 * DAY)
        self.strike()

    def strike(self, faults: str = "", **rules: Any) -> None:
        """Set the server's faults and rules from now on, and count its requests from 1 again."""
        self.sandbox.faults = parse_faults(faults)
        self.sandbox.rules = replace(self.sandbox.rules, **rules)
        self.sandbox.requests.clear()
        self.sandbox._requested_cursors.clear()
        self.sandbox._encoded_rows.clear()  # rows that the former rules encoded

    @contextlib.contextmanager
    def on_the_wire(self) -> Iterator[str]:
        """Serve over a real socket inside the block, and rewrite the lake so that it belongs to that address."""
        with serve(self.sandbox) as running:
            self.move(running.url)
            yield running.url

    def move(self, url: str) -> None:
        """Give the server another address, also in the lake's manifests."""
        for path in self.lake.glob("_lake/snapshots/0*.json"):
            path.write_text(path.read_text().replace(self.url, url))
        self.url = url

    def open(self, **options: Any) -> Client:
        """Return a client of the server, with the canary as its key."""
        given = {"api_key": CANARY, "clock": self.clock, **self.options, **options}
        if "access_token" in given:
            del given["api_key"]
        if self.url == self.nowhere:
            given["transport"] = self.transport or self.sandbox
        return Client(self.url, **given)

    def dump(self, *, client: dict[str, Any] | None = None, **options: Any) -> Receipt:
        """Dump the server to the lake."""
        with self.open(**client or {}) as opened:
            return dump_export_jobs(self.lake, client=opened, **options)

    def load(self, **client: Any) -> pl.DataFrame:
        """Load all jobs of the server."""
        with self.open(**client) as opened:
            return load_export_jobs(client=opened)

    def survives(self, **options: Any) -> Receipt:
        """Dump, and check that the dump succeeds and that the lake is correct."""
        receipt = self.dump(**options)
        assert (receipt.code, receipt.mode) == (0, "full" if self.mode == "first" else "refresh"), receipt
        assert self.wrong() == []
        assert verify_lake(self.lake).ok
        return receipt

    def fails(self, error: type[PleoExtractError], *, at_most: int, **options: Any) -> PleoExtractError:
        """Dump, and check that it fails with this error and a one-line message, changes nothing, and stops asking."""
        before = self.published()
        with pytest.raises(PleoExtractError) as caught:
            self.dump(**options)
        failure = caught.value
        assert type(failure) is error, failure
        assert failure.receipt is not None
        assert (failure.receipt["code"], failure.receipt["published"]) == (error.code, False)
        assert self.published() == before
        assert verify_lake(self.lake).ok
        assert len(self.sandbox.requests) <= at_most
        self._is_recorded(failure)
        return failure

    def _is_recorded(self, failure: PleoExtractError) -> None:
        """Check that the message names run, account and page, and that the run's record says the same."""
        line = failure.tell()
        assert line.isprintable()
        assert failure.receipt is not None
        assert f"run {failure.receipt['run']}, account {self.url} *" in line
        about_a_page = self.sandbox.requests != [] and "nothing was published" not in line
        assert re.search(r"page \d+", line) or not about_a_page, line
        last = json.loads((self.lake / "_lake/last_run.json").read_text())
        assert (last["run"], last["code"], last["published"]) == (failure.receipt["run"], failure.code, False)
        assert last["error"].split("; ")[0] in line

    def fails_of(self, *faults: str, error: type[PleoExtractError], at_most: int) -> None:
        """Dump once per fault, each time resuming what was staged, then without faults."""
        for fault in faults:
            self.strike(fault)
            self.fails(error, at_most=at_most)
        self.heals()

    def heals(self, **options: Any) -> Receipt:
        """Remove the faults, dump, and check that the dump resumes what was staged and that the lake is correct."""
        staged = self.staged()
        self.transport = None
        self.strike()
        receipt = self.dump(**options)
        assert receipt.code == 0
        assert receipt.resumed == (staged > 0)
        assert self.wrong() == []
        assert verify_lake(self.lake).ok
        assert self.staged() == 0
        return receipt

    def wrong(self, **asked: Any) -> list[Any]:
        """Return what is wrong with the rows of the lake, by the sandbox's oracle."""
        rows = scan_lake(self.lake).collect().drop("extra").to_dicts()
        return self.sandbox.truth(rows, self.sandbox.world.now, **asked)

    def staged(self) -> int:
        """Return the number of rows that are staged and not published."""
        journals = self.lake.glob("_lake/staging/*/journal.jsonl")
        return sum(
            json.loads(line)["rows"] for journal in journals for line in journal.read_text().splitlines()
        )

    def published(self) -> dict[str, str]:
        """Return the sha256 of each file that readers and the next run use: pointer, manifest, months and objects."""
        pointer = self.lake / "_lake/current"
        if not pointer.exists():
            return {}
        files = [
            pointer,
            self.lake / f"_lake/snapshots/{int(pointer.read_text()):06d}.json",
            *self.lake.glob("_lake/objects/*"),
            *self.lake.glob("created_month=*/*"),
        ]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def edit_pages(
    sandbox: Sandbox, edit: Callable[[dict[str, Any], int], object]
) -> Callable[[RequestLike], Response]:
    """Return the sandbox with edited pages: `edit(page, number)` changes the page of each request in place."""

    def answer(request: RequestLike) -> Response:
        response = sandbox(request)
        if response.status != 200:
            return response
        page = json.loads(response.body)
        edit(page, len(sandbox.requests))
        return replace(response, body=json.dumps(page).encode())

    return answer
