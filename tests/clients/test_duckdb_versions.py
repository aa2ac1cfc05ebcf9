"""The catalogue in another version of DuckDB, held open while dumps publish: it answers as `connect` does.

`.ci/duckdb` runs this once for each version; `DUCKDB_PYTHON` is the Python that has it.

"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pleo_extract import Client, Lake, connect, dump_export_jobs
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Iterator

QUERIES = (
    "SELECT count(*), count(DISTINCT id), CAST(max(created_at) AS VARCHAR) FROM {}export_jobs",
    "SELECT count(*), sum(total_seconds) FROM {}job_durations WHERE outcome IS NOT NULL",
    "SELECT CAST(period AS VARCHAR), jobs, failed, still_open FROM {}failure_rates('month', per_company := false) ORDER BY ALL",
    "SELECT CAST(period AS VARCHAR), jobs FROM {}failure_rates(grain := 'week', per_company := false, tz := 'Europe/Copenhagen') ORDER BY ALL",
    "SELECT count(*), sum(n), max(max) FROM {}duration_stats('month')",
    "SELECT count(*) FROM {}stuck_jobs()",
    "SELECT epoch(now), epoch(data_as_of) FROM {}snapshot",
    "SELECT id, epoch(now) FROM {}companies ORDER BY id",
)
"""The queries, with a prefix for an attached catalogue; times as text and seconds, which need no zone."""
CHANGES = "SELECT change, count(*) FROM {}changes(1) GROUP BY ALL ORDER BY ALL"


class Session:
    """A running client."""

    def __init__(self, catalogue: Path, way: str) -> None:
        self.schema = "jobs." if way == "attached" else ""
        self._process = subprocess.Popen(
            [os.environ["DUCKDB_PYTHON"], Path(__file__).with_name("client.py"), catalogue, way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def ask(self, query: str) -> list[list[Any]]:
        """Return the rows of a query."""
        assert self._process.stdin is not None
        self._process.stdin.write(query.format(self.schema) + "\n")
        self._process.stdin.flush()
        rows: list[list[Any]] = self._read()
        return rows

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


@pytest.fixture
def world() -> World:
    """Return a world with jobs up to the end of a year."""
    return World(jobs=400, days=60, seed=3, now=datetime(2026, 12, 10, 9, tzinfo=UTC))


@pytest.fixture
def lake(tmp_path: Path, world: World) -> Path:
    """Return a lake of them."""
    dump(tmp_path / "it's a lake", world)
    return tmp_path / "it's a lake"


@pytest.fixture
def sessions(lake: Path) -> Iterator[list[Session]]:
    """Yield two clients that hold the lake's catalogue open: one opened it, one attached it."""
    found = [Session(lake / "_jobs.duckdb", way) for way in ("opened", "attached")]
    yield found
    for session in found:
        session.close()


def dump(lake: Path, world: World) -> None:
    """Dump the world."""
    with Client(
        "https://sandbox.invalid", api_key=API_KEY, transport=Sandbox(world), rate=10_000_000
    ) as client:
        dump_export_jobs(lake, client=client, progress=False)


def test_open_sessions_answer_as_connect_does(sessions: list[Session], lake: Path, world: World) -> None:
    """After each publish over a year's end open sessions see new months, changed rows and the right now."""
    for _ in range(5):
        changes = Lake(lake).changes(1)["change"].value_counts().sort("change")
        answers = {CHANGES: [list(row) for row in changes.iter_rows()]}
        with connect(lake) as con:
            for query in QUERIES:
                answers[query] = json.loads(json.dumps(con.execute(query.format("")).fetchall()))
        for session in sessions:
            assert {query: session.ask(query) for query in answers} == answers
        world.advance(9 * 86_400)
        dump(lake, world)
