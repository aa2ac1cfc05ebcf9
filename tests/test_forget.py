"""Test forgetting jobs and people: no file holds them, no dump brings them back, and no total is wrong."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b32decode
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from canary import CANARY
from cases import mostly_slow
from click.testing import CliRunner
from lakes import Killed, dump, killed_at

from pleo_extract import Lake, forget, merge_lakes, scan_lake, verify_lake
from pleo_extract.cli import group
from pleo_extract.contract import COLUMNS, POLARS_SCHEMA
from pleo_extract.core.decode import Rejected
from pleo_extract.core.state import SyncState
from pleo_extract.errors import LakeError, RejectedRows, RequestsExceeded, TryLater, UsageError
from pleo_extract.lake.delta.address import read_address
from pleo_extract.lake.delta.forgetting import read_table_forgotten
from pleo_extract.lake.delta.version import Version
from pleo_extract.lake.folder.repair import repair_lake
from pleo_extract.lake.forgotten import NOTHING, read_forgotten
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import Rules, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Said

    from pleo_extract import Receipt
    from pleo_extract.sandbox import RequestLike, Response

DAY = 86_400
ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CURSOR = re.compile(rb"[A-Z2-7]{40,}=*")


class Chosen:
    """Whom a lake forgets: an old job, an open one, the newest one and a vanished one; and a person."""

    def __init__(self, lake: Path, gone: str) -> None:
        rows = scan_lake(lake).collect().sort("created_at", "id")
        old = rows.filter(pl.col("status") == "completed", pl.col("id") != gone)["id"][3]
        is_open = rows.filter(pl.col("status") == "in_progress")["id"][0]
        self.jobs = list(dict.fromkeys([old, is_open, rows["id"][-1], gone]))
        left = rows.filter(~pl.col("id").is_in(self.jobs), pl.col("failure_reason").is_not_null())
        self.person: str = left["created_by"].drop_nulls().mode().sort()[0]
        self.everything = [*self.jobs, self.person]
        self.rows = rows

    def expected(self) -> pl.DataFrame:
        """Return the rows that the lake must have."""
        is_theirs = pl.col("created_by") == self.person
        blank = [
            pl.when(is_theirs.fill_null(value=False)).then(None).otherwise(pl.col(name)).alias(name)
            for name in ("created_by", "failure_reason")
        ]
        return self.rows.filter(~pl.col("id").is_in(self.jobs)).with_columns(blank)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sandbox, Chosen]:
    """Make a lake of three snapshots; return it with its sandbox and whom it forgets."""
    world = World(jobs=260, companies=2, days=90, seed=12, now=datetime(2026, 11, 12, tzinfo=UTC))
    sandbox = Sandbox(world, rules=Rules(max_limit=20), api_keys={CANARY: None})
    lake = tmp_path_factory.mktemp("made") / "lake"
    gone = world.visible()[100]["id"]
    dump(lake, sandbox)
    world.remove(gone)
    for _ in range(2):
        world.advance(DAY)
        dump(lake, sandbox)
    assert gone in (lake / "_lake/vanished.csv").read_text()
    assert Layout(lake).numbers() == [1, 2, 3]
    return lake, sandbox, Chosen(lake, gone)


@pytest.fixture
def lake(made: tuple[Path, Sandbox, Chosen], tmp_path: Path) -> Path:
    """Copy that lake."""
    return copy(made[0], tmp_path / "lake")


@pytest.fixture
def sandbox(made: tuple[Path, Sandbox, Chosen]) -> Sandbox:
    """Return the sandbox of the lake's jobs; a test that changes it makes its own."""
    return made[1]


@pytest.fixture
def chosen(made: tuple[Path, Sandbox, Chosen]) -> Chosen:
    """Return whom to forget."""
    return made[2]


def copy(lake: Path, target: Path) -> Path:
    """Copy a lake with its links."""
    subprocess.run(["cp", "-a", lake, target], check=True)
    return target


def traces(lake: Path, names: list[str]) -> list[str]:
    """Return every file whose name or content holds one of these ids: bytes, columns of Parquet, decoded cursors."""
    wanted = {name.encode() for name in names}
    found = []
    for path in sorted(each for each in lake.rglob("*") if each.is_file()):
        data = path.read_bytes()
        texts = [path.name.encode(), data]
        for token in CURSOR.findall(data):
            with suppress(ValueError):
                texts.append(b32decode(token))
        if data[:4] == b"PAR1":
            texts.append(pl.read_parquet(io.BytesIO(data)).write_ndjson().encode())
        if path.suffix == ".arrow":
            texts.append(pl.read_ipc_stream(io.BytesIO(data)).write_ndjson().encode())
        if any(not wanted.isdisjoint(ID.findall(text.lower())) for text in texts):
            found.append(path.relative_to(lake).as_posix())
    return found


def read(lake: Path, as_of: int | None = None) -> pl.DataFrame:
    """Return the rows of a snapshot, sorted."""
    return scan_lake(lake, as_of).collect().sort("created_at", "id")


def check(lake: Path, chosen: Chosen) -> None:
    """Check that nothing of the chosen is left, and that everything else is as it was."""
    assert traces(lake, chosen.everything) == []
    assert verify_lake(lake).problems == ()
    assert verify_lake(lake).foreign == ()
    assert read(lake).equals(chosen.expected())
    plain = pl.read_parquet(lake / "*/*.parquet", hive_partitioning=False).select(COLUMNS)
    assert plain.sort("created_at", "id").equals(chosen.expected())
    layout = Layout(lake)
    named = {entry.object for number in layout.numbers() for entry in layout.manifest(number).files}
    assert named == {path.name for path in layout.objects.iterdir()}
    assert not list(layout.staging.iterdir())
    for number in layout.numbers():
        rows = read(lake, number)
        assert rows.height
        assert not set(chosen.everything) & set(rows["id"]) & set(rows["created_by"].drop_nulls())


def test_every_snapshot_forgets(lake: Path, chosen: Chosen) -> None:
    """Rows of jobs leave every snapshot, and what identifies a person becomes null; numbers, times and other rows stay."""
    before = Lake(lake).snapshots()
    earlier = read(lake, 2)
    assert traces(lake, chosen.everything)
    done = Lake(lake).forget(jobs=[name.upper() for name in chosen.jobs], people=[chosen.person])
    check(lake, chosen)
    assert (done.snapshot, done.removed, done.rewritten, done.dropped) == (3, len(chosen.jobs), 3, ())
    assert done.blanked == (chosen.rows["created_by"] == chosen.person).sum()
    after = Lake(lake).snapshots()
    assert after["snapshot", "made_at"].equals(before["snapshot", "made_at"])
    assert read(lake, 2).height == earlier.filter(~pl.col("id").is_in(chosen.jobs)).height
    assert not Lake(lake).changes(1)["id"].is_in(chosen.jobs).any()
    assert (lake / "_lake/forgotten.json").stat().st_mode & 0o777 == 0o600
    assert set(Lake(lake).connect().sql("FROM export_jobs").pl()["id"]) == set(chosen.expected()["id"])


def test_nothing_to_forget(lake: Path, chosen: Chosen) -> None:
    """Ids that the lake does not hold change no file but `forgotten.json`."""
    nobody = "00000000-0000-4000-8000-000000000000"
    before = {path: path.stat().st_mtime_ns for path in lake.rglob("*") if path.is_file()}
    done = forget(lake, jobs=[nobody], people=[nobody])
    assert (done.removed, done.blanked, done.rewritten) == (0, 0, 0)
    after = {path: path.stat().st_mtime_ns for path in lake.rglob("*") if path.is_file()}
    changed = {path.name for path, at in after.items() if before.get(path) != at}
    assert changed - {"lock", "_jobs.duckdb"} == {"forgotten.json"}  # the catalogue has the path of its lake
    assert read(lake).equals(chosen.rows)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"jobs": ["no id"]},
        {"people": ["0c1f6c1e"]},
        {"jobs": "5c0e8d3e-6a44-4b0f-9d6e-0b8f2f0d7c11"},
        {"jobs": [None]},
    ],
)
def test_bad_ids_are_refused_at_the_door(given: dict[str, Any], lake: Path) -> None:
    """A text that is not an id is a UsageError before anything is changed."""
    with pytest.raises(UsageError):
        forget(lake, **given)
    assert not (lake / "_lake/forgotten.json").exists()


def test_there_must_be_a_lake(tmp_path: Path, chosen: Chosen) -> None:
    """A wrong path makes no lake."""
    for lake in (tmp_path / "none", tmp_path):
        with pytest.raises(LakeError, match="there is no lake"):
            forget(lake, jobs=chosen.jobs)
    assert not list(tmp_path.iterdir())


class TestLaterDumps:
    """Forgotten jobs stay away although the server still lists them."""

    @pytest.fixture
    def begun(self, tmp_path: Path) -> tuple[Path, Sandbox, Chosen]:
        """Make a lake that has forgotten, and its server, which has not."""
        world = World(jobs=700, companies=2, days=90, seed=5)
        sandbox = Sandbox(world, rules=Rules(max_limit=20), api_keys={CANARY: None})
        lake = tmp_path / "lake"
        dump(lake, sandbox)
        chosen = Chosen(lake, world.visible()[50]["id"])
        forget(lake, jobs=chosen.jobs, people=[chosen.person])
        return lake, sandbox, chosen

    @staticmethod
    def judge(lake: Path, receipt: Receipt, sandbox: Sandbox, chosen: Chosen) -> None:
        """Compare the lake with the server, except for what is forgotten, of which no file holds anything."""
        assert receipt.verdict == "complete", receipt.why
        assert receipt.duplicates <= receipt.rows - receipt.distinct
        assert receipt.vanished == []
        assert traces(lake, chosen.everything) == []
        truth = pl.DataFrame(sandbox.world.visible(), infer_schema_length=None)
        rows = read(lake)
        assert set(rows["id"]) == set(truth["id"]) - set(chosen.jobs)
        assert chosen.person not in rows["created_by"]
        assert verify_lake(lake).ok

    def test_a_quiet_refresh_stays_quiet(self, begun: tuple[Path, Sandbox, Chosen]) -> None:
        """A refresh with nothing new publishes nothing, looks for nothing, and sends no more requests than before."""
        lake, sandbox, chosen = begun
        for _ in range(3):
            sandbox.requests.clear()
            receipt = dump(lake, sandbox)
            assert (receipt.mode, receipt.published, receipt.snapshot) == ("refresh", False, 1)
            assert len(sandbox.requests) <= 12
            self.judge(lake, receipt, sandbox, chosen)

    @pytest.mark.slow
    @pytest.mark.parametrize("full", [False, True])
    def test_time_goes_on(self, *, full: bool, begun: tuple[Path, Sandbox, Chosen]) -> None:
        """While jobs are created and end, the forgotten open one too, refreshes agree and full syncs prove complete."""
        lake, sandbox, chosen = begun
        for _ in range(3):
            sandbox.world.advance(DAY / 2)
            receipt = dump(lake, sandbox, full=full)
            assert receipt.mode == ("full" if full else "refresh"), receipt.why_full
            self.judge(lake, receipt, sandbox, chosen)
        assert receipt.total_last == receipt.lake_rows + len(chosen.jobs)

    def test_a_forgotten_job_that_the_server_drops(self, begun: tuple[Path, Sandbox, Chosen]) -> None:
        """When the server removes a forgotten job, one full sync notices; after that refreshes agree again."""
        lake, sandbox, chosen = begun
        sandbox.world.remove(chosen.jobs[0])
        modes = []
        for _ in range(3):
            receipt = dump(lake, sandbox)
            modes.append(receipt.mode)
            assert receipt.verdict == "complete", receipt.why
            assert receipt.vanished == []
        assert modes == ["full", "refresh", "refresh"]

    @pytest.mark.slow
    def test_forgotten_before_it_was_dumped(self, begun: tuple[Path, Sandbox, Chosen]) -> None:
        """A forgotten job that only the server has is never staged."""
        lake, sandbox, chosen = begun
        sandbox.world.advance(DAY)
        (job,) = [each["id"] for each in sandbox.world.visible() if each["id"] not in set(read(lake)["id"])][
            -1:
        ]
        forget(lake, jobs=[job])
        chosen.jobs.append(job)
        receipt = dump(lake, sandbox)
        assert receipt.mode == "refresh"
        self.judge(lake, receipt, sandbox, chosen)
        self.judge(lake, dump(lake, sandbox, full=True), sandbox, chosen)

    def test_accounts_of_their_own(self, tmp_path: Path) -> None:
        """If each company has a state of its own, only that of the forgotten job's company counts it."""
        world = World(jobs=300, companies=2, days=90, seed=5)
        sandbox = Sandbox(world, api_keys={CANARY: None})
        lake = tmp_path / "lake"
        for company in world.companies:
            dump(lake, sandbox, company_id=company)
        rows = read(lake)
        job = rows.filter(company_id=world.companies[0])["id"][-1]
        forget(lake, jobs=[job])
        accounts = Layout(lake).manifest(2).accounts
        assert {key.rpartition(" ")[2]: len(each.forgotten) for key, each in accounts.items()} == dict(
            zip(world.companies, (1, 0), strict=True)
        )
        for company in world.companies:
            receipt = dump(lake, sandbox, company_id=company)
            assert (receipt.mode, receipt.verdict, receipt.published) == ("refresh", "complete", False)
        assert traces(lake, [job]) == []

    @pytest.mark.parametrize("most", [3, 9, 20])
    def test_what_is_staged_holds_nothing(
        self, most: int, begun: tuple[Path, Sandbox, Chosen], tmp_path: Path
    ) -> None:
        """A run that is cut short leaves pages and checkpoints without forgotten jobs, and the next one completes."""
        lake, sandbox, chosen = begun
        rows = read(lake)
        forget(lake, jobs=rows["id"].gather_every(19).to_list())  # also where pages end
        chosen.jobs += rows["id"].gather_every(19).to_list()
        with pytest.raises(RequestsExceeded):
            dump(lake, sandbox, full=True, max_requests=most)
        assert list(Layout(lake).staging.iterdir())
        assert traces(lake, chosen.everything) == []
        self.judge(lake, dump(lake, sandbox, full=True), sandbox, chosen)

    def test_pages_that_were_staged_before(self, begun: tuple[Path, Sandbox, Chosen]) -> None:
        """Pages that an earlier run has staged are forgotten, too."""
        lake, sandbox, chosen = begun
        with pytest.raises(RequestsExceeded):
            dump(lake, sandbox, full=True, max_requests=9)
        more = read(lake)["id"][:30].to_list()
        chosen.jobs += more
        forget(lake, jobs=more)
        assert traces(lake, chosen.everything) == []
        self.judge(lake, dump(lake, sandbox, full=True), sandbox, chosen)


class Spoiling(Sandbox):
    """A sandbox that breaks the rows of some jobs wherever they are listed."""

    spoiled: frozenset[str] = frozenset()

    def __call__(self, request: RequestLike) -> Response:
        """Answer, with these rows broken."""
        answer = super().__call__(request)
        body = json.loads(answer.body)
        for row in body.get("data", []):
            if row["id"] in self.spoiled:
                row["numberOfItems"] = 1.5
        return dataclasses.replace(answer, body=json.dumps(body).encode())


def test_rejected_rows(tmp_path: Path) -> None:
    """Rejected rows of forgotten jobs are removed, and the others no longer name a forgotten person."""
    sandbox = Spoiling(World(jobs=120, seed=3), api_keys={CANARY: None})
    jobs = [job for job in sandbox.world.visible() if job["createdBy"]]
    sandbox.spoiled = frozenset(jobs[n]["id"] for n in (5, 40, -1))
    person = jobs[5]["createdBy"]
    lake = tmp_path / "lake"
    with pytest.raises(RejectedRows):
        dump(lake, sandbox)
    forget(lake, people=[person])
    assert traces(lake, [person]) == []
    (file,) = (lake / "_lake/rejected").iterdir()
    assert jobs[5]["id"] in file.read_text()
    with pytest.raises(RejectedRows):
        dump(lake, sandbox)
    assert traces(lake, [person]) == []
    forget(lake, jobs=list(sandbox.spoiled))
    for full in (False, True, False):
        assert traces(lake, [person, *sandbox.spoiled]) == []
        receipt = dump(lake, sandbox, full=full)
        assert (receipt.mode, receipt.verdict) == ("full" if full else "refresh", "complete")
        assert receipt.rejected == 0
    assert traces(lake, [person, *sandbox.spoiled]) == []


@pytest.mark.slow
@pytest.mark.parametrize("then", ["forget", "repair", "dump"])
def test_killed_anywhere_it_is_finished(
    then: str, made: tuple[Path, Sandbox, Chosen], tmp_path: Path
) -> None:
    """Killed at any storage call, the lake reads as before or as after, and the next run of any kind finishes."""
    source, sandbox, chosen = made
    with killed_at(10**9) as calls:
        forget(copy(source, tmp_path / "whole"), jobs=chosen.jobs, people=[chosen.person])
    assert len(calls) > 30
    start = {"forget": 1, "repair": 2, "dump": 3}[then]
    for call in range(start, len(calls) + 1, 4):
        lake = copy(source, tmp_path / f"{call}")
        with killed_at(call):
            forget(lake, jobs=chosen.jobs, people=[chosen.person])
        rows = read(lake)
        assert rows.equals(chosen.rows) or rows.equals(chosen.expected()), call
        plain = pl.read_parquet(lake / "*/*.parquet", hive_partitioning=False)
        assert plain["id"].is_unique().all()
        assert set(chosen.expected()["id"]) <= set(plain["id"]) <= set(chosen.rows["id"])
        is_noted = bool(read_forgotten(Layout(lake)))
        if then == "forget" or not is_noted:
            forget(lake, jobs=chosen.jobs, people=[chosen.person])
        elif then == "repair":
            assert repair_lake(lake).problems == ()
        else:
            receipt = dump(lake, sandbox)
            assert (receipt.mode, receipt.verdict) == ("refresh", "complete"), (call, receipt.why_full)
        check(lake, chosen)
        shutil.rmtree(lake)


def test_verify_reports_a_kill(lake: Path, chosen: Chosen) -> None:
    """While it is not finished verify says so, and so does a merge that would carry the jobs to another lake."""
    with killed_at(12):
        forget(lake, jobs=chosen.jobs)
    assert "an erasure is unfinished" in "".join(verify_lake(lake).problems)
    with pytest.raises(LakeError, match="not all gone"):
        merge_lakes(lake, lake.parent / "other", progress=False)
    assert repair_lake(lake).problems == ()
    assert traces(lake, chosen.jobs) == []


@pytest.mark.parametrize("spoil", [b"", b"{}", b'{"format": 1, "salt": "", "jobs": [], "people": []}', None])
def test_a_broken_memory_is_never_ignored(
    spoil: bytes | None, lake: Path, sandbox: Sandbox, chosen: Chosen
) -> None:
    """Without `forgotten.json` a dump ends with 65 until it is restored or the same jobs are forgotten again."""
    forget(lake, jobs=chosen.jobs)
    path = lake / "_lake/forgotten.json"
    kept = path.read_bytes()
    path.unlink()
    if spoil is not None:
        path.write_bytes(spoil)
        assert "forgotten.json is broken" in "".join(verify_lake(lake).problems)
    with pytest.raises(LakeError, match=r"forgotten\.json .*is (broken|missing)") as caught:
        dump(lake, sandbox)
    assert caught.value.code == 65
    path.unlink(missing_ok=True)
    forget(lake, jobs=chosen.jobs)
    assert dump(lake, sandbox).verdict == "complete"
    assert traces(lake, chosen.jobs) == []
    path.write_bytes(kept)


def test_what_was_forgotten_must_all_be_named_again(lake: Path, sandbox: Sandbox, chosen: Chosen) -> None:
    """If `forgotten.json` is lost, forgetting a part of the jobs again is refused: the rest would come back."""
    forget(lake, jobs=chosen.jobs, people=[chosen.person])
    path = lake / "_lake/forgotten.json"
    path.unlink()
    assert "forgotten.json" in "".join(verify_lake(lake).problems)
    parts: list[dict[str, Any]] = [
        {"jobs": chosen.jobs[:1], "people": [chosen.person]},
        {"jobs": chosen.jobs},
        {"people": [chosen.person]},
    ]
    for part in parts:
        with pytest.raises(LakeError, match="all of it again"):
            forget(lake, **part)
        assert not path.exists()
    forget(lake, jobs=chosen.jobs, people=[chosen.person])
    assert dump(lake, sandbox, full=True).verdict == "complete"
    check(lake, chosen)


def test_a_memory_of_people_alone_is_missed_too(lake: Path, sandbox: Sandbox, chosen: Chosen) -> None:
    """If the file of forgotten people is lost, a dump ends with 65 instead of naming them again."""
    forget(lake, people=[chosen.person])
    path = lake / "_lake/forgotten.json"
    record = json.loads(path.read_text())
    for spoilt in (None, {**record, "people": []}):
        path.unlink()
        if spoilt is not None:
            path.write_text(json.dumps(spoilt))
        with pytest.raises(LakeError, match="forgotten"):
            dump(lake, sandbox, full=True)
        path.write_text(json.dumps(record))
    assert dump(lake, sandbox, full=True).verdict == "complete"
    assert traces(lake, [chosen.person]) == []


def test_however_an_id_is_written() -> None:
    """An id is found in upper case, without dashes, in braces, in JSON escapes, in a type or a status."""
    job, person = ("d75b1e24-9419-4f4d-a059-7bdc5dbe4409", "0c1f6c1e-93a7-4f44-8a86-7b7f2a1f9e02")
    forgotten = NOTHING.add([job], [person])
    plain = job.replace("-", "")
    texts = {
        "failure_reason": f"see {plain} and {job.upper()}",
        "failure_reason_type": f"dup_of_{job}",
        "status": job,
        "extra": '{"odd":"\\u0064' + job[1:] + '"}',
    }
    row = {"id": "another", "company_id": "c", **texts}
    found = forgotten.strip_rows(pl.DataFrame([row], POLARS_SCHEMA)).rows.row(0, named=True)
    assert {name: found[name] for name in texts} == {
        "failure_reason": "see forgotten and forgotten",
        "failure_reason_type": "dup_of_forgotten",
        "status": "forgotten",
        "extra": '{"odd":"forgotten"}',
    }
    theirs = row | {"created_by": person, "extra": '{"createdByEmail":"jane"}'}
    found = forgotten.strip_rows(pl.DataFrame([theirs], POLARS_SCHEMA)).rows.row(0, named=True)
    assert (found["created_by"], found["failure_reason"], found["extra"]) == (None, None, None)
    raw = json.dumps({"id": "x", "createdBy": f"{{{person}}}", "failureReason": "secret", "mail": "jane"})
    (kept,), lost = forgotten.strip_rejected([Rejected(1, "$.data[0]", "no", raw.encode())])
    assert (json.loads(kept.raw), lost) == ({"id": "x", "createdBy": None, "failureReason": None}, [])
    assert forgotten.strip_rejected([Rejected(1, "", "", json.dumps({"id": f"{{{job}}}"}).encode())])[0] == []
    account = forgotten.strip_account(SyncState(rejected=[f"company/{{{job}}}", "company/other"]))
    assert account.rejected == ["company/other"]


def test_a_damaged_snapshot_cannot_be_searched(lake: Path, chosen: Chosen) -> None:
    """An older snapshot that cannot be read is removed; the current one must be repaired, and the repair finishes."""
    layout = Layout(lake)
    current = {entry.object for entry in layout.manifest(3).files}
    (old, *_) = [entry for entry in layout.manifest(1).files if entry.object not in current]
    (layout.objects / old.object).unlink()
    assert forget(lake, jobs=chosen.jobs[:1]).dropped
    assert traces(lake, chosen.jobs[:1]) == []
    entry = layout.manifest(3).files[-1]
    for path in (layout.objects / entry.object, lake / entry.path):
        path.chmod(0o644)
        path.write_bytes(b"x" * entry.bytes)
    with pytest.raises(LakeError, match="repair"):
        forget(lake, jobs=chosen.jobs)
    assert repair_lake(lake).problems == ()
    forget(lake, jobs=chosen.jobs)
    assert traces(lake, chosen.jobs) == []


def test_strays_that_may_hold_it_go(lake: Path, chosen: Chosen) -> None:
    """Strays are searched, too: one that cannot be searched is removed, one without these ids stays."""
    strays = lake / "_lake/strays"
    strays.mkdir()
    chosen.rows.write_parquet(strays / "one")
    chosen.expected().write_parquet(strays / "two")
    (strays / "three").write_bytes(b"PAR1 and no more")
    forget(lake, jobs=chosen.jobs, people=[chosen.person])
    assert [path.name for path in strays.iterdir()] == ["two"]


def test_merging_brings_nothing_back(
    lake: Path, made: tuple[Path, Sandbox, Chosen], sandbox: Sandbox, chosen: Chosen
) -> None:
    """A merge brings a lake nothing that it has forgotten itself; what the source has forgotten does not count."""
    forget(lake, jobs=chosen.jobs, people=[chosen.person])
    source = copy(made[0], lake.parent / "source")
    receipt = merge_lakes(source, lake, progress=False)
    assert receipt.taken == 0
    check(lake, chosen)
    assert dump(lake, sandbox).verdict == "complete"
    check(lake, chosen)


def test_texts_that_name_the_forgotten(tmp_path: Path) -> None:
    """An id in a text of another row is replaced, and the rest of the text stays."""
    world = World(jobs=40, seed=2)
    sandbox = Sandbox(world, api_keys={CANARY: None})
    jobs = world.visible()
    world.change(jobs[5]["id"], failureReason=f"same as {jobs[6]['id'].upper()}, see there")
    dump(tmp_path / "lake", sandbox)
    forget(tmp_path / "lake", jobs=[jobs[6]["id"]])
    assert traces(tmp_path / "lake", [jobs[6]["id"]]) == []
    texts = read(tmp_path / "lake").filter(id=jobs[5]["id"])["failure_reason"].to_list()
    assert texts == ["same as forgotten, see there"]
    assert not dump(tmp_path / "lake", sandbox).published


class TestCommand:
    """Test `pleo-extract forget`."""

    def test_it_wants_a_yes(self, lake: Path, chosen: Chosen) -> None:
        """Without a terminal it does nothing unless `--yes` is given."""
        asked = ["forget", str(lake), *(word for job in chosen.jobs for word in ("--job", job))]
        refused = CliRunner().invoke(group, asked)
        assert isinstance(refused.exception, UsageError)
        assert read(lake).equals(chosen.rows)
        done = CliRunner().invoke(group, [*asked, "--person", chosen.person, "--yes"])
        assert done.exit_code == 0, done.output
        assert f"{len(chosen.jobs)} rows removed" in done.output
        check(lake, chosen)

    @pytest.mark.parametrize("typed", [b"n\n", b"\n", b"\x04"], ids=["no", "nothing", "end"])
    def test_a_no_forgets_nothing(
        self,
        typed: bytes,
        lake: Path,
        chosen: Chosen,
        pleo: Callable[..., Said],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Whoever does not answer the question with y reads that nothing was forgotten; it is no interrupt."""
        keyboard, terminal = os.openpty()
        os.write(keyboard, typed)
        with open(terminal, encoding="utf-8") as stdin:  # noqa: PTH123 - a descriptor
            monkeypatch.setattr(sys, "stdin", stdin)
            said = pleo("forget", lake, "--job", chosen.jobs[0])
        os.close(keyboard)
        assert said.code == 2
        assert "This cannot be undone" in said.err
        assert "pleo-extract: nothing was forgotten, since the question was not answered with y" in said.err
        assert read(lake).equals(chosen.rows)


class Interrupted(Sandbox):
    """A sandbox that does something once, in the middle of a run."""

    happens: Callable[[], object] | None = None

    def __call__(self, request: RequestLike) -> Response:
        """Do it if it is time, and answer."""
        answer = super().__call__(request)
        if self.happens is not None and len(self.requests) > 8:
            happens, self.happens = self.happens, None
            happens()
        return answer


class TestDeltaTable:
    """A Delta table forgets, and all its older versions are removed."""

    @pytest.fixture
    def table(self, tmp_path: Path) -> tuple[Path, Interrupted, Chosen]:
        """Make a table of three versions; return it with its sandbox and whom it forgets."""
        world = World(jobs=300, companies=2, days=90, seed=12, now=datetime(2026, 11, 12, tzinfo=UTC))
        sandbox = Interrupted(world, rules=Rules(max_limit=20), api_keys={CANARY: None})
        table = tmp_path / "table"
        gone = world.visible()[100]["id"]
        dump(table, sandbox, format="delta")
        world.remove(gone)
        world.advance(DAY)
        dump(table, sandbox)
        return table, sandbox, Chosen(table, gone)

    @staticmethod
    def check(table: Path, chosen: Chosen) -> None:
        """Check that nothing of the chosen is left, and that everything else is as it was."""
        assert traces(table, chosen.everything) == []
        assert verify_lake(table).problems == ()
        assert read(table).equals(chosen.expected())

    def test_it_forgets(self, table: tuple[Path, Interrupted, Chosen]) -> None:
        """Rows go, older versions can no longer be read, and the next dump is a refresh that brings nothing back."""
        path, sandbox, chosen = table
        assert traces(path, chosen.everything)
        newest = Version(read_address(path)).version
        done = forget(path, jobs=chosen.jobs, people=[chosen.person])
        self.check(path, chosen)
        assert (done.removed, done.rewritten, done.gone) == (len(chosen.jobs), 1, True)
        assert done.snapshot == verify_lake(path).snapshot
        for version in range(1, newest + 1):
            with pytest.raises(UsageError, match="no longer kept"):
                read(path, version)
        assert (path / "_pleo_extract/forgotten.json").stat().st_mode & 0o777 == 0o600
        Version(read_address(path)).vacuum(0)
        assert read_table_forgotten(Version(read_address(path))).jobs
        for full in (False, True, False):
            receipt = dump(path, sandbox, full=full)
            assert (receipt.mode, receipt.verdict) == ("full" if full else "refresh", "complete")
            self.check(path, chosen)
        sandbox.world.advance(DAY)
        receipt = dump(path, sandbox)
        assert (receipt.mode, receipt.verdict) == ("refresh", "complete")
        assert traces(path, chosen.everything) == []

    @pytest.mark.parametrize("stride", mostly_slow([3, 1]))
    def test_killed_anywhere_it_is_finished(
        self, stride: int, table: tuple[Path, Interrupted, Chosen], tmp_path: Path
    ) -> None:
        """Killed before or after any step, it is finished by the next dump or by the same command again."""
        source, sandbox, chosen = table
        for step in range(1, 40, stride):
            path = copy(source, tmp_path / f"{step}")
            with stopped_at_step(step) as made:
                forget(path, jobs=chosen.jobs, people=[chosen.person])
            if step % 2 and read_table_forgotten(Version(read_address(path))).pending:
                assert dump(path, sandbox).verdict == "complete", step
            else:
                forget(path, jobs=chosen.jobs, people=[chosen.person])
            self.check(path, chosen)
            shutil.rmtree(path)
            if len(made) < step:
                break
        else:
            pytest.fail("it takes more steps than were tried")

    @pytest.mark.parametrize("narrow", [False, True])
    def test_a_run_that_had_read_before(
        self, *, narrow: bool, table: tuple[Path, Interrupted, Chosen], tmp_path: Path
    ) -> None:
        """A dump on another machine that has read forgotten jobs publishes none of them, and the next one succeeds."""
        path, sandbox, chosen = table
        sandbox.world.advance(DAY)
        # A run for one company holds its rows in memory and notices before it publishes; any other while it reads on.
        company = sandbox.world.companies[0] if narrow else None
        if narrow:
            dump(path, sandbox, company_id=company)
            chosen.rows = read(path)
        sandbox.requests.clear()
        sandbox.happens = lambda: forget(path, jobs=chosen.jobs, people=[chosen.person])
        with pytest.raises(TryLater, match="were forgotten" if narrow else "while it was read"):
            dump(path, sandbox, full=True, company_id=company, workspace=tmp_path / "elsewhere")
        self.check(path, chosen)
        again = dump(path, sandbox, full=True, company_id=company, workspace=tmp_path / "elsewhere")
        assert again.verdict == "complete"
        assert traces(path, chosen.everything) == []
        assert traces(tmp_path / "elsewhere", chosen.everything) == []


@contextmanager
def stopped_at_step(step: int) -> Iterator[list[str]]:
    """Kill the process at this step of those that change a table, counted from 1; give the names of the steps made."""
    made: list[str] = []
    names = ("write", "write_own", "commit", "expire_log", "remove", "vacuum")
    before = {name: getattr(Version, name) for name in names}

    def wrap(name: str) -> Callable[..., Any]:
        @functools.wraps(before[name])
        def step_by_step(*args: Any, **more: Any) -> Any:
            made.append(name)
            if len(made) == step:
                raise Killed
            return before[name](*args, **more)

        return step_by_step

    try:
        for name in names:
            setattr(Version, name, wrap(name))
        with suppress(Killed):
            yield made
    finally:
        for name, function in before.items():
            setattr(Version, name, function)
