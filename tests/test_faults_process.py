"""F38 to F45 in a dump: locks, disks, clocks, foreign files, versions, readers, memory. F34 to F37: torture/."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from canary import CANARY

from pleo_extract import connect, scan_lake, verify_lake
from pleo_extract.errors import LakeError, LakeLocked, PleoExtractError, StorageError
from pleo_extract.lake.folder.opening import open_snapshot
from pleo_extract.lake.layout import FORMAT, Layout
from pleo_extract.lake.lock import hold_lock
from pleo_extract.sandbox import Sandbox, World, serve
from pleo_extract.sync import account as account_module
from pleo_extract.sync import run as run_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from trial import Trial

DAY = 86_400.0
refresh_only = pytest.mark.parametrize("trial", ["refresh"], indirect=True)


class TestLock:
    """F38: a lock ends with its holder, and only then."""

    def test_f38_stale_lock(self, trial: Trial) -> None:
        """A lock file of a dead run does not block, even if its pid is in use again or it is empty."""
        (trial.lake / "_lake").mkdir(parents=True, exist_ok=True)
        for left in (b'{"pid":%d,"host":"here","since":"2026-01-01T00:00:00Z"}' % os.getpid(), b"", b"\xff{"):
            (trial.lake / "_lake/lock").write_bytes(left)
            trial.survives() if not trial.published() else trial.dump()
        assert trial.wrong() == []

    def test_f38_held_by_nobody_else(self, trial: Trial) -> None:
        """Programs started during a run do not inherit its lock, and a fork of the holder does not hold it."""
        with hold_lock(Layout(trial.lake)) as still_held:
            child = subprocess.Popen(
                [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
            )
            pid = os.fork()
            if pid == 0:
                try:
                    still_held()
                except LakeLocked:
                    os._exit(69)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 69
            still_held()
        trial.dump()
        child.communicate(b"\n")
        assert trial.wrong() == []


class TestDisk:
    """F39: a disk that fails."""

    @pytest.mark.slow
    @pytest.mark.parametrize("calls", [0, 2])
    @pytest.mark.parametrize("name", ["write", "fsync", "open"])
    def test_f39_refused(self, name: str, calls: int, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that is full, over quota, failing, read-only or out of handles gives 74 with the path."""
        before = trial.published()
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE):
            trial.strike()
            with monkeypatch.context() as patch:
                patch.setattr(os, name, self.refuse(getattr(os, name), str(trial.lake), code, calls))
                with pytest.raises(StorageError) as caught:
                    trial.dump()
            assert caught.value.code == 74
            assert os.strerror(code) in str(caught.value)
            assert str(trial.lake) in str(caught.value)
            assert trial.published() == before
            assert not list(trial.lake.rglob(".*.new"))
        trial.heals()

    @staticmethod
    def refuse(real: Callable[..., Any], lake: str, code: int, calls: int) -> Callable[..., Any]:
        """Make storage calls for the lake fail after this many."""
        counted = 0

        def call(what: Any, *args: Any, **more: Any) -> Any:
            nonlocal counted
            path = (
                str(what)
                if isinstance(what, str | os.PathLike)
                else str(Path(f"/proc/self/fd/{what}").readlink())
            )
            ours = path.startswith(lake) and not path.endswith("_lake/lock")
            counted += ours
            if ours and counted > calls:
                raise OSError(code, os.strerror(code), path)
            return real(what, *args, **more)

        return call


class Skewed(datetime):
    """The machine's clock after someone has changed it."""

    years = 0

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        """Return the time, some years off."""
        return datetime.now(tz) + timedelta(days=365 * cls.years)


class TestClock:
    """F40: the machine's clock is wrong, jumps, or is in another zone."""

    @pytest.mark.parametrize("years", [-20, 20])
    def test_f40_wrong_clock(self, years: int, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
        """A clock that is years off, then right, then off again loses no job; the watermark is the server's time."""
        for module in (account_module, run_module):
            monkeypatch.setattr(module, "datetime", Skewed)
        for set_to in (years, 0, years):
            monkeypatch.setattr(Skewed, "years", set_to)
            trial.sandbox.world.advance(DAY)
            assert trial.dump().code == 0
            assert trial.wrong() == []
        opened = open_snapshot(trial.lake)
        assert opened is not None
        (state,) = opened.manifest.accounts.values()
        assert state.watermark is not None
        newest = max(job["createdAt"] for job in trial.sandbox.world.visible())
        assert state.watermark[0].startswith(newest[:19])

    @pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Kiritimati"])
    def test_f40_zones(self, zone: str, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
        """The machine's zone changes nothing: instants and months are UTC."""
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            trial.survives()
        finally:
            monkeypatch.undo()
            time.tzset()
        months = {path.parent.name.partition("=")[2] for path in trial.lake.glob("*/*.parquet")}
        assert months == {job["createdAt"][:7] for job in trial.sandbox.world.visible()}


class TestLake:
    """F41, F42, F44: foreign files, other versions, readers."""

    def test_f41_strangers_and_leftovers(self, trial: Trial) -> None:
        """Leftovers of a killed run are removed; foreign files stay, are reported, and nobody reads them."""
        trial.strike("3-:503")
        with pytest.raises(PleoExtractError):
            trial.dump()
        ours = [
            trial.lake / "_lake" / name
            for name in ("staging/build-dead", ".current.new", ".last_run.json.new")
        ]
        ours[0].mkdir(parents=True)
        (ours[0] / f"2026-11-{'0' * 64}").write_bytes(b"PAR1")
        ours[1].symlink_to("snapshots/000009")
        ours[2].write_text("{")
        notes = trial.lake / "notes.txt"
        notes.write_bytes(b"not yours")
        trial.heals()
        assert [path for path in ours if path.exists() or path.is_symlink()] == []
        assert notes.read_bytes() == b"not yours"
        assert verify_lake(trial.lake).foreign == ("notes.txt",)

    @refresh_only
    def test_f41_parquet_of_others(self, trial: Trial) -> None:
        """A foreign Parquet file that a reader of the folder would read is a problem until it is moved."""
        theirs = trial.lake / "backup.parquet"
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_bytes(b"not yours")
        trial.strike()
        assert trial.dump().code == 0
        assert theirs.read_bytes() == b"not yours"
        assert trial.wrong() == []
        found = verify_lake(trial.lake)
        assert [problem.split(":")[0] for problem in found.problems] == ["backup.parquet"]
        theirs.unlink()
        assert verify_lake(trial.lake).ok

    @refresh_only
    def test_f42_newer(self, trial: Trial) -> None:
        """A lake of a newer version is not changed: 65 with the version."""
        self.set_format(trial.lake, 99)
        before = trial.published()
        with pytest.raises(LakeError, match="99"):
            trial.dump()
        with pytest.raises(LakeError, match="99"):
            connect(trial.lake)
        assert trial.published() == before
        assert trial.sandbox.requests == []
        self.set_format(trial.lake, FORMAT)
        trial.heals()

    @refresh_only
    def test_f42_older(self, trial: Trial) -> None:
        """A lake of an older version is converted in a new snapshot, and the old one is kept."""
        self.set_format(trial.lake, 0)
        old = scan_lake(trial.lake).collect()
        trial.heals()
        assert [Layout(trial.lake).manifest(number).format for number in (1, 2)] == [0, FORMAT]
        assert scan_lake(trial.lake, as_of=1).collect().equals(old)

    @staticmethod
    def set_format(lake: Path, version: int) -> None:
        """Change the format number in the manifest."""
        path = lake / "_lake/snapshots/000001.json"
        text = path.read_text()
        for said in (f'"format": {FORMAT}', '"format": 99', '"format": 0'):
            text = text.replace(said, f'"format": {version}')
        path.write_text(text)

    @refresh_only
    def test_f44_reader_during_publish(self, trial: Trial) -> None:
        """A reader that began before a publish reads the old snapshot to its end."""
        lazy, con = scan_lake(trial.lake), connect(trial.lake)
        before = lazy.collect()
        for _ in range(2):
            trial.sandbox.world.advance(DAY)
            trial.dump()
        assert lazy.collect().equals(before)
        assert con.sql("select count(*) from export_jobs").fetchall() == [(before.height,)]
        con.close()
        assert scan_lake(trial.lake).select(pl.len()).collect().item() > before.height
        assert Layout(trial.lake).numbers() == [1, 2, 3]


PEAK = """
import resource, sys
from pleo_extract import Client, dump_export_jobs
with Client(sys.argv[1], rate=10_000_000) as client:
    dump_export_jobs(sys.argv[2], client=client, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_f45_little_memory(tmp_path: Path) -> None:
    """Ten times the jobs need at most half as much memory again; `torture` and benchmarks test larger sizes."""
    peaks = []
    for jobs in (1_000, 10_000):
        with serve(Sandbox(World(jobs=jobs, days=1_000), api_keys={CANARY: None})) as running:
            done = subprocess.run(
                [sys.executable, "-c", PEAK, running.url, str(tmp_path / str(jobs))],
                env=os.environ | {"PLEO_API_KEY": CANARY},
                capture_output=True,
                text=True,
                check=True,
            )
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.5 * peaks[0]
    assert scan_lake(tmp_path / "10000").select(pl.len()).collect().item() == 10_000
