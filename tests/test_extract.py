"""The verbs against servers that keep the contract in every way it leaves open, and against some that break it."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import polars as pl
import pyarrow.dataset as pads
import pytest
from canary import CANARY
from cases import mostly_slow
from lakes import list_months

from pleo_extract import (
    COLUMNS,
    POLARS_SCHEMA,
    Client,
    Query,
    dump_export_jobs,
    fetch_page,
    iter_export_jobs,
    load_export_jobs,
    scan_lake,
    verify_lake,
)
from pleo_extract.contract import KEY
from pleo_extract.errors import (
    ContractError,
    CredentialsError,
    IncompleteWalk,
    RejectedRows,
    TryLater,
    UsageError,
    WalkError,
)
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import Rules, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from pleo_extract.sandbox import Discrepancy

    OpenClient = Callable[[Sandbox], Client]
    MakeSandbox = Callable[..., Sandbox]

pytestmark = pytest.mark.usefixtures("read_in_segments")

HOSPITABLE = [
    {"max_limit": limit, "total": total, **sorting}
    for limit, total, sorting in itertools.product(
        (1, 20, 100, 1000),
        (True, False),
        (
            {},
            {"sorting": (), "unsortable": "refuse"},
            {"sorting": (), "unsortable": "ignore"},
            {"sorting": ("createdAt",), "unsortable": "refuse"},
        ),
    )
]
"""Servers that keep the contract: with page limits, without `total`, and with all, half or no sorting."""
SOME: Final = [rules for n, rules in enumerate(HOSPITABLE) if (n // 8 + n // 4 + n) % 2 == 0]
"""Half of them, with each pair of habits."""


def wrong(sandbox: Sandbox, frame: pl.DataFrame, since: datetime, **asked: Any) -> list[Discrepancy]:
    """Return what is wrong with a frame, by the sandbox's oracle."""
    return sandbox.truth(frame.drop("extra").to_dicts(), since, **asked)


@pytest.mark.parametrize("rules", HOSPITABLE, ids=str)
def test_load_brings_every_job_once(
    rules: dict[str, Any], open_client: OpenClient, make_sandbox: MakeSandbox
) -> None:
    """Any server that keeps the contract gives each job once with correct fields, while jobs change."""
    jobs = 60 if rules["max_limit"] == 1 else 450
    sandbox = make_sandbox(jobs=jobs, tick=600.0, **rules)
    since = sandbox.world.now
    frame = load_export_jobs(client=open_client(sandbox))
    assert wrong(sandbox, frame, since) == []
    assert frame.schema == POLARS_SCHEMA
    assert frame["created_at"].is_sorted()


@pytest.mark.parametrize("rules", SOME, ids=str)
def test_iterate_brings_every_job_once(
    rules: dict[str, Any], open_client: OpenClient, make_sandbox: MakeSandbox
) -> None:
    """The stream yields each job once, in batches of up to 20 pages."""
    jobs = 60 if rules["max_limit"] == 1 else 450
    sandbox = make_sandbox(jobs=jobs, tick=600.0, **rules)
    since = sandbox.world.now
    frames = list(iter_export_jobs(client=open_client(sandbox)))
    assert wrong(sandbox, pl.concat(frames), since) == []
    assert max(frame.height for frame in frames) <= 20 * rules["max_limit"]


@pytest.mark.parametrize("rules", mostly_slow(SOME, quick=6), ids=str)
def test_dump_brings_every_job_once(
    rules: dict[str, Any], open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """The lake has each job once with correct fields for Polars, DuckDB and pyarrow."""
    jobs = 60 if rules["max_limit"] == 1 else 450
    sandbox = make_sandbox(jobs=jobs, tick=600.0, **rules)
    since = sandbox.world.now
    receipt = dump_export_jobs(tmp_path / "lake", client=open_client(sandbox))
    assert wrong(sandbox, scan_lake(tmp_path / "lake").collect(), since) == []
    assert receipt.verdict in ("complete", "complete_with_drift")
    assert (receipt.code, receipt.published, receipt.rejected) == (0, True, 0)
    assert receipt.distinct == receipt.lake_rows
    assert verify_lake(tmp_path / "lake").ok


def test_plain_readers_see_columns_and_types(
    open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """`LAKE/*/*.parquet` has the designed columns and types in Polars, DuckDB and pyarrow."""
    dump_export_jobs(tmp_path, client=open_client(make_sandbox()))
    glob = str(tmp_path / "*/*.parquet")
    assert pl.read_parquet(glob, hive_partitioning=False).schema == POLARS_SCHEMA
    relation = duckdb.sql(f"from read_parquet('{glob}', hive_partitioning = false)")
    assert relation is not None
    assert relation.columns == list(COLUMNS)
    assert str(relation.types[3]) == "TIMESTAMP WITH TIME ZONE"
    files = sorted(map(str, tmp_path.glob("*/*.parquet")))
    arrow = pads.dataset(files).to_table()
    assert arrow.column_names == list(COLUMNS)
    assert str(arrow.schema.field("created_at").type) == "timestamp[us, tz=UTC]"
    assert arrow.num_rows == relation.count("*").fetchall()[0][0] == 300


def test_no_jobs_is_no_error(open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path) -> None:
    """An account without jobs gives an empty frame with all columns, an empty lake and an empty stream."""
    client = open_client(make_sandbox(jobs=0))
    assert load_export_jobs(client=client).schema == POLARS_SCHEMA
    assert list(iter_export_jobs(client=client)) == []
    assert next(iter_export_jobs(client=client), None) is None
    assert dump_export_jobs(tmp_path, client=client).lake_rows == 0
    assert scan_lake(tmp_path).collect().schema == POLARS_SCHEMA
    assert verify_lake(tmp_path).ok


def test_since_stops_early(open_client: OpenClient, make_sandbox: MakeSandbox) -> None:
    """With `since` a newest-first walk stops early and returns exactly the rows of the span."""
    sandbox = make_sandbox(jobs=2_000)
    client = open_client(sandbox)
    everything = load_export_jobs(client=client)
    since = everything["created_at"][-150]
    sandbox.requests.clear()
    frame = load_export_jobs(since=since, client=client)
    assert len(sandbox.requests) == 2
    assert frame.equals(everything.filter(pl.col("created_at") >= since))
    until = everything["created_at"][-50]
    assert load_export_jobs(since=since, until=until, client=client).equals(
        everything.filter(pl.col("created_at").is_between(since, until, closed="left"))
    )


@pytest.mark.parametrize("sorting", [{}, {"sorting": (), "unsortable": "ignore"}], ids=["sorted", "unsorted"])
@pytest.mark.parametrize("older", [1, 50, 250])
def test_jobs_before_since_are_no_shortfall(
    sorting: dict[str, Any], older: int, open_client: OpenClient, make_sandbox: MakeSandbox
) -> None:
    """A stream with `since` reads the list once, also to its end: jobs that it does not give out are counted."""
    sandbox = make_sandbox(jobs=500, **sorting)
    client = open_client(sandbox)
    everything = load_export_jobs(client=client)
    sandbox.requests.clear()
    frames = list(iter_export_jobs(since=everything["created_at"][older], client=client))
    assert pl.concat(frames).sort("created_at", "id").equals(everything[older:])
    assert len(sandbox.requests) <= 5


@pytest.mark.parametrize("unsortable", ["refuse", "ignore", "lie"])
def test_since_without_order_reads_to_the_end(
    unsortable: str, open_client: OpenClient, make_sandbox: MakeSandbox
) -> None:
    """Without a usable order `since` costs a full walk and returns the right rows."""
    sandbox = make_sandbox(jobs=500, sorting=(), unsortable=unsortable)
    client = open_client(sandbox)
    since = datetime(2026, 9, 1, tzinfo=UTC)
    frame = load_export_jobs(since=since, client=client)
    expected = [job for job in sandbox.world.visible() if job["createdAt"] >= "2026-09-01"]
    assert sorted(frame["id"]) == sorted(job["id"] for job in expected)
    assert expected


@pytest.mark.parametrize("filter_statuses", [True, False])
def test_statuses_are_kept_to(
    *, filter_statuses: bool, open_client: OpenClient, make_sandbox: MakeSandbox
) -> None:
    """Only jobs of the requested statuses are returned, even if the server ignores the parameter."""
    sandbox = make_sandbox(jobs=500, filter_statuses=filter_statuses)
    frame = load_export_jobs(statuses=["failed", "completed_with_errors"], client=open_client(sandbox))
    since = sandbox.world.now
    asked = frozenset({"failed", "completed_with_errors"})
    assert wrong(sandbox, frame, since, statuses=asked) == []
    assert set(frame["status"]) == asked


def test_company_id_from_argument_or_client(make_sandbox: MakeSandbox) -> None:
    """The company comes from the call or the client; upper case is the same UUID."""
    sandbox = make_sandbox(jobs=500)
    company = sandbox.world.visible()[0]["companyId"]
    with Client(
        "http://127.0.0.1:1", api_key=CANARY, transport=sandbox, company_id=company.upper()
    ) as client:
        at_client = load_export_jobs(client=client)
    with Client("http://127.0.0.1:1", api_key=CANARY, transport=sandbox) as client:
        in_call = load_export_jobs(company_id=company, client=client)
    assert at_client.equals(in_call)
    assert set(in_call["company_id"]) == {company}
    assert wrong(sandbox, in_call, sandbox.world.now, companies=frozenset({company})) == []


def test_f24_foreign_row_is_an_error(
    open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A server that ignores company_id is detected, and nothing is published."""
    sandbox = make_sandbox(filter_company=False)
    company = sandbox.world.visible()[0]["companyId"]
    with pytest.raises(WalkError, match="company"):
        load_export_jobs(company_id=company, client=open_client(sandbox))
    with pytest.raises(WalkError, match="company"):
        dump_export_jobs(tmp_path, company_id=company, client=open_client(sandbox))
    assert not (tmp_path / "_lake/current").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ("3:repeatcursor", WalkError),
        ("3:loop2,4:loop2,5:loop2", WalkError),
        ("2:nocursor", WalkError),
        ("2:badcursor", WalkError),
        ("2-:html", ContractError),
        ("2-:badjson", ContractError),
        ("2-:nodata", ContractError),
        ("2-:503", TryLater),
        ("2-:reset", TryLater),
        ("2-:cut", TryLater),
        ("2-:silence", TryLater),
        ("2-:redirect", ContractError),
        ("2-:401", CredentialsError),
        ("2-:403", CredentialsError),
    ],
)
def test_a_broken_server_leaves_the_lake_as_it_was(
    faults: str, error: type[Exception], open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A server that loops, cuts or refuses gives its error code and does not change the lake."""
    sandbox = make_sandbox(jobs=1_000)
    before = dump_export_jobs(tmp_path, client=open_client(sandbox))
    sandbox.world.advance(200_000)
    broken = Sandbox(sandbox.world, faults=faults)
    with pytest.raises(error) as caught:
        dump_export_jobs(tmp_path, client=open_client(broken), full=True)
    receipt = caught.value.receipt  # type: ignore[attr-defined]
    assert receipt["code"] == caught.value.code  # type: ignore[attr-defined]
    assert receipt["verdict"] == "incomplete"
    assert not receipt["published"]
    assert Layout(tmp_path).number() == before.snapshot
    assert verify_lake(tmp_path).ok
    assert json.loads((tmp_path / "_lake/last_run.json").read_text())["code"] == caught.value.code  # type: ignore[attr-defined]
    with pytest.raises(error):
        load_export_jobs(client=open_client(Sandbox(sandbox.world, faults=faults)))
    after = dump_export_jobs(tmp_path, client=open_client(sandbox))
    assert wrong(sandbox, scan_lake(tmp_path).collect(), sandbox.world.now) == []
    assert after.verdict == "complete"


@pytest.mark.parametrize(
    "faults",
    ["2:503,4:429,6:reset,7:cut,8:drip", "*:reset=0.2", "2:429date,3:429junk,4:429none", "3:html,4:badjson"],
)
def test_passing_faults_are_survived(
    faults: str, open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """After temporary faults each job appears once, and retries are counted by kind."""
    sandbox = make_sandbox(jobs=1_000, faults=faults, tick=60.0)
    since = sandbox.world.now
    receipt = dump_export_jobs(tmp_path, client=open_client(sandbox))
    assert wrong(sandbox, scan_lake(tmp_path).collect(), since) == []
    assert receipt.retries > 0
    assert sum(receipt.faults.values()) == receipt.retries
    assert receipt.requests == receipt.pages + receipt.retries


@pytest.mark.parametrize(
    ("total", "verdict"),
    [
        ("big", "complete_with_drift"),
        ("small", "complete_with_drift"),
        ("negative", "complete"),
        ("shrinking", "complete_with_drift"),
    ],
)
def test_f20_total_is_a_cross_check(
    total: str, verdict: str, open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A wrong `total` costs at most a second pass; the same jobs twice are published with that note."""
    sandbox = make_sandbox(jobs=450, total=total)
    receipt = dump_export_jobs(tmp_path, client=open_client(sandbox))
    assert receipt.verdict == verdict
    assert receipt.code == 0
    assert wrong(sandbox, scan_lake(tmp_path).collect(), sandbox.world.now) == []
    if total == "big":
        assert "total_untrusted" in receipt.why
        assert receipt.pages == 10 + 2  # two passes, the closing reads
    assert load_export_jobs(client=open_client(sandbox)).height == 450


def test_f21_list_that_ends_early_once_is_read_again(
    open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A hasNextPage that is false too early leads to one more pass, which finds all jobs."""
    sandbox = make_sandbox(jobs=900, faults="3:endsearly")
    since = sandbox.world.now
    receipt = dump_export_jobs(tmp_path, client=open_client(sandbox))
    assert wrong(sandbox, scan_lake(tmp_path).collect(), since) == []
    assert receipt.verdict == "complete"
    assert load_export_jobs(client=open_client(make_sandbox(jobs=900, faults="3:endsearly"))).height == 900


def test_incomplete_is_never_called_complete(
    open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """Two passes that end early at different places are an error for load, and incomplete (76) for dump."""
    faults = "3:endsearly,7:endsearly"
    with pytest.raises(IncompleteWalk):
        load_export_jobs(client=open_client(make_sandbox(jobs=900, faults=faults)))
    with pytest.raises(IncompleteWalk) as caught:
        dump_export_jobs(tmp_path, client=open_client(make_sandbox(jobs=900, faults=faults)))
    assert caught.value.receipt is not None
    assert (caught.value.receipt["code"], caught.value.receipt["verdict"]) == (76, "incomplete")
    assert scan_lake(tmp_path).collect().height == 400
    with pytest.raises(IncompleteWalk):
        list(iter_export_jobs(client=open_client(make_sandbox(jobs=900, faults="3:endsearly"))))


def test_f27_rows_that_do_not_fit(open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path) -> None:
    """A load with invalid rows raises and names them; a dump rejects them, publishes the rest, and gives 65."""
    faults = "2:badrow.float,3:badrow.baddate"
    with pytest.raises(RejectedRows, match=r"page 2, \$\.data\[\d+\]"):
        load_export_jobs(client=open_client(make_sandbox(faults=faults)))
    with pytest.raises(RejectedRows) as caught:
        dump_export_jobs(tmp_path, client=open_client(make_sandbox(faults=faults)))
    receipt = caught.value.receipt
    assert receipt is not None
    assert (receipt["code"], receipt["published"], receipt["rejected"]) == (65, True, 2)
    assert scan_lake(tmp_path).collect().height == 299  # the closing reads have seen one of them right
    (kept,) = (tmp_path / "_lake/rejected").iterdir()
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [line["page"] for line in lines] == [2, 3]
    assert all(json.loads(line["row"])["companyId"] for line in lines)
    assert kept.stat().st_mode & 0o077 == 0


def test_f27_many_rows_that_do_not_fit(
    open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """More than 100 invalid rows and 1 % give 65, and nothing is published."""
    sandbox = make_sandbox(jobs=3_000, max_limit=20, faults="*:badrow.missing")
    with pytest.raises(Exception, match="nothing was published") as caught:
        dump_export_jobs(tmp_path, client=open_client(sandbox))
    assert caught.value.receipt["code"] == 65  # type: ignore[attr-defined]
    assert not (tmp_path / "_lake/current").exists()


def test_months_that_are_unchanged_are_not_written(
    open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A dump writes only months that changed; the others keep their files and objects."""
    sandbox = make_sandbox(jobs=2_000)
    client = open_client(sandbox)
    first = dump_export_jobs(tmp_path, client=client)
    sandbox.world.advance(86_400)
    before = {path: path.stat().st_ino for path in list_months(tmp_path)}
    second = dump_export_jobs(tmp_path, client=client)
    assert (first.snapshot, second.snapshot) == (1, 2)
    assert 1 <= len(second.months_written) <= 2
    for file, number in before.items():
        changed = file.parent.name.removeprefix("created_month=") in second.months_written
        assert changed != (file.stat().st_ino == number)
    layout = Layout(tmp_path)
    for entry in layout.manifest(2).files:
        assert (tmp_path / entry.path).samefile(layout.objects / entry.object)
    assert {entry.object for n in (1, 2) for entry in layout.manifest(n).files} == {
        path.name for path in layout.objects.iterdir()
    }
    third = dump_export_jobs(tmp_path, client=client)
    assert (third.snapshot, third.published, third.months_written) == (2, False, [])
    assert scan_lake(tmp_path, as_of=1).collect().height == first.lake_rows


def test_one_lake_one_server(make_sandbox: MakeSandbox, tmp_path: Path) -> None:
    """A lake belongs to one server; a dump from another is a configuration error."""
    sandbox = make_sandbox()
    with Client("http://127.0.0.1:1", api_key=CANARY, transport=sandbox) as client:
        dump_export_jobs(tmp_path, client=client)
    with (
        Client("http://127.0.0.1:2", api_key=CANARY, transport=sandbox) as client,
        pytest.raises(Exception, match="lake of its own") as caught,
    ):
        dump_export_jobs(tmp_path, client=client)
    assert caught.value.code == 78  # type: ignore[attr-defined]


def test_arrow_stream(open_client: OpenClient, make_sandbox: MakeSandbox) -> None:
    """The stream is a RecordBatchReader with the frame's types and supports the Arrow C stream."""
    client = open_client(make_sandbox(jobs=450, max_limit=20))
    whole = load_export_jobs(client=client)
    reader = iter_export_jobs(client=client).to_arrow()
    assert pl.DataFrame(reader.read_all()).equals(whole)
    assert pl.DataFrame(iter_export_jobs(client=client)).equals(whole)


BY: Final = Query(sorting_keys=("createdAt", "id"), sorting_order=("ASC", "ASC"))


def test_fetch_page_takes_every_parameter(open_client: OpenClient, make_sandbox: MakeSandbox) -> None:
    """One Query, one page: for a company and statuses, sorted, with a limit."""
    client = open_client(make_sandbox(jobs=450))
    company = fetch_page(replace(BY, limit=10), client=client).frame["company_id"][0]
    some = fetch_page(Query(company_id=company, statuses=("failed",), limit=5), client=client)
    assert set(some.frame["company_id"]) == {company}
    assert set(some.frame["status"]) == {"failed"}


@pytest.mark.parametrize("limit", [7, 100])
class TestFetchPage:
    """The contract's three ways of paging, taken by hand with `fetch_page`: each reads every job once."""

    def test_by_after(self, limit: int, open_client: OpenClient, make_sandbox: MakeSandbox) -> None:
        """Following endCursor until hasNextPage is false."""
        client = open_client(make_sandbox(jobs=150))
        pages = [fetch_page(replace(BY, limit=limit), client=client)]
        while pages[-1].info.has_next:
            query = replace(BY, limit=limit, after=pages[-1].info.end_cursor)
            pages.append(fetch_page(query, client=client))
        assert pl.concat(page.frame for page in pages).equals(load_export_jobs(client=client))
        assert len(pages) == -(-150 // limit)

    def test_by_offset(self, limit: int, open_client: OpenClient, make_sandbox: MakeSandbox) -> None:
        """Counting by the rows that came, not by the rows asked for: the server gives fewer."""
        client = open_client(make_sandbox(jobs=150, max_limit=limit))
        pages = [fetch_page(replace(BY, limit=1_000), client=client)]
        while pages[-1].info.has_next:
            offset = sum(page.frame.height for page in pages)
            pages.append(fetch_page(replace(BY, limit=1_000, offset=offset), client=client))
        assert pl.concat(page.frame for page in pages).equals(load_export_jobs(client=client))

    def test_by_before(self, limit: int, open_client: OpenClient, make_sandbox: MakeSandbox) -> None:
        """Following startCursor backwards from a cursor reads all that precedes it, until hasPreviousPage is false."""
        client = open_client(make_sandbox(jobs=150))
        last = fetch_page(replace(BY, offset=149, limit=1), client=client).info.end_cursor
        pages = [fetch_page(replace(BY, limit=limit, before=last), client=client)]
        while pages[-1].info.has_previous:
            query = replace(BY, limit=limit, before=pages[-1].info.start_cursor)
            pages.append(fetch_page(query, client=client))
        whole = load_export_jobs(client=client)
        assert pl.concat(page.frame for page in reversed(pages)).equals(whole[:-1])


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"company_id": "acme"}, "UUID"),
        ({"statuses": ["done"]}, "unknown status"),
        ({"statuses": "failed"}, "list"),
        ({"since": "yesterday"}, "neither a date"),
        ({"since": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001 - the point
        ({"since": "2026-02-01", "until": "2026-01-01"}, "not before"),
    ],
)
def test_bad_input_is_refused_at_the_door(
    wanted: dict[str, Any], says: str, open_client: OpenClient, make_sandbox: MakeSandbox
) -> None:
    """An invalid argument is a UsageError before anything is sent."""
    sandbox = make_sandbox()
    for verb in (load_export_jobs, iter_export_jobs):
        with pytest.raises(UsageError, match=says):
            verb(client=open_client(sandbox), **wanted)
    assert sandbox.requests == []


def test_the_latest_version_of_a_job_stays(
    open_client: OpenClient, make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """Of two versions of a job the one updated later stays, in load and in the lake."""
    sandbox = make_sandbox(jobs=900, sorting=(), unsortable="ignore", tick=3_600.0, faults="3:endsearly")
    since = sandbox.world.now
    frame = load_export_jobs(client=open_client(sandbox))
    assert wrong(sandbox, frame, since) == []
    assert frame.select(KEY).is_unique().all()
    sandbox = make_sandbox(jobs=900, sorting=(), unsortable="ignore", tick=3_600.0, faults="3:endsearly")
    receipt = dump_export_jobs(tmp_path, client=open_client(sandbox))
    assert receipt.duplicates > 0
    assert wrong(sandbox, scan_lake(tmp_path).collect(), since) == []


def test_over_a_real_socket(tmp_path: Path) -> None:
    """Over compressed HTTP on loopback, while the world changes, each job appears once."""
    sandbox = Sandbox(World(jobs=3_000, seed=3), rules=Rules(tick=30.0, gzip=True), api_keys={CANARY: None})
    since = sandbox.world.now
    with serve(sandbox) as running, Client(running.url, api_key=CANARY, rate=100_000) as client:
        dump_export_jobs(tmp_path, client=client)
        frame = load_export_jobs(client=client)
    assert wrong(sandbox, frame, since) == []
    assert scan_lake(tmp_path).collect().height >= 3_000
    assert sandbox.world.now - since == timedelta(seconds=30 * len(sandbox.requests))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_start_afresh_read_a_lake(method: str) -> None:
    """Processes started by spawn or forkserver can read a lake, as the README says."""
    sample = Path(__file__).parent.parent / "data" / "sample"
    assert scan_lake(sample).collect().height == 3_000
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(verify_lake, sample).result(timeout=120).rows == 3_000


def test_arguments_of_another_kind_are_refused_in_words(
    open_client: OpenClient, make_sandbox: MakeSandbox
) -> None:
    """A client in place of a query, and an instant as text, say what to write."""
    with pytest.raises(UsageError, match=r"takes a Query first, not a Client: Query\(limit=100\)"):
        fetch_page(open_client(make_sandbox()))  # type: ignore[arg-type]
    said = r"as_of must be a datetime, such as .*UTC\), or the number of a snapshot, not '2026-01-01'"
    with pytest.raises(UsageError, match=said):
        scan_lake(Path(__file__).parent.parent / "data/sample", as_of="2026-01-01")  # type: ignore[arg-type]
