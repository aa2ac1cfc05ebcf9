"""Staged batches: cut by month without reading them again, checked before they are believed, bounded in memory."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from canary import CANARY
from lakes import dump

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.core.rows import created_month
from pleo_extract.core.walk import BY_CREATION, Walk
from pleo_extract.lake.batches import HELD, Held
from pleo_extract.lake.journal import Header
from pleo_extract.lake.staging import Staging
from pleo_extract.sandbox import Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMPANY = "6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11"
MONTHS = ["2026-08", "2026-09", "2026-10"]
CHECKPOINT = Walk(BY_CREATION).checkpoint
HEADER = Header(run="run", mode="full", base=0, started_at=datetime(2026, 11, 1, tzinfo=UTC))


def make_rows(*days: int) -> pl.DataFrame:
    """Return a job for each of these days after 1 August."""
    start = datetime(2026, 8, 1, tzinfo=UTC)
    given = pl.DataFrame(
        {
            "id": [f"00000000-0000-4000-8000-{n:012d}" for n in days],
            "company_id": [COMPANY] * len(days),
            "status": ["completed"] * len(days),
            "created_at": [start + timedelta(days=day) for day in days],
        },
        schema_overrides=POLARS_SCHEMA,
    )
    return given.select(
        pl.col(name) if name in given.columns else pl.lit(None, kind).alias(name)
        for name, kind in POLARS_SCHEMA.items()
    )


ROWS = make_rows(62, 1, 31, 2, 85, 32, 3, 90, 33)
"""Pages of three segments, as they come: three months in no order."""


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """Return a staging with one batch of three segments."""
    made = Staging.start(tmp_path, "owner", HEADER)
    made.add(ROWS, checkpoints=dict.fromkeys(range(3), CHECKPOINT))
    return made


def resume(tmp_path: Path) -> Staging | None:
    """Return what the next process finds."""
    for folder in tmp_path.iterdir():
        HELD.drop(folder)
    return Staging.resume(tmp_path, "owner", base=0)


def check_months(staging: Staging) -> None:
    """Check that each month has its rows, once, counted rightly."""
    for month in MONTHS:
        (found,) = staging.read(month)
        wanted = ROWS.filter(created_month() == month)
        assert found.sort("id").equals(wanted.sort("id"))
    assert staging.frame().height == ROWS.height


class TestMonths:
    """A batch of several segments has rows of many months."""

    def test_from_memory_and_from_disk(self, staging: Staging, tmp_path: Path) -> None:
        """A month is a slice of its rows, whether they are in memory or not."""
        check_months(staging)
        assert [staging.count_month(month) for month in MONTHS] == [3, 3, 3]
        HELD.drop(staging.folder)
        check_months(staging)
        resumed = resume(tmp_path)
        assert resumed is not None
        check_months(resumed)

    def test_one_segment_keeps_its_order(self, tmp_path: Path) -> None:
        """The rows of one walk are stored as they came: newest first, for example."""
        staging = Staging.start(tmp_path, "owner", HEADER)
        down = ROWS.sort("created_at", descending=True)
        staging.add(down, checkpoints={0: CHECKPOINT})
        assert staging.frame().equals(down)
        for month in MONTHS:
            (found,) = staging.read(month)
            assert found.equals(down.filter(created_month() == month))

    def test_journals_of_older_versions(self, staging: Staging, tmp_path: Path) -> None:
        """Without counts the rows of a month are looked for, and their number is at most that of the batch."""
        rewrite(staging, lambda line: [line.pop("counts"), line.pop("is_sorted")])
        resumed = resume(tmp_path)
        assert resumed is not None
        check_months(resumed)
        assert [resumed.count_month(month) for month in MONTHS] == [9, 9, 9]


class TestUntrusted:
    """What a journal says of a batch is compared with the batch before it is believed."""

    @pytest.mark.parametrize(
        "change",
        [
            {"counts": [2, 4, 3]},
            {"counts": [9]},
            {"counts": [3, 3, 3, 0]},
            {"counts": [3, 3, -3]},
            {"counts": ["3", 3, 3]},
            {"months": MONTHS[:2], "counts": [3, 3]},
            {"rows": 8},
        ],
    )
    def test_a_journal_that_lies(self, change: dict[str, Any], staging: Staging, tmp_path: Path) -> None:
        """A batch whose line does not fit it is read from the server again."""
        rewrite(staging, lambda line: line.update(change))
        assert resume(tmp_path) is None

    def test_an_order_that_is_not_there(self, tmp_path: Path) -> None:
        """A line cannot make others take rows in no order for sorted ones."""
        staging = Staging.start(tmp_path, "owner", HEADER)
        staging.add(ROWS, checkpoints={0: CHECKPOINT})
        rewrite(staging, lambda line: line.update(is_sorted=True))
        assert resume(tmp_path) is None


def rewrite(staging: Staging, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the last line of a journal, as somebody else might."""
    journal = staging.folder / "journal.jsonl"
    *before, last = journal.read_text().splitlines()
    line = json.loads(last)
    change(line)
    journal.write_text("\n".join([*before, json.dumps(line)]) + "\n")


class TestMemory:
    """The batches in memory are bounded, and gone when they are published."""

    def test_the_oldest_go_first(self, tmp_path: Path) -> None:
        """What does not fit is no longer there, and never more is held than fits."""
        held, paths = Held(most=250), [tmp_path / f"{n % 2}/{n}" for n in range(5)]
        for path in paths:
            held.put(path, ROWS, 100)
        assert [held.get(path) is not None for path in paths] == [False, False, False, True, True]
        held.drop(tmp_path / "1")
        assert [held.get(path) is not None for path in paths[3:]] == [False, True]

    def test_a_batch_larger_than_all(self, tmp_path: Path) -> None:
        """A batch that does not fit at all is not held."""
        held = Held(most=50)
        held.put(tmp_path / "a", ROWS, 100)
        assert held.get(tmp_path / "a") is None

    def test_nothing_is_held_after_a_dump(self, tmp_path: Path) -> None:
        """A published lake has no staged rows, on disk or in memory."""
        before = dict(HELD._frames)
        sandbox = Sandbox(World(jobs=500), api_keys={CANARY: None})
        assert dump(tmp_path / "lake", sandbox).lake_rows == 500
        assert before == HELD._frames


def test_rows_of_segments_are_sorted_by_instant(staging: Staging) -> None:
    """So that a month is a slice."""
    created = staging.frame()["created_at"].to_list()
    assert all(early <= late for early, late in pairwise(created))
