"""Jobs that the server no longer lists: every answer says how many of them it includes."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Final

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


@contextmanager
def connected(
    folder: Path, rows: Sequence[Row], vanished: Sequence[Row], asked: str | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a warehouse of these jobs, of which some have vanished; `asked` names the only macros to create."""
    keys = [(row["company_id"], row["id"]) for row in vanished]
    with open_warehouse(
        [parquet(folder / "jobs.parquet", rows)], facts=SnapshotFacts(MADE, vanished=keys), asked=asked
    ) as con:
        yield con


def call(name: str) -> str:
    """Return the text that asks for an answer."""
    return name if statements()[name].kind == "view" else f"{name}{ASKED.get(name, '()')}"


def total(con: duckdb.DuckDBPyConnection, name: str, column: str) -> int:
    """Return the sum of a column over all rows of an answer."""
    found: int = rows_of(con, f"SELECT coalesce(sum({column}), 0) AS n FROM {call(name)}").item()
    return found


@pytest.mark.parametrize("name", statements())
def test_every_answer_says_how_many_of_its_jobs_have_vanished(name: str, tmp_path: Path) -> None:
    """Every answer counts the vanished jobs among those that it includes, or marks them, or has a reason not to."""
    assert INCLUDED.keys() | WITHOUT.keys() <= statements().keys()
    luck = Random(name)
    some = luck.sample(ROWS, len(ROWS) // 2)
    others = [row for row in ROWS if row not in some]
    with connected(tmp_path, ROWS, ROWS, name) as con:
        asked = f"FROM {call(name)}"
        columns = rows_of(con, f"{asked} LIMIT 0").columns
        if name in WITHOUT:
            assert not {"vanished", "is_vanished"} & set(columns)
            return
        if "is_vanished" in columns:
            assert rows_of(con, f"SELECT DISTINCT is_vanished {asked}").rows() == [(True,)]
        else:
            counted = "vanished_a + vanished_b" if name == "compare" else "vanished"
            figures = rows_of(con, f"SELECT {counted} AS counted, {INCLUDED[name]} AS included {asked}")
            assert figures["counted"].to_list() == figures["included"].to_list()
            assert (whole := figures["counted"].sum()) > 0
    if "is_vanished" in columns:
        with connected(tmp_path, ROWS, some, name) as con:
            flags = rows_of(con, f"SELECT id, is_vanished {asked}").rows()
        assert {flag for _, flag in flags} == {True, False}
        assert all(flag == (job_id in {row["id"] for row in some}) for job_id, flag in flags)
        return
    parts = []
    for gone in ((), some, others):
        with connected(tmp_path, ROWS, gone, name) as con:
            parts.append(total(con, name, counted))
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
