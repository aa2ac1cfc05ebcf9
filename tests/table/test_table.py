"""The conformance suite of tables: folder, Delta table and table in memory must pass the same tests."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from grounds import GROUNDS, Ground, publish_rows, stage
from lakes import SERVER
from memory import MemoryTable
from test_lake import rows

from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.errors import LakeLocked, PleoExtractError, TryLater
from pleo_extract.lake.delta.version import Version
from pleo_extract.lake.table import Change, Info, Keep, merge_staged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import polars as pl

A, B = (AccountKey.of(SERVER, company) for company in ("a", "b"))


@pytest.fixture(params=GROUNDS)
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Ground:
    """Return a table that no run has published to."""
    return GROUNDS[request.param](tmp_path)


@pytest.fixture(params=["delta", "memory"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Ground:
    """Return a table that several runs commit to. A folder is not one: its lock admits one writer."""
    return GROUNDS[request.param](tmp_path)


def ids(frame: pl.DataFrame) -> list[int]:
    """Return the numbers of all rows' jobs, sorted, with duplicates."""
    return sorted(int(name[-12:]) for name in frame["id"])


def statuses(frame: pl.DataFrame) -> dict[int, str]:
    """Return the status of each job by number."""
    return {int(name[-12:]): status for name, status in frame.select("id", "status").iter_rows()}


class Killed(BaseException):
    """Raised in place of a step, as if the run had been killed before it."""


@contextmanager
def killed_at(ground: Ground, step: int) -> Iterator[list[int]]:
    """Kill the run at this step, counted over the steps that change the store; yield the count of steps."""
    count = [0]

    def kill() -> None:
        count[0] += 1
        if count[0] >= step:
            raise Killed

    with suppress(Killed), ground.around(kill):
        yield count


@contextmanager
def before_commit(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, what: Callable[[], object], *, times: int = 1
) -> Iterator[None]:
    """Call `what` before each of the next `times` commits."""
    left = [times]

    def once() -> None:
        if left[0]:
            left[0] -= 1
            what()

    owner: Any = type(ground.open()) if isinstance(ground.open(), MemoryTable) else Version
    commit = owner.commit

    def commit_after(self: Any, *given: Any) -> Any:
        once()
        return commit(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(owner, "commit", commit_after)
        yield


def test_a_first_commit(ground: Ground) -> None:
    """The first commit publishes the staged rows and the sync state as snapshot 1."""
    assert ground.state() is None
    manifest = publish_rows(ground, rows(1, 2), rows(3, month=11), accounts={A: SyncState(name="Acme")})
    assert (manifest.snapshot, manifest.rows, manifest.server) == (1, 3, SERVER)
    assert ids(ground.rows()) == [1, 2, 3]
    state = ground.state()
    assert state is not None
    assert (state.snapshot, state.rows, state.accounts[A].name) == (1, 3, "Acme")
    assert ground.problems() == ()


def test_no_jobs_at_all(ground: Ground) -> None:
    """An empty list is published, too: the snapshot records that the list was read."""
    assert publish_rows(ground, accounts={A: SyncState()}).snapshot == 1
    assert ids(ground.rows()) == []
    assert publish_rows(ground, rows(1)).snapshot == 2
    assert ids(ground.rows()) == [1]


def test_an_incremental_commit(ground: Ground) -> None:
    """Later rows replace earlier ones, unchanged months keep their files, and the old snapshot stays readable."""
    first = publish_rows(ground, rows(1, 2), rows(3, month=11, status="pending"))
    second = publish_rows(ground, rows(3, 4, month=11, hour=2))
    assert (second.snapshot, second.rows) == (2, 4)
    assert statuses(ground.rows()) == dict.fromkeys((1, 2, 3, 4), "completed")
    assert statuses(ground.rows(1)) == {1: "completed", 2: "completed", 3: "pending"}
    october = [[e.sha256 for e in each.files if e.month == "2026-10"] for each in (first, second)]
    assert october[0] == october[1]


def test_nothing_new_is_no_snapshot(ground: Ground) -> None:
    """Rows without news make no snapshot, but the sync states of the run are saved."""
    publish_rows(ground, rows(1, 2), accounts={A: SyncState(full_jobs=1), B: SyncState(full_jobs=7)})
    again = publish_rows(ground, rows(2), accounts={A: SyncState(full_jobs=2)})
    assert again.snapshot == 1
    state = ground.state()
    assert state is not None
    assert (state.snapshot, state.accounts[A].full_jobs, state.accounts[B].full_jobs) == (1, 2, 7)


def test_each_account_keeps_its_state(ground: Ground) -> None:
    """A run does not change the states of accounts that it did not read."""
    publish_rows(ground, rows(1), accounts={A: SyncState(name="Acme")})
    publish_rows(ground, rows(2), name="b", accounts={B: SyncState(name="Bolt")})
    state = ground.state()
    assert state is not None
    assert {key: account.name for key, account in state.accounts.items()} == {A: "Acme", B: "Bolt"}


def test_a_conflict_is_merged_again(shared: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a conflict the run merges again with the new version, and no row of either run is lost."""
    publish_rows(shared, rows(1))

    def other() -> None:
        publish_rows(shared, rows(2, status="failed"), rows(5), name="b")

    with before_commit(shared, monkeypatch, other):
        manifest = publish_rows(shared, rows(2, 3, hour=2))
    assert (manifest.snapshot, ids(shared.rows())) == (3, [1, 2, 3, 5])
    assert statuses(shared.rows())[2] == "completed"
    assert shared.problems() == ()


def test_who_is_always_second_gives_up(shared: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """After five conflicts the run fails with 69, changes nothing and leaves no file."""
    publish_rows(shared, rows(1))
    others = iter(range(10, 99))

    def other() -> None:
        shared.append("2026-10", rows(next(others)))

    with (
        before_commit(shared, monkeypatch, other, times=99),
        pytest.raises(LakeLocked, match="5 times in a row"),
    ):
        publish_rows(shared, rows(2), name="b")
    assert ids(shared.rows()) == [1, 10, 11, 12, 13, 14]
    assert shared.problems() == ()


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    """A folder admits one writer; a run whose lock file was replaced publishes nothing."""
    ground = GROUNDS["folder"](tmp_path)
    publish_rows(ground, rows(1))
    table = ground.open()
    with table.hold():
        table.begin()
        change = Change(table.latest(SERVER))
        merge_staged(table, change, [stage(table, rows(2))])
        with pytest.raises(LakeLocked):
            publish_rows(ground, rows(3))
        table.layout.lock.unlink()
        publish_rows(ground, rows(3))
        with pytest.raises(LakeLocked):
            table.commit(change, Info(SERVER, {}, {}))
        table.discard(change)
    assert ids(ground.rows()) == [1, 3]
    assert ground.problems() == ()


def test_a_lost_answer(shared: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that succeeded although its response was lost is not repeated, and its files stay."""
    publish_rows(shared, rows(1))
    if isinstance(shared.open(), MemoryTable):
        shared.store.loses_answer = 1  # type: ignore[attr-defined]
        with pytest.raises(TryLater):
            publish_rows(shared, rows(2))
    else:
        commit = Version.commit

        def lost(self: Version, *given: Any) -> None:
            commit(self, *given)
            raise TryLater("the answer was lost")

        with monkeypatch.context() as patch:
            patch.setattr(Version, "commit", lost)
            assert publish_rows(shared, rows(2)).snapshot == 2
    assert ids(shared.rows()) == [1, 2]
    assert publish_rows(shared, rows(2)).snapshot == 2
    assert shared.problems() == ()


def test_killed_at_every_step(ground: Ground) -> None:
    """A run killed at any step leaves the old or the new snapshot, complete, and the next run succeeds."""
    publish_rows(ground, rows(1), rows(2, month=11, status="pending"))
    step = 0
    while True:
        step += 1
        number = 100 + step
        before = ids(ground.rows())
        with killed_at(ground, step) as steps:
            publish_rows(ground, rows(number), rows(2, month=11, hour=step + 2))
        assert ids(ground.rows()) in (before, [*before, number])
        if steps[0] < step:
            break
        publish_rows(ground, rows(number), rows(2, month=11, hour=step + 2))
        assert ids(ground.rows()) == [*before, number]
        assert ground.problems() == ()
    assert step > 2, "nothing was tried"


def test_old_snapshots_go(ground: Ground) -> None:
    """An expired snapshot is refused with a message, and the current one stays complete."""
    for number in range(1, 5):
        publish_rows(ground, rows(number), keep=Keep(timedelta(0), 1))
    assert ids(ground.rows()) == [1, 2, 3, 4]
    if ground.keeps_by_number:
        with pytest.raises(PleoExtractError, match="not kept"):
            ground.rows(1)
    assert ground.problems() == ()


def test_rows_that_another_program_appended_twice(shared: Ground) -> None:
    """The next run removes rows that another program appended twice, and keeps the latest row."""
    publish_rows(shared, rows(1, 2, status="pending"))
    shared.append("2026-10", rows(1, hour=5))
    shared.append("2026-10", rows(1, hour=5))
    assert ids(shared.rows()) == [1, 1, 1, 2]
    publish_rows(shared, rows(3, month=11))
    assert statuses(shared.rows()) == {1: "completed", 2: "pending", 3: "completed"}
    assert ids(shared.rows()) == [1, 2, 3]
    assert shared.problems() == ()


def test_a_table_of_another_server(ground: Ground) -> None:
    """A table of another server is refused and does not change."""
    publish_rows(ground, rows(1))
    table = ground.open("b")
    refuse = getattr(table, "refuse_other", table.latest)
    with pytest.raises(PleoExtractError, match="sandbox"):
        refuse("https://other.invalid")
    assert ids(ground.rows()) == [1]


def test_a_state_says_when_it_was_made(ground: Ground) -> None:
    """A manifest's `made_at` is the time of its commit, and a run without news does not change it."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    made = publish_rows(ground, rows(1)).made_at
    assert before < made <= datetime.now(UTC)
    publish_rows(ground, rows(1))
    state = ground.state()
    assert state is not None
    assert abs(state.made_at - made) < timedelta(seconds=1)
