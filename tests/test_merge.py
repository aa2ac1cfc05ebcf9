"""Merging two lakes: the union, its sync states, what is refused, and kills in between."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lakes import killed_at, list_months, publish_staged, spoil_month
from warehouse_jobs import frame, job

from pleo_extract import Client, connect, dump_export_jobs, merge_lakes, scan_lake, verify_lake
from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.core.rows import FILE_ORDER, find_news, merge_rows
from pleo_extract.core.state import AccountKey, SyncState, join_accounts
from pleo_extract.errors import (
    ConfigurationError,
    CredentialsError,
    LakeError,
    LakeLocked,
    StorageError,
    UsageError,
)
from pleo_extract.lake import disk, merging
from pleo_extract.lake.folder.lake import FolderLake
from pleo_extract.lake.folder.repair import repair_lake
from pleo_extract.lake.journal import Header
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.record import read_last_run
from pleo_extract.lake.staging import Staging
from pleo_extract.lake.store import is_delta, open_lake
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Said

    from pleo_extract.sync.receipt import Receipt

DAY = 86_400.0
NOW = datetime(2026, 11, 24, tzinfo=UTC)
SERVER = "https://sandbox.invalid"


class Pair(NamedTuple):
    """Two lakes of one world with two companies each; the second was read five days later."""

    world: World
    sandbox: Sandbox
    first: Path
    second: Path

    def dump(self, lake: Path, company: str | None, **options: Any) -> Receipt:
        """Dump one company."""
        with Client("http://127.0.0.1:1", api_key=API_KEY, transport=self.sandbox, rate=10_000_000) as client:
            return dump_export_jobs(lake, company_id=company, client=client, progress=False, **options)

    def wrong(self, lake: Path) -> list[Any]:
        """Return what is wrong with a lake, by the sandbox's oracle."""
        rows = scan_lake(lake).collect().drop("extra").to_dicts()
        return self.sandbox.truth(rows, self.world.now)


def make_pair(folder: Path, jobs: int = 300, days: int = 100) -> Pair:
    """Dump both lakes."""
    world = World(jobs=jobs, days=days, seed=3)
    pair = Pair(world, Sandbox(world), folder / "first", folder / "second")
    for company in world.companies[:4]:
        pair.dump(pair.first, company)
    world.advance(5 * DAY)
    for company in world.companies[2:]:
        pair.dump(pair.second, company)
    return pair


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Return both lakes, made once; tests that change them copy them."""
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def pair(made: Pair, tmp_path: Path) -> Pair:
    """Return copies of both lakes."""
    for lake in (made.first, made.second):
        shutil.copytree(lake, tmp_path / lake.name, symlinks=True)
    return made._replace(first=tmp_path / "first", second=tmp_path / "second")


def rows_of(lake: Path) -> pl.DataFrame:
    """Return all rows, in a file's order."""
    return scan_lake(lake).collect().sort(FILE_ORDER)


def union(*lakes: Path) -> pl.DataFrame:
    """Return the union of lakes; of one job at one instant the last lake's row."""
    return merge_rows(*map(rows_of, lakes))


def bytes_of(lake: Path) -> dict[str, str]:
    """Return the published files and their bytes."""
    names = ("created_month=*/*", "_lake/current", "_lake/snapshots/*", "_lake/objects/*", "_delta_log/*")
    files = [path for name in names for path in lake.glob(name)]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# The union


@pytest.mark.slow
@pytest.mark.parametrize("given", ["parquet", "delta"])
@pytest.mark.parametrize("target", ["parquet", "delta"])
@pytest.mark.parametrize("small", [False, True])
def test_a_merged_lake_is_the_union(
    given: Any, target: Any, *, small: bool, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merged lake has every job of both once, in its latest row, for all kinds of lakes and sizes of pieces."""
    if small:
        monkeypatch.setattr("pleo_extract.sync.merge.BATCH", 7)
        for name in ("PIECE", "RUN", "SLICE"):
            monkeypatch.setattr(merging, name, 10)
    source, into = tmp_path / "source", tmp_path / "into"
    merge_lakes(pair.second, source, format=given)
    expected, before = union(pair.first, pair.second), bytes_of(source)
    copied = merge_lakes(pair.first, into, format=target)
    assert (copied.published, copied.taken, copied.lake_rows) == (
        True,
        copied.rows,
        rows_of(pair.first).height,
    )
    receipt = merge_lakes(source, into)
    assert (is_delta(source), is_delta(into)) == (given == "delta", target == "delta")
    assert rows_of(into).equals(expected)
    assert (receipt.published, receipt.lake_rows) == (True, expected.height)
    assert 0 < receipt.taken < receipt.rows == rows_of(pair.second).height
    assert verify_lake(into).ok
    assert bytes_of(source) == before


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_run_again_it_changes_nothing(kind: Any, pair: Pair, tmp_path: Path) -> None:
    """A second merge changes no row, file, state or version."""
    into = tmp_path / "into"
    merge_lakes(pair.first, into, format=kind)
    merge_lakes(pair.second, into)
    before, states = bytes_of(into), open_lake(into).open()
    for source in (pair.second, pair.first):
        receipt = merge_lakes(source, into)
        assert (receipt.taken, receipt.published, receipt.months_written) == (0, False, [])
    assert bytes_of(into) == before
    assert open_lake(into).open() == states


def test_the_order_of_merging_is_no_matter(pair: Pair, tmp_path: Path) -> None:
    """Merging in either direction gives the same jobs and companies."""
    for number, lakes in enumerate([(pair.first, pair.second), (pair.second, pair.first)]):
        for lake in lakes:
            merge_lakes(lake, tmp_path / str(number))
    assert rows_of(tmp_path / "0").equals(rows_of(tmp_path / "1"))
    found = [open_lake(tmp_path / name).open() for name in "01"]
    assert found[0] and found[1]  # noqa: PT018 - for the type checker
    assert found[0].manifest.accounts.keys() == found[1].manifest.accounts.keys()
    assert len(found[0].manifest.accounts) == len(pair.world.companies)


VERSIONS = st.lists(
    st.builds(
        lambda number, status, hours: job(
            number, status, last_updated_at=None if hours is None else NOW + timedelta(hours=hours)
        ),
        st.integers(0, 4),
        st.sampled_from(["pending", "completed"]),
        st.none() | st.integers(0, 2),
    ),
    max_size=6,
    unique_by=lambda row: row["id"],
)


@given(lake=VERSIONS, rows=VERSIONS, later=st.booleans())
def test_what_is_taken_is_what_the_rule_of_merging_takes(
    lake: list[Any], rows: list[Any], *, later: bool
) -> None:
    """Merging only rows that are news gives the same lake as merging all rows."""
    mine, theirs = frame(lake), frame(rows)
    news = find_news(mine, theirs, fetched_later=theirs["company_id"].to_list() if later else [])
    expected = merge_rows(mine, theirs) if later else merge_rows(theirs, mine)
    assert merge_rows(mine, news).equals(expected)
    assert news.height == expected.join(mine, on=mine.columns, how="anti", nulls_equal=True).height


def test_the_receipt_says_where_it_came_from(pair: Pair, pleo: Callable[..., Said]) -> None:
    """Manifest, record and output of a merge name the source and its snapshot."""
    number = Layout(pair.second).numbers()[-1]
    before = read_last_run(Layout(pair.first))
    said = pleo("merge", pair.second, pair.first)
    assert said.code == 0
    assert f"taken from {pair.second}, snapshot {number}" in said.out
    layout = Layout(pair.first)
    manifest, last = layout.manifest(layout.numbers()[-1]), read_last_run(layout)
    assert before and last  # noqa: PT018 - for the type checker
    assert manifest.receipt["source"] == f"{pair.second}, snapshot {number}"
    assert (manifest.receipt["mode"], last.receipt["mode"], last.code) == ("merge", "merge", 0)
    assert last.last_complete_at == before.last_complete_at, "nothing was read from the server"
    assert pleo("merge", pair.second, pair.first, "--quiet").out == ""


@pytest.mark.catalogue
def test_the_catalogue_has_what_was_merged(pair: Pair) -> None:
    """Other DuckDB clients see the union and the names of the companies."""
    merge_lakes(pair.second, pair.first)
    with connect(pair.first) as con:
        (count,) = con.sql("select count(*) from export_jobs").fetchall()[0]
        con.sql(f"attach '{pair.first / '_jobs.duckdb'}' as other (read_only)")
        assert con.sql("select count(*) from other.export_jobs").fetchall() == [(count,)]


# The dump after it


@pytest.mark.parametrize("turned", [False, True])
def test_the_next_dump_is_right(*, turned: bool, pair: Pair) -> None:
    """After a merge in either direction each company is refreshed, and the lake equals the server."""
    world = World(jobs=300, days=100, seed=3)
    world.advance(5 * DAY)
    world.advance(3 * DAY)
    now = pair._replace(world=world, sandbox=Sandbox(world))
    source, target = (pair.first, pair.second) if turned else (pair.second, pair.first)
    merge_lakes(source, target)
    for company in world.companies:
        assert now.dump(target, company).mode == "refresh"
    assert now.wrong(target) == []
    assert verify_lake(target).ok


def test_a_company_that_one_has_read_in_part_is_read_in_full(pair: Pair) -> None:
    """Of a company in both lakes the more careful state stays, and the others are refreshed."""
    news = union(pair.first, pair.second).join(rows_of(pair.first), on=KEY, how="anti")
    known = {key.rpartition(" ")[2] for key in Layout(pair.first).manifest(4).accounts}
    company = next(each for each in news["company_id"] if each in known)
    path = Layout(pair.second).manifest_file(Layout(pair.second).numbers()[-1])
    reported = json.loads(path.read_text())
    reported["accounts"][f"http://127.0.0.1:1 {company}"]["verdict"] = "incomplete"
    path.write_text(json.dumps(reported))
    merge_lakes(pair.second, pair.first)
    modes = {each: pair.dump(pair.first, each).mode for each in pair.world.companies}
    assert {each for each, mode in modes.items() if mode == "full"} == {company}
    assert pair.wrong(pair.first) == []


def test_a_copy_goes_on_as_the_lake_did(pair: Pair, tmp_path: Path) -> None:
    """A lake merged into an empty one keeps its state: the next dump is a refresh."""
    pair.dump(tmp_path / "all", None)
    merge_lakes(tmp_path / "all", tmp_path / "copy", format="delta")
    assert rows_of(tmp_path / "copy").equals(rows_of(tmp_path / "all"))
    assert pair.dump(tmp_path / "copy", None).mode == "refresh"


def test_a_lake_of_any_company_is_read_in_full_once_it_has_others(tmp_path: Path) -> None:
    """A state for all companies does not cover merged rows: the next walk is full."""
    world = World(jobs=300, days=100, seed=3)
    pair = Pair(world, Sandbox(world), tmp_path / "all", tmp_path / "one")
    pair.dump(pair.first, None)
    shutil.copytree(pair.first, tmp_path / "before", symlinks=True)
    world.advance(10 * DAY)
    pair.dump(pair.second, world.companies[0])
    assert merge_lakes(pair.second, pair.first).taken
    assert pair.dump(tmp_path / "before", None).mode == "refresh"
    assert pair.dump(pair.first, None).mode == "full"
    assert pair.wrong(pair.first) == []


def state(day: int, **fields: Any) -> SyncState:
    """Return a complete sync state as of a day."""
    at = NOW + timedelta(days=day)
    usual: dict[str, Any] = {
        "verdict": "complete",
        "order": "strict",
        "watermark": (at.isoformat(), ""),
        "full_at": at,
        "updated_at": at,
        "full_jobs": day,
    }
    return SyncState(**(usual | fields))


A, B, ANY = (AccountKey.of(SERVER, company) for company in ("a", "b", None))


def test_the_state_of_both_is_the_more_careful_one() -> None:
    """The merged state has the worse verdict and order, the earlier watermark and full sync, and what either misses."""
    mine = {A: state(3, name="Acme", order="created"), B: state(1)}
    joined = join_accounts(mine, {A: state(2, verdict="complete_with_drift")}, taken={"a"})
    assert joined.keys() == {A}
    found = joined[A]
    assert (found.name, found.verdict, found.order) == ("Acme", "complete_with_drift", "created")
    assert (found.watermark, found.full_at, found.full_jobs) == (state(2).watermark, state(2).full_at, 3)
    assert found.updated_at is not None
    assert found.updated_at > NOW + timedelta(days=3)


@pytest.mark.parametrize(
    "fields", [{"watermark": None}, {"full_at": None}, {"vanished": [("a", "1")]}, {"rejected": ["a/1"]}]
)
def test_what_one_does_not_know_both_do_not_know(fields: dict[str, Any]) -> None:
    """If one walk was incomplete, or the lakes disagree about missing jobs, the next walk is full."""
    for mine, theirs in ((state(1), state(2, **fields)), (state(2, **fields), state(1))):
        found = join_accounts({A: mine}, {A: theirs}, taken={"a"})[A]
        assert found.watermark is None or found.full_at is None
        assert (found.vanished, found.rejected) == (fields.get("vanished", []), fields.get("rejected", []))


def test_states_of_which_nothing_was_taken_stay() -> None:
    """A source without news does not change the state; a new company comes with its state."""
    mine, theirs = {A: state(1), ANY: state(1)}, {A: state(2), B: state(2)}
    assert join_accounts(mine, theirs, taken=()) == {B: state(2)}
    assert join_accounts({}, {ANY: state(2)}, taken={"a"}) == {ANY: state(2)}
    assert join_accounts(mine, theirs, taken={"b"})[ANY].full_at is None
    assert join_accounts({A: state(1)}, {ANY: state(2)}, taken=())[ANY].full_at is None


def test_f58_now_comes_from_each_source() -> None:
    """A merge without news still updates `now`, and repeating it is a no-op."""
    mine, theirs = (
        {A: state(1, data_as_of=NOW), ANY: state(1)},
        {A: state(2, data_as_of=NOW + timedelta(days=9))},
    )
    joined = join_accounts(mine, theirs, taken=())
    assert joined[A] == state(1, data_as_of=NOW + timedelta(days=9))
    assert join_accounts(mine | joined, theirs, taken=()) == {}
    assert join_accounts(joined, mine, taken={"a"})[A].data_as_of == NOW + timedelta(days=9)
    assert join_accounts({ANY: state(1)}, {ANY: state(1, data_as_of=NOW)}, taken={"a"})[ANY].data_as_of == NOW


# At the door


def spoil_size(lake: Path) -> None:
    """Append to a file."""
    path = list_months(lake)[0]
    spoil_month(path, path.read_bytes() + b"more")


def spoil_bytes(lake: Path) -> None:
    """Change a file without changing its size."""
    path = list_months(lake)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    spoil_month(path, bytes(data))


def spoil_pointer(lake: Path) -> None:
    """Remove the pointer."""
    (lake / "_lake/current").unlink()


@pytest.mark.parametrize("spoil", [spoil_size, spoil_bytes, spoil_pointer])
@pytest.mark.parametrize("which", ["first", "second"])
def test_a_damaged_lake_is_refused(which: str, spoil: Callable[[Path], None], pair: Pair) -> None:
    """A damaged file on either side gives 65, and nothing is published or left behind."""
    spoil(getattr(pair, which))
    before = bytes_of(pair.first)
    with pytest.raises(LakeError):
        merge_lakes(pair.second, pair.first)
    assert bytes_of(pair.first) == before
    assert not list(pair.first.glob("_lake/staging/*"))


def test_what_is_no_lake_is_refused(pair: Pair, tmp_path: Path) -> None:
    """A missing or empty source, or the target itself, is refused, and no target is created."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(pair.first)
    into = tmp_path / "into"
    for source, target, error in (
        (tmp_path / "none", into, LakeError),
        (tmp_path / "empty", into, LakeError),
        (pair.first, pair.first, UsageError),
        (tmp_path / "link", pair.first, UsageError),
        (pair.first, pair.first / "inside", UsageError),
        (pair.first / "inside", pair.first, UsageError),
        ("s3://bucket/lake", "s3://bucket/lake/", UsageError),
    ):
        with pytest.raises(error):
            merge_lakes(source, target)
    assert not into.exists()
    assert not list((tmp_path / "empty").iterdir())
    with pytest.raises(UsageError, match="object store"):
        merge_lakes(pair.first, into, storage_options={"aws_region": "eu-west-1"})
    with pytest.raises(ConfigurationError, match="Parquet lake"):
        merge_lakes(pair.second, pair.first, format="delta")


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_lake_that_is_written_to_is_refused(which: str, pair: Pair) -> None:
    """If a run holds either lake, the merge gives 69."""
    with hold_lock(Layout(getattr(pair, which))), pytest.raises(LakeLocked, match=f"{which} is held"):
        merge_lakes(pair.second, pair.first)


def test_lakes_of_two_servers_stay_apart(pair: Pair) -> None:
    """Merging jobs of another server gives 78."""
    for path in pair.second.glob("_lake/snapshots/0*.json"):
        path.write_text(path.read_text().replace("127.0.0.1:1", "127.0.0.1:2"))
    with pytest.raises(ConfigurationError, match="needs a lake of its own"):
        merge_lakes(pair.second, pair.first)


def test_a_lake_that_does_not_know_its_server_is_not_mixed(pair: Pair) -> None:
    """A repaired lake that lost its server gives 78, as source and as target."""
    for path in pair.second.glob("_lake/**/*.json"):
        path.unlink()
    repair_lake(pair.second)
    for source, target in ((pair.second, pair.first), (pair.first, pair.second)):
        with pytest.raises(ConfigurationError, match="second holds is not known since it was repaired"):
            merge_lakes(source, target)


def test_of_runs_that_published_nothing_nothing_is_taken(pair: Pair, tmp_path: Path) -> None:
    """A source that never published contributes nothing, creates no target, and does not stop other merges."""
    failed = tmp_path / "failed"
    with (
        Client("http://127.0.0.1:1", api_key="wrong", transport=pair.sandbox) as client,
        pytest.raises(CredentialsError),
    ):
        dump_export_jobs(failed, client=client)
    assert not merge_lakes(failed, tmp_path / "into").published
    assert not (tmp_path / "into").exists()
    receipt = merge_lakes(failed, pair.first)
    assert (receipt.published, receipt.taken, receipt.lake_rows) == (False, 0, rows_of(pair.first).height)


def test_a_pointer_lost_after_a_failed_merge_is_noticed(pair: Pair) -> None:
    """The record of a failed merge still shows that the lake had a snapshot whose pointer is lost."""
    for path in pair.second.glob("_lake/snapshots/0*.json"):
        path.write_text(path.read_text().replace("127.0.0.1:1", "127.0.0.1:2"))
    with pytest.raises(ConfigurationError):
        merge_lakes(pair.second, pair.first)
    (pair.first / "_lake/current").unlink()
    (pair.first / "_jobs.duckdb").unlink()
    with pytest.raises(LakeError, match="pointer"):
        scan_lake(pair.first)


# Killed


STEP = 1 if os.environ.get("TORTURE") == "full" else 7
"""The test tries one of this many storage calls."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Return two small lakes of two months."""
    return make_pair(tmp_path_factory.mktemp("small"), jobs=60, days=40)


@pytest.mark.slow
def test_killed_at_any_storage_call_it_can_be_run_again(small: Pair, tmp_path: Path) -> None:
    """A merge killed at any call leaves the old lake or the union, and the next merge completes it."""
    was, expected = rows_of(small.first), union(small.first, small.second)
    seen = set()
    for number in range(0, 10_000, STEP):
        lake = tmp_path / str(number)
        shutil.copytree(small.first, lake, symlinks=True)
        with killed_at(number + 1) as calls:
            merge_lakes(small.second, lake)
        found = rows_of(lake)
        assert found.equals(was) or found.equals(expected), (number, calls)
        seen.add(found.height)
        receipt = merge_lakes(small.second, lake)
        assert rows_of(lake).equals(expected), (number, calls)
        assert receipt.published == (found.height == was.height)
        assert verify_lake(lake).ok
        assert not list(lake.glob("_lake/staging/*"))
        shutil.rmtree(lake)
        if len(calls) <= number:
            break
    assert seen == {was.height, expected.height}


def test_f39_a_full_disk_is_told_and_nothing_is_published(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk error gives 74 with a record, and the lake does not change."""
    before = bytes_of(pair.first)

    replace_file = disk.replace_file

    def refuse(path: Path, *args: Any, **given: Any) -> None:
        if path.name == "current":
            raise StorageError("cannot write: no space left")
        replace_file(path, *args, **given)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "replace_file", refuse)
        with pytest.raises(StorageError) as caught:
            merge_lakes(pair.second, pair.first)
    last = read_last_run(Layout(pair.first))
    assert last is not None
    assert (last.code, last.published, last.receipt["mode"]) == (74, False, "merge")
    assert caught.value.receipt is not None
    assert {path: sum_ for path, sum_ in bytes_of(pair.first).items() if path in before} == before
    assert merge_lakes(pair.second, pair.first).published


def test_keys_are_what_jobs_are_told_apart_by() -> None:
    """One id in two companies is two jobs."""
    mine, theirs = frame([job(1)]), frame([job(1, company_id="00000000-0000-4000-8000-00000000000b")])
    assert find_news(mine, theirs, fetched_later=[]).select(KEY).equals(theirs.select(KEY))
    assert find_news(mine, theirs, fetched_later=[]).schema == POLARS_SCHEMA


PEAK = """
import resource, sys
from pleo_extract import merge_lakes
for source in sys.argv[2:]:
    merge_lakes(source, sys.argv[1], progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make_large(place: Path, jobs: range, every: float) -> Path:
    """Write a lake of these jobs of 50 companies, each created some seconds after the previous one."""
    number = pl.col("number")
    created = pl.lit(NOW) + pl.duration(milliseconds=number * int(every * 1000))
    known = {
        "id": pl.concat_str(pl.lit("00000000-0000-4000-8000-"), number.cast(pl.String).str.zfill(12)),
        "company_id": pl.concat_str(
            pl.lit("00000000-0000-4000-8000-"), (number % 50).cast(pl.String).str.zfill(12)
        ),
        "status": pl.lit("completed"),
        "created_at": created,
        "last_updated_at": created,
    }
    store = FolderLake(place)
    layout = store.layout
    with store.hold():
        start = Header(run="run", mode="full", base=0, started_at=datetime.now(UTC))
        staging = Staging.start(layout.staging, "binding", start)
        for first in range(jobs.start, jobs.stop, 20_000):
            numbers = pl.int_range(first, min(first + 20_000, jobs.stop), eager=True).to_frame("number")
            columns = [
                known.get(name, pl.lit(None)).cast(kind).alias(name) for name, kind in POLARS_SCHEMA.items()
            ]
            staging.add(numbers.select(columns))
        publish_staged(store, staging)
    return place


@pytest.mark.slow
def test_f45_little_memory_to_merge(tmp_path: Path) -> None:
    """Ten times the jobs need at most half as much memory again, all new or half of them known."""
    peaks = []
    for jobs in (20_000, 200_000):
        every = 300 * DAY / jobs
        folder = tmp_path / str(jobs)
        folder.mkdir()
        sources = [
            make_large(folder / "first", range(jobs), every),
            make_large(folder / "second", range(jobs // 2, jobs + jobs // 2), every),
        ]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(folder / "into"), *map(str, sources)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
        assert scan_lake(folder / "into").select(pl.len()).collect().item() == jobs + jobs // 2
    assert peaks[1] < 1.5 * peaks[0]
