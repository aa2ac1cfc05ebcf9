"""Windows and macOS. Work without what only POSIX has: tried here by taking those names away, and untried on a real Windows.

Windows' own locks are played by flock.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pleo_extract import system
from pleo_extract.lake import disk

ROOT = Path(__file__).parent.parent
POSIX = """
import asyncio, multiprocessing, os, shutil, signal, subprocess, sys, tempfile
import click, duckdb, httpx, msgspec, polars, pyarrow, tqdm
import fcntl, types

def locking(handle, mode, count):
    assert os.lseek(handle, 0, os.SEEK_CUR) > 2**30 and count == 1, "the content would be locked"
    try:
        fcntl.flock(handle, fcntl.LOCK_UN if mode == 0 else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied") from None

sys.modules["msvcrt"] = types.SimpleNamespace(LK_UNLCK=0, LK_LOCK=1, LK_NBLCK=2, locking=locking)
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
from datetime import timedelta
from pathlib import Path
from pleo_extract import Client, LakeLocked, RequestsExceeded, dump_export_jobs, scan_lake, verify_lake
from pleo_extract.lake import disk
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.lock import hold_lock
from pleo_extract.sandbox import API_KEY, Sandbox, World

def refuse(name):
    # Windows refuses to replace or remove a file that is read-only or open in another program.
    real = getattr(os, name)

    def change(*paths, **more):
        path = os.fspath(paths[-1])
        if os.path.isfile(path) and not os.stat(path).st_mode & 0o200:
            raise PermissionError(13, "it is read-only", path)
        if path in busy and busy[path] > 0:
            busy[path] -= 1
            raise PermissionError(13, "it is open", path)
        return real(*paths, **more)

    setattr(os, name, change)

busy = {}
for name in ("replace", "unlink"):
    refuse(name)
lake, world = Path(sys.argv[1], "lake"), World(jobs=3_000)
client = Client("https://sandbox.invalid", api_key=API_KEY, transport=Sandbox(world), rate=100_000)

def dump(**options):
    return dump_export_jobs(lake, client=client, progress=False, **options)

def is_right():
    assert not verify_lake(lake).problems, verify_lake(lake).problems
    assert scan_lake(lake).collect().height == len(world.visible())

try:
    dump(max_requests=4)
except RequestsExceeded:
    pass
assert dump().resumed
is_right()
busy = {str(path): 3 for path in lake.rglob("*") if path.is_file()}
since = world.advance(86_400 * 3)
dump(keep_for=timedelta(0), keep_count=1)
is_right()
assert any(left < 3 for left in busy.values()), "nothing was tried again"
disk.PATIENCE = 0.2
world.advance(86_400 * 3)
(newest,) = sorted(lake.glob("*/part-0.parquet"))[-1:]
busy = {str(newest): 10**6}
dump()
assert [line for line in verify_lake(lake).problems if "the next dump replaces it" in line], "the month was replaced"
assert scan_lake(lake).collect().height == len(world.visible())
busy.clear()
disk.protect_file(newest)
assert newest.stat().st_mode & 0o200, "a read-only file cannot be replaced"
dump()
is_right()
with hold_lock(Layout(lake)):
    try:
        dump()
    except LakeLocked as exc:
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


def test_a_lake_is_written(tmp_path: Path) -> None:
    """A lake is dumped, resumed and refreshed beside programs that have its files open, and by one run at a time."""
    said = run(POSIX + WRITES, str(tmp_path))
    assert "is held by another run" in said


@pytest.mark.parametrize("takes_it", [True, False])
def test_bytes_reach_the_drive_of_a_mac(
    takes_it: bool,  # noqa: FBT001 - a case
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On macOS a file is synced through the cache of the drive, where the drive takes that."""
    calls: list[str] = []

    def full_sync(_handle: int, number: int) -> None:
        calls.append(f"fcntl {number}")
        if not takes_it:
            raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(system, "_FULL_SYNC", 51)
    monkeypatch.setattr("fcntl.fcntl", full_sync)
    monkeypatch.setattr(os, "fsync", lambda _handle: calls.append("fsync"))
    disk.write_file(tmp_path / "file", b"bytes")
    assert calls == ["fcntl 51", *([] if takes_it else ["fsync"])]
