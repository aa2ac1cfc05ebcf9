"""A model test: any sequence of dumps, kills, faults and edits, compared with the sandbox's oracle.

The long form, with more and longer sequences, is `torture/test_model.py`.

"""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from conftest import FakeClock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lakes import killed_at

from pleo_extract import Client, PleoExtractError, Receipt, dump_export_jobs, scan_lake, verify_lake
from pleo_extract.errors import RejectedRows
from pleo_extract.lake.folder.opening import Opened, open_snapshot
from pleo_extract.lake.layout import scan_files
from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, parse_faults

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

pytestmark = pytest.mark.slow

DAY = 86_400.0
PASSING = ("2:503", "1:429", "3:reset", "2:cut,3:cut", "4:html", "1-3:500")
FATAL = ("1-9:lostcursor", "2:repeatcursor", "2:nocursor", "2:badrow.float", "2:endsearly", "2-9:nodata")
MISCHIEF = ("insert", "remove", "change", "move")


class LakeMachine(RuleBasedStateMachine):
    """One lake, one world, and how they may differ."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = Path(
            tempfile.mkdtemp(prefix="model-", dir=memory if os.access(memory, os.W_OK) else None)
        )
        self.lake = self.folder / "lake"
        self.meddled = False
        self.removed: set[tuple[str, str]] = set()
        self.begun: datetime | None = None
        self.opened: tuple[Opened, pl.DataFrame] | None = None
        self.behind = False

    def teardown(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(seed=st.integers(0, 5), jobs=st.sampled_from([0, 1, 60, 260]))
    def begin(self, seed: int, jobs: int) -> None:
        """Make a world, without a lake."""
        self.sandbox = Sandbox(World(jobs=jobs, days=40, seed=seed))
        self.world = self.sandbox.world

    def run(self, faults: str = "", in_flight: int = 1, **options: Any) -> Receipt | None:
        """Dump; return None after an error other than rejected rows."""
        self.sandbox.faults = parse_faults(faults)
        self.sandbox.requests.clear()
        self.begun = self.begun or self.world.now
        with Client(
            "http://127.0.0.1:1",
            api_key=API_KEY,
            transport=self.sandbox,
            clock=FakeClock(),
            rate=10_000_000,
            in_flight=in_flight,
        ) as client:
            try:
                return dump_export_jobs(self.lake, client=client, progress=False, **options)
            except RejectedRows as exc:
                return msgspec.convert(exc.receipt, Receipt)
            except PleoExtractError:
                return None

    def judge(self, since: datetime, *, lenient: bool) -> None:
        """Compare the lake with the oracle; removed jobs stay, and a refresh may miss an edit of the past."""
        self.behind = False
        rows = scan_lake(self.lake).collect().drop("extra").to_dicts()
        wrong = [
            each
            for each in self.sandbox.truth(rows, since)
            if not (each.kind == "foreign" and (each.company, each.id) in self.removed)
        ]
        if lenient:
            wrong = [each for each in wrong if each.kind == "double"]
        assert wrong == []

    @rule(
        limit=st.sampled_from([7, 25, 100]),
        tick=st.sampled_from([0.0, 0.0, 5.0, 600.0]),
        total=st.sampled_from([True, True, True, False]),
    )
    def change_server(self, limit: int, tick: float, *, total: bool) -> None:
        """Change the page limit, the speed of the world, or the total."""
        self.sandbox.rules = Rules(max_limit=limit, tick=tick, total=total)
        self.meddled = self.meddled or not total

    @rule(days=st.sampled_from([0.01, 0.5, 3, 33]))
    def let_time_pass(self, days: float) -> None:
        """Let jobs be created, start and end."""
        self.world.advance(days * DAY)

    @rule(what=st.sampled_from(MISCHIEF), where=st.floats(0, 1))
    def meddle(self, what: str, where: float) -> None:
        """Insert a job in the past, delete one, change a settled one, or move one."""
        jobs = self.world.visible()
        if what == "insert":
            self.world.insert(self.world.now - timedelta(days=1 + 60 * where))
        elif jobs:
            job = jobs[int(where * (len(jobs) - 1))]
            if what == "remove":
                self.world.remove(job["id"], job["companyId"])
                self.removed.add((job["companyId"], job["id"]))
            elif what == "move":
                self.world.move(
                    job["id"], self.world.now - timedelta(days=60 * (1 - where)), job["companyId"]
                )
            elif job["status"] in ("completed", "failed"):
                self.world.change(job["id"], job["companyId"], numberOfItems=job["numberOfItems"] + 1)
        self.meddled = True

    @rule(faults=st.sampled_from(["", *PASSING]), in_flight=st.sampled_from([1, 4]))
    def refresh(self, faults: str, in_flight: int) -> None:
        """Dump undisturbed: the lake equals the server, unless the past was edited."""
        begun = self.begun
        now = self.world.now
        receipt = self.run(faults, in_flight)
        assert receipt is not None
        self.judge((begun or now) if receipt.resumed else now, lenient=self.meddled)
        self.begun = None

    @rule(in_flight=st.sampled_from([1, 4]))
    def read_everything(self, in_flight: int) -> None:
        """Dump fully from the start: the lake equals the server in any case."""
        shutil.rmtree(self.lake / "_lake/staging", ignore_errors=True)
        now = self.world.now
        receipt = self.run(in_flight=in_flight, full=True, accept_vanished=True)
        assert receipt is not None
        self.judge(now, lenient=False)
        self.meddled, self.begun = not self.sandbox.rules.total, None

    @rule(faults=st.sampled_from(FATAL))
    def fail(self, faults: str) -> None:
        """Dump from a server that breaks its contract or sends an invalid row."""
        self.run(faults)
        self.meddled = True

    @rule(requests=st.integers(1, 12))
    def cut_short(self, requests: int) -> None:
        """Dump to a request limit, which keeps the pages."""
        if self.run(max_requests=requests) is not None:
            self.begun = None

    @rule(call=st.integers(1, 90), full=st.booleans())
    def kill(self, call: int, *, full: bool) -> None:
        """Kill a dump before a storage call."""
        with killed_at(call):
            self.run(full=full)
        self.behind = True

    @precondition(lambda self: (self.lake / "_lake/current").exists())
    @rule()
    def open_it(self) -> None:
        """Resolve the current snapshot, as a reader does."""
        opened = open_snapshot(self.lake)
        assert opened is not None
        self.opened = opened, scan_files(opened.files).collect()

    @precondition(lambda self: self.opened is not None)
    @rule()
    def read_it(self) -> None:
        """Check that an opened snapshot still has the same rows."""
        assert self.opened is not None
        opened, rows = self.opened
        assert scan_files(opened.files).collect().equals(rows)

    @invariant()
    def is_whole(self) -> None:
        """Check that lake and folder have each job once; after a kill the folder may be behind."""
        if not self.lake.exists():
            return
        found = verify_lake(self.lake)
        problems = [
            line for line in found.problems if not (self.behind and "the next dump replaces it" in line)
        ]
        assert problems == []
        assert found.foreign == ()
        visible = scan_files(sorted(self.lake.glob("*/*.parquet"))).collect()
        assert not visible.select("company_id", "id").is_duplicated().any()
        if self.behind:
            return
        if (self.lake / "_lake/current").exists():
            assert visible.equals(scan_lake(self.lake).collect())
        else:  # a first dump was cut short, which is an error to readers
            assert visible.is_empty()


TestLakeModel = LakeMachine.TestCase
TestLakeModel.settings = settings(
    max_examples=12,
    stateful_step_count=12,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
