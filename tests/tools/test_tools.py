"""Tests of the snippets of docs/tools.md, each with the tool itself, over a lake of a sandbox.

`.ci/tools` installs the tools and runs this.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from pleo_extract import dump_export_jobs
from pleo_extract.sandbox import API_KEY, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
JOBS = 500
QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
}
"""The tools report to their makers by default."""


def blocks(heading: str) -> list[str]:
    """Return the blocks of code below a heading of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\w+\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current folder: an empty one with a fresh lake, while the environment names its sandbox."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))  # root's is not in the home folder
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with serve(Sandbox(World(jobs=JOBS, now=datetime.now(UTC)))) as running:
        monkeypatch.setenv("PLEO_BASE_URL", running.url)
        monkeypatch.setenv("PLEO_API_KEY", API_KEY)
        dump_export_jobs("data/export_jobs", progress=False)
        yield tmp_path


def run(*words: str) -> str:
    """Run a command that must succeed, and return what it prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    return done.stdout


def write_snippet(heading: str, target: Path, number: int = 0, *, server: str = "") -> str:
    """Write a snippet to a file, with places of this test, and return the file's name."""
    text = blocks(heading)[number].replace("/srv/pleo", str(target.parent / "srv"))
    text = text.replace("postgresql://user@host/database", server)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return str(target)


def ask(database: str, query: str) -> int:
    """Return the number that a query of a DuckDB database gives."""
    with duckdb.connect(database, read_only=True) as con:
        ((found,),) = con.execute(query).fetchall()
    return int(found)


@pytest.mark.usefixtures("folder")
def test_the_duckdb_shell_reads_the_catalogue() -> None:
    """DuckDB's own shell opens a lake's catalogue read-only, and an open session does not hinder a dump."""
    catalogue = "data/export_jobs/_jobs.duckdb"
    command = ["duckdb", "-readonly", catalogue, "-noheader", "-list"]
    assert run(*command, "-c", "select count(*) from export_jobs").strip() == str(JOBS)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        for _ in range(2):
            shell.stdin.write("select count(*) from export_jobs;\n")
            assert int(shell.stdout.readline()) == JOBS
            dump_export_jobs("data/export_jobs", full=True, progress=False)
        shell.stdin.close()


@pytest.mark.usefixtures("folder")
def test_sqlalchemy_reads_the_catalogue() -> None:
    """The driver of Superset opens the URL of the page, and sees views and macros."""
    import sqlalchemy as sa  # noqa: PLC0415 - of the tools' environment

    (url,) = re.findall(r"`(duckdb:////srv/pleo/\S+)`", PAGE)
    lake = Path.cwd() / "data"
    engine = sa.create_engine(url.replace("/srv/pleo", str(lake)))
    with engine.connect() as con:
        assert con.execute(sa.text("select count(*) from export_jobs")).scalar() == JOBS
        assert con.execute(sa.text("select sum(jobs) from failure_rates('all')")).scalar() == JOBS
        with pytest.raises(sa.exc.DBAPIError, match="read-only"):
            con.execute(sa.text("create table mine (a int)"))
    engine.dispose()


def test_the_dashboard_runs(folder: Path) -> None:
    """The dashboard of marimo shows the rates of the lake that it is given."""
    shutil.copy(ROOT / "notebooks" / "05_dashboard.py", folder)
    target = folder / "dashboard.html"
    words = ["export", "html", "05_dashboard.py", "-o", str(target), "--no-include-code"]
    run("marimo", *words, "--", "--lake", "data/export_jobs")
    shown = target.read_text(encoding="utf-8")
    assert f"{JOBS} jobs" in shown
    assert "Traceback" not in shown


@pytest.mark.usefixtures("folder")
def test_dbt_builds_the_model_and_checks_freshness(tmp_path: Path) -> None:
    """Dbt finds the lake fresh, and builds the model from a macro and a source."""
    write_snippet("dbt", tmp_path / "profiles.yml")
    write_snippet("dbt", tmp_path / "models/sources.yml", 1)
    write_snippet("dbt", tmp_path / "models/monthly_failures.sql", 2)
    (tmp_path / "dbt_project.yml").write_text(
        "name: pleo\nprofile: pleo\nversion: '1.0.0'\n", encoding="utf-8"
    )
    run("dbt", "source", "freshness", "--profiles-dir", ".")
    assert "PASS=1" in run("dbt", "run", "--profiles-dir", ".")
    assert ask("warehouse.duckdb", "select sum(jobs) from monthly_failures") == JOBS


def test_dagster_materializes_the_asset(folder: Path) -> None:
    """Dagster loads the definitions and dumps."""
    file = write_snippet("Dagster", folder / "defs.py")
    run("dagster", "asset", "materialize", "-f", file, "--select", "export_jobs")
    assert (folder / "srv/export_jobs/_lake/current").exists()


def test_prefect_runs_the_flow(folder: Path) -> None:
    """The flow of Prefect dumps, and returns the two lines of the receipt."""
    file = write_snippet("Prefect", folder / "flows.py")
    printed = run(sys.executable, "-c", f"import runpy; print(runpy.run_path({file!r})['export_jobs']())")
    assert f"{JOBS} jobs, snapshot 1" in printed


def test_dlt_loads_every_job(folder: Path) -> None:
    """Dlt loads each job once, also when it runs twice."""
    file = write_snippet("dlt", folder / "load.py")
    for _ in range(2):
        run(sys.executable, file)
    assert ask("pleo.duckdb", "select count(*) from exports.export_jobs") == JOBS


@pytest.fixture
def postgres() -> Iterator[str]:
    """Return the URL of a PostgreSQL server of its own."""
    programs = os.environ["POSTGRES"]
    with tempfile.TemporaryDirectory() as place, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        shutil.chown(place, "postgres")
        user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        subprocess.run(
            [*user, f"{programs}/initdb", "-D", f"{place}/db", "-A", "trust"],
            check=True,
            capture_output=True,
            cwd=place,
        )
        settings = ["-c", "listen_addresses=127.0.0.1", "-k", place, "-p", port]
        with subprocess.Popen(
            [*user, f"{programs}/postgres", "-D", f"{place}/db", *settings],
            cwd=place,
            stderr=subprocess.DEVNULL,
        ) as server:
            while subprocess.run(
                [f"{programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", port], check=False
            ).returncode:
                assert server.poll() is None
                time.sleep(0.05)
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
            server.terminate()


def test_postgres_gets_every_job(folder: Path, postgres: str) -> None:
    """ADBC copies every job into a table of PostgreSQL, with instants as timestamptz."""
    file = write_snippet("PostgreSQL", folder / "copy.py", server=postgres)
    for _ in range(2):  # the second time it replaces the table
        runpy.run_path(file)
    asked = "select count(*), pg_typeof(max(created_at)) from export_jobs"
    assert run("psql", "-At", postgres, "-c", asked).strip() == f"{JOBS}|timestamp with time zone"
