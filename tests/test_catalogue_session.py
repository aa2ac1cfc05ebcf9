"""A DuckDB session that holds `_jobs.duckdb` open, as a BI tool does: what it sees after every publish."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pytest
from canary import CANARY
from lakes import SERVER, make_lake
from warehouse_jobs import START, job

from pleo_extract import answers, connect, dump_accounts, dump_export_jobs, verify_lake
from pleo_extract.answers import doors, open_warehouse, statements
from pleo_extract.answers.definition import literal
from pleo_extract.answers.doors import renew_catalogue
from pleo_extract.contract import DUCKDB_SCHEMA
from pleo_extract.core.state import SyncState
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pleo_extract import Client

    OpenClient = Callable[[Sandbox], Client]

pytestmark = pytest.mark.catalogue

DAY = 86_400.0


@contextmanager
def session(lake: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the catalogue with plain DuckDB."""
    with duckdb.connect(str(lake / "_jobs.duckdb"), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


def answers_of(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Return the rows of every view, and of every macro with its required arguments."""
    found = {}
    for name in {*statements(), "companies", "snapshot"}:
        given = statements().get(name)
        values = ", ".join("NULL" for each in given.parameters if each.default is None) if given else ""
        call = f"({values})" if given and given.kind == "macro" else ""
        rows = con.sql(f"FROM {name}{call}").pl()
        found[name] = sorted(rows.write_csv(float_precision=9).splitlines())
    return found


def now_of(con: duckdb.DuckDBPyConnection) -> Any:
    """Return the latest now of the companies; None if there is none."""
    ((now,),) = con.sql("SELECT max(now) FROM companies").fetchall()
    return now


def months_of(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the months that have jobs."""
    asked = "SELECT DISTINCT strftime(created_at, '%Y-%m') AS month FROM export_jobs ORDER BY month"
    return [month for (month,) in con.sql(asked).fetchall()]


class Companies:
    """A lake of named companies, and a world whose months pass."""

    def __init__(self, folder: Path, url: str, world: World) -> None:
        self.folder, self.url, self.world = folder, url, world
        self.lake = folder / "lake"
        (folder / "key").write_text(CANARY)
        (folder / "key").chmod(0o600)

    def dump(self, *names: str, full: bool = True) -> int:
        """Dump one company per name and return the current snapshot."""
        accounts = [
            f"[[account]]\nname = '{name}'\ncompany_id = '{company}'\napi_key_file = 'key'\nrate = 100000\n"
            for name, company in zip(names, self.world.companies, strict=False)
        ]
        (self.folder / "accounts.toml").write_text(f"base_url = '{self.url}'\n" + "".join(accounts))
        dump_accounts(self.lake, self.folder / "accounts.toml", full=full, progress=False)
        number = Layout(self.lake).number()
        assert number is not None
        return number


@pytest.mark.slow
def test_f72_an_open_session_equals_a_fresh_one_over_a_years_end(tmp_path: Path) -> None:
    """After every publish over a year's end an open session gives the same answers as a new one."""
    world = World(jobs=150, companies=3, days=40, now=datetime(2026, 10, 28, tzinfo=UTC))
    with serve(Sandbox(world, api_keys={CANARY: None})) as running:
        companies = Companies(tmp_path, running.url, world)
        lake, numbers = companies.lake, [companies.dump("Acme", "B and sons, Ltd")]
        written = (lake / "_jobs.duckdb").stat().st_ino
        with session(lake) as opened:
            seen, nows = [answers_of(opened)], [now_of(opened)]
            for month in range(4):
                ended = next(each for each in world.visible() if each["status"] == "completed")
                world.change(ended["id"], ended["companyId"], numberOfItems=10_000 + month)
                world.advance(31 * DAY)
                numbers.append(companies.dump("Acme", "Bé", "C"))
                seen.append(answers_of(opened))
                nows.append(now_of(opened))
                with session(lake) as fresh, connect(lake) as ours:
                    assert seen[-1] == answers_of(fresh) == answers_of(ours)
                (most,) = opened.sql("SELECT max(number_of_items) FROM export_jobs").fetchall()
                assert most == (10_000 + month,)
                companies.dump("Acme", "Bé", "C", full=False)  # finds nothing new, but advances now
                nows.append(now_of(opened))
            months = months_of(opened)
            names = dict(opened.sql("SELECT name, id FROM companies").fetchall())
        assert (lake / "_jobs.duckdb").stat().st_ino == written, "no change required writing it again"
    assert months == [f"2026-{month:02d}" for month in (9, 10, 11, 12)] + ["2027-01", "2027-02"]
    assert names == dict(zip(("Acme", "Bé", "C"), world.companies, strict=True))
    assert numbers == sorted(set(numbers))
    assert all(before < after for before, after in itertools.pairwise(nows))


def test_an_open_session_sees_jobs_vanish_and_come_back(tmp_path: Path) -> None:
    """An open session sees the first vanished job and its return, without an error."""
    lake = make_lake(tmp_path / "lake", [job(n) for n in range(3)], START)
    layout, gone = Layout(lake), (job(1)["company_id"], job(1)["id"])

    def tell(vanished: list[tuple[str, str]]) -> None:
        accounts = {f"{SERVER} *": SyncState(data_as_of=START, vanished=vanished)}
        manifest = msgspec.structs.replace(layout.manifest(1), accounts=accounts)
        layout.manifest_file(1).write_bytes(msgspec.json.encode(manifest))
        renew_catalogue(lake, run="1")

    tell([])
    with session(lake) as opened:
        assert opened.sql("SELECT company_id, id FROM vanished").fetchall() == []
        expected = {}
        for vanished in ([gone], [], [gone]):
            tell(vanished)
            assert opened.sql("SELECT company_id, id FROM vanished").fetchall() == vanished
            if len(vanished) not in expected:
                with session(lake) as fresh:
                    expected[len(vanished)] = answers_of(fresh)
            assert answers_of(opened) == expected[len(vanished)]
        assert expected[0] != expected[1]
    tell([gone])
    with session(lake) as opened:
        tell([])
        assert opened.sql("SELECT sum(vanished) FROM failure_rates('all')").fetchall() == [(0,)]


def test_a_lake_without_jobs_has_typed_empty_views(tmp_path: Path, open_client: OpenClient) -> None:
    """Views of a lake without jobs are empty with the contract's types, and the first month renews the catalogue."""
    world = World(jobs=0)
    client = open_client(Sandbox(world))
    dump_export_jobs(tmp_path, client=client)
    with open_warehouse([]) as con:
        expected = {
            name: rows for name, rows in answers_of(con).items() if name not in ("snapshot", "companies")
        }
    with session(tmp_path) as opened:
        described = opened.sql("DESCRIBE export_jobs").fetchall()
        assert {name: kind for name, kind, *_ in described} == DUCKDB_SCHEMA
        assert answers_of(opened).items() >= expected.items()
        assert now_of(opened) is None
        written = (tmp_path / "_jobs.duckdb").stat().st_ino
        dump_export_jobs(tmp_path, client=client)
        assert (tmp_path / "_jobs.duckdb").stat().st_ino == written
        world.insert(world.now)
        dump_export_jobs(tmp_path, client=client)
        assert answers_of(opened).items() >= expected.items(), "of the older file, which is whole"
    with session(tmp_path) as fresh, connect(tmp_path) as ours:
        assert fresh.sql("SELECT count(*) FROM export_jobs").fetchall() == [(1,)]
        assert answers_of(fresh) == answers_of(ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["[ab]", "a*", "{c,d}", "it's [!x] #%20"])
def test_a_folder_with_glob_characters(name: str, tmp_path: Path, open_client: OpenClient) -> None:
    """A path with glob characters means only itself, not a lake beside it."""
    world = World(jobs=60, days=40)
    client = open_client(Sandbox(world))
    lake = tmp_path / name
    for each in (lake, tmp_path / "a", tmp_path / "ab", tmp_path / "bc", tmp_path / "c"):
        dump_export_jobs(each, client=client)
    with session(lake) as opened, duckdb.connect() as other:
        other.execute(f"ATTACH {literal(str(lake / '_jobs.duckdb'))} AS lake (READ_ONLY)")
        for _ in range(2):
            with connect(lake) as ours:
                asked = "SELECT id, status FROM {}export_jobs ORDER BY ALL"
                expected = ours.sql(asked.format("")).fetchall()
                assert opened.sql(asked.format("")).fetchall() == expected
                assert other.sql(asked.format("lake.")).fetchall() == expected
                assert now_of(opened) == now_of(ours)
            world.advance(40 * DAY)
            assert dump_export_jobs(lake, client=client).published
    assert verify_lake(lake).ok


def test_a_folder_that_duckdb_cannot_name(
    tmp_path: Path, open_client: OpenClient, caplog: pytest.LogCaptureFixture
) -> None:
    """DuckDB cannot open a path with a question mark: the dump says so, and `connect` still works."""
    lake = tmp_path / "b?"
    receipt = dump_export_jobs(lake, client=open_client(Sandbox(World(jobs=60, days=40))))
    assert (receipt.code, (lake / "_jobs.duckdb").exists()) == (0, False)
    assert "DuckDB opens no file with a question mark in its path" in caplog.text
    with connect(lake) as con:
        assert con.sql("SELECT count(*) FROM export_jobs").fetchall() == [(60,)]
    assert (verify_lake(lake).ok, verify_lake(lake).foreign) == (True, ())


@pytest.mark.parametrize("scratch", ["usual", "none"])
def test_the_catalogue_of_a_first_dump_is_compiled_meanwhile(
    scratch: str, tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first dump that waits compiles it meanwhile, the same bytes as later; if that fails, it does so at the end."""
    late: list[object] = []
    compile_late = answers.write_catalogue

    def count(*given: Any, **named: Any) -> None:
        late.append(given)
        compile_late(*given, **named)

    monkeypatch.setattr(answers, "write_catalogue", count)
    monkeypatch.setattr(doors, "LOOKED_AT", 0)
    monkeypatch.setattr(doors, "BUSY", math.inf)
    if scratch == "none":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    lake = tmp_path / "lake"
    with open_client(Sandbox(World(seed=1, jobs=30))) as client:
        dump_export_jobs(lake, client=client, progress=False)
    assert len(late) == (scratch == "none")
    ahead = (lake / "_jobs.duckdb").read_bytes()
    (lake / "_jobs.duckdb").unlink()
    renew_catalogue(lake, run="2")
    assert (lake / "_jobs.duckdb").read_bytes() == ahead


def test_ctrl_c_cannot_interrupt_the_import_of_duckdb(tmp_path: Path) -> None:
    """The thread that compiles imports DuckDB, which aborts the process if an interrupted import is repeated."""
    script = """
import sys, threading

class Spy:
    def find_spec(self, name, *_):
        if name == "_duckdb":
            print(threading.current_thread().name)

sys.meta_path.insert(0, Spy())
from pleo_extract.answers import doors
doors.LOOKED_AT, doors.BUSY = 0, float("inf")
with doors.CatalogueAhead(sys.argv[1]) as ahead:
    ahead.note_page()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "lake")], check=True, capture_output=True, text=True
    )
    assert done.stdout == "catalogue_0\n"


@pytest.mark.parametrize("when", ["meanwhile", "at the end"])
@pytest.mark.parametrize("name", ["a?b", "a\\b"])
def test_no_catalogue_is_written_where_duckdb_opens_none(
    name: str,
    when: str,
    tmp_path: Path,
    open_client: OpenClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A first dump to such a path warns and leaves no file, whenever it compiles the catalogue."""
    if when == "meanwhile":
        monkeypatch.setattr(doors, "LOOKED_AT", 0)
        monkeypatch.setattr(doors, "BUSY", math.inf)
    lake = tmp_path / name
    with open_client(Sandbox(World(seed=1, jobs=30))) as client:
        dump_export_jobs(lake, client=client, progress=False)
    assert "DuckDB opens no file with a" in caplog.text
    assert not (lake / "_jobs.duckdb").exists()
