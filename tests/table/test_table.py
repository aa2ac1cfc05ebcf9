"""What every table keeps, whether it is a folder, a Delta table or lies in memory: one suite over all three."""

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
    """A table that nobody has published to."""
    return GROUNDS[request.param](tmp_path)


@pytest.fixture(params=["delta", "memory"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Ground:
    """A table that others commit to, too; a folder is held by one writer, and what others put there is in no manifest."""
    return GROUNDS[request.param](tmp_path)


def ids(frame: pl.DataFrame) -> list[int]:
    """The numbers of the jobs, in order, each as often as it is there."""
    return sorted(int(name[-12:]) for name in frame["id"])


def statuses(frame: pl.DataFrame) -> dict[int, str]:
    """The status of each job."""
    return {int(name[-12:]): status for name, status in frame.select("id", "status").iter_rows()}


class Killed(BaseException):
    """The run is dead."""


@contextmanager
def killed_at(ground: Ground, step: int) -> Iterator[list[int]]:
    """A run that dies at this step of those that change the store; gives how many there were."""
    count = [0]

    def strike() -> None:
        count[0] += 1
        if count[0] >= step:
            raise Killed

    with suppress(Killed), ground.around(strike):
        yield count


@contextmanager
def before_commit(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, what: Callable[[], object], *, times: int = 1
) -> Iterator[None]:
    """Before the next commits something else happens."""
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
    """What was staged is there, as snapshot 1, with what the run says of itself; before it there was nothing."""
    assert ground.state() is None
    manifest = publish_rows(ground, rows(1, 2), rows(3, month=11), accounts={A: SyncState(name="Acme")})
    assert (manifest.snapshot, manifest.rows, manifest.server) == (1, 3, SERVER)
    assert ids(ground.rows()) == [1, 2, 3]
    state = ground.state()
    assert state is not None
    assert (state.snapshot, state.rows, state.accounts[A].name) == (1, 3, "Acme")
    assert ground.problems() == ()


def test_no_jobs_at_all(ground: Ground) -> None:
    """An empty list is published too: the lake knows that it was read."""
    assert publish_rows(ground, accounts={A: SyncState()}).snapshot == 1
    assert ids(ground.rows()) == []
    assert publish_rows(ground, rows(1)).snapshot == 2
    assert ids(ground.rows()) == [1]


def test_an_incremental_commit(ground: Ground) -> None:
    """Later rows stand in for earlier ones, months without news keep their files, and the earlier snapshot stays readable."""
    first = publish_rows(ground, rows(1, 2), rows(3, month=11, status="pending"))
    second = publish_rows(ground, rows(3, 4, month=11, hour=2))
    assert (second.snapshot, second.rows) == (2, 4)
    assert statuses(ground.rows()) == dict.fromkeys((1, 2, 3, 4), "completed")
    assert statuses(ground.rows(1)) == {1: "completed", 2: "completed", 3: "pending"}
    october = [[e.sha256 for e in each.files if e.month == "2026-10"] for each in (first, second)]
    assert october[0] == october[1]


def test_nothing_new_is_no_snapshot(ground: Ground) -> None:
    """Rows that are there already make no snapshot; what the run has learned of its accounts is kept all the same."""
    publish_rows(ground, rows(1, 2), accounts={A: SyncState(full_jobs=1), B: SyncState(full_jobs=7)})
    again = publish_rows(ground, rows(2), accounts={A: SyncState(full_jobs=2)})
    assert again.snapshot == 1
    state = ground.state()
    assert state is not None
    assert (state.snapshot, state.accounts[A].full_jobs, state.accounts[B].full_jobs) == (1, 2, 7)


def test_each_account_keeps_its_state(ground: Ground) -> None:
    """A run says nothing of accounts that it did not read."""
    publish_rows(ground, rows(1), accounts={A: SyncState(name="Acme")})
    publish_rows(ground, rows(2), name="b", accounts={B: SyncState(name="Bolt")})
    state = ground.state()
    assert state is not None
    assert {key: account.name for key, account in state.accounts.items()} == {A: "Acme", B: "Bolt"}


def test_a_conflict_is_merged_again(shared: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second reads what the first has committed, and nothing of either is lost."""
    publish_rows(shared, rows(1))

    def other() -> None:
        publish_rows(shared, rows(2, status="failed"), rows(5), name="b")

    with before_commit(shared, monkeypatch, other):
        manifest = publish_rows(shared, rows(2, 3, hour=2))
    assert (manifest.snapshot, ids(shared.rows())) == (3, [1, 2, 3, 5])
    assert statuses(shared.rows())[2] == "completed"
    assert shared.problems() == ()


def test_who_is_always_second_gives_up(shared: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """After five tries the run ends with 69 and has changed nothing; nothing that it wrote is left."""
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
    """It is held; and of two that hold it all the same, the one whose lock was taken publishes nothing."""
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
    """A commit that got through although its answer was lost is not made twice, and none of its files is removed."""
    publish_rows(shared, rows(1))
    if isinstance(shared.open(), MemoryTable):
        shared.shelf.loses_answer = 1  # type: ignore[attr-defined]
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
    """Wherever a run dies, a reader sees the state before it or the one after, whole; and the next run finds all as it should be."""
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
    """What is not to be kept is refused in words, and what stays is whole."""
    for number in range(1, 5):
        publish_rows(ground, rows(number), keep=Keep(timedelta(0), 1))
    assert ids(ground.rows()) == [1, 2, 3, 4]
    if ground.keeps_by_number:
        with pytest.raises(PleoExtractError, match="not kept"):
            ground.rows(1)
    assert ground.problems() == ()


def test_rows_that_another_program_appended_twice(shared: Ground) -> None:
    """A job that another program has written a second time stands once after the next run, its later row."""
    publish_rows(shared, rows(1, 2, status="pending"))
    shared.append("2026-10", rows(1, hour=5))
    shared.append("2026-10", rows(1, hour=5))
    assert ids(shared.rows()) == [1, 1, 1, 2]
    publish_rows(shared, rows(3, month=11))
    assert statuses(shared.rows()) == {1: "completed", 2: "pending", 3: "completed"}
    assert ids(shared.rows()) == [1, 2, 3]
    assert shared.problems() == ()


def test_a_table_of_another_server(ground: Ground) -> None:
    """It is refused, and stays as it is."""
    publish_rows(ground, rows(1))
    table = ground.open("b")
    refuse = getattr(table, "refuse_other", table.latest)
    with pytest.raises(PleoExtractError, match="sandbox"):
        refuse("https://other.invalid")
    assert ids(ground.rows()) == [1]


def test_a_state_says_when_it_was_made(ground: Ground) -> None:
    """The instant is that of the commit; where nothing is new it stays."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    made = publish_rows(ground, rows(1)).made_at
    assert before < made <= datetime.now(UTC)
    publish_rows(ground, rows(1))
    state = ground.state()
    assert state is not None
    assert abs(state.made_at - made) < timedelta(seconds=1)
