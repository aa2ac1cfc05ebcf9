from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pytest
from lakes import make_lake
from polars.testing import assert_frame_equal
from warehouse_jobs import START, A, B, job

from pleo_extract import Lake, connect
from pleo_extract.answers import statements
from pleo_extract.errors import ConfigurationError, LakeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Said

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
NAMES = SAMPLE.parent / "names.csv"
IDS = "select company_id from failure_rates('all')"


def write_file(path: Path, content: bytes) -> Path:
    """Write a names file and return its path."""
    path.write_bytes(content)
    return path


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return a lake of two companies, read with a credential for all."""
    jobs = [job(n, "failed" if n % 3 else "completed", company_id=(A, B)[n % 2]) for n in range(60)]
    return make_lake(tmp_path / "lake", jobs, START + timedelta(days=9))


def names_of(lake: str | Path, **options: str) -> dict[str, str | None]:
    """Return the names in the view `companies`."""
    with connect(lake, names=options.get("names")) as con:
        return dict(con.sql("select id, name from companies").fetchall())


# The file


@pytest.mark.parametrize(
    "content",
    [
        f"id,name\n{A},Ærø ApS\n".encode(),
        f"\ufeffid;name\r\n{A.upper()};Ærø ApS\r\n\r\n".encode(),
        f'name\tID\n"Ærø ApS"\t {A} \n'.encode(),
    ],
    ids=["comma", "as Excel saves it", "tab"],
)
def test_a_names_file(content: bytes, lake: Path, tmp_path: Path) -> None:
    """A names file has the columns id and name in any order, as Excel or a program writes it."""
    assert names_of(lake, names=str(write_file(tmp_path / "n.csv", content))) == {A: "Ærø ApS"}


BAD = {
    "no column": (f"{A},Acme\n".encode(), f"has the columns {A}, acme; it needs id and name"),
    "other columns": (b"company,name\n", "has the columns company, name; it needs id and name"),
    "empty": (b"", "has the columns of an empty file; it needs id and name"),
    "more columns": (b"id,name,city\n", "it needs id and name"),
    "more fields": (f"id,name\n{A},Acme, Ltd\n".encode(), "line 2: 3 fields, and 2 are needed; put a name"),
    "a quote": (f'id,name\n{A},"Acme\n'.encode(), "line 2: unexpected end of data"),
    "latin 1": (f"id,name\n{A},Ærø\n".encode("latin-1"), "is not UTF-8, see line 2; in Excel"),
    "utf 16": (f"id,name\n{A},Ærø\n".encode("utf-16"), "is not UTF-8, see line 1"),
    "twice": (
        f"id,name\n{A},Acme\n{A.upper()},Other\n".encode(),
        f"line 3: {A} has a name already, in line 2",
    ),
    "no uuid": (b"id,name\n42,Acme\n", "line 2: the id is not a UUID"),
    "no name": (f"id,name\n{A}, \n".encode(), "line 2: the name is empty"),
    "long": (f"id,name\n{A},{'x' * 201}\n".encode(), "line 2: the name has 201 characters, and at most 200"),
    "control": (f"id,name\n{A},a\x1b[31m\n".encode(), "line 2: the name a\\x1b[31m contains"),
    "two lines": (f'id,name\n{A},"a\nb"\n'.encode(), "line 3: the name a\\nb contains"),
    "bidi": (f"id,name\n{A},a\u202eb\n".encode(), "line 2: the name a\\u202eb contains"),
}


@pytest.mark.parametrize("case", BAD)
def test_f53_a_bad_names_file_is_refused(
    case: str, lake: Path, tmp_path: Path, pleo: Callable[..., Said]
) -> None:
    """F53: a names file that cannot be used is refused with its line by every command, and nothing is written."""
    content, message = BAD[case]
    path = write_file(tmp_path / "n.csv", content)
    with pytest.raises(ConfigurationError) as caught:
        connect(lake, names=path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    commands = (
        ("sql", lake, IDS, "--names", path),
        ("report", lake, "-o", tmp_path / "r.html", "--names", path),
        ("check", lake, "--no-silence", "--names", path),
        ("names", lake, path),
    )
    for command in commands:
        said = pleo(*command)
        assert (said.code, said.out) == (78, ""), command
        assert said.err == f"pleo-extract: {caught.value}\n"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["lake", "n.csv"]
    assert not (lake / "_lake" / "names.csv").exists()


def test_names_from_python(lake: Path) -> None:
    """Names may be a mapping, which is checked like a file."""
    with Lake(lake).connect(names={A.upper(): "Acme"}) as con:
        assert con.sql("select name from companies").fetchall() == [("Acme",)]
    with pytest.raises(ConfigurationError, match="the names, line 1: the name is empty"):
        connect(lake, names={A: ""})


# Where names are shown


def test_names_stand_beside_the_ids(lake: Path, tmp_path: Path, pleo: Callable[..., Said]) -> None:
    """`--names` adds the column company_name after company_id in every format, once, and null where there is no name."""
    path = write_file(tmp_path / "n.csv", f"id,name\n{A},Acme\n".encode())
    said = pleo("sql", lake, f"{IDS} order by all", "--names", path, "--format", "json")
    rows = [{"company_id": A, "company_name": "Acme"}, {"company_id": B, "company_name": None}]
    assert json.loads(said.out) == rows
    said = pleo("sql", lake, f"{IDS} order by all", "--names", path)
    assert said.out.splitlines()[2].split() == [A, "Acme"]
    for query in ("select 1 as n", f"select 'x' as company_name, company_id from ({IDS}) limit 1"):
        plain = pleo("sql", lake, query, "--format", "csv")
        assert pleo("sql", lake, query, "--names", path, "--format", "csv") == plain
    said = pleo("sql", lake, f"select uuid '{A}' as company_id", "--names", path, "--format", "csv")
    assert said.out == f"company_id,company_name\n{A},Acme\n"


def test_programs_get_the_columns_that_they_asked_for(tmp_path: Path, pleo: Callable[..., Said]) -> None:
    """Names that a lake knows are shown to people; in CSV, JSON and Parquet only --names adds a column."""
    known = make_lake(tmp_path / "known", [job(1)], START + timedelta(days=1), {A: "Acme"})
    assert pleo("sql", known, IDS).out.splitlines()[0].split() == ["company_id", "company_name"]
    assert (
        pleo("sql", known, IDS, "--format", "excel-csv").out
        == f"\ufeffcompany_id,company_name\r\n{A},Acme\r\n"
    )
    assert pleo("sql", known, IDS, "--format", "csv").out == f"company_id\n{A}\n"
    assert json.loads(pleo("sql", known, IDS, "--format", "json").out) == [{"company_id": A}]


def test_the_report_and_the_check_show_names(tmp_path: Path, pleo: Callable[..., Said]) -> None:
    """The report shows the name of each company, and the id when one points at it; a check names both."""
    page = tmp_path / "r.html"
    assert pleo("report", SAMPLE, "-o", page, "--names", NAMES).code == 0
    text = page.read_text(encoding="utf-8")
    names = dict(pl.read_csv(NAMES).iter_rows())
    assert len(names) == 5
    for company, name in names.items():
        assert f'title="{company}"' in text
        assert f"<bdi>{name}</bdi>" in text
        assert f">{company[:8]}<" not in text
    said = pleo("check", SAMPLE, "--max-failure-rate", "1%", "--since", "200d", "--names", NAMES)
    worst = "9b4d13d2-570e-46a0-8bc7-5f9261219282"
    assert said.out.splitlines()[0].startswith(f"{names[worst]} ({worst}): 14 of 136 exports failed")
    old = pleo("check", SAMPLE, "--max-age", "1h", "--names", NAMES)
    assert old.code == 3


def test_names_change_no_answer() -> None:
    """An answer is the same with names as without, though companies then have rows without a now."""
    names = {company: f"n{number}" for number, company in enumerate(pl.read_csv(NAMES)["id"])}
    company = next(iter(names))
    with connect(SAMPLE) as plain, connect(SAMPLE, names=names) as named:
        for statement in statements().values():
            if statement.name == "companies":
                continue
            needed = [p for p in statement.parameters if p.default is None]
            values = ["'month'" if p.name == "grain" else f"'2026-0{n + 1}-01'" for n, p in enumerate(needed)]
            calls = [
                f"{statement.name}({', '.join(values)})" if statement.kind == "macro" else statement.name
            ]
            if any(p.name == "company_id" for p in statement.parameters):
                values.append(f"company_id := '{company}'")
                calls.append(f"{statement.name}({', '.join(values)})")
            for call in calls:
                one, other = (con.sql(f"from {call}").pl().sort(pl.all()) for con in (plain, named))
                assert_frame_equal(one, other, rel_tol=1e-9)


# Names kept in a lake


@pytest.mark.catalogue
def test_a_lake_keeps_names(lake: Path, tmp_path: Path, pleo: Callable[..., Said]) -> None:
    """`names` keeps names in a lake, for answers, its catalogue, and copies of it; the latest file counts alone."""
    first = write_file(tmp_path / "1.csv", f"id,name\n{A},One\n{B},=Two\n".encode())
    said = pleo("names", lake, first)
    assert (said.code, said.out) == (0, f"{lake}: keeps the names of 2 companies\n")
    copied = Path(shutil.copytree(lake, tmp_path / "copy"))
    assert names_of(lake) == names_of(copied) == {A: "One", B: "=Two"}
    with duckdb.connect(str(lake / "_jobs.duckdb"), read_only=True) as con:
        assert dict(con.sql("select id, name from companies").fetchall()) == {A: "One", B: "=Two"}
        second = write_file(tmp_path / "2.csv", f"id;name\n{B};Three\n".encode())
        assert pleo("names", lake, second).out == f"{lake}: keeps the names of 1 company\n"
        assert con.sql("select id, name from companies").fetchall() == [(B, "Three")]
    assert names_of(lake, names=str(first)) == {A: "One", B: "=Two"}, "a file on the command line wins"


def test_kept_names_win_over_those_of_the_accounts_file(tmp_path: Path, pleo: Callable[..., Said]) -> None:
    """A kept name replaces that of the accounts file; a company without one keeps its own."""
    lake = make_lake(tmp_path / "lake", [job(1)], START + timedelta(days=1), {A: "Old", B: "Bo"})
    pleo("names", lake, write_file(tmp_path / "n.csv", f"id,name\n{A},New\n".encode()))
    assert names_of(lake) == {A: "New", B: "Bo"}


def test_damaged_kept_names(lake: Path, pleo: Callable[..., Said]) -> None:
    """Kept names that were damaged are an error that says how to write them again."""
    (lake / "_lake" / "names.csv").write_bytes(b"id,name\n1,x\n")
    with pytest.raises(LakeError, match=r"names\.csv, line 2: .*; write it again with: pleo-extract names"):
        connect(lake)
    (lake / "_lake" / "names.csv").unlink()
    (lake / "_lake" / "names.csv").symlink_to("/etc/hostname")
    with pytest.raises(LakeError):
        connect(lake)


def test_who_keeps_no_names(tmp_path: Path, pleo: Callable[..., Said]) -> None:
    """A folder without a lake and a Delta table keep no names; the message says what to do."""
    path = write_file(tmp_path / "n.csv", f"id,name\n{A},One\n".encode())
    said = pleo("names", tmp_path / "none", path)
    assert (said.code, said.out) == (65, "")
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    said = pleo("names", tmp_path / "delta", path)
    assert said.code == UsageError.code
    assert "give them each time, with --names FILE" in said.err
