"""Any sequence of commits, conflicts, kills, other programs and readers: deep over memory, and over a folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from grounds import GROUNDS, InMemory, publish_rows
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_lake import rows
from test_table import ids, killed_at

from pleo_extract.lake.table import Keep

if TYPE_CHECKING:
    import polars as pl

Jobs = dict[int, int]
"""How late each job was last changed, by its number."""
NUMBERS = st.lists(st.integers(1, 12), min_size=0, max_size=5, unique=True)


def read(frame: pl.DataFrame) -> Jobs:
    """What a reader sees; of a job that stands twice, the later row."""
    hours = (frame["last_updated_at"] - frame["created_at"]).dt.total_hours()
    found: Jobs = {}
    for name, hour in zip(frame["id"], hours, strict=True):
        number = int(name[-12:])
        found[number] = max(found.get(number, 0), hour)
    return found


class TableMachine(RuleBasedStateMachine):
    """One table, and what its rows must be."""

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
        """Leave nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(numbers=NUMBERS)
    def begin(self, numbers: list[int]) -> None:
        """A first commit."""
        self.publish(numbers)

    def frames(self, numbers: list[int]) -> list[pl.DataFrame]:
        """New rows of these jobs: even ones of October, odd ones of November."""
        self.hour += 1
        split = {10 + odd: [n for n in numbers if n % 2 == odd] for odd in (0, 1)}
        return [rows(*some, month=month, hour=self.hour) for month, some in split.items() if some]

    @rule(numbers=NUMBERS)
    def publish(self, numbers: list[int]) -> None:
        """A run that is let be."""
        publish_rows(self.ground, *self.frames(numbers))
        self.truth |= dict.fromkeys(numbers, self.hour)
        self.doubled = False

    @rule(numbers=NUMBERS)
    def publish_the_same(self, numbers: list[int]) -> None:
        """Rows that are there already, or older, and were fetched again, change nothing where nothing differs."""
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
        """A run that dies on the way has published all or nothing."""
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
        """Another run commits between this one's merge and its commit: the later row of each job stays, whoever is first."""
        assert isinstance(self.ground, InMemory)
        shelf = self.ground.shelf
        ours, others = self.frames(mine), self.frames(theirs)

        def other() -> None:
            shelf.on_commit = lambda: None
            publish_rows(self.ground, *others, name="b")

        shelf.on_commit = other
        publish_rows(self.ground, *ours)
        self.truth |= dict.fromkeys(mine, self.hour - 1) | dict.fromkeys(theirs, self.hour)
        self.doubled = False

    @precondition(lambda self: self.kind == "memory" and self.truth)
    @rule(times=st.integers(1, 3), pick=st.integers(0, 11))
    def append(self, times: int, pick: int) -> None:
        """Another program writes a job again that is there."""
        number = sorted(self.truth)[pick % len(self.truth)]
        month, hour = 10 + number % 2, self.truth[number]
        for _ in range(times):
            self.ground.append(f"2026-{month}", rows(number, month=month, hour=hour))
        self.doubled = True

    @rule(count=st.integers(1, 6))
    def expire(self, count: int) -> None:
        """Old snapshots go; the current one stays."""
        table = self.ground.open()
        with table.hold():
            table.begin()
            table.expire(Keep(count=count))
        kept = range(max(1, self.number - count + 1), self.number + 1)
        self.remembered = {n: jobs for n, jobs in self.remembered.items() if n in kept}

    @rule()
    def remember(self) -> None:
        """A reader resolves a snapshot."""
        self.remembered[self.number] = read(self.ground.rows(self.number))

    @property
    def number(self) -> int:
        """Of the newest snapshot."""
        state = self.ground.state()
        return state.snapshot if state else 0

    def has_doubles(self) -> bool:
        """Whether a job stands twice."""
        numbers = ids(self.ground.rows())
        return len(numbers) != len(set(numbers))

    @invariant()
    def is_true(self) -> None:
        """Each job once, unless another program has written it twice since the last run; its latest row; history as it was."""
        assert read(self.ground.rows()) == self.truth
        assert self.doubled or not self.has_doubles()
        for number, jobs in self.remembered.items():
            assert read(self.ground.rows(number)) == jobs


class FolderMachine(TableMachine):
    """The same over a folder."""

    kind = "folder"


def _settle(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


TestTableInMemory = TableMachine.TestCase
TestTableInMemory.settings = _settle(12, 30)
TestTableInAFolder = FolderMachine.TestCase
TestTableInAFolder.settings = _settle(6, 12)
