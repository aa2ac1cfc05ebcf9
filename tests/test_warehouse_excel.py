from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from click.testing import CliRunner
from lakes import make_lake
from openpyxl import load_workbook
from warehouse_jobs import START, A, B, job, warehouse

from pleo_extract import connect
from pleo_extract.answers import answer, write
from pleo_extract.cli import group
from pleo_extract.errors import ConfigurationError, UsageError
from pleo_extract.report import write_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Said
    from openpyxl.cell import Cell

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
RATES = "from failure_rates('month', per_company := false)"


def read_cells(path: Path, sheet: str = "answer") -> list[dict[str, Cell]]:
    """Return the rows of a sheet as openpyxl reads them: for each column its cell."""
    head, *rows = load_workbook(path)[sheet].iter_rows()
    names = [str(cell.value) for cell in head]
    return [dict(zip(names, row, strict=True)) for row in rows]


def write_cells(query: str, path: Path) -> dict[str, Cell]:
    """Write the answer to a query of one row as a workbook, and return its cells."""
    with warehouse([]) as con:
        assert write(answer(con, query), path, "xlsx") == 1
    (row,) = read_cells(path)
    return row


# Workbooks


def test_a_workbook_has_the_values_of_the_answer(tmp_path: Path, pleo: Callable[..., Said]) -> None:
    """Each cell has the value of the answer: counts are numbers, rates percentages, instants times in UTC."""
    path = tmp_path / "rates.xlsx"
    assert pleo("sql", SAMPLE, RATES, "-o", path) == (0, "", f"{path}: 12 rows\n")
    with connect(SAMPLE) as con:
        asked = con.sql(RATES).pl()
    found = read_cells(path)
    assert list(found[0]) == [name if name != "starts_at" else "starts_at (UTC)" for name in asked.columns]
    for cells, row in zip(found, asked.iter_rows(named=True), strict=True):
        row["starts_at (UTC)"] = row.pop("starts_at").astimezone(UTC).replace(tzinfo=None)
        for name, cell in cells.items():
            exact = row[name]  # a workbook keeps 16 digits of a number
            assert cell.value == (pytest.approx(exact, rel=1e-14) if isinstance(exact, float) else exact), (
                name
            )
        percentages = {name for name, cell in cells.items() if cell.number_format == "0.0%"}
        assert percentages == {"rate", "low", "high", "clustered_low", "clustered_high"}
        assert cells["period"].number_format == cells["starts_at (UTC)"].number_format == "yyyy-mm-dd"
        assert cells["jobs"].number_format == "#,##0"


def test_failures_per_1000_entries_are_no_percentages(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """They are numbers in a workbook, also where all of them are below 1."""
    path = tmp_path / "sizes.xlsx"
    query = "from failure_rates('all', per_company := false, split_by := 'number_of_items') where split = '100-999'"
    assert pleo("sql", SAMPLE, query, "-o", path).code == 0
    (row,) = read_cells(path)
    assert 0 < row["per_1000_high"].value < 1
    assert row["per_1000_low"].number_format == row["per_1000_high"].number_format != "0.0%"
    assert row["rate"].number_format == "0.0%"


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@a", "=HYPERLINK(1)", "http://a.b", "007", "1E5", "", "😀"]
)
def test_f53_a_text_stays_a_text(text: str, tmp_path: Path) -> None:
    """F53: no text becomes a formula, a link or a number in a workbook, also not in a heading."""
    cells = write_cells(f"select '{text}' as t, 1 as \"={text}\"", tmp_path / "x.xlsx")
    assert (cells["t"].value or "", cells["t"].data_type, cells["t"].hyperlink) == (
        text,
        "s" if text else "n",
        None,
    )
    assert list(cells) == ["t", f"={text}"]
    book = load_workbook(tmp_path / "x.xlsx")["answer"]
    assert {cell.data_type for row in book.iter_rows() for cell in row} <= {"s", "n"}


KINDS: list[tuple[str, Any]] = [
    ("uuid '6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11'", "6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11"),
    ("['=1', 'b']", "['=1', b]"),
    ("{'a': 1}", "{'a': 1}"),
    ("[timestamp '2026-01-01']", "['2026-01-01 00:00:00']"),
    ("'{}'::json", "{}"),
    ("interval 1 day", "1 day"),
    ("true", True),
    ("null", None),
    ("'nan'::double", None),
    ("'-inf'::float", None),
    ("1.25::decimal(4, 2)", 1.25),
    ("7::decimal(38, 0)", 7),
    ("999999999999999", 999999999999999),
    ("1000000000000000", "1000000000000000"),
    ("-1234567890123456789::bigint", "-1234567890123456789"),
    ("18446744073709551615::ubigint", "18446744073709551615"),
    ("5::hugeint", 5),
    ("date '2026-03-01'", datetime(2026, 3, 1)),  # noqa: DTZ001 - a cell has no time zone
    ("date '0001-01-01'", "0001-01-01"),
    ("time '10:30'", time(10, 30)),
    ("timestamp_ns '2026-03-01 08:00:00.5'", datetime(2026, 3, 1, 8, 0, 0, 500000)),  # noqa: DTZ001 - as above
    ("timestamp '1850-01-01'", "1850-01-01 00:00:00"),
    ("timestamp 'infinity'", None),
]


@pytest.mark.parametrize(("sql", "value"), KINDS, ids=[sql for sql, _ in KINDS])
def test_what_a_cell_cannot_hold_is_text_or_empty(sql: str, value: Any, tmp_path: Path) -> None:
    """Lists, ids, long numbers and times before 1900 are text; infinite values are empty cells."""
    cells = write_cells(f"select {sql} as a, 1 as b", tmp_path / "x.xlsx")
    assert cells["a"].value == value
    assert isinstance(cells["a"].value, type(value))


@pytest.mark.parametrize(
    "instant", ["timestamptz '2026-03-29 02:30:15+01'", "timestamptz '2026-03-29 01:30:15Z'"]
)
def test_instants_are_utc_and_say_so(instant: str, tmp_path: Path) -> None:
    """An instant is a time in UTC, and its heading says so; a time without a zone keeps its heading."""
    cells = write_cells(f"select {instant} as t, timestamp '2026-03-29 02:30' as u", tmp_path / "x.xlsx")
    at = datetime(2026, 3, 29, 1, 30, 15, tzinfo=UTC).replace(tzinfo=None)
    assert {name: cell.value for name, cell in cells.items()} == {
        "t (UTC)": at,
        "u": at + timedelta(minutes=59, seconds=45),
    }
    assert cells["u"].number_format == cells["t (UTC)"].number_format == "yyyy-mm-dd hh:mm:ss"


def test_only_shares_are_percentages(tmp_path: Path) -> None:
    """A `low` beside seconds and a `rate` above 1 are plain numbers: they are no shares."""
    cells = write_cells("select 0.5 as low, 0.5 as seconds, 1.5 as rate", tmp_path / "x.xlsx")
    assert "0.0%" not in {cell.number_format for cell in cells.values()}
    cells = write_cells("select 0.5::double as share_low, 0.5::double as usual_rate", tmp_path / "y.xlsx")
    assert {cell.number_format for cell in cells.values()} == {"0.0%"}


def test_an_empty_answer_is_a_workbook_with_headings(tmp_path: Path) -> None:
    """An answer without rows is a sheet with its headings."""
    with warehouse([]) as con:
        assert write(answer(con, "from failure_rates('month')"), tmp_path / "x.xlsx", "xlsx") == 0
    (head,) = load_workbook(tmp_path / "x.xlsx")["answer"].iter_rows(values_only=True)
    assert head[:4] == ("period", "company_id", "split", "jobs")


@pytest.mark.parametrize("kind", ["xlsx", "excel-csv"])
def test_more_rows_than_a_sheet_has(kind: str, tmp_path: Path) -> None:
    """An answer with more rows than a sheet is an error, and leaves no file."""
    with (
        warehouse([]) as con,
        pytest.raises(UsageError, match=r"at most 1,048,575 rows, and the answer has more"),
    ):
        write(answer(con, "select 1 as a from range(1048576)"), tmp_path / "x", kind)
    assert list(tmp_path.iterdir()) == []


def test_without_xlsxwriter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with (
        warehouse([]) as con,
        pytest.raises(ConfigurationError, match=r"pip install 'pleo-extract\[excel\]'"),
    ):
        write(answer(con, "select 1 as a"), tmp_path / "x.xlsx", "xlsx")


@pytest.mark.parametrize("kind", ["xlsx", "excel-csv"])
def test_a_full_disk(kind: str, tmp_path: Path) -> None:
    """If the disk is full, the message names the file, the command ends with 74, and no part of a file is left."""
    # -B: Python itself would write truncated bytecode, and later processes would fail at it.
    limited = ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", sys.executable, "-B", "-m", "pleo_extract"]
    asked = ["sql", SAMPLE, "from export_jobs", "--format", kind, "-o", tmp_path / "x"]
    done = subprocess.run([*limited, *map(str, asked)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (74, 1), done.stderr
    assert f"cannot write {tmp_path / 'x'}" in done.stderr
    assert list(tmp_path.iterdir()) == []


# The report


def test_the_report_as_a_workbook(tmp_path: Path) -> None:
    """`report --xlsx` writes the numbers of the page: one sheet for each section, one about the data, and all rows."""
    page, path = tmp_path / "r.html", tmp_path / "r.xlsx"
    done = CliRunner().invoke(group, ["report", str(SAMPLE), "-o", str(page), "--xlsx", str(path)])
    assert re.fullmatch(rf"{page}: \d+ kB\n{path}: \d+ kB\n", done.output)
    with connect(SAMPLE) as con:
        failed = con.sql("select company_id, failed from failure_rates('all')").fetchall()
        stuck = con.sql("select id from stuck_jobs()").fetchall()
    companies = read_cells(path, "Companies")
    assert {(row["company_id"].value, row["failed"].value) for row in companies} == set(failed)
    assert {row["rate"].number_format for row in companies} == {"0.0%"}
    assert [(row["id"].value,) for row in read_cells(path, "Stuck jobs")] == stuck
    assert sum(row["failed"].value for row in read_cells(path, "Failure rates")) == sum(n for _, n in failed)
    facts = {row["About the data"].value: row["Value"].value for row in read_cells(path, "About")}
    assert (facts["To"], facts["Jobs in the lake"]) == ("2026-09-30 15:00 UTC", "3000")


def test_names_in_the_workbook_of_a_report(tmp_path: Path) -> None:
    """Where the lake has names of companies, they stand after the ids."""
    lake = make_lake(
        tmp_path / "lake",
        [job(n, company_id=(A, B)[n % 2]) for n in range(40)],
        START + timedelta(days=9),
        {A: "=Ærø ApS", B: ""},
    )
    write_report(lake, tmp_path / "r.html", workbook=tmp_path / "r.xlsx")
    rows = read_cells(tmp_path / "r.xlsx", "Companies")
    assert {(row["company_id"].value, row["company_name"].value) for row in rows} == {
        (A, "=Ærø ApS"),
        (B, None),
    }


@pytest.mark.parametrize(
    ("name", "way"),
    [("x.pdf", "--print-to-pdf=x.pdf x.html"), ("x.xlsx", "--xlsx x.xlsx"), ("X.PDF", "print it to PDF")],
)
def test_a_report_in_another_format(name: str, way: str, tmp_path: Path) -> None:
    """A report named .pdf or .xlsx is refused with a way to get one, and no file is written."""
    done = CliRunner().invoke(group, ["report", str(SAMPLE), "-o", str(tmp_path / name)])
    assert isinstance(done.exception, UsageError)
    assert way in str(done.exception)
    assert list(tmp_path.iterdir()) == []


# CSV for Excel


@pytest.mark.parametrize(("separator", "mark"), [("comma", ","), ("semicolon", ";"), ("tab", "\t")])
def test_csv_for_excel(separator: str, mark: str) -> None:
    """It has a byte order mark, the list separator, the decimal separator that goes with it, and times that Excel reads."""
    query = (
        "select 'Ærø; a,b' as name, 0.25 as rate, timestamptz '2026-03-01 08:00+01' as t, date '2026-03-01' as d, "
        "timestamp '2026-03-01' as period, '=1' as f, 1000000000000000 as n"
    )
    asked = ["sql", str(SAMPLE), query, "--format", "excel-csv", "--list-separator", separator]
    done = CliRunner().invoke(group, asked)
    assert done.exit_code == 0, done.output
    text = done.stdout_bytes.decode()
    assert text.startswith("\ufeffname")
    assert text.count("\r\n") == text.count("\n") == 2
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), delimiter=mark)
    assert row == {
        "name": "Ærø; a,b",
        "rate": "0,25" if mark == ";" else "0.25",
        "t (UTC)": "2026-03-01 07:00:00",
        "d": "2026-03-01",
        "period": "2026-03-01",
        "f": "'=1",
        "n": "1000000000000000",
    }


def test_csv_for_excel_has_every_row(tmp_path: Path) -> None:
    """CSV for Excel has the same rows as the answer."""
    with connect(SAMPLE) as con:
        assert write(answer(con, "from export_jobs"), tmp_path / "jobs.csv", "excel-csv") == 3000
        asked = con.sql("select id, number_of_items from export_jobs").pl()
    found = pl.read_csv(tmp_path / "jobs.csv")
    assert found.select("id", "number_of_items").sort("id").equals(asked.sort("id"))
    assert found["created_at (UTC)"].str.to_date("%Y-%m-%d %H:%M:%S").max() == date(2026, 9, 30)
