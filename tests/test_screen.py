"""Tests of how a table fits a terminal."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pleo_extract import connect
from pleo_extract.answers import answer, read_table
from pleo_extract.cli.answer import format_answer

if TYPE_CHECKING:
    import duckdb

SAMPLE = Path(__file__).parent.parent / "data" / "sample"


@cache
def sample() -> duckdb.DuckDBPyConnection:
    """Open the sample once."""
    return connect(SAMPLE)


@cache
def ask(query: str, width: int | None = None) -> str:
    """Return the sample's answer as a table."""
    return format_answer(read_table(answer(sample(), query)), width)


def test_a_table_that_fits_stays_as_it_is() -> None:
    """A table that fits does not change."""
    query = "from failure_rates('year')"
    assert ask(query, 300) == ask(query)


def test_dates_and_companies_are_shortened_first() -> None:
    """Midnights become dates and UUIDs their first digits, so that all columns stay in one table."""
    shown = "company_id, jobs, finished, failed, expired, with_errors, rate, low, high, still_open, vanished"
    asked = f"select period, {shown}"
    lines = ask(f"{asked} from failure_rates('year') limit 2", 120).splitlines()
    first = ["period", "company_id", "jobs", "finished", "failed"]
    assert lines[0].split() == [
        *first,
        "expired",
        "with_errors",
        "rate",
        "low",
        "high",
        "still_open",
        "vanished",
    ]
    assert lines[2].split()[:4] == ["2025-01-01", "13db0e0b…", "90", "90"]
    assert len(lines) == 5


@pytest.mark.parametrize("width", [30, 80, 120])
def test_no_line_is_too_long_and_no_column_is_lost(width: int) -> None:
    """Columns that do not fit move into another table below, which repeats the first columns."""
    asked = "from duration_stats('month') limit 3"
    lines = ask(asked, width).splitlines()
    assert max(map(len, lines)) <= width
    shown = {name for line in lines if line.startswith("period") for name in line.split()}
    assert "without values: split" in lines
    assert shown | {"split"} == set(ask(asked).splitlines()[0].split())
    assert lines[-1] == "(3 rows)"


def test_companies_that_begin_alike_keep_their_ids() -> None:
    """Two ids that begin alike stay whole."""
    alike = "select * from (values ('12345678-0000-4000-8000-00000000000a'), ('12345678-0000-4000-8000-00000000000b')) v(c)"
    assert "12345678-0000-4000-8000-00" in ask(alike, 30)
    assert "12345678…" not in ask(alike, 30)


def test_columns_without_values_give_way() -> None:
    """Where a table is too wide, columns without any value are named below it instead of shown."""
    query = "from failure_rates('quarter', per_company := false)"
    lines = ask(query, 80).splitlines()
    assert lines[-2:] == ["without values: company_id, split", "(4 rows)"]
    assert not any("company_id" in line or "split" in line for line in lines[:-2])
    assert ask(query, 300) == ask(query)
    assert ask("select null as a, null as b", 1).splitlines()[-1] == "(1 row)"
