"""F67, F68, F70, F71 for a lake: flipped bits, crafted files, planted links, odd disks, clocks and paths."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import random
import shutil
import signal
import stat
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from cases import mostly_slow

from pleo_extract import Client, connect, dump_export_jobs, merge_lakes, scan_lake, verify_lake
from pleo_extract.errors import (
    ConfigurationError,
    LakeError,
    PleoExtractError,
    RequestsExceeded,
    StorageError,
)
from pleo_extract.lake import disk
from pleo_extract.lake.folder.pruning import prune
from pleo_extract.lake.folder.repair import repair_lake
from pleo_extract.lake.layout import FORMAT, Layout, scan_files
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.record import read_last_run
from pleo_extract.lake.status import _format_age, read_status
from pleo_extract.lake.table import Keep
from pleo_extract.report import write_report
from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Said

SERVER = "http://127.0.0.1:1"
WORLD: dict[str, Any] = {"jobs": 60, "days": 40, "seed": 5}
MANIFEST, RECORD = "_lake/snapshots/000001.json", "_lake/last_run.json"
HANGS = 60
"""Seconds after which a call that must not block is taken for one that does; no test waits that long otherwise."""


def dump(lake: Path, sandbox: Sandbox, **options: Any) -> Any:
    """Dump in this process."""
    with Client(SERVER, api_key=API_KEY, transport=sandbox, rate=10_000_000, in_flight=1) as client:
        return dump_export_jobs(lake, client=client, progress=False, **options)


def is_true(lake: Path, sandbox: Sandbox) -> bool:
    """Return whether the lake holds what the server has, and its visible months show it."""
    rows = scan_lake(lake).collect().drop("extra")
    files = sorted(lake.glob("*/*.parquet"))
    plain = scan_files(files).collect().drop("extra")
    return plain.equals(rows) and sandbox.truth(rows.to_dicts(), sandbox.world.now) == []


def make_sandbox() -> Sandbox:
    """Make a small server with small pages."""
    return Sandbox(World(**WORLD), rules=Rules(max_limit=10))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a lake with one snapshot, and a copy of it to restore."""
    root = tmp_path_factory.mktemp("kept")
    dump(root / "lake", make_sandbox())
    shutil.copytree(root / "lake", root / "copy", symlinks=True)
    return root


@pytest.fixture
def lake(kept: Path) -> Path:
    """Return a lake of one snapshot, always at the same path, so that its catalogue stays valid."""
    return restore(kept, "copy")


def restore(root: Path, name: str) -> Path:
    """Restore the lake from this copy."""
    if (root / "lake").exists():
        disk.remove_tree(root / "lake")
    shutil.copytree(root / name, root / "lake", symlinks=True)
    return root / "lake"


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cut a first dump after three requests, and copy what it left."""
    root = tmp_path_factory.mktemp("cut")
    with pytest.raises(RequestsExceeded):
        dump(root / "lake", make_sandbox(), max_requests=4)
    assert list(root.glob("lake/_lake/staging/*/journal.jsonl"))
    shutil.copytree(root / "lake", root / "copy", symlinks=True)
    return root


@pytest.fixture
def staged(cut: Path) -> Path:
    """Return the staging folder of a first dump that was cut."""
    (folder,) = restore(cut, "copy").glob("_lake/staging/*")
    return folder


@contextmanager
def not_blocking() -> Iterator[None]:
    """Fail if the block does not end in time."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it blocks")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_doors(lake: Path, *, codes: tuple[int, ...] = (65, 76, 78)) -> list[PleoExtractError]:
    """Open each public door of a lake; fail if one raises an error that is not ours or cannot be shown."""
    doors: list[Callable[[], object]] = [
        lambda: read_status(lake),
        lambda: scan_lake(lake).collect(),
        lambda: verify_lake(lake),
        lambda: dump(lake, make_sandbox()),
        lambda: repair_lake(lake),
        lambda: dump(lake, make_sandbox(), full=True),
    ]
    failures = [failure for door in doors if (failure := attempt(door)) is not None]
    assert [str(each) for each in failures if not each.tell().isprintable()] == []
    assert [each for each in failures if each.code not in codes] == []
    return failures


def attempt(door: Callable[[], object]) -> PleoExtractError | None:
    """Return the error that a door raises; None if it opens."""
    try:
        door()
    except PleoExtractError as exc:
        return exc
    return None


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.unlink()  # it may be a hard link of the copy
    path.write_bytes(data)


def sample_bits(path: Path, count: int, seed: int) -> list[int]:
    """Return some of its bits, the same each time."""
    bits = path.stat().st_size * 8
    return sorted(random.Random(seed).sample(range(bits), min(count, bits)))


class TestFlippedBits:
    """F67: what is read from disk is parsed strictly."""

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "count"), [(MANIFEST, 14), (RECORD, 4)])
    def test_f67_a_flipped_bit(self, name: str, count: int, kept: Path) -> None:
        """In a manifest or a record it gives 65 or is repaired, and a full dump makes the lake true again."""
        for bit in sample_bits(restore(kept, "copy") / name, count, 67):
            lake = restore(kept, "copy")
            flip(lake / name, bit)
            failures = try_doors(lake)
            if not any(each.code == 78 or "Upgrade" in str(each) for each in failures):
                assert is_true(lake, make_sandbox()), (bit, failures)

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "count"), [("journal.jsonl", 10), ("run.json", 4)])
    def test_f67_a_flipped_bit_in_staging(self, name: str, count: int, cut: Path) -> None:
        """In a journal or its header it ends what is resumed, and the dump ends with the truth."""
        (original,) = restore(cut, "copy").glob(f"_lake/staging/*/{name}")
        for bit in sample_bits(original, count, 68):
            lake = restore(cut, "copy")
            (path,) = lake.glob(f"_lake/staging/*/{name}")
            flip(path, bit)
            sandbox = make_sandbox()
            assert dump(lake, sandbox).code == 0
            assert is_true(lake, sandbox), bit

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "change",
        [
            {"made_at": "0001-01-01T00:00:00Z"},
            {"made_at": "9999-12-31T23:59:59-23:59"},
            {"made_at": "2026-01-01T00:00:00"},
            {"snapshot": 10**12},
            {"format": -1},
            {"server": "http://\x1b[2J"},
            {"server": "\ud800"},
            {"rows": -5},
            {"files": []},
            {"receipt": {"seconds": "long"}},
            {"receipt": {"verdict": "fine"}},
            {"accounts": {f"{SERVER} *": {"verdict": "perfect"}}},
            {"accounts": {f"{SERVER} *": {"order": "chaos"}}},
            {"accounts": {f"{SERVER} *": {"frontier": ["2026-13-45", "a"]}}},
            {"accounts": {f"{SERVER} *": {"frontier": ["2026-01-01T00:00:00+01:00", "a"]}}},
            {"accounts": {f"{SERVER} *": {"full_at": "9999-12-31T23:59:59Z"}}},
            {"accounts": {f"{SERVER} *": {"updated_at": "2026-01-01T00:00:00"}}},
            {"accounts": {f"{SERVER} *": {"full_jobs": -1}}},
            {"accounts": {f"{SERVER} *": {"refused_offset": -1}}},
            {"accounts": {f"{SERVER} *": {"ignores_statuses": "yes"}}},
            {"accounts": {f"{SERVER} *": {"misechoes": 2}}},
            {"accounts": {f"{SERVER} *": {"vanished": [["..", "../x"]]}}},
            {"accounts": {"a\nb": {}}},
        ],
        ids=str,
    )
    def test_f67_values_that_no_run_writes(self, change: dict[str, Any], lake: Path) -> None:
        """Every reader of the manifest ends with 65 and says what to do; repair mends it; the next dump succeeds."""
        manifest = json.loads((lake / MANIFEST).read_bytes())
        (lake / MANIFEST).write_text(json.dumps(manifest | change))
        for door in (read_status, scan_lake, lambda lake: dump(lake, make_sandbox())):
            with pytest.raises(LakeError, match="repair"):
                door(lake)
        assert not verify_lake(lake).ok
        assert repair_lake(lake).problems == ()
        sandbox = make_sandbox()
        assert dump(lake, sandbox).code == 0
        assert is_true(lake, sandbox)

    @pytest.mark.parametrize(
        "data", [b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"", b'{"format":1,"made_at":"\xc3"}', b"1e999"]
    )
    def test_f67_bytes_that_are_no_json(self, data: bytes, lake: Path) -> None:
        """Bad UTF-8, deep nesting or nothing: a manifest is 65 and is repaired, a record counts as none."""
        (lake / RECORD).write_bytes(data)
        assert read_last_run(Layout(lake)) is None
        assert read_status(lake).last_run is None
        (lake / MANIFEST).write_bytes(data)
        with pytest.raises(LakeError, match="repair"):
            scan_lake(lake)
        assert repair_lake(lake).problems == ()
        assert dump(lake, make_sandbox()).code == 0
        assert read_last_run(Layout(lake)) is not None

    @pytest.mark.parametrize(
        "change",
        [
            {"ended_at": "9999-12-31T23:59:59-12:00"},
            {"last_complete_at": "2026-01-01T00:00:00"},
            {"failed": {"one": [65]}},
            {"failed": {"one": ["\x1b", None]}},
            {"receipt": {"rows": "many"}},
            {"code": -7},
        ],
        ids=str,
    )
    def test_f67_records_that_no_run_writes(
        self, change: dict[str, Any], lake: Path, pleo: Callable[..., Said]
    ) -> None:
        """Such a record counts as none, and `status` shows the rest."""
        record = json.loads((lake / RECORD).read_bytes())
        (lake / RECORD).write_text(json.dumps(record | change))
        assert read_last_run(Layout(lake)) is None
        assert pleo("status", lake).code == pleo("status", lake, "--json").code == 0

    @pytest.mark.parametrize(
        "data", [b"", b"\0", b"1\n\n", b"../1", b"01", b"1.0", b"\xd9\xa1", b"7" * 10, b"1" * 10**6]
    )
    def test_f67_a_pointer_that_leads_nowhere(self, data: bytes, lake: Path) -> None:
        """A pointer that is not a number, or not one in our spelling, is 65, and repair corrects it."""
        (lake / "_lake/current").write_bytes(data)
        for door in (read_status, scan_lake, lambda lake: dump(lake, make_sandbox())):
            with pytest.raises(LakeError, match="repair"):
                door(lake)
        assert not verify_lake(lake).ok
        assert repair_lake(lake).problems == ()
        assert is_true(lake, make_sandbox())

    @pytest.mark.parametrize("bit", mostly_slow(range(8), quick=3))
    def test_f67_a_flipped_bit_in_the_pointer(self, bit: int, lake: Path) -> None:
        """A flipped bit in the pointer gives 65 or the same number, and repair corrects it."""
        flip(lake / "_lake/current", bit)
        try_doors(lake)
        assert is_true(lake, make_sandbox())

    def test_f67_a_flipped_bit_in_the_state(self, lake: Path) -> None:
        """To lose what runs learned since the snapshot costs requests, never rows."""
        sandbox = make_sandbox()
        assert not dump(lake, sandbox).published
        state = (lake / "_lake/state.json").read_bytes()
        for bit in random.Random(69).sample(range(len(state) * 8), 10):
            (lake / "_lake/state.json").write_bytes(state)
            flip(lake / "_lake/state.json", bit)
            assert dump(lake, make_sandbox()).code == 0
            assert verify_lake(lake).ok
            assert is_true(lake, make_sandbox())

    def test_f67_two_files_of_a_month(self, lake: Path) -> None:
        """Repair does not take a foreign file into the new manifest, but moves it where no reader sees it."""
        part = next(lake.glob("*/part-0.parquet"))
        shutil.copy(part, part.with_name("copy.parquet"))
        (lake / MANIFEST).unlink()
        repair_lake(lake)
        assert [path.name for path in part.parent.iterdir()] == ["part-0.parquet"]
        sandbox = make_sandbox()
        assert dump(lake, sandbox).code == 0
        assert is_true(lake, sandbox)

    def test_f67_a_file_whose_rows_cannot_be_read(self, lake: Path) -> None:
        """Repair does not take a file with changed bytes into the new manifest."""
        part = next(lake.glob("*/part-0.parquet"))
        data = bytearray(part.read_bytes())
        data[4:200] = bytes(196)
        part.unlink()
        part.write_bytes(data)
        (lake / MANIFEST).unlink()
        assert repair_lake(lake).problems == ()
        sandbox = make_sandbox()
        assert dump(lake, sandbox).code == 0
        assert is_true(lake, sandbox)


SECRET = "nobody else's business"


class TestCrafted:
    """F68: no call reads or writes outside the lake, and none blocks."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "what", ["run", "run with a slash", "mode", "month", "file", "phase", "rejected"]
    )
    def test_f68_a_crafted_staging_folder(self, what: str, staged: Path) -> None:
        """Names that lead out of the lake and links are not followed, and the dump ends with the truth."""
        lake = staged.parent.parent.parent
        root = lake.parent
        (root / "secret.jsonl").write_text(SECRET)
        header = json.loads((staged / "run.json").read_bytes())
        batches = [json.loads(line) for line in (staged / "journal.jsonl").read_bytes().splitlines()]
        if what.startswith("run"):
            header["run"] = "../../../evil" if what == "run" else "/evil"
        elif what == "mode":
            header["mode"] = "\x1b[2J"
        elif what == "month":
            batches[0]["months"] = ["../../../../evil"]
        elif what == "file":
            batches[0]["file"] = "../../../secret"
        elif what == "phase":
            batches[0]["phase"] = "a/../b"
        if what in ("rejected", "run", "run with a slash"):  # these are copied by the run's name
            batches[0] |= {"rejected": ["no"], "names": ["x"]}
            planted = staged / f"{batches[0]['file']}.rejected.jsonl"
            planted.symlink_to(root / "secret.jsonl") if what == "rejected" else planted.write_text("evil")
        (staged / "run.json").write_text(json.dumps(header))
        (staged / "journal.jsonl").write_text("".join(json.dumps(each) + "\n" for each in batches))
        before = {path for path in root.rglob("*") if not path.is_relative_to(lake)}
        sandbox = make_sandbox()
        assert dump(lake, sandbox).code == 0
        assert is_true(lake, sandbox)
        assert {path for path in root.rglob("*") if not path.is_relative_to(lake)} == before
        assert SECRET not in "".join(
            path.read_text(errors="replace") for path in lake.rglob("*") if path.is_file()
        )
        (root / "secret.jsonl").unlink()

    @pytest.mark.parametrize("spoil", ["no columns", "other columns", "no keys", "no frame"])
    def test_f68_a_staged_file_that_is_none_of_ours(self, spoil: str, staged: Path) -> None:
        """A batch whose hash agrees with the journal but whose rows are no jobs is not published."""
        lake = staged.parent.parent.parent
        batches = [json.loads(line) for line in (staged / "journal.jsonl").read_bytes().splitlines()]
        path = staged / f"{batches[0]['file']}.arrow"
        rows = pl.read_ipc_stream(io.BytesIO(path.read_bytes()))
        buffer = io.BytesIO()
        if spoil == "no frame":
            buffer.write(path.read_bytes()[:8] + b"\xff" * 200)
        else:
            frames = {
                "no columns": pl.DataFrame(),
                "other columns": rows.rename({"status": "state"}),
                "no keys": rows.with_columns(id=pl.lit(None, pl.String)),
            }
            frames[spoil].write_ipc_stream(buffer)
        path.write_bytes(buffer.getvalue())
        batches[0]["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
        (staged / "journal.jsonl").write_text("".join(json.dumps(each) + "\n" for each in batches))
        sandbox = make_sandbox()
        assert dump(lake, sandbox).code == 0
        assert is_true(lake, sandbox)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
    @pytest.mark.parametrize(
        "name",
        [
            MANIFEST,
            RECORD,
            "_lake/lock",
            "_lake/current",
            "_lake/state.json",
            "_jobs.duckdb",
            "object",
            "visible",
        ],
    )
    def test_f68_something_else_in_place_of_a_file(self, name: str, kind: str, lake: Path) -> None:
        """With a pipe, a link or a folder nothing blocks, what a link leads to stays, and the error is one of ours."""
        places = {"object": "_lake/objects/*", "visible": "*/*.parquet"}
        path = next(lake.glob(places[name])) if name in places else lake / name
        victim = lake.parent / "victim"
        victim.write_text(SECRET)
        if path.exists():
            path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(victim)
        else:
            path.mkdir()
        with not_blocking():
            try_doors(lake, codes=(65, 74))
        assert victim.read_text() == SECRET

    @pytest.mark.parametrize("name", ["run.json", "journal.jsonl"])
    def test_f68_a_pipe_in_staging(self, name: str, staged: Path) -> None:
        """Such staging is not resumed: the dump starts from the beginning."""
        (staged / name).unlink()
        os.mkfifo(staged / name)
        sandbox = make_sandbox()
        with not_blocking():
            assert dump(staged.parent.parent.parent, sandbox).code == 0
        assert is_true(staged.parent.parent.parent, sandbox)

    def test_f68_a_lock_with_a_second_name(self, lake: Path) -> None:
        """A lock file with a second name, as in a backup of hard links, is not written to; the lake gets a new one."""
        other = lake.parent / "other"
        other.unlink(missing_ok=True)
        (lake / "_lake/lock").unlink(missing_ok=True)
        other.write_text(SECRET)
        os.link(other, lake / "_lake/lock")
        with hold_lock(Layout(lake)):
            assert other.read_text() == SECRET
            assert (lake / "_lake/lock").stat().st_nlink == 1
            with pytest.raises(PleoExtractError, match="held by another run"), hold_lock(Layout(lake)):
                pass
        assert other.read_text() == SECRET

    @pytest.mark.parametrize(
        "name",
        mostly_slow(
            ["0000013", "٠٠٠٠٠٩", "9" * 40, "000000", "000013x", "0000001", "000009 ", "12345"], quick=4
        ),
    )
    def test_f68_odd_names_of_snapshots(self, name: str, lake: Path) -> None:
        """A manifest or an object whose name is almost one of ours stays, and disturbs nothing."""
        odd = f"_lake/snapshots/{name}.json", f"_lake/objects/2026-10-{name}"
        for each in odd:
            (lake / each).write_text("{}")
        assert repair_lake(lake).problems == ()
        sandbox = make_sandbox()
        sandbox.world.advance(86_400)
        assert dump(lake, sandbox, keep_for=timedelta(0)).code == 0
        assert is_true(lake, sandbox)
        found = verify_lake(lake)
        assert found.ok
        for each in odd:
            assert each in found.foreign
            assert (lake / each).read_text() == "{}"

    def test_f68_a_file_in_place_of_what_is_swept(self, lake: Path) -> None:
        """A file in staging, a false manifest beyond the pointer and an unnamed object are removed without an error."""
        layout = Layout(lake)
        layout.manifest_file(7).write_text("x")
        (layout.staging / "build-x").write_text("x")
        (layout.objects / f"2026-10-{'0' * 64}").write_text("x")
        assert dump(lake, make_sandbox()).code == 0
        assert layout.numbers() == [1]
        assert list(layout.staging.iterdir()) == []
        assert verify_lake(lake).ok
        assert not (layout.objects / f"2026-10-{'0' * 64}").exists()


class TestPlanted:
    """F70: files outside a lake are written as safely as those inside."""

    @pytest.mark.parametrize("planted", ["beside", "in place"])
    def test_f70_links_at_predictable_names(
        self, planted: str, lake: Path, tmp_path: Path, pleo: Callable[..., Said]
    ) -> None:
        """Metrics, report and answers are written, and what a planted link leads to stays as it is."""
        victim = tmp_path / "victim"
        victim.write_text(SECRET)
        names = ("lake.prom", "report.html", "rows.txt", "rows.csv")
        for name in names:
            if planted == "beside":
                (tmp_path / f".{name}.new").symlink_to(victim)
                (tmp_path / f".{name}.{os.getpid()}").symlink_to(victim)
            else:
                (tmp_path / name).symlink_to(victim)
        pleo("dump", lake, "--base-url", SERVER, "--deadline", 0.2, "--metrics", tmp_path / names[0])
        assert pleo("report", lake, "-o", tmp_path / names[1], "--since", "2030-01-01").code == 0  # quick
        for name in names[2:]:
            said = pleo("sql", "--lake", lake, "-o", tmp_path / name, "select count(*) as n from export_jobs")
            assert said.code == 0
        assert victim.read_text() == SECRET
        for name in names:
            path = tmp_path / name
            assert path.is_file()
            assert not path.is_symlink()
            assert path.stat().st_size

    def test_f70_the_file_follows_the_umask_and_pipes_are_written_to(self, tmp_path: Path) -> None:
        """Others can read a report if the umask lets them; a device is not replaced by a file."""
        before = os.umask(0o027)
        try:
            disk.write_output(tmp_path / "report.html", b"1")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o640
        disk.write_output(Path(os.devnull), b"1")
        assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def failing(name: str, code: int, applies: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a system call fail for some paths."""
    real = getattr(os, name)

    def call(what: Any, *args: Any, **more: Any) -> Any:
        path = str(Path(f"/proc/self/fd/{what}").readlink()) if isinstance(what, int) else os.fspath(what)
        if applies(path):
            raise OSError(code, os.strerror(code), path)
        return real(what, *args, **more)

    monkeypatch.setattr(os, name, call)


class TestOddDisks:
    """F71: odd file systems, paths and clocks."""

    @pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.ENOSYS])
    def test_f71_folders_that_cannot_be_synced(
        self, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SMB and FUSE cannot sync folders: there is a lake all the same."""
        failing("fsync", code, lambda path: Path(path).is_dir(), monkeypatch)
        sandbox = make_sandbox()
        assert dump(tmp_path / "lake", sandbox).code == 0
        assert is_true(tmp_path / "lake", sandbox)

    @pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
    def test_f71_the_folder_above_fails(
        self, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A real disk error when a folder is synced is 74, with the folder and the lake."""
        failing("fsync", code, lambda path: Path(path) == tmp_path, monkeypatch)
        with pytest.raises(StorageError, match=f"{tmp_path}/lake") as caught:
            dump(tmp_path / "lake", make_sandbox())
        assert os.strerror(code) in str(caught.value)
        assert f"sync {tmp_path}:" in str(caught.value)

    @pytest.mark.parametrize(
        ("call", "code", "applies", "error"),
        [
            ("mkdir", errno.EINVAL, lambda path: "=" in path, ConfigurationError),
            ("rename", errno.ENOTSUP, lambda path: path.endswith(".new"), ConfigurationError),
            ("replace", errno.ENOTSUP, lambda path: path.endswith(".new"), ConfigurationError),
            ("mkdir", errno.ENOSPC, lambda path: "=" in path, StorageError),
            ("mkdir", errno.EACCES, lambda path: "=" in path, StorageError),
            ("rename", errno.EIO, lambda path: path.endswith(".new"), StorageError),
        ],
    )
    def test_f71_what_a_lake_needs_is_tried_first(
        self,
        call: str,
        code: int,
        applies: Callable[[str], bool],
        error: type[PleoExtractError],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """No '=' in names or no renaming over a file is 78 before a request is sent; a full disk is 74."""
        sandbox = make_sandbox()
        with monkeypatch.context() as patch:
            failing(call, code, applies, patch)
            if call == "rename":  # one of the two is what pathlib calls
                failing("replace", code, applies, patch)
            with pytest.raises(error, match=str(tmp_path / "lake")) as caught:
                dump(tmp_path / "lake", sandbox)
        assert os.strerror(code) in str(caught.value)
        assert sandbox.requests == []
        assert list((tmp_path / "lake/_lake/staging").iterdir()) == []
        assert dump(tmp_path / "lake", sandbox).code == 0

    @pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV])
    def test_f71_hard_links_are_not_needed(
        self, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where hard links are refused files are copied: such a lake is verified, resumed and read as any other."""
        lake, sandbox = tmp_path / "lake", make_sandbox()
        failing("link", code, lambda _: True, monkeypatch)
        for _ in range(2):
            assert dump(lake, sandbox).published
            assert is_true(lake, sandbox)
            assert verify_lake(lake).problems == ()
            sandbox.world.advance(86_400)
        assert {path.stat().st_nlink for path in lake.glob("*/*.parquet")} == {1}

    @pytest.mark.parametrize("name", [b"l\xffke", b"l\xed\xa0\x80ke"])
    def test_f71_paths_that_are_no_text(
        self, name: bytes, lake: Path, tmp_path: Path, pleo: Callable[..., Said]
    ) -> None:
        """Such a path of a lake, metrics, report, accounts or workspace is 78 before anything is sent or made."""
        odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        sandbox = make_sandbox()
        for call in (
            lambda: dump(odd, sandbox),
            lambda: dump(os.fsencode(odd), sandbox),  # type: ignore[arg-type]
            lambda: dump(tmp_path / "a\0b", sandbox),
            lambda: dump(tmp_path / "table", sandbox, format="delta", workspace=odd),
            lambda: scan_lake(odd),
            lambda: write_report(lake, odd),
            lambda: merge_lakes(lake, odd),
        ):
            with pytest.raises(ConfigurationError, match="UTF-8") as caught:
                call()
            assert caught.value.tell().isprintable()
        assert sandbox.requests == []
        for words in (
            ("dump", odd),
            ("dump", tmp_path / "new", "--metrics", odd / "x.prom"),
            ("dump", tmp_path / "new", "--accounts", odd),
            ("dump", tmp_path / "new", "--workspace", odd),
            ("report", lake, "-o", odd),
            ("sql", "--lake", lake, "-o", odd, "select 1"),
            ("status", odd),
        ):
            said = pleo(*words)
            assert said.code == 78, said
            assert "Traceback" not in said.err
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.catalogue
    @pytest.mark.parametrize("how", ["folder", "pipe", "name", "name that DuckDB cannot open", "no folder"])
    def test_f71_a_catalogue_that_cannot_be_written(
        self, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The data is published with a warning and 0; a pipe is replaced, a folder moved away, and odd names work."""
        names = {"name": "a'b [c] *\"#\n=é", "name that DuckDB cannot open": "a?b"}
        lake = tmp_path / names.get(how, "lake")
        lake.mkdir()
        if how == "folder":
            (lake / "_jobs.duckdb").mkdir()
        elif how == "pipe":
            os.mkfifo(lake / "_jobs.duckdb")
        elif how == "no folder":
            # the folder of a thread that compiles meanwhile, and then the one beside the file
            scratch = (".catalogue-", ".pleo-extract-")
            failing("mkdir", errno.EROFS, lambda path: any(each in path for each in scratch), monkeypatch)
        sandbox = make_sandbox()
        with not_blocking():
            assert dump(lake, sandbox).code == 0
        assert is_true(lake, sandbox)
        is_written = how in ("folder", "pipe", "name")
        warned = [each.message for each in caplog.records if "catalogue" in each.message]
        assert bool(warned) == (not is_written), warned
        assert (lake / "_jobs.duckdb").is_file() == is_written

    def test_f71_a_refused_dump_leaves_no_trace(self, lake: Path, tmp_path: Path) -> None:
        """In a lake of another server, kind or newer version no byte and no time changes."""

        def look() -> dict[str, Any]:
            found = sorted([lake, *lake.rglob("*")])
            return {
                str(each): (each.lstat().st_mtime_ns, each.is_file() and each.read_bytes()) for each in found
            }

        shutil.copytree(lake, tmp_path / "other", symlinks=True)
        path = tmp_path / "other" / MANIFEST
        path.write_text(path.read_text().replace(SERVER, "http://127.0.0.1:2"))
        before, sandbox = look(), make_sandbox()
        with (
            Client("http://127.0.0.1:2", api_key=API_KEY, transport=sandbox) as client,
            pytest.raises(ConfigurationError, match="holds jobs of"),
        ):
            dump_export_jobs(lake, client=client, progress=False)
        with pytest.raises(ConfigurationError):
            dump(lake, sandbox, format="delta")
        with pytest.raises(ConfigurationError, match="holds jobs of"):
            merge_lakes(tmp_path / "other", lake, progress=False)
        assert look() == before
        (lake / MANIFEST).write_text(
            (lake / MANIFEST).read_text().replace(f'"format": {FORMAT}', '"format": 9')
        )
        before = look()
        with pytest.raises(LakeError, match="Upgrade"):
            dump(lake, sandbox)
        assert look() == before
        assert sandbox.requests == []

    def test_f71_a_clock_that_ran_ahead(self, lake: Path, caplog: pytest.LogCaptureFixture) -> None:
        """It removes no snapshot, neither while it is wrong nor when it is right again, and warns."""
        sandbox, layout = make_sandbox(), Layout(lake)
        for _ in range(3):
            sandbox.world.advance(86_400)
            dump(lake, sandbox)
        assert layout.numbers() == [1, 2, 3, 4]
        now = datetime.now(UTC)
        assert prune(layout, 4, Keep(), now=now + timedelta(days=3_650)) == []
        set_made_at(layout, 4, now + timedelta(days=3_650))
        assert prune(layout, 4, Keep(), now=now + timedelta(days=3_650)) == [], (
            "its own manifest says the same"
        )
        caplog.set_level(logging.WARNING)
        assert prune(layout, 4, Keep(timedelta(hours=1)), now=now) == []
        assert "in the future" in caplog.text
        assert prune(layout, 4, Keep(count=2), now=now) == [1, 2]

    def test_f71_instants_in_the_future_are_not_just_now(self, lake: Path, pleo: Callable[..., Said]) -> None:
        """A last run or a newest job of tomorrow shows in `status`."""
        now = datetime(2026, 11, 28, tzinfo=UTC)
        assert _format_age(now + timedelta(seconds=5), now).endswith("(just now)")
        assert "in the future" in _format_age(now + timedelta(hours=1), now)
        record = json.loads((lake / RECORD).read_bytes())
        (lake / RECORD).write_text(json.dumps(record | {"ended_at": "2199-01-01T00:00:00Z"}))
        said = pleo("status", lake)
        assert "2199-01-01 00:00 UTC (in the future" in said.out


def set_made_at(layout: Layout, number: int, made_at: datetime) -> None:
    """Write another time of publishing into a manifest."""
    manifest = json.loads(layout.manifest_file(number).read_bytes())
    layout.manifest_file(number).write_text(json.dumps(manifest | {"made_at": made_at.isoformat()}))


def test_f68_readers_follow_no_link_in_a_snapshot(lake: Path) -> None:
    """An object that was replaced by a link is not read: the visible month is, or the lake is 65."""
    part = next(lake.glob("_lake/objects/*"))
    whole = scan_lake(lake).collect()
    part.unlink()
    pl.DataFrame({"id": ["elsewhere"]}).write_parquet(lake.parent / "elsewhere.parquet")
    part.symlink_to(lake.parent / "elsewhere.parquet")
    assert scan_lake(lake).collect().equals(whole)
    (lake / f"created_month={part.name[:7]}" / "part-0.parquet").unlink()
    for door in (scan_lake, connect, read_status):
        with pytest.raises(LakeError, match="repair"):
            door(lake)
    (lake.parent / "elsewhere.parquet").unlink()
