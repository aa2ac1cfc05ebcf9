"""Readers of a lake who are not its writer: another user of the machine gets what the writer gets."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from canary import CANARY

from pleo_extract import Client, dump_export_jobs
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Said

NOBODY = 65_534
# Other users may not be able to read Python itself, so one call loads all modules before the user changes.
PROGRAM = """
import os, sys
from pleo_extract import connect, scan_lake, verify_lake
from pleo_extract.cli import group

def ask(lake, out):
    found = [verify_lake(lake).ok, scan_lake(lake).collect().height, scan_lake(lake, 1).collect().height]
    found += connect(lake).sql("SELECT count(*) FROM export_jobs").fetchall()
    for asked in (
        ["status", lake], ["verify", lake], ["sql", "SELECT 1 FROM export_jobs", "--lake", lake, "-o", out + "/x.csv"],
        ["report", lake, "-o", out + "/report.html"],
    ):
        found.append(group.main(asked, standalone_mode=False) or 0)
    return found

lake, before, after, user = sys.argv[1:]
sys.stdout, shown = open(os.devnull, "w"), sys.stdout
mine = ask(lake, before)
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
try:
    open(lake + "/mine", "w")
except PermissionError:
    print(mine == ask(lake, after), mine, file=shown)
"""


@pytest.fixture
def ground() -> Iterator[Path]:
    """Yield a folder that other users can reach; pytest's folders are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def dump(lake: Path, sandbox: Sandbox) -> None:
    """Dump the sandbox."""
    with Client(
        "https://sandbox.invalid", api_key=CANARY, transport=sandbox, in_flight=1, rate=10_000_000
    ) as client:
        dump_export_jobs(lake, client=client, progress=False)


@pytest.fixture
def lake(ground: Path) -> Path:
    """Return a lake of two snapshots, made under the usual umask."""
    sandbox = Sandbox(World(jobs=300, days=60, seed=5), api_keys={CANARY: None})
    before = os.umask(0o022)
    try:
        dump(ground / "lake", sandbox)
        sandbox.world.advance(3 * 86_400)
        dump(ground / "lake", sandbox)
    finally:
        os.umask(before)
    return ground / "lake"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_f72_another_user_reads_everything(lake: Path, ground: Path) -> None:
    """Every reading function works for another user, who may not write to the lake."""
    for folder, user in (("before", 0), ("after", NOBODY)):
        (ground / folder).mkdir()
        os.chown(ground / folder, user, user)
    asked = subprocess.run(
        [sys.executable, "-c", PROGRAM, lake, ground / "before", ground / "after", str(NOBODY)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert asked.stdout.startswith("True [True, "), (asked.stdout, asked.stderr)
    assert (ground / "before" / "x.csv").read_bytes() == (ground / "after" / "x.csv").read_bytes()


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002, 0o077])
def test_all_but_what_is_private_follows_the_umask(umask: int, ground: Path) -> None:
    """Months, objects, manifests and the catalogue follow the umask; staging and rejected rows are private."""
    sandbox = Sandbox(World(jobs=50, days=40, seed=6), api_keys={CANARY: None})
    before = os.umask(umask)
    try:
        dump(ground / "lake", sandbox)
    finally:
        os.umask(before)
    layout = Layout(ground / "lake")
    for path in [layout.root, *layout.root.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path == layout.staging:
            assert mode == 0o700
        elif path.is_dir():
            assert mode == 0o777 & ~umask, path
        elif path.parent == layout.objects or path.name == "part-0.parquet":
            assert mode == 0o444 & ~umask, path
        else:
            assert mode == 0o666 & ~umask, path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another group")
def test_a_group_keeps_its_lake(ground: Path) -> None:
    """In a folder with setgid, every file of a lake belongs to the folder's group."""
    (ground / "shared").mkdir()
    os.chown(ground / "shared", 0, NOBODY)
    (ground / "shared").chmod(0o2775)
    sandbox = Sandbox(World(jobs=50, days=40, seed=6), api_keys={CANARY: None})
    for _ in range(2):
        dump(ground / "shared" / "lake", sandbox)
        sandbox.world.advance(3 * 86_400)
    assert {path.lstat().st_gid for path in (ground / "shared").rglob("*")} == {NOBODY}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_is_lost_for_another_user_is_said(lake: Path, ground: Path) -> None:
    """If the writer's umask excludes another user, the error says so."""
    (lake / "_lake" / "snapshots").chmod(0o700)
    program = PROGRAM.replace("mine = ask(lake, before)", "mine = ask(before + '/lake', before)")
    (ground / "before").mkdir()
    shutil.copytree(lake, ground / "before" / "lake", symlinks=True)
    asked = subprocess.run(
        [sys.executable, "-c", program, lake, ground / "before", ground, str(NOBODY)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "StorageError" in asked.stderr.splitlines()[-1]
    assert "Permission denied" in asked.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("closed", [".", "_lake"])
def test_a_folder_that_this_user_may_not_read(
    closed: str, lake: Path, ground: Path, pleo: Callable[..., Said]
) -> None:
    """A lake that another user may not look into is a fault of the disk, not of the command."""
    commands = (
        ("status", lake),
        ("verify", lake),
        ("sql", lake, "from export_jobs"),
        ("report", lake, "-o", ground / "report.html"),
        ("check", lake, "--no-incident"),
        ("changes", lake),
        ("repair", lake),
    )
    for command in commands:  # loads every module: another user may not be able to read Python itself
        pleo(*command)
    (lake / closed).chmod(0o000)
    os.seteuid(NOBODY)
    try:
        said = {command[0]: pleo(*command) for command in commands}
    finally:
        os.seteuid(0)
        (lake / closed).chmod(0o755)
    for name, each in said.items():
        shown = (name, each.code, each.err)
        assert each.code == 74, shown
        assert re.match(f"pleo-extract: cannot (read|use) {lake}.*: Permission denied", each.err), shown
