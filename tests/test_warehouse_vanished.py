"""Jobs that the server no longer lists: every answer says how many of them it includes."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from warehouse_jobs import START, A, B, Row, job, parquet, rows_of

from pleo_extract.answers import SnapshotFacts, open_warehouse, statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import duckdb

DAYS: Final = 70
HOUR: Final = timedelta(hours=1)
MADE: Final = START + timedelta(days=DAYS)

ASKED: Final = {
    "backlog": f"(as_of := '{START + timedelta(days=30)}')",
    "compare": "('week')",
    "incidents": "(at_least := 1, every_period := true)",
    "shifts": "(every_period := true)",
    "silences": "(every_company := true)",
    "slow_jobs": "(0.5)",
}
"""The arguments with which an answer has rows; no arguments for the others."""

INCLUDED: Final = {
    "backlog": "backlog",
    "compare": "n_a + n_b + still_open_a + still_open_b",
    "downtime": "2 * outages",
    "duration_stats": "n",
    "failure_rates": "jobs",
    "failure_reasons": "jobs",
    "first_pass": "attempts",
    "incidents": "finished",
    "recoveries": "1 + attempts",
    "shifts": "finished",
    "silences": "1 + gaps",
    "survival": "ended + censored",
    "throughput": "jobs",
    "time_to_done": "jobs",
    "within": "jobs",
}
"""The number of jobs that a row is about."""

WITHOUT: Final = {
    "companies": "is about no job",
    "export_jobs": "has the columns of the API; the flag is in job_durations",
    "snapshot": "is about no job",
    "stuck_jobs": "leaves vanished jobs out",
    "vanished": "lists nothing else",
}
"""The answers that do not say it, and why."""


def make_jobs() -> list[Row]:
    """Return jobs of two companies, some of them open, some in pairs that may be attempts of one export."""
    luck, rows = Random(11), []
    for number in range(0, DAYS * 24 - 24, 4):
        for place in range(2):
            status = luck.choice(("failed", "completed", "completed", "completed_with_errors", "pending"))
            ended = START + (number + place + luck.choice((0.2, 0.3, 0.4, 40))) * HOUR
            rows.append(
                job(number + place, status, company_id=(A, B)[number // 4 % 2], last_updated_at=ended)
                | {"completed_at": None, "started_at": START + (number + place + 0.1) * HOUR}
                | ({"started_at": None} if status == "pending" else {})
            )
    # so that every outage has an end
    return [*rows, job(DAYS * 24 - 4), job(DAYS * 24 - 3, company_id=B)]


ROWS: Final = make_jobs()


HALF: Final = Random(15).sample(ROWS, len(ROWS) // 2)
"""The jobs that have vanished where some have."""
OTHERS: Final = [row for row in ROWS if row not in HALF]


@contextmanager
def connected(
    folder: Path, rows: Sequence[Row], vanished: Sequence[Row]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a warehouse of these jobs, of which some have vanished."""
    keys = [(row["company_id"], row["id"]) for row in vanished]
    with open_warehouse(
        [parquet(folder / "jobs.parquet", rows)], facts=SnapshotFacts(MADE, vanished=keys)
    ) as con:
        yield con


def call(name: str) -> str:
    """Return the text that asks for an answer."""
    return name if statements()[name].kind == "view" else f"{name}{ASKED.get(name, '()')}"


def total(con: duckdb.DuckDBPyConnection, name: str, column: str) -> int:
    """Return the sum of a column over all rows of an answer."""
    found: int = rows_of(con, f"SELECT coalesce(sum({column}), 0) AS n FROM {call(name)}").item()
    return found


class Opened(NamedTuple):
    """Warehouses of the same jobs, by which of them have vanished."""

    all: duckdb.DuckDBPyConnection
    none: duckdb.DuckDBPyConnection
    half: duckdb.DuckDBPyConnection
    others: duckdb.DuckDBPyConnection


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Open four warehouses once, because opening one takes as long as asking several answers."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("vanished")
        yield Opened(
            *(stack.enter_context(connected(folder, ROWS, gone)) for gone in (ROWS, (), HALF, OTHERS))
        )


@pytest.mark.parametrize("name", statements())
def test_every_answer_says_how_many_of_its_jobs_have_vanished(name: str, opened: Opened) -> None:
    """Every answer counts the vanished jobs among those that it includes, or marks them, or has a reason not to."""
    assert INCLUDED.keys() | WITHOUT.keys() <= statements().keys()
    asked = f"FROM {call(name)}"
    columns = rows_of(opened.all, f"{asked} LIMIT 0").columns
    if name in WITHOUT:
        assert not {"vanished", "is_vanished"} & set(columns)
        return
    if "is_vanished" in columns:
        assert rows_of(opened.all, f"SELECT DISTINCT is_vanished {asked}").rows() == [(True,)]
        flags = rows_of(opened.half, f"SELECT id, is_vanished {asked}").rows()
        assert {flag for _, flag in flags} == {True, False}
        lost = {row["id"] for row in HALF}
        assert all(flag == (job_id in lost) for job_id, flag in flags)
        return
    counted = "vanished_a + vanished_b" if name == "compare" else "vanished"
    figures = rows_of(opened.all, f"SELECT {counted} AS counted, {INCLUDED[name]} AS included {asked}")
    assert figures["counted"].to_list() == figures["included"].to_list()
    assert (whole := figures["counted"].sum()) > 0
    parts = [total(con, name, counted) for con in (opened.none, opened.half, opened.others)]
    assert parts[0] == 0
    assert parts[1] + parts[2] == whole
    assert min(parts[1:]) > 0


def test_of_an_outage_the_jobs_that_matter_are_counted(tmp_path: Path) -> None:
    """An outage counts its first failure and its recovery; a recovery and an export count all attempts."""
    rows = [job(n, s) for n, s in enumerate(("completed", "failed", "failed", "completed", "failed"))]
    for lost, outage, recoveries, exports in (
        ([0], 0, [0, 0, 0], 1),
        ([1], 1, [1, 0, 0], 1),
        ([2], 0, [1, 1, 0], 1),
        ([1, 2, 3], 2, [3, 2, 0], 3),
        ([4], 1, [0, 0, 1], 1),
    ):
        with connected(tmp_path, rows, [rows[n] for n in lost]) as con:
            assert rows_of(con, "SELECT vanished FROM downtime('year')").item() == outage
            asked = "SELECT vanished FROM recoveries() ORDER BY failed_at"
            assert rows_of(con, asked)["vanished"].to_list() == recoveries
            assert rows_of(con, "SELECT vanished FROM first_pass('year')").item() == exports
