"""The folder is the dataset: what tools read there, what copies of it are, and how older lakes are converted."""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest
from canary import CANARY
from lakes import around_storage, dump, killed_at

from pleo_extract import scan_lake, verify_lake
from pleo_extract.cli import group
from pleo_extract.errors import ConfigurationError, LakeError
from pleo_extract.lake import disk
from pleo_extract.lake.folder.repair import repair_lake
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


DAY = 86_400
GOLDEN = Path(__file__).parent / "golden" / "format-1"
READERS: dict[str, Callable[[Path], list[str]]] = {
    "pandas": lambda lake: pd.read_parquet(lake)["id"].tolist(),
    "pyarrow": lambda lake: (
        ds.dataset(lake, format="parquet", partitioning="hive").to_table()["id"].to_pylist()
    ),
    "polars, all below": lambda lake: pl.read_parquet(lake / "**/*.parquet")["id"].to_list(),
    "polars, months": lambda lake: pl.read_parquet(lake / "*/*.parquet")["id"].to_list(),
    "duckdb": lambda lake: [
        row[0]
        for row in duckdb.connect().sql(f"SELECT id FROM read_parquet('{lake}/**/*.parquet')").fetchall()
    ],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sandbox]:
    """Return a lake of three snapshots, and its sandbox."""
    sandbox = Sandbox(World(jobs=400, days=90, seed=12), api_keys={CANARY: None})
    lake = tmp_path_factory.mktemp("made") / "lake"
    for _ in range(3):
        dump(lake, sandbox)
        sandbox.world.advance(3 * DAY)
    assert Layout(lake).numbers() == [1, 2, 3]
    return lake, sandbox


@pytest.fixture
def lake(made: tuple[Path, Sandbox], tmp_path: Path) -> Path:
    """Return a copy of that lake, with its links."""
    subprocess.run(["cp", "-a", made[0], tmp_path / "lake"], check=True)
    return tmp_path / "lake"


@pytest.fixture
def sandbox(made: tuple[Path, Sandbox]) -> Sandbox:
    """Return the sandbox of the lake; only its clock moves."""
    return made[1]


def ids(lake: Path) -> list[str]:
    """Return the ids of a lake's jobs, as the library reads them."""
    found: list[str] = scan_lake(lake).collect()["id"].sort().to_list()
    return found


def seen(lake: Path) -> list[str]:
    """Return the ids that a plain Parquet reader finds."""
    return sorted(READERS["polars, all below"](lake))


@pytest.mark.parametrize("reader", READERS)
def test_every_tool_reads_each_job_once(reader: str, lake: Path) -> None:
    """Any Parquet reader of the folder of a lake with several snapshots reads each job once."""
    assert sorted(READERS[reader](lake)) == ids(lake)


def test_polars_on_the_folder_alone(lake: Path) -> None:
    """Polars refuses the folder without a glob, since not every file is Parquet, and never reads extra rows."""
    with pytest.raises(pl.exceptions.InvalidOperationError):
        pl.read_parquet(lake)


def test_months_are_partitions_and_stay_text(lake: Path) -> None:
    """Readers of Hive partitions get `created_month` as text."""
    found = ds.dataset(lake, format="parquet", partitioning=ds.partitioning(flavor="hive")).to_table()
    assert {str(month) for month in found["created_month"].to_pylist()} == {
        path.name.partition("=")[2] for path in lake.glob("created_month=*")
    }
    kinds = duckdb.connect().sql(
        f"SELECT DISTINCT typeof(created_month) FROM read_parquet('{lake}/**/*.parquet')"
    )
    assert kinds.fetchall() == [("VARCHAR",)]


def test_nothing_else_ends_in_parquet(lake: Path) -> None:
    """Only visible months end in .parquet, and a lake has no symlinks."""
    assert all(path.parent.parent == lake for path in lake.rglob("*.parquet"))
    assert not any(path.is_symlink() for path in lake.rglob("*"))


def test_files_are_read_only_and_one(lake: Path) -> None:
    """A visible month is a hard link to its object, and both are read-only."""
    layout = Layout(lake)
    number = layout.number()
    assert number
    for entry in layout.manifest(number).files:
        visible, kept = lake / entry.path, layout.objects / entry.object
        assert visible.samefile(kept)
        assert not visible.stat().st_mode & 0o222


@contextmanager
def watched(look: Callable[[], None]) -> Iterator[None]:
    """Look at the lake after each storage call."""

    def see(_name: str, go: Callable[[], Any]) -> Any:
        found = go()
        look()
        return found

    with around_storage(see):
        yield


class TestMoved:
    """Jobs whose created_at moved to another month."""

    @pytest.fixture
    def moving(self, tmp_path: Path) -> tuple[Path, Sandbox]:
        """Return a lake of two months, one of them with only two jobs."""
        world = World(jobs=0, now=datetime(2026, 3, 1, tzinfo=UTC))
        for n in range(12):
            world.insert(datetime(2026, 1, 3 + n, tzinfo=UTC), status="completed")
        for n in range(2):
            world.insert(datetime(2026, 2, 3 + n, tzinfo=UTC), status="completed")
        sandbox = Sandbox(world, api_keys={CANARY: None})
        dump(tmp_path / "lake", sandbox)
        return tmp_path / "lake", sandbox

    @pytest.mark.parametrize("way", ["later", "earlier", "both", "all of a month"])
    def test_a_plain_reader_never_sees_a_job_twice(self, way: str, moving: tuple[Path, Sandbox]) -> None:
        """During a publish of moved jobs a glob never finds a job twice, and in the end finds each once."""
        lake, sandbox = moving
        january, february = (
            [job["id"] for job in sandbox.world.visible() if job["createdAt"].startswith(f"2026-0{n}")]
            for n in (1, 2)
        )
        if way in ("later", "both"):
            sandbox.world.move(january[3], datetime(2026, 2, 10, tzinfo=UTC))
        if way in ("earlier", "both"):
            sandbox.world.move(february[0], datetime(2026, 1, 10, tzinfo=UTC))
        if way == "all of a month":
            for job in february:
                sandbox.world.move(job, datetime(2026, 1, 10, tzinfo=UTC))
        most: list[int] = []

        def look() -> None:
            if any(lake.glob("created_month=*/*.parquet")):
                most.append(max(Counter(seen(lake)).values()))

        with watched(look):
            receipt = dump(lake, sandbox, full=True)
        assert receipt.moved == {"later": 1, "earlier": 1, "both": 2, "all of a month": 2}[way]
        assert max(most) == 1
        assert ids(lake) == seen(lake) == sorted(january + february)
        assert verify_lake(lake).ok

    def test_a_month_that_empties_stays_as_long_as_its_snapshots(self, moving: tuple[Path, Sandbox]) -> None:
        """An empty month is a file of no rows until the last snapshot with its rows expires."""
        lake, sandbox = moving
        for job in [job for job in sandbox.world.visible() if job["createdAt"].startswith("2026-02")]:
            sandbox.world.move(job["id"], datetime(2026, 1, 10, tzinfo=UTC))
        dump(lake, sandbox, full=True)
        empty = lake / "created_month=2026-02" / "part-0.parquet"
        assert pl.read_parquet(empty).height == 0
        for _ in range(2):
            sandbox.world.insert(datetime(2026, 1, 20, tzinfo=UTC), status="completed")
            dump(lake, sandbox, full=True, keep_count=1)
        assert not empty.parent.exists()
        assert verify_lake(lake).ok
        assert ids(lake) == seen(lake)


class TestCarriedOver:
    """Lakes of format 1."""

    @pytest.fixture
    def old(self, tmp_path: Path) -> Path:
        """Return the golden lake of format 1, with two snapshots."""
        return Path(shutil.copytree(GOLDEN, tmp_path / "old", symlinks=True))

    @pytest.mark.slow
    def test_killed_anywhere_it_is_one_or_the_other(self, old: Path, tmp_path: Path) -> None:
        """A conversion killed at any storage call leaves a readable lake, and the next run completes it."""
        want = ids(old)
        with killed_at(10**9) as calls:
            repair_lake(shutil.copytree(old, tmp_path / "whole", symlinks=True))
        assert len(calls) > 20
        for call in range(1, len(calls) + 1):
            lake = Path(shutil.copytree(old, tmp_path / f"{call}", symlinks=True))
            with killed_at(call):
                repair_lake(lake)
            assert ids(lake) == want, (call, calls[call - 1])
            if not (lake / "snapshots").exists() and any(lake.glob("**/*.parquet")):
                assert max(Counter(seen(lake)).values()) == 1
            assert repair_lake(lake).problems == ()
            assert ids(lake) == seen(lake) == want
            assert verify_lake(lake).ok
            assert scan_lake(lake, as_of=1).collect().height == scan_lake(old, as_of=1).collect().height
            assert not [
                path.name for path in lake.iterdir() if not path.name.startswith(("_lake", "created_month="))
            ]
            shutil.rmtree(lake)

    def test_a_run_of_an_older_version_is_kept_out(self, old: Path) -> None:
        """A conversion also holds the old lock; afterwards an older version finds no lake."""
        import fcntl  # noqa: PLC0415 - here only

        (old / "_lock").touch()
        with (old / "_lock").open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(Exception, match="held by another run"):
                repair_lake(old)
        assert repair_lake(old).problems == ()
        assert not (old / "current").exists()
        assert not (old / "_lock").exists()


def copy_with(tool: str, source: Path, target: Path) -> None:
    """Copy a lake with this tool."""
    if tool == "zip":
        with zipfile.ZipFile(target.with_suffix(".zip"), "w") as archive:
            for path in source.rglob("*"):
                archive.write(path, path.relative_to(source))
        with zipfile.ZipFile(target.with_suffix(".zip")) as archive:
            archive.extractall(target)
    elif tool == "tar":
        with tarfile.open(target.with_suffix(".tar"), "w") as tar:
            tar.add(source, "lake")
        with tarfile.open(target.with_suffix(".tar")) as tar:
            tar.extractall(target.parent / "untarred", filter="data")
        (target.parent / "untarred" / "lake").rename(target)
    elif tool == "git":
        run = functools.partial(subprocess.run, check=True, capture_output=True)
        who = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")
        run(["git", "init", "-q", source])
        run(["git", "-C", source, "add", "-A"])
        run(["git", "-C", source, *who, "commit", "-qm", "a lake"])
        run(["git", "clone", "-q", source, target])
        shutil.rmtree(target / ".git")
        shutil.rmtree(source / ".git")
    else:
        flags = {"cp -r": "-r", "cp -rL": "-rL", "cp -a": "-a"}
        subprocess.run(["cp", flags[tool], source, target], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["cp -r", "cp -rL", "cp -a", "zip", "tar", "git"])
def test_a_copy_is_a_lake(tool: str, lake: Path, sandbox: Sandbox, tmp_path: Path) -> None:
    """A copy by any tool verifies, has the history, and continues at the cost of what is new."""
    copy = tmp_path / "copy"
    copy_with(tool, lake, copy)
    found = verify_lake(copy)
    assert found.ok, found
    assert ids(copy) == seen(copy) == ids(lake)
    assert scan_lake(copy, as_of=1).collect().height == scan_lake(lake, as_of=1).collect().height
    receipt = dump(copy, sandbox)
    assert (receipt.mode, receipt.code, receipt.snapshot) == ("refresh", 0, 4)
    assert ids(copy) == seen(copy)
    assert verify_lake(copy).ok


def test_a_copy_of_the_visible_months_and_manifests(lake: Path, sandbox: Sandbox, tmp_path: Path) -> None:
    """Missing objects are replaced by the visible months, and restored by the next dump."""
    copy = Path(shutil.copytree(lake, tmp_path / "copy", ignore=shutil.ignore_patterns("objects")))
    assert ids(copy) == seen(copy) == ids(lake)
    assert verify_lake(copy).ok
    assert dump(copy, sandbox).mode == "refresh"
    assert (copy / "_lake" / "objects").is_dir()
    assert ids(copy) == seen(copy)
    assert verify_lake(copy).ok


def test_a_copy_of_the_visible_months_alone_is_no_lake(lake: Path, tmp_path: Path) -> None:
    """Without `_lake` the folder is plain Parquet, and no run accepts it as a lake."""
    copy = Path(shutil.copytree(lake, tmp_path / "copy", ignore=shutil.ignore_patterns("_*")))
    assert seen(copy) == ids(lake)
    with pytest.raises(Exception, match="is not a lake"):
        scan_lake(copy)


def test_where_links_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hard links visible months are copies, recognised by size and time, and not rewritten each run."""

    def refuse(_self: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    lake = tmp_path / "copied"
    world = World(jobs=300, days=60, seed=2)
    sandbox = Sandbox(world, api_keys={CANARY: None})
    for _ in range(2):
        dump(lake, sandbox)
        world.advance(3 * DAY)
    assert ids(lake) == seen(lake)
    assert verify_lake(lake).ok
    before = {path: path.stat().st_ino for path in lake.glob("created_month=*/*")}
    assert len({*before.values()} & {path.stat().st_ino for path in (lake / "_lake/objects").iterdir()}) == 0
    receipt = dump(lake, sandbox)
    for path, number in before.items():
        assert (path.stat().st_ino == number) is (path.parent.name[14:] not in receipt.months_written)


def test_a_month_that_was_written_over_is_put_right(lake: Path, sandbox: Sandbox) -> None:
    """`verify` finds a visible month that another tool replaced, and the next dump restores it."""
    visible = next(lake.glob("created_month=*/part-0.parquet"))
    visible.unlink()
    pl.DataFrame({"id": ["mine"]}).write_parquet(visible)
    assert [problem.partition(":")[0] for problem in verify_lake(lake).problems] == [
        visible.relative_to(lake).as_posix()
    ]
    assert "mine" not in ids(lake)
    dump(lake, sandbox)
    assert verify_lake(lake).ok
    assert ids(lake) == seen(lake)


def test_a_file_beside_a_month_is_moved_out_of_sight_by_a_repair(lake: Path) -> None:
    """`verify` reports a foreign file beside a month, and `repair` moves it away from readers."""
    stray = next(lake.glob("created_month=*")) / "part-7.parquet"
    shutil.copy(stray.with_name("part-0.parquet"), stray.with_name("extra.parquet"))
    assert any("extra.parquet" in problem for problem in verify_lake(lake).problems)
    assert repair_lake(lake).problems == ()
    assert ids(lake) == seen(lake)
    assert len(list((lake / "_lake" / "strays").iterdir())) == 1


@pytest.mark.parametrize("inside", ["_lake", "_lake/objects", "created_month={month}", "new"])
def test_a_folder_in_a_lake_is_none(inside: str, lake: Path, sandbox: Sandbox) -> None:
    """Who names a folder in a lake reads the name of the lake, and no dump makes a lake in another one's folder."""
    month = next(lake.glob("created_month=*")).name.partition("=")[2]
    folder = lake / inside.format(month=month)
    there = folder.exists()
    where = re.escape(f"lies in the lake {lake}; name that folder")
    with pytest.raises(LakeError, match=where):
        scan_lake(folder)
    with pytest.raises(ConfigurationError, match=where):
        dump(folder, sandbox)
    assert folder.exists() == there
    assert verify_lake(lake).ok


@pytest.mark.parametrize("place", ["top.parquet", "backup/deep/x.parquet", "_lake/objects/x.parquet"])
def test_parquet_anywhere_else_is_a_problem(place: str, lake: Path) -> None:
    """`verify` reports any other Parquet file, and `repair` moves it; a lake inside the lake stays."""
    month = next(lake.glob("created_month=*/*.parquet"))
    (lake / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(month, lake / place)
    subprocess.run(["cp", "-a", lake, f"{lake}-2"], check=True)
    assert any(problem.startswith(place) for problem in verify_lake(lake).problems)
    assert repair_lake(lake).problems == ()
    assert ids(lake) == seen(lake)
    (lake / place).unlink(missing_ok=True)
    Path(f"{lake}-2").rename(lake / "inner")
    assert verify_lake(lake).ok
    assert "inner" in verify_lake(lake).foreign


@pytest.mark.parametrize("which", ["visible", "object", "both"])
def test_a_folder_where_a_file_belongs(which: str, lake: Path, sandbox: Sandbox) -> None:
    """A folder in place of a file is moved away, and the file is restored from its other name or by the next dump."""
    layout = Layout(lake)
    entry = layout.manifest(3).files[1]
    for name, path in (("visible", lake / entry.path), ("object", layout.objects / entry.object)):
        if which in (name, "both"):
            path.unlink()
            path.mkdir()
    assert not verify_lake(lake).ok or which == "object"
    assert repair_lake(lake).problems == ()
    if which != "both":
        assert ids(lake) == seen(lake)
        assert len(ids(lake)) == layout.manifest(3).rows
    dump(lake, sandbox)
    assert verify_lake(lake).ok
    assert {job["id"] for job in sandbox.world.visible()} == {*ids(lake)} == {*seen(lake)}


@pytest.mark.parametrize("pointer", ["1", "99"])
def test_a_pointer_that_is_not_the_lakes(pointer: str, lake: Path) -> None:
    """`repair` sets a wrong pointer to the snapshot that readers of the folder see."""
    want = ids(lake)
    (lake / "_lake" / "current").write_text(pointer)
    assert not verify_lake(lake).ok
    found = repair_lake(lake)
    assert (found.snapshot, found.problems) == (3, ())
    assert ids(lake) == seen(lake) == want
    assert scan_lake(lake, as_of=2).collect().height


@pytest.mark.catalogue
def test_a_repair_renews_the_catalogue(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`repair` rewrites a catalogue that is broken or names another path."""
    for number in range(2):
        copy = tmp_path / f"copy-{number}"
        subprocess.run(["cp", "-a", lake, copy], check=True)
        if number:
            (copy / "_jobs.duckdb").write_bytes(b"x" * 3_000)
        shutil.rmtree(next(copy.glob("created_month=*")))
        group.main(["repair", str(copy)], standalone_mode=False)
        shutil.rmtree(next(copy.glob("created_month=*")))
        with duckdb.connect(str(copy / "_jobs.duckdb"), read_only=True) as con:
            assert con.sql("SELECT count(*) FROM export_jobs").fetchall() == [(len(seen(copy)),)]
    assert "differed from the snapshot: replaced" in capsys.readouterr().out


def test_a_copy_without_links_needs_no_repair(lake: Path, tmp_path: Path) -> None:
    """A copy whose visible months are no links of their objects is not damaged: a repair links them without a word."""
    copy = tmp_path / "copy"
    shutil.copytree(lake, copy, copy_function=shutil.copy)  # like `cp -r`, it keeps neither links nor times
    months = sorted(copy.glob("created_month=*/part-0.parquet"))
    assert all(path.stat().st_nlink == 1 for path in months)
    found = repair_lake(copy)
    assert (found.done, found.problems) == ((), ())
    assert all(path.stat().st_nlink == 2 for path in months)
    months[0].unlink()
    months[0].write_bytes(months[1].read_bytes())
    inside = months[0].relative_to(copy).as_posix()
    assert repair_lake(copy).done == (f"{inside} differed from the snapshot: replaced",)
    assert ids(copy) == seen(copy) == seen(lake)


def test_a_repair_follows_the_months_of_a_copy(lake: Path, tmp_path: Path) -> None:
    """A repair recognises in a copy too that the pointer is older than the visible months."""
    copy = tmp_path / "copy"
    shutil.copytree(lake, copy, copy_function=shutil.copy)  # like `cp -r`, it keeps neither links nor times
    pointer = copy / "_lake" / "current"
    newest = Layout(lake).number()
    assert newest
    pointer.chmod(0o644)
    pointer.write_text(f"{newest - 1}")
    found = repair_lake(copy)
    assert (found.snapshot, found.problems) == (newest, ())


@pytest.mark.parametrize("when", ["before", "after"])
def test_damage_in_place(when: str, lake: Path, sandbox: Sandbox) -> None:
    """Bytes changed in place are found by checksum, and restored from an older object and the next dump."""
    visible = max(lake.glob("created_month=*/part-0.parquet"))
    visible.chmod(0o644)
    data = bytearray(visible.read_bytes())
    data[len(data) // 2] ^= 1
    visible.write_bytes(data)
    assert any("sha256" in problem for problem in verify_lake(lake).problems)
    if when == "after":
        assert repair_lake(lake).problems == ()
        assert verify_lake(lake).ok
        dump(lake, sandbox)
    else:
        repair_lake(lake)
        dump(lake, sandbox)
    assert verify_lake(lake).ok
    assert ids(lake) == seen(lake)
    assert {job["id"] for job in sandbox.world.visible()} == {*ids(lake)}


def test_the_owner_of_the_open_files_does_not_matter(lake: Path) -> None:
    """Removing orphans needs the right to write to the folder only, not to the file."""
    assert os.access(lake / "_lake" / "objects", os.W_OK)
    layout = Layout(lake)
    disk.remove_file(layout.manifest_file(1))
    from pleo_extract.lake.folder.objects import sweep_objects  # noqa: PLC0415 - here only

    sweep_objects(layout, check=lambda: None)
    named = {entry.object for number in (2, 3) for entry in layout.manifest(number).files}
    assert {path.name for path in layout.objects.iterdir()} == named


def record_calls(calls: list[tuple[str, Path]]) -> Callable[[str, Callable[[], Any]], Any]:
    """Return a function for `around_storage` that notes each call and the path that it changes, and makes it."""

    def note(name: str, go: Callable[[], Any]) -> Any:
        assert isinstance(go, functools.partial)
        calls.append((name, go.args[1] if name == "link_file" else go.args[0]))
        return go()

    return note


def test_f35_a_month_that_loses_jobs_is_gone_for_good_before_another_shows_them(tmp_path: Path) -> None:
    """F35: after power loss between the two, a removal that was not synced would show the jobs in both months."""
    lake, sandbox = tmp_path / "lake", Sandbox(World(jobs=300, days=90, seed=12), api_keys={CANARY: None})
    dump(lake, sandbox)
    jobs = [job for job in sandbox.world.visible() if job["status"] == "completed"]
    early, late = jobs[:2], jobs[-2:]
    for job, other in zip([*early, *late], [*late, *early], strict=True):
        moved = datetime.fromisoformat(other["createdAt"]) + timedelta(seconds=1)
        sandbox.world.move(job["id"], moved, job["companyId"])
    calls: list[tuple[str, Path]] = []
    with around_storage(record_calls(calls)):
        assert dump(lake, sandbox, full=True).moved == 4
    shown = [n for n, (name, path) in enumerate(calls) if name == "link_file" and path.parent.parent == lake]
    gone = [n for n, (name, path) in enumerate(calls) if name == "remove_file" and path.parent.parent == lake]
    assert len(gone) == 2
    for n in gone:
        assert ("sync_folder", calls[n][1].parent) in calls[n : min(shown)]


def test_f35_removed_objects_are_gone_for_good_before_the_marker(lake: Path, sandbox: Sandbox) -> None:
    """F35: the build folder tells the next run to look for objects that no manifest names, so it goes last."""
    sandbox.world.advance(DAY)
    layout = Layout(lake)
    calls: list[tuple[str, Path]] = []
    with around_storage(record_calls(calls)):
        dump(lake, sandbox, keep_count=1)
    last = max(
        n for n, (name, path) in enumerate(calls) if name == "remove_file" and path.parent == layout.objects
    )
    marker = next(
        n
        for n, (name, path) in enumerate(calls)
        if n > last and name == "remove_tree" and path.name.startswith("build-")
    )
    assert ("sync_folder", layout.objects) in calls[last:marker]
