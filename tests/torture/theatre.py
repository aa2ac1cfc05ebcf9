"""The tools of the torture suite: child processes that die at a chosen call, and checks of the lakes they leave."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pytest

from pleo_extract import answers, scan_lake, verify_lake
from pleo_extract.errors import PleoExtractError, TryLater
from pleo_extract.lake.folder.opening import open_snapshot
from pleo_extract.lake.layout import Layout, scan_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tally import Tally

    from pleo_extract.lake.folder.opening import Opened
    from pleo_extract.sandbox import Sandbox

KILLED = 86
SOON = 300.0
"""Seconds after which a child that should have ended counts as hanging."""
# Thousands of checks meet few different catalogues, and reading one takes a tenth of a second.
vars(answers)["is_readable"] = functools.lru_cache(16)(answers.is_readable)
SUPPORT = Path(__file__).parent.parent / "support"
ENVIRONMENT = {
    **os.environ,
    "POLARS_MAX_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")])),
}


@dataclass
class Victim:
    """One child process, its status and its output."""

    number: int
    result: Path
    pid: int = 0
    status: int | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, *, stopped: bool = False) -> int:
        """Wait for the end and return the exit code, negative for a signal; with `stopped` return 0 once it is stopped."""

        def there() -> bool:
            return self.status is not None and (stopped or not os.WIFSTOPPED(self.status))

        with self.changed:
            assert self.changed.wait_for(there, timeout=SOON), f"{self.result} hangs"
        assert self.status is not None
        if os.WIFSTOPPED(self.status):
            return 0
        return os.waitstatus_to_exitcode(self.status)

    def is_stopped(self) -> bool:
        """Return whether the child is stopped by SIGSTOP."""
        return self.status is not None and os.WIFSTOPPED(self.status)

    def said(self) -> dict[str, Any]:
        """Return the result that the child wrote at its end."""
        text = self.result.read_text()
        said: dict[str, Any] = json.loads(text) if text else {}
        return said

    def complained(self) -> str:
        """Return what the child wrote to stderr."""
        return Path(f"{self.result}.err").read_text()


class Victims:
    """The process that forks the children; see `victim.py`."""

    def __init__(self, ground: Path) -> None:
        self._results = ground / "results"
        self._results.mkdir()
        self._numbers = itertools.count(1)
        self._victims: dict[int, Victim] = {}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("victim.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, lake: Path, url: str = "", **job: Any) -> Victim:
        """Start a child with this job."""
        number = next(self._numbers)
        victim = Victim(number, self._results / f"{number}")
        self._victims[number] = victim
        line = json.dumps({"job": number, "lake": str(lake), "url": url, "result": str(victim.result), **job})
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return victim

    def run(self, lake: Path, url: str = "", **job: Any) -> tuple[int, dict[str, Any]]:
        """Run a child to its end and return its exit code and its result."""
        victim = self.start(lake, url, **job)
        code = victim.wait()
        said = victim.said()
        assert code in {0, KILLED, 130, 143} or said, victim.complained()
        for suffix in ("", ".err"):
            Path(f"{victim.result}{suffix}").unlink()
        return code, said

    def close(self) -> None:
        """End the forking process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=SOON)
        self._reader.join(timeout=SOON)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reported = json.loads(line)
            victim = self._victims[reported["job"]]
            with victim.changed:
                victim.pid = reported.get("pid", victim.pid)
                victim.status = reported.get("status", victim.status)
                victim.changed.notify_all()
        self._process.stdout.close()


@contextmanager
def open_ground() -> Iterator[Path]:
    """Yield a temporary folder, in memory if possible: the suite makes thousands of syncs there."""
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    ground = Path(tempfile.mkdtemp(prefix="torture-", dir=parent))
    try:
        yield ground
    finally:
        shutil.rmtree(ground, ignore_errors=True)


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """Yield a folder for the lakes of this module."""
    with open_ground() as folder:
        yield folder


@pytest.fixture(scope="module")
def victims(ground: Path) -> Iterator[Victims]:
    """Yield the child processes of this module."""
    opened = Victims(ground)
    yield opened
    opened.close()


def copy_lake(source: Path, target: Path) -> Path:
    """Copy a lake, preserving hard links."""
    shutil.rmtree(target, ignore_errors=True)
    copies: dict[int, str] = {}

    def copy(old: str, new: str) -> str:
        inode = Path(old).lstat().st_ino
        if inode in copies:
            os.link(copies[inode], new)
        else:
            copies[inode] = shutil.copy2(old, new, follow_symlinks=False)
        return new

    if source.exists():
        shutil.copytree(source, target, symlinks=True, copy_function=copy)
    return target


def fingerprint(rows: pl.LazyFrame) -> tuple[int, int]:
    """Return the number of rows and a sum of their hashes."""
    parts = rows.select(pl.len(), pl.struct("company_id", "id", "status", "last_updated_at").hash().sum())
    count, total = parts.collect().row(0)
    return count, total or 0


class Witness:
    """A reader that opened the lake before the disturbed run, and must see the same rows after it.

    Converting a lake of format 1 renames its files, so a reader of such a lake has to open it again.
    """

    def __init__(self, lake: Path) -> None:
        self.lake = lake
        self.opened: Opened | None = open_snapshot(lake) if lake.exists() else None
        self.number = self.opened.manifest.snapshot if self.opened else None
        self.began_old = Layout(lake).is_old
        self.saw = fingerprint(scan_files(self.opened.files)) if self.opened else (0, 0)

    def is_current(self) -> bool:
        """Return whether no snapshot was published since."""
        return (Layout(self.lake).number() if self.lake.exists() else None) == self.number

    def still_sees_it(self) -> bool:
        """Return whether the reader still sees the rows that it saw first."""
        return self.began_old or self.opened is None or fingerprint(scan_files(self.opened.files)) == self.saw


def read_plainly(lake: Path) -> pl.DataFrame:
    """Return the rows that a plain Parquet tool sees with any glob; none before a lake of format 1 is converted."""
    files = sorted(lake.glob("*/*.parquet"))
    assert not files or files == sorted(lake.rglob("*.parquet")), "a recursive glob sees more"
    return scan_files(files).collect()


def _is_behind(problem: str) -> bool:
    return problem.endswith("the next dump replaces it")


def examine(lake: Path, tally: Tally, witness: Witness | None = None, *, settled: bool = False) -> None:
    """Check that the lake is readable and without duplicates, through `Lake`, files and globs; may run at any time.

    After a kill the visible months may be behind the pointer until the next run. `settled` says that a run has
    completed since, so that they must be current.
    """
    try:
        if not (lake / "_lake/lock").exists():
            return
        found = verify_lake(lake)
        rows = scan_lake(lake).collect()
        visible = read_plainly(lake)
        for each in (rows, visible):
            keys = each.select("company_id", "id")
            tally.double += keys.height - keys.unique().height
        # A visible month that is behind is not damage: it was published before.
        problems = found.problems if settled else [line for line in found.problems if not _is_behind(line)]
        good = not problems and not found.foreign
        good = good and (not settled or visible.equals(rows))
        good = good and (witness is None or witness.still_sees_it())
        if not good:
            tally.unreadable += 1
            print(found, witness and witness.saw)  # noqa: T201 - pytest shows it where the test fails
    except (PleoExtractError, pl.exceptions.PolarsError, OSError) as exc:
        # A first dump that was cut short says so: there is nothing to read yet.
        if isinstance(exc, TryLater) and not settled and Layout(lake).number() is None:
            return
        tally.unreadable += 1
        print(f"{type(exc).__name__}: {exc}")  # noqa: T201 - as above


def judge(sandbox: Sandbox, lake: Path, since: datetime, tally: Tally) -> None:
    """Compare the lake with the sandbox's oracle, and add the discrepancies to the tally."""
    wrong = sandbox.truth(scan_lake(lake).collect().drop("extra").to_dicts(), since)
    if wrong:
        print(wrong[:5])  # noqa: T201 - as above
    tally.count(wrong)


def is_tidy(lake: Path) -> bool:
    """Return whether no staging, temporary file or orphan of an interrupted run is left."""
    layout = Layout(lake)
    staged = list(layout.staging.iterdir()) if layout.staging.exists() else []
    temporary = list(lake.rglob(".*"))
    named = {entry.object for number in layout.numbers() for entry in layout.manifest(number).files}
    orphans = named ^ {path.name for path in layout.objects.iterdir()}
    beyond = [number for number in layout.numbers() if number > (layout.number() or 0)]
    return not staged and not temporary and not orphans and not beyond


def can_be_asked(lake: Path) -> bool:
    """Return whether the catalogue, opened with plain DuckDB, has every job of the lake."""
    with duckdb.connect(str(lake / "_jobs.duckdb"), read_only=True) as con:
        found = con.execute("SELECT count(*) FROM export_jobs").fetchone()
    return found == scan_lake(lake).select(pl.len()).collect().row(0)


def asked(sandbox: Sandbox) -> Counter[str]:
    """Return the pages that the server sent since the last call, and clear its log."""
    pages = Counter(one.request.query for one in sandbox.requests if one.status == 200 and not one.fault)
    sandbox.requests.clear()
    return pages


def twice(first: Counter[str], then: Counter[str]) -> int:
    """Return how many pages of the first walk were requested again.

    The open list and the head of the list do not count: every run that publishes reads them.
    """
    return sum(count for query, count in (first & then).items() if not _is_closing(query))


def _is_closing(query: str) -> bool:
    is_head = "sorting_order=DESC" in query and "after=" not in query and "offset=" not in query
    return is_head or "statuses=" in query


def now() -> datetime:
    """Return the machine's time, UTC."""
    return datetime.now(UTC)


OpenTally = "Callable[[str], Tally]"
