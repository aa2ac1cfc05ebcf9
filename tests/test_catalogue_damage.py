"""Damage in the catalogue and in what it reads beside the rows: verify names it, repair and the next dump mend it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from cases import mostly_slow

from pleo_extract import Client, Lake, connect, dump_export_jobs, verify_lake
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from _pytest.mark import ParameterSet
    from conftest import Said

FACTS = ("_lake/now.csv", "_lake/vanished.csv")
CATALOGUE = "_jobs.duckdb"
HARMS = ("bit", "cut short", "emptied", "deleted", "folder", "link", "broken link", "pipe")


def dump(lake: Path, world: World | None = None) -> None:
    """Dump the jobs of a world, which does not move."""
    transport = Sandbox(world or World(jobs=60, days=40))
    with Client("http://127.0.0.1:1", api_key=API_KEY, transport=transport) as client:
        dump_export_jobs(lake, client=client, progress=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake to copy."""
    lake = tmp_path_factory.mktemp("made") / "lake"
    dump(lake)
    return lake


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Path:
    """Return a lake of its own for each test, with the times that its files had."""
    return shutil.copytree(made, tmp_path / "lake")


def harm(file: Path, how: str) -> None:
    """Damage a file. As with bits that rot, its time stays."""
    data, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    if how == "bit":
        at = len(data) // 2
        file.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    elif how == "cut short":
        file.write_bytes(data[:-3])
    elif how == "emptied":
        file.write_bytes(b"")
    else:
        other = file.rename(file.parents[1] / "elsewhere")
        if how == "folder":
            file.mkdir()
            (file / "notes").write_text("mine")
        elif how in ("link", "broken link"):
            file.symlink_to(other)
            if how == "broken link":
                other.unlink()
        elif how == "pipe":
            os.mkfifo(file)
    if file.is_file():
        os.utime(file, ns=times)


def damages(*quick: str, without: str) -> list[ParameterSet]:
    """Return each file with each way to damage it; of the catalogue, which is slow to compile, some only if slow."""
    facts = [pytest.param(name, how, id=f"{name}-{how}") for name in FACTS for how in HARMS]
    harms = [*quick, *(how for how in HARMS if how not in (without, *quick))]
    return facts + mostly_slow(
        (pytest.param(CATALOGUE, how, id=f"{CATALOGUE}-{how}", marks=pytest.mark.catalogue) for how in harms),
        quick=len(quick),
    )


# A lake without a catalogue is whole.
@pytest.mark.parametrize(("name", "how"), damages("bit", "folder", without="deleted"))
def test_damage_is_named_and_mended(name: str, how: str, lake: Path, pleo: Callable[..., Said]) -> None:
    """`verify` ends with 65 and names the file; after `repair` the lake is whole, and nothing is left to repair."""
    before = (lake / name).read_bytes()
    harm(lake / name, how)
    said = pleo("verify", lake)
    assert said.code == 65
    assert said.out.startswith(f"{name}: ")
    assert len(said.out.splitlines()) == 1
    mended = pleo("repair", lake)
    assert mended.code == 0, mended
    assert mended.out.startswith(f"{name}: ")
    assert mended.out.endswith("; written again\n")
    assert verify_lake(lake).ok
    assert name == CATALOGUE or (lake / name).read_bytes() == before
    assert "nothing needed repair" in pleo("repair", lake).out
    if how == "folder":
        assert [each.read_text() for each in (lake / "_lake/strays").glob("*/notes")] == ["mine"]


@pytest.mark.parametrize(("name", "how"), damages("cut short", "deleted", without="bit"))
def test_the_next_dump_mends_it(name: str, how: str, lake: Path) -> None:
    """A dump writes the file again. It does not read all of `_jobs.duckdb`, so a bit there waits for `repair`."""
    harm(lake / name, how)
    dump(lake)
    assert verify_lake(lake).ok
    assert (lake / name).is_file()
    assert not (lake / name).is_symlink()


@pytest.mark.catalogue
@pytest.mark.parametrize("step", mostly_slow([13, 3]))
def test_every_bit_of_the_facts_counts(step: int, lake: Path) -> None:
    """Any flipped bit in `now.csv` is found, also in a digit of an instant, which still is an instant then."""
    file = lake / FACTS[0]
    data, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    for at in range(0, len(data), step):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        os.utime(file, ns=times)
        assert not verify_lake(lake).ok


@pytest.mark.catalogue
def test_a_quiet_run_makes_old_files_comparable(lake: Path) -> None:
    """`vanished.csv` is compared after a run that found it right, although the run wrote newer files."""
    dump(lake)
    harm(lake / FACTS[1], "cut short")
    assert not Lake(lake).verify().ok


@pytest.mark.catalogue
@pytest.mark.parametrize("newer", ["current", "state.json", "names.csv"])
def test_a_file_that_a_killed_run_left_is_out_of_date(newer: str, lake: Path) -> None:
    """A run was killed before it wrote `now.csv`, or someone edited the names: no damage. The next dump writes it."""
    file = lake / FACTS[0]
    text = file.read_text()
    file.write_text(text.replace("T", "T0", 1))
    source = lake / "_lake" / newer
    source.touch()
    os.utime(file, ns=(0, source.stat().st_mtime_ns - 1))
    if newer == "names.csv":
        source.write_text("id,name\n")
    assert verify_lake(lake).ok
    dump(lake)
    assert verify_lake(lake).ok
    assert file.read_text() != text.replace("T", "T0", 1)


@pytest.mark.catalogue
def test_lakes_that_moved_or_have_no_catalogue_are_whole(lake: Path, tmp_path: Path) -> None:
    """A copied lake, one whose catalogue could not be written, and one of another version have no damage."""
    moved = lake.rename(tmp_path / "moved")
    assert verify_lake(moved).ok
    (moved / CATALOGUE).unlink()
    (moved / FACTS[0]).unlink()
    assert verify_lake(moved).ok
    assert verify_lake(shutil.copytree(moved, tmp_path / "copy", copy_function=shutil.copy)).ok


@pytest.mark.catalogue
def test_names_that_a_lake_keeps(lake: Path, tmp_path: Path, pleo: Callable[..., Said]) -> None:
    """Names are no foreign file. Damaged ones are named, and only the user can write them again."""
    with connect(lake) as con:
        company = con.sql("select any_value(company_id) from export_jobs").fetchall()[0][0]
    given = tmp_path / "given.csv"
    given.write_text(f"id,name\n{company},Bruun\n")
    assert pleo("names", lake, given).code == 0
    found = verify_lake(lake)
    assert (found.ok, found.foreign) == (True, ())
    (lake / "_lake/names.csv").write_bytes(b"id,na\xffme")
    said = pleo("verify", lake)
    assert said.code == 65
    assert "names.csv is not UTF-8" in said.out
    mended = pleo("repair", lake)
    assert mended.code == 65
    assert "write it again with: pleo-extract names" in mended.err
    assert pleo("names", lake, given).code == 0
    assert verify_lake(lake).ok
