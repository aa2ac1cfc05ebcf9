"""The data source on clusters: every row appears once, whatever happens to the executors."""

from __future__ import annotations

import os
import signal
import time
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from canary import CANARY

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.sandbox import Rules, Sandbox, World, serve
from spark.clusters import children, finish, run_program, start_program, start_standalone

if TYPE_CHECKING:
    from pathlib import Path


def sandbox(jobs: int, companies: int, **rules: Any) -> Sandbox:
    """Serve a world that stands still, whose only key is the canary."""
    return Sandbox(World(jobs=jobs, companies=companies), rules=Rules(**rules), api_keys={CANARY: None})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows that the program read."""
    frame = pl.read_parquet(folder / "rows.parquet")
    assert dict(frame.schema) == dict(POLARS_SCHEMA)
    return frame.to_dicts()


def processor_seconds() -> float:
    """Return the CPU seconds of this process and its finished children."""
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


@pytest.fixture(autouse=True)
def executors_have_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the key into the environment of all child processes, and give them a separate rate limit."""
    monkeypatch.setenv("PLEO_API_KEY", CANARY)


def test_a_local_cluster_reads_every_job_once(tmp_path: Path) -> None:
    """Two executor processes read 40 companies: each job once, with Arrow's types."""
    api = sandbox(2_000, 40)
    with serve(api) as server:
        options = {"base_url": server.url, "company_id": ",".join(api.world.companies), "tasks": "4"}
        said = run_program(tmp_path, "local-cluster[2,1,1024]", options=options)
    assert (said["tasks"], said["machines"]) == (4, 1)
    assert api.truth(rows_of(tmp_path), api.world.now) == []


def test_a_killed_executor_costs_no_row(tmp_path: Path) -> None:
    """Spark repeats the tasks of a killed executor elsewhere, and each job appears once."""
    api = sandbox(600, 60, latency=0.15)
    with start_standalone(tmp_path, workers=2) as (master, workers), serve(api) as server:
        options = {"base_url": server.url, "company_id": ",".join(api.world.companies), "tasks": "6"}
        program = start_program(tmp_path, master, options=options)
        end = time.monotonic() + 120
        while len(api.requests) < 12:
            assert time.monotonic() < end, "nothing is read"
            assert program.poll() is None, (tmp_path / "program.log").read_text()[-3000:]
            time.sleep(0.02)
        before = len(api.requests)
        for executor in children(workers[0].pid):
            os.kill(executor, signal.SIGKILL)
        finish(program, tmp_path)
    assert before < 60, "it was killed too late to tell"
    first_pages = [ask.parameters["company_id"][0] for ask in api.requests if "after" not in ask.parameters]
    assert len(first_pages) > len(set(first_pages)), "no company was read again"
    assert api.truth(rows_of(tmp_path), api.world.now) == []


def test_a_thousand_companies_on_two_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A standalone master with two workers reads 1,000 companies with 5,000 jobs once, in 100 tasks."""
    api = sandbox(5_000, 1_000)
    before = processor_seconds()
    (tmp_path / "companies.txt").write_text("\n".join(api.world.companies))
    with start_standalone(tmp_path, workers=2) as (master, _), serve(api) as server:
        options = {
            "base_url": server.url,
            "companies": str(tmp_path / "companies.txt"),
            "rate": "1000000",
        }
        said = run_program(tmp_path, master, options=options)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n1,000 companies, 5,000 jobs, two workers: read in {said['seconds']} s, "
            f"{len(api.requests):,} requests; at least {processor_seconds() - before:.0f} s of processor time, "
            "the server's and what starts and ends a cluster included"
        )
    assert (said["tasks"], said["machines"]) == (100, 1)  # two executors on one machine
    assert api.truth(rows_of(tmp_path), api.world.now) == []
