"""Folders of killed processes are removed, and nothing else."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from pleo_extract import temporary
from pleo_extract.temporary import ABANDONED_SECONDS, PREFIX, SUFFIX, make_temporary_folder, temporary_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files, of a process that has made none yet."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    temporary._remove_abandoned.cache_clear()
    return tmp_path


def leave(path: Path, age: float) -> None:
    """Leave a folder with a file in it behind."""
    path.mkdir()
    (path / "macros.duckdb").touch()
    os.utime(path, (time.time() - age,) * 2)


def test_what_killed_processes_left_is_removed(folder: Path) -> None:
    """A folder of ours that is old goes; a new one, a user's, another program's, a file and a link stay."""
    leave(folder / f"{PREFIX}old{SUFFIX}", ABANDONED_SECONDS + 60)
    leave(folder / f"{PREFIX}new{SUFFIX}", ABANDONED_SECONDS - 60)
    leave(folder / "pleo-extract-data", ABANDONED_SECONDS + 60)
    leave(folder / "another-old", ABANDONED_SECONDS + 60)
    (folder / f"{PREFIX}file{SUFFIX}").touch()
    (folder / f"{PREFIX}link{SUFFIX}").symlink_to(folder / "another-old")
    for name in ("file", "link"):
        os.utime(folder / f"{PREFIX}{name}{SUFFIX}", (0, 0), follow_symlinks=False)
    before = {path.name for path in folder.iterdir()}
    with temporary_folder() as made:
        assert {path.name for path in folder.iterdir()} == before - {f"{PREFIX}old{SUFFIX}"} | {
            Path(made).name
        }
    assert {path.name for path in folder.iterdir()} == before - {f"{PREFIX}old{SUFFIX}"}
    assert (folder / "another-old" / "macros.duckdb").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the user can list every folder")
def test_a_folder_that_nobody_may_list(folder: Path) -> None:
    """Where the folder for temporary files cannot be listed, new ones are made in it all the same."""
    folder.chmod(0o300)
    try:
        assert Path(make_temporary_folder()).parent == folder
    finally:
        folder.chmod(0o700)
