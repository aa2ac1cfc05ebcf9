"""A Delta table on S3 (SeaweedFS) and on Azure (azurite): other readers, kills, races and store faults."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable
from lakes import draw_state

from pleo_extract import connect, scan_lake
from pleo_extract.contract import COLUMNS
from pleo_extract.core.state import AccountKey
from pleo_extract.errors import UsageError
from pleo_extract.lake.delta.address import read_address
from pleo_extract.lake.delta.change import make_state
from pleo_extract.lake.delta.version import Version
from pleo_extract.lake.table import Base, Change, Info

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from stores.conftest import Home

DAY = 86_400.0


def _read_by_all(home: Home) -> dict[str, pl.DataFrame]:
    """Return the table as Polars, pyarrow, DuckDB (without httpfs), Spark and this library read it."""
    keys = home.store.with_keys()
    table = DeltaTable(home.uri, storage_options=keys)
    arrow = table.to_pyarrow_table(columns=list(COLUMNS))
    with duckdb.connect() as con:
        con.register("jobs", arrow)
        others = con.sql(f"select {', '.join(COLUMNS)} from jobs").pl()
    ours = {"storage_options": keys, "workspace": home.folder / "reader"}
    con = connect(home.uri, locked=True, **ours)  # type: ignore[arg-type]
    asked = con.sql("select * from export_jobs").pl()
    con.close()
    return {
        "polars": pl.scan_delta(home.uri, storage_options=keys, credential_provider=None).collect(),
        "pyarrow": pl.DataFrame(arrow),
        "duckdb": others,
        "spark": home.spark.read(home, home.folder / "spark"),
        "scan_lake": scan_lake(home.uri, **ours).collect(),  # type: ignore[arg-type]
        "connect": asked,
    }


def _is_right(home: Home) -> bool:
    """Check that the table equals the server's list for every reader, and is not damaged."""
    truth = home.truth()
    for name, found in _read_by_all(home).items():
        rows = found.select(COLUMNS).with_columns(pl.col("^.*_at$").dt.convert_time_zone("UTC")).sort("id")
        assert rows.drop("expires_in").equals(truth), name
    return home.run("verify", machine="another")[0] == 0


def test_dumped_refreshed_and_read_by_all(home: Home) -> None:
    """A dumped and refreshed table equals the server's list for every reader, and every command accepts it."""
    assert home.run("dump")[0] == 0
    home.world.advance(2 * DAY)
    code, said = home.run("dump")
    assert (code, ", incremental sync: " in said) == (0, True)
    code, said = home.run("dump")
    assert (code, "nothing new" in said) == (0, True)
    assert _is_right(home)
    keys = home.store.with_keys()
    with contextlib.closing(
        connect(home.uri, 1, storage_options=keys, workspace=home.folder / "reader")
    ) as con:
        assert con.sql("select count(*) from export_jobs").fetchall() == [(1_200,)]
    assert DeltaTable(home.uri, storage_options=keys).version() == 2
    for words in (("status",), ("verify",), ("plan",), ("sql", "from failure_rates('month')")):
        assert home.run(*words, machine="fresh")[0] == 0


POINTS: dict[str, tuple[str, bool]] = {
    "before a file": ("created_month", False),
    "after a file": ("created_month", True),
    "before the commit": ("_delta_log/00000000000000000002.json", False),
    "after the commit": ("_delta_log/00000000000000000002.json", True),
}


@pytest.mark.parametrize("point", POINTS)
def test_f34_writer_killed(home: Home, point: str) -> None:
    """A writer killed around a file or the commit leaves one complete version, and the next run repairs it."""
    part, after = POINTS[point]
    assert home.run("dump")[0] == 0
    home.world.advance(2 * DAY)
    running: list[subprocess.Popen[str]] = []

    def kill(method: str, path: str) -> None:
        if method in ("PUT", "POST") and part in path.replace("%3D", "="):
            running[0].kill()

    def fault_for(method: str, path: str) -> str | None:
        kill(method, path)
        return "reset" if running[0].poll() is not None else None

    if after:
        home.store.proxy.after = kill
    else:
        home.store.proxy.fault_for = fault_for
    running.append(home.start("dump", faulty=True))
    assert home.end(running[0])[0] == -9
    home.store.proxy.calm()
    assert home.run("verify", machine="another")[0] == 0
    assert home.run("dump")[0] == 0
    assert _is_right(home)


def test_f47_writers_race(home: Home) -> None:
    """Two machines that start together both succeed; a third that meets a conflict merges again."""
    first = [home.start("dump", machine=name) for name in ("one", "two")]
    assert [home.end(process)[0] for process in first] == [0, 0], home.said
    assert _is_right(home)
    home.world.advance(2 * DAY)
    overtaken = threading.Event()

    def fault_for(method: str, path: str) -> str | None:
        if method == "PUT" and "_delta_log" in path and not overtaken.is_set():
            overtaken.set()
            assert home.run("dump", machine="two")[0] == 0
            home.world.advance(DAY)
        return None

    home.store.proxy.fault_for = fault_for
    code, said = home.run("dump", faulty=True)
    assert (code, overtaken.is_set()) == (0, True), said
    assert home.run("dump")[0] == 0
    assert _is_right(home)


@pytest.mark.parametrize("moment", ["it is made", "it was made"])
def test_f47_first_dumps_race(home: Home, moment: str) -> None:
    """Two machines that create the same table at the same time both succeed."""
    overtaken = threading.Event()

    def overtake(method: str, path: str) -> None:
        if method in ("PUT", "POST") and "_delta_log/00000000000000000000.json" in path:
            overtaken.set()
            home.store.proxy.calm()
            assert home.run("dump", machine="two")[0] == 0
            home.world.advance(DAY)

    def fault_for(method: str, path: str) -> str | None:
        overtake(method, path)
        return None

    if moment == "it is made":
        home.store.proxy.fault_for = fault_for
    else:
        home.store.proxy.after = overtake
    code, said = home.run("dump", faulty=True)
    assert (code, overtaken.is_set()) == (0, True), said
    assert home.run("dump")[0] == 0
    assert _is_right(home)


FAULTS: dict[str, Callable[[str, str, int], str | None]] = {
    "503": lambda _method, _path, number: "503" if number % 3 == 0 else None,
    "reset": lambda _method, _path, number: "reset" if number % 4 == 0 else None,
    "commit lost": lambda method, path, number: (
        "lost" if method == "PUT" and "0002.json" in path and number >= 0 else None
    ),
    "commit 503": lambda method, path, number: (
        "503" if method == "PUT" and "0002.json" in path and number >= 0 else None
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_f46_store_that_fails(home: Home, fault: str) -> None:
    """A dump survives 503, resets and a lost response to the commit, if they are temporary."""
    assert home.run("dump")[0] == 0
    home.world.advance(2 * DAY)
    failed: list[str] = []

    def fault_for(method: str, path: str) -> str | None:
        injected = FAULTS[fault](method, path, len(home.store.proxy.asked))
        if injected is not None:
            failed.append(path)
        limit = 1 if fault.startswith("commit") else 1_000
        return injected if len(failed) <= limit else None

    home.store.proxy.fault_for = fault_for
    code, said = home.run("dump", faulty=True)
    assert (code, bool(failed)) == (0, True), said
    home.store.proxy.calm()
    assert _is_right(home)
    assert DeltaTable(home.uri, storage_options=home.store.with_keys()).version() == 2


def test_f46_store_that_never_answers(home: Home) -> None:
    """A store that always answers 503 gives 75 within the request timeout, and the table does not change."""
    assert home.run("dump")[0] == 0
    home.world.advance(2 * DAY)
    home.store.proxy.fault_for = lambda method, path: "503" if method in ("PUT", "POST") else None
    home.store.faulty |= {"max_retries": "2", "retry_timeout": "10s"}
    code, said = home.run("dump", faulty=True)
    assert code == 75, said
    home.store.proxy.calm()
    assert home.run("verify")[0] == 0
    assert home.run("dump")[0] == 0
    assert _is_right(home)


def test_it_forgets(home: Home) -> None:
    """A job forgotten on one machine does not come back from another, and no older version can be read."""
    assert home.run("dump")[0] == 0
    home.world.advance(DAY)
    assert home.run("dump")[0] == 0
    job = home.world.visible()[100]["id"]
    code, said = home.run("forget", "--job", job, "--yes", machine="another")
    assert (code, "1 row removed" in said) == (0, True), said
    keys = home.store.with_keys()
    for number, machine in enumerate(("one", "another", "one", "fresh")):
        rows = scan_lake(home.uri, storage_options=keys, workspace=home.folder / f"reader-{number}").collect()
        assert (job in rows["id"], rows.height) == (False, home.truth().height - 1)
        code, said = home.run("dump", machine=machine)
        assert (code, ", incremental sync: " in said) == (0, True), said
        assert home.run("verify", machine=machine)[0] == 0
        for copy in (home.folder / machine).rglob("*.parquet"):
            assert job not in pl.read_parquet(copy)["id"]
    with pytest.raises(UsageError, match="no longer kept"):
        scan_lake(home.uri, 1, storage_options=keys, workspace=home.folder / "reader")


def test_many_companies_cost_few_requests(home: Home) -> None:
    """With 10,000 companies, `status` and a run without news get at most 1 MB, in 6 requests more than delta-rs's own.

    There are 100 commits in S3. Each takes a second, so that in Azure there are 20, which has two checkpoints too.
    """
    assert home.run("dump")[0] == 0
    address = read_address(home.uri, home.store.with_keys(), home.folder / "writer")
    accounts = {AccountKey(f"{home.server} {n:08d}"): draw_state(n) for n in range(10_000)}
    for n in range(100 if home.uri.startswith("s3://") else 20):
        version = Version(address)
        base = Base(version.version, version.manifest, version.manifest.files)
        state = make_state(
            version, f"run {n}", Change(base), Info(home.server, version.manifest.receipt, accounts)
        )
        version.commit([], [], state)
    for words in (["dump"], ["status", "--json"]):  # the first run of this machine copies the data files
        assert home.run(*words, faulty=True)[0] == 0
    proxy = home.store.proxy
    proxy.calm()
    DeltaTable(home.uri, storage_options=home.store.with_keys() | home.store.faulty)
    least = len(proxy.asked)
    for words in (["dump"], ["status", "--json"]):
        proxy.calm()
        code, said = home.run(*words, faulty=True)
        assert code == 0, said
        assert len(proxy.asked) <= least + 6, proxy.asked
        assert sum(proxy.given) <= 1_000_000
