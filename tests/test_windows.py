"""Reading without what only POSIX has: tried here by taking those names away, and untried on a real Windows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
POSIX = """
import asyncio, multiprocessing, os, shutil, signal, subprocess, sys, tempfile
import click, duckdb, httpx, msgspec, polars, pyarrow, tqdm
sys.modules["fcntl"] = sys.modules["pwd"] = sys.modules["grp"] = sys.modules["resource"] = None
for name in (
    "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "chown", "fchmod", "fork", "geteuid", "getuid", "getpgid",
    "killpg", "mkfifo", "pread", "pwrite", "setsid", "sched_getaffinity", "statvfs", "uname", "sync",
):
    delattr(os, name)
for name in ("SIGHUP", "SIGALRM", "SIGUSR1", "SIGKILL", "pthread_sigmask", "setitimer"):
    delattr(signal, name)
"""
READS = """
from pleo_extract import Client, Lake, connect, iter_export_jobs, load_export_jobs, scan_export_jobs, scan_lake
from pleo_extract.sandbox import API_KEY, Sandbox, World

client = Client("https://sandbox.invalid", api_key=API_KEY, transport=Sandbox(World(jobs=300)), rate=400)
assert load_export_jobs(client=client).height == 300
assert sum(frame.height for frame in iter_export_jobs(client=client)) == 300
assert scan_export_jobs(client=client).head(5).collect().height == 5
assert scan_lake("data/sample").collect().height == 3_000
assert connect("data/sample").sql("select sum(failed) from failure_rates('month')").fetchall() == [(225,)]
lake = Lake("data/sample")
assert lake.status().rows == 3_000
lake.report(sys.argv[1] + "/report.html")
"""
WRITES = """
from pleo_extract import Client, ConfigurationError, dump_export_jobs
from pleo_extract.sandbox import API_KEY, Sandbox, World

client = Client("https://sandbox.invalid", api_key=API_KEY, transport=Sandbox(World(jobs=300)), rate=400)
try:
    dump_export_jobs(sys.argv[1] + "/lake", client=client, progress=False)
except ConfigurationError as exc:
    print(exc)
"""


def run(program: str, *words: str) -> str:
    """Run a program from the repository's folder, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_reads(tmp_path: Path) -> None:
    """The live API and a lake are read, asked and reported."""
    run(POSIX + READS, str(tmp_path))
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_command_line_asks(tmp_path: Path) -> None:
    """`pleo-extract sql` and `status` run."""
    for words in (["sql", "data/sample", "from failure_rates('all')"], ["status", "data/sample"]):
        called = f"sys.argv[1:] = {words!r}\nfrom pleo_extract.cli import main\nmain()\n"
        assert run(POSIX + called, str(tmp_path))


def test_a_dump_says_where_lakes_are_written(tmp_path: Path) -> None:
    """Without locks a dump is refused before it writes anything."""
    said = run(POSIX + WRITES, str(tmp_path))
    assert "lakes are written on Linux and macOS, and read everywhere" in said
    assert not (tmp_path / "lake").exists()
