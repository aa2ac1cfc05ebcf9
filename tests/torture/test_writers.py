"""Several writers: one holds the lake, and a writer that lost its lock while paused publishes nothing."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from tally import FULL, sample
from theatre import (
    Victims,
    copy_lake,
    examine,
    is_tidy,
    judge,
)

from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import RequestLike, Response, Rules, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scenes import Scene
    from tally import Tally

WRITERS = 8


class Gate(Sandbox):
    """A sandbox that answers only after the gate is opened."""

    open = threading.Event()

    def __call__(self, request: RequestLike) -> Response:
        """Wait for the gate, then answer."""
        self.open.wait()
        return super().__call__(request)


def test_f37_two_writers_at_once(victims: Victims, ground: Path, tally: Callable[[str], Tally]) -> None:
    """Of eight writers that start together one holds the lake; the others end with 69 and name it."""
    one = tally(f"writers, {WRITERS} at once")
    gate = Gate(World(jobs=300, days=60, seed=3), rules=Rules(tick=1.0))
    lake = ground / "lake"
    with serve(gate) as served:
        for _ in range(25 if FULL else 4):
            gate.open.clear()
            since = gate.world.advance(86_400)
            one.tries += WRITERS
            running = [victims.start(lake, served.url) for _ in range(WRITERS)]
            left = set(range(WRITERS))
            while len(left) > 1:
                for n in sorted(left):
                    if running[n].status is not None:
                        left.remove(n)
            (holder,) = left
            gate.open.set()
            assert running[holder].wait() == 0
            assert running[holder].said()["code"] == 0
            for n, victim in enumerate(running):
                if n != holder:
                    assert victim.wait() == 0
                    assert victim.said()["code"] == 69, victim.said()
                    assert f"(pid {running[holder].pid} on " in victim.said()["error"]
            examine(lake, one, settled=True)
            judge(gate, lake, since, one)
    assert is_tidy(lake)
    one.check()


def break_lock(lake: Path) -> None:
    """Replace the lock file, as a clean-up does, or as on a network disk without flock."""
    new = lake.with_name("lock.new")
    new.touch()
    new.rename(lake / "_lake/lock")


@pytest.mark.parametrize(
    "scene", ["first dump", "refresh", "resume of a first dump", "nothing new"], indirect=True
)
@pytest.mark.parametrize("other", ["publishes", "is cut short"])
def test_f37_a_paused_writer_wakes_late(
    scene: Scene,
    other: str,
    request: pytest.FixtureRequest,
    tally: Callable[[str], Tally],
) -> None:
    """A writer that lost its lock while paused publishes nothing when it resumes, and no job is lost."""
    one = tally(f"wakes late, {request.node.callspec.id}")
    copy_lake(scene.before, scene.lake)
    _, said = scene.run_killed()
    for at in sample(len(said["calls"]), 6, seed=len(other)):
        one.tries += 1
        copy_lake(scene.before, scene.lake)
        sleeper = scene.victims.start(
            scene.lake, scene.url, options=scene.options, fail=["stop", "before", at]
        )
        sleeper.wait(stopped=True)
        if sleeper.is_stopped() and (scene.lake / "_lake/lock").exists():
            break_lock(scene.lake)
        code = scene.dump(max_requests=None if other == "publishes" else 3)
        number = published(scene.lake)
        if sleeper.is_stopped():
            os.kill(sleeper.pid, signal.SIGCONT)
        sleeper_code = finish(scene, sleeper)
        examine(scene.lake, one)
        if code == 0:
            assert published(scene.lake) == number, f"woke at {at} and published"
        assert sleeper_code in {0, 69} or code == 69, (at, sleeper.said())
        assert scene.dump() == 0
        examine(scene.lake, one, settled=True)
        assert scene.since is not None
        judge(scene.sandbox, scene.lake, scene.since, one)
        today = scene.sandbox.world.now
        assert scene.dump() == 0
        judge(scene.sandbox, scene.lake, today, one)
        assert is_tidy(scene.lake), at
    one.check()


def published(lake: Path) -> int:
    """Return the number of the current snapshot."""
    return Layout(lake).number() or 0


def finish(scene: Scene, sleeper: object) -> int:
    """Wait for the resumed writer to end, and return its exit code."""
    while sleeper.is_stopped():  # type: ignore[attr-defined]
        pass
    assert sleeper.wait() == 0, sleeper.complained()  # type: ignore[attr-defined]
    code: int = sleeper.said()["code"]  # type: ignore[attr-defined]
    return code
