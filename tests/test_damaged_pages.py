"""Damage inside a data file, past its footer: whatever DuckDB says of it, a user reads which lake is damaged."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pytest

from pleo_extract import Client, dump_export_jobs
from pleo_extract.answers import answer, name_lake, open_warehouse, translate_errors
from pleo_extract.answers.output import read_table, write
from pleo_extract.errors import LakeError, UsageError
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Said

FLIPS = 60
QUERY = "select * from export_jobs order by id"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return a lake of a few hundred jobs."""
    with Client("http://127.0.0.1:1", api_key=API_KEY, transport=Sandbox(World(jobs=300, days=20))) as client:
        dump_export_jobs(tmp_path / "lake", client=client, progress=False)
    return tmp_path / "lake"


def largest(lake: Path) -> Path:
    """Return the largest object of a lake, writable."""
    path = max((lake / "_lake" / "objects").iterdir(), key=lambda each: each.stat().st_size)
    path.chmod(0o644)
    return path


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes of a Parquet file with damage somewhere before its footer: a bit, or a few bytes."""
    broken = bytearray(data)
    pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    at, width = rng.randrange(4, pages - 16), rng.choice((0, 1, 4, 16))
    if width:
        broken[at : at + width] = rng.randbytes(width)
    else:
        broken[at] ^= 1 << rng.randrange(8)
    return bytes(broken)


@pytest.mark.slow
def test_whatever_is_damaged_the_files_are_to_blame(tmp_path: Path, lake: Path) -> None:
    """No damage makes a right query a usage error, and each message is readable, names the lake and says what to do."""
    data, rng, found = largest(lake).read_bytes(), random.Random(3), 0
    file = tmp_path / "month.parquet"
    for n in range(FLIPS):
        file.write_bytes(damage(data, rng))
        try:
            with name_lake("data/export_jobs"), translate_errors():
                con = open_warehouse([file])
                if n % 3 == 0:
                    answer(con, QUERY).pl()
                elif n % 3 == 1:
                    read_table(answer(con, QUERY))
                else:
                    write(answer(con, QUERY), tmp_path / "answer.csv", "csv")
        except LakeError as exc:
            found += 1
            text = str(exc)
            assert text.startswith("data/export_jobs: ")
            assert text.endswith("; see pleo-extract verify")
            assert text.isprintable()
    assert found > FLIPS / 10  # zstd notices most of the others no more than DuckDB does


@pytest.mark.parametrize(
    "error",
    [
        duckdb.Error("don't know what type: \x0f"),
        duckdb.Error("Out of buffer"),
        duckdb.Error("TProtocolException: Invalid data"),
        duckdb.InvalidInputException("Invalid Input Error: Invalid string encoding found in Parquet file"),
        duckdb.InvalidInputException('Invalid Input Error: Failed to read file "a": b'),
        duckdb.InternalException("INTERNAL Error: Attempted to access index 7"),
        duckdb.FatalException("FATAL Error: database has been invalidated"),
        duckdb.IOException("IO Error: Could not read"),
    ],
    ids=str,
)
def test_errors_of_damaged_pages(error: duckdb.Error) -> None:
    """What DuckDB was seen to raise for damaged pages is shown as a whole, without control characters."""
    with pytest.raises(LakeError) as caught, name_lake("data/export_jobs"), translate_errors():
        raise error
    words = str(error).removeprefix("Invalid Input Error: ").removeprefix("INTERNAL Error: ")
    words = words.removeprefix("FATAL Error: ").removeprefix("IO Error: ").replace("\x0f", "\\x0f")
    assert str(caught.value) == (
        f"data/export_jobs: the data files cannot be read ({words}); see pleo-extract verify"
    )
    assert caught.value.code == 65


def test_an_instant_that_no_calendar_has() -> None:
    """Damage may be a valid page with an impossible instant, at which polars panics: no traceback."""
    expected = "data/export_jobs: the data files cannot be read (invalid or out-of-range datetime); see pleo-extract verify"
    with pytest.raises(LakeError) as caught, name_lake("data/export_jobs"):
        raise pl.exceptions.PanicException("invalid or out-of-range datetime")
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "error", [ValueError("year 0 is out of range"), OverflowError("date value out of range")], ids=str
)
def test_an_instant_that_python_has_no_datetime_for(error: Exception) -> None:
    """The same holds for the years that DuckDB and polars know and Python does not; any other ValueError stays one."""
    with pytest.raises(LakeError, match="see pleo-extract verify"), name_lake("data/export_jobs"):
        raise error
    with pytest.raises(ValueError, match=r"^no such thing$"), name_lake("data/export_jobs"):
        raise ValueError("no such thing")


def put_instant(lake: Path, us: int) -> None:
    """Give a job in the largest file of a lake another created_at, in microseconds since 1970; no size shows it."""
    file, manifest = largest(lake), max((lake / "_lake" / "snapshots").iterdir())
    before = file.stat().st_size
    instants = pl.read_parquet(file)["created_at"].cast(pl.Int64).to_list()
    frame = pl.read_parquet(file).with_columns(
        pl.Series("created_at", [us, *instants[1:]], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    )
    file.unlink()
    frame.write_parquet(file)
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace(f'"bytes":{before}', f'"bytes":{file.stat().st_size}'), encoding="utf-8")


@pytest.mark.parametrize("us", [2**63 - 2, -(2**56), 2**58], ids=["294247", "-314", "11103"])
@pytest.mark.parametrize(
    "words", [["status"], ["report", "-o", "page.html"], ["check", "--no-incident"]], ids=lambda w: w[0]
)
def test_commands_at_an_impossible_instant(
    words: list[str],
    us: int,
    lake: Path,
    pleo: Callable[..., Said],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command ends with 65 and names the lake, where a flipped bit has made an instant that Python does not know."""
    monkeypatch.chdir(tmp_path)
    put_instant(lake, us)
    said = pleo(words[0], lake, *words[1:])
    assert "Traceback" not in said.err
    if us > 0 or words[0] == "report":  # one in the past is not the newest, of which the others speak
        assert said.code == 65, said
        assert str(lake) in said.err


def test_a_wrong_query_is_still_a_usage_error(lake: Path) -> None:
    """An error that the query causes stays one, whatever it says."""
    con = open_warehouse([largest(lake)])
    for query in (
        "selec",
        "from nope",
        "select nope from export_jobs",
        "select cast('a' as int)",
        "select error('x')",
    ):
        with pytest.raises(UsageError), name_lake(lake), translate_errors():
            answer(con, query).pl()


@pytest.mark.parametrize(
    "words",
    [
        ["sql", "LAKE", QUERY],
        ["sql", "LAKE", QUERY, "--format", "csv"],
        ["sql", "LAKE", "from failure_rates('month')"],
        ["report", "LAKE", "-o", "page.html"],
        ["check", "LAKE", "--no-incident"],
    ],
    ids=["table", "csv", "macro", "report", "check"],
)
def test_commands(
    words: list[str], lake: Path, pleo: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command over damaged pages ends with 65, and says which lake it is."""
    monkeypatch.chdir(tmp_path)
    file = largest(lake)
    data = file.read_bytes()
    pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    file.write_bytes(data[:4] + b"\x0f" * (pages - 4) + data[pages:])
    said = pleo(*(str(lake) if word == "LAKE" else word for word in words))
    assert said.code == 65, said
    assert str(lake) in said.err
    assert "see pleo-extract verify" in said.err
    assert "Traceback" not in said.err
