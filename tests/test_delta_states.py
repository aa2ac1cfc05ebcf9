"""The state of many companies in a Delta table: in a file that the commit names, not in the log."""

from __future__ import annotations

import gzip
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from lakes import draw_state
from test_delta import DAY, Home

from pleo_extract import forget
from pleo_extract.core.state import AccountKey
from pleo_extract.lake.delta import states
from pleo_extract.lake.delta.address import read_address
from pleo_extract.lake.delta.change import make_state
from pleo_extract.lake.delta.version import Version
from pleo_extract.lake.store import open_lake
from pleo_extract.lake.table import Base, Change, Info

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Return a world and the path of its table, whose states are too long for a commit."""
    monkeypatch.setattr(states, "MOST_INLINE", 100)
    return Home(tmp_path / "table")


def files_of(home: Home) -> list[Path]:
    """Return the files with states."""
    return sorted(home.path.joinpath(states.FOLDER).glob("*"))


def test_another_machine_continues_from_the_file(home: Home) -> None:
    """A run of another machine refreshes, and an older version has the state of its own time."""
    home.dump(workspace=home.path.with_name("one"))
    home.world.advance(DAY)
    receipt = home.dump(workspace=home.path.with_name("two"))
    assert (receipt.mode, receipt.code) == ("refresh", 0)
    assert len(files_of(home)) == 2
    assert home.is_right()
    table = open_lake(home.path)
    (first,), (second,) = (table.open(n).manifest.accounts.values() for n in (1, 2))  # type: ignore[union-attr]
    assert None is not first.data_as_of < second.data_as_of  # type: ignore[operator]


@pytest.mark.parametrize("how", ["missing", "changed", "of another name", "not gzip", "a bomb"])
def test_f67_a_file_that_cannot_be_used_costs_a_full_sync(
    home: Home, how: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that is lost or was changed is left out with a warning: the next dump reads everything."""
    home.dump()
    (path,) = files_of(home)
    if how == "missing":
        path.unlink()
    elif how == "changed":
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    else:
        _name_in_commit(
            home, {"of another name": "../secret", "not gzip": "text", "a bomb": "bomb"}[how], monkeypatch
        )
    receipt = home.dump()
    assert "cannot be used" in caplog.text
    assert (receipt.mode, receipt.code) == ("full", 0)
    assert home.is_right()
    caplog.clear()
    assert home.dump().mode == "refresh"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def _name_in_commit(home: Home, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit a state whose file has crafted content or a crafted name."""
    data = {"text": b"{}", "bomb": gzip.compress(b" " * 2_000)}.get(what, b"")
    path = states.name_file(2, data) if data else what
    if data:
        home.path.joinpath(path).write_bytes(data)
        monkeypatch.setattr(states, "_MOST", 1_000)
    version = Version(read_address(home.path))
    assert version.state is not None
    version.commit([], [], msgspec.structs.replace(version.state, accounts={}, accounts_file=path))


def test_a_commit_of_many_companies_is_small(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit of 10,000 companies has the size of any other, their state a tenth of what it was."""
    monkeypatch.undo()
    home.dump()
    assert not files_of(home), "one company fits in the commit"
    accounts = {
        AccountKey(f"https://external.pleo.io {n:08d}-0000-4000-8000-{n:012d}"): draw_state(n)
        for n in range(10_000)
    }
    version = Version(read_address(home.path))
    base = Base(version.version, version.manifest, version.manifest.files)
    version.commit(
        [], [], make_state(version, "run", Change(base), Info(version.manifest.server, {}, accounts))
    )
    (path,) = files_of(home)
    whole = len(msgspec.json.encode(accounts))
    commit = home.path / "_delta_log" / f"{2:020d}.json"
    assert commit.stat().st_size < 10_000
    assert path.stat().st_size < whole / 8
    assert Version(read_address(home.path)).manifest.accounts.items() >= accounts.items()


def test_states_are_kept_as_long_as_their_commits(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state goes with the log of its version, and other programs' vacuum does not remove one."""
    for _ in range(3):
        home.dump()
        home.world.advance(DAY)
    assert len(files_of(home)) == 3
    home.table().vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
    assert len(files_of(home)) == 3
    home.table().create_checkpoint()
    for version in (0, 1):
        (home.path / "_delta_log" / f"{version:020d}.json").unlink()
    monkeypatch.setattr("pleo_extract.lake.delta.table.VACUUM_EVERY", timedelta(0))
    assert home.dump().mode == "refresh"
    assert [int(path.name[:20]) for path in files_of(home)] == [2, 3, home.table().version()]
    assert home.is_right()


def test_what_is_forgotten_is_in_no_state(home: Home) -> None:
    """After an erasure only the state of the newest version is left, without the job."""
    home.dump()
    home.world.advance(DAY)
    gone = home.world.visible()[0]
    home.world.remove(gone["id"], gone["companyId"])
    home.dump(full=True)
    assert any(gone["id"].encode() in _unpack(path) for path in files_of(home))
    forget(home.path, jobs=[gone["id"]])
    (path,) = files_of(home)
    assert gone["id"].encode() not in _unpack(path)
    assert home.dump().mode == "refresh"


def _unpack(path: Path) -> Any:
    return gzip.decompress(path.read_bytes())
