"""A model test: random sequences of commits, conflicts, kills, other programs and readers, on two tables."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from grounds import GROUNDS, MemoryGround, publish_rows
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_lake import rows
from test_table import ids, killed_at

from pleo_extract.lake.table import Keep

if TYPE_CHECKING:
    import polars as pl

pytestmark = pytest.mark.slow

Jobs = dict[int, int]
"""The hour of each job's last change, by its number."""
NUMBERS = st.lists(st.integers(1, 12), min_size=0, max_size=5, unique=True)


def read(frame: pl.DataFrame) -> Jobs:
    """Return what a reader sees; of a job listed twice, the later row."""
    hours = (frame["last_updated_at"] - frame["created_at"]).dt.total_hours()
    found: Jobs = {}
    for name, hour in zip(frame["id"], hours, strict=True):
        number = int(name[-12:])
        found[number] = max(found.get(number, 0), hour)
    return found


class TableMachine(RuleBasedStateMachine):
    """A table in memory, and the rows that it must have."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="table-"))
        self.ground = GROUNDS[self.kind](self.folder)
        self.truth: Jobs = {}
        self.hour = 0
        self.doubled = False
        self.remembered: dict[int, Jobs] = {}

    def teardown(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(numbers=NUMBERS)
    def begin(self, numbers: list[int]) -> None:
        """Make the first commit."""
        self.publish(numbers)

    def frames(self, numbers: list[int]) -> list[pl.DataFrame]:
        """Return new rows of these jobs: even numbers are of October, odd ones of November."""
        self.hour += 1
        split = {10 + odd: [n for n in numbers if n % 2 == odd] for odd in (0, 1)}
        return [rows(*some, month=month, hour=self.hour) for month, some in split.items() if some]

    @rule(numbers=NUMBERS)
    def publish(self, numbers: list[int]) -> None:
        """Publish without disturbance."""
        publish_rows(self.ground, *self.frames(numbers))
        self.truth |= dict.fromkeys(numbers, self.hour)
        self.doubled = False

    @rule(numbers=NUMBERS)
    def publish_the_same(self, numbers: list[int]) -> None:
        """Publish rows that the table has already: no snapshot, unless another program wrote doubles."""
        known = [n for n in numbers if self.truth.get(n) == self.hour]
        number = self.number
        again = self.frames(known)
        self.hour -= 1
        publish_rows(
            self.ground,
            *(
                frame.with_columns(last_updated_at=frame["last_updated_at"].dt.offset_by("-1h"))
                for frame in again
            ),
        )
        assert self.number == number + self.doubled
        self.doubled = False

    @rule(numbers=NUMBERS, step=st.integers(1, 12))
    def kill(self, numbers: list[int], step: int) -> None:
        """Kill a run at a step: it has published everything or nothing."""
        frames = self.frames(numbers)
        before, after = self.truth, self.truth | dict.fromkeys(numbers, self.hour)
        with killed_at(self.ground, step):
            publish_rows(self.ground, *frames)
        found = read(self.ground.rows())
        assert found in (before, after)
        self.truth = found
        self.doubled = self.doubled and self.has_doubles()

    @precondition(lambda self: self.kind == "memory" and self.truth)
    @rule(mine=NUMBERS, theirs=NUMBERS)
    def race(self, mine: list[int], theirs: list[int]) -> None:
        """Let another run commit between merge and commit: the later row of each job wins."""
        assert isinstance(self.ground, MemoryGround)
        store = self.ground.store
        ours, others = self.frames(mine), self.frames(theirs)

        def other() -> None:
            store.on_commit = lambda: None
            publish_rows(self.ground, *others, name="b")

        store.on_commit = other
        publish_rows(self.ground, *ours)
        self.truth |= dict.fromkeys(mine, self.hour - 1) | dict.fromkeys(theirs, self.hour)
        self.doubled = False

    @precondition(lambda self: self.kind == "memory" and self.truth)
    @rule(times=st.integers(1, 3), pick=st.integers(0, 11))
    def append(self, times: int, pick: int) -> None:
        """Append a job that exists as another program would."""
        number = sorted(self.truth)[pick % len(self.truth)]
        month, hour = 10 + number % 2, self.truth[number]
        for _ in range(times):
            self.ground.append(f"2026-{month}", rows(number, month=month, hour=hour))
        self.doubled = True

    @rule(count=st.integers(1, 6))
    def expire(self, count: int) -> None:
        """Remove old snapshots, not the current one."""
        table = self.ground.open()
        with table.hold():
            table.begin()
            table.expire(Keep(count=count))
        kept = range(max(1, self.number - count + 1), self.number + 1)
        self.remembered = {n: jobs for n, jobs in self.remembered.items() if n in kept}

    @rule()
    def remember(self) -> None:
        """Remember the rows of the current snapshot, as a reader does who has opened it."""
        self.remembered[self.number] = read(self.ground.rows(self.number))

    @property
    def number(self) -> int:
        """The number of the newest snapshot."""
        state = self.ground.state()
        return state.snapshot if state else 0

    def has_doubles(self) -> bool:
        """Return whether a job is listed twice."""
        numbers = ids(self.ground.rows())
        return len(numbers) != len(set(numbers))

    @invariant()
    def is_true(self) -> None:
        """Check that each job is listed once, in its latest row, unless another program doubled it, and history is kept."""
        assert read(self.ground.rows()) == self.truth
        assert self.doubled or not self.has_doubles()
        for number, jobs in self.remembered.items():
            assert read(self.ground.rows(number)) == jobs


class FolderMachine(TableMachine):
    """The same for a folder."""

    kind = "folder"


def _settle(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


TestTableInMemory = TableMachine.TestCase
TestTableInMemory.settings = _settle(12, 30)
TestTableInAFolder = FolderMachine.TestCase
TestTableInAFolder.settings = _settle(6, 12)
