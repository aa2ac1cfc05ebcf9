"""A disk that is full, read-only or broken, and too few file handles: 74, the lake stays, and later runs continue."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tally import FULL, Tally, sample
from theatre import (
    Victims,
    Witness,
    copy_lake,
    examine,
    is_tidy,
    judge,
)

from pleo_extract import Client, dump_export_jobs
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scenes import Scene

STORAGE = 74
NOBODY = 65_534
WORLD: dict[str, Any] = {"jobs": 600, "days": 100, "seed": 39}


def is_root() -> bool:
    """Return whether this process may mount disks and change its user."""
    return os.geteuid() == 0


@contextmanager
def mounted(size: str) -> Iterator[Path]:
    """Yield a small disk in memory; skip the test where none can be mounted."""
    if not is_root():
        pytest.skip("a small disk can only be mounted by root")
    place = Path(tempfile.mkdtemp(prefix="torture-disk-"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False, capture_output=True
    )
    if done.returncode:
        place.rmdir()
        pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


def dump_here(lake: Path, sandbox: Sandbox) -> int:
    """Dump in this process and return the exit code."""
    with Client("http://127.0.0.1:1", api_key=API_KEY, transport=sandbox, rate=10_000_000) as client:
        return dump_export_jobs(lake, client=client, progress=False).code


def left_behind(lake: Path) -> list[str]:
    """Return the temporary files and half-built snapshots."""
    staging = lake / "_lake/staging"
    builds = list(staging.glob("build-*")) if staging.is_dir() else []
    return [str(path) for path in (*builds, *lake.rglob(".*"))]


@pytest.mark.parametrize("what", ["eio", "full"])
@pytest.mark.parametrize("scene", ["first dump", "refresh", "prune", "resume of a first dump"], indirect=True)
def test_f39_an_error_at_every_system_call(
    scene: Scene,
    what: str,
    request: pytest.FixtureRequest,
    tally: Callable[[str], Tally],
) -> None:
    """EIO or ENOSPC at any system call gives 74 with the path or no error, and the old or the new snapshot."""
    one = tally(f"disk error, {request.node.callspec.id}")
    copy_lake(scene.before, scene.lake)
    _, said = scene.victims.run(scene.lake, scene.url, options=scene.options, record=True)
    for at in sample(said["operations"], 3):
        one.tries += 1
        copy_lake(scene.before, scene.lake)
        witness = Witness(scene.lake)
        code, said = scene.victims.run(scene.lake, scene.url, options=scene.options, fail=[what, "", at])
        assert code == 0
        assert said["code"] in {0, STORAGE}, (at, said)
        if said["code"]:
            assert str(scene.lake) in said["error"], said
            assert said["operations"] < at + 60, "tried again"
        examine(scene.lake, one, witness)
        assert scene.dump(**scene.options) == 0, at
        examine(scene.lake, one, witness, settled=True)
        assert scene.since is not None
        judge(scene.sandbox, scene.lake, scene.since, one)
        assert is_tidy(scene.lake), at
    one.check()


def test_f39_a_full_disk(victims: Victims, tally: Callable[[str], Tally]) -> None:
    """A disk of any size that fills gives 74 with the path and leaves no half-written file; with room it continues."""
    one = tally("full disk, first dump")
    with mounted("64k") as place:
        for kilobytes in range(16, 700, 20 if FULL else 120):
            one.tries += 1
            resize(place, f"{kilobytes}k")
            lake = place / "lake"
            code, said = victims.run(lake, world=WORLD)
            assert code == 0
            assert said["code"] in {0, STORAGE}, said
            if said["code"]:
                assert str(lake) in said["error"], said
                assert not (lake / "_lake/current").exists()
                assert left_behind(lake) == []
            resize(place, "64m")
            sandbox = Sandbox(World(**WORLD))
            assert dump_here(lake, sandbox) == 0
            examine(lake, one)
            judge(sandbox, lake, sandbox.world.now, one)
            assert is_tidy(lake)
            shutil.rmtree(lake)
    one.check()


def test_f39_a_disk_that_becomes_full(victims: Victims, tally: Callable[[str], Tally]) -> None:
    """A refresh on a full disk gives 74 and leaves snapshot and state unchanged."""
    one = tally("full disk, refresh")
    later = Sandbox(World(**WORLD))
    with mounted("64m") as place:
        lake, before = place / "lake", place / "before"
        dump_here(before, later)
        since = later.world.advance(20 * 86_400)
        for kilobytes in range(0, 200, 4 if FULL else 40):
            one.tries += 1
            copy_lake(before, lake)
            witness = Witness(lake)
            filler = place / "filler"
            free = shutil.disk_usage(place).free
            filler.write_bytes(bytes(max(0, free - kilobytes * 1024)))
            code, said = victims.run(lake, world=WORLD, advance=20 * 86_400)
            assert code == 0
            assert said["code"] in {0, STORAGE}, said
            if said["code"]:
                assert witness.is_current()
                assert left_behind(lake) == []
            examine(lake, one, witness)
            filler.unlink()
            assert dump_here(lake, later) == 0
            examine(lake, one, witness)
            judge(later, lake, since, one)
            assert is_tidy(lake)
    one.check()


def resize(place: Path, size: str) -> None:
    """Change the size of the disk."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


def test_f39_read_only(victims: Victims, tally: Callable[[str], Tally]) -> None:
    """A lake on a read-only disk or of another user gives 74 and stays readable."""
    one = tally("read-only disk")
    sandbox = Sandbox(World(**WORLD))
    with mounted("64m") as place:
        lake = place / "lake"
        dump_here(lake, sandbox)
        witness = Witness(lake)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        for target in (lake, place / "new"):
            one.tries += 1
            code, said = victims.run(target, world=WORLD)
            assert code == 0
            assert said["code"] == STORAGE, said
            assert str(target) in said["error"]
        examine(lake, one, witness)
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        place.chmod(0o755)
        for folder in ("", "_lake", "_lake/snapshots", "_lake/staging", "_lake/objects"):
            one.tries += 1
            os.chown(lake, NOBODY, NOBODY)
            for path in lake.rglob("*"):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
            os.chown(lake / folder, 0, 0)
            (lake / folder).chmod(0o555)
            sandbox.world.advance(86_400)
            days = (sandbox.world.now - World(**WORLD).now).total_seconds()
            code, said = victims.run(lake, world=WORLD, advance=days, user=NOBODY)
            assert code == 0
            assert said["code"] == STORAGE, (folder, said)
            (lake / folder).chmod(0o755)
            examine(lake, one, witness)
    one.check()


def test_f39_too_few_file_handles(victims: Victims, ground: Path, tally: Callable[[str], Tally]) -> None:
    """With too few file handles a dump gives 74 and publishes nothing; with enough it continues."""
    one = tally("file handles")
    needed = None
    for files in range(8, 64, 1 if FULL else 8):
        one.tries += 1
        lake = ground / "lake"
        code, said = victims.run(lake, world=WORLD, files=files)
        if code:  # Python itself needs more
            continue
        assert said["code"] in {0, STORAGE}, said
        if said["code"]:
            assert str(ground) in said["error"]
        needed = needed or (files if said["code"] == 0 else None)
        sandbox = Sandbox(World(**WORLD))
        assert dump_here(lake, sandbox) == 0
        examine(lake, one)
        judge(sandbox, lake, sandbox.world.now, one)
        assert is_tidy(lake)
        shutil.rmtree(lake)
    assert needed is not None
    assert Layout(ground).number() is None
    one.check()
