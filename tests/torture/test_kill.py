"""Runs killed before, after and in the middle of every storage call, and again while they recover."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scenes import SCENARIOS, Scene
from tally import FULL, Tally, sample
from theatre import (
    KILLED,
    Witness,
    asked,
    can_be_asked,
    copy_lake,
    examine,
    is_tidy,
    judge,
    twice,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def list_kills(scene: Scene) -> list[tuple[str, int]]:
    """Return when and at which calls to kill, counted in an undisturbed run."""
    copy_lake(scene.before, scene.lake)
    _, said = scene.run_killed()
    calls = said["calls"]
    chosen = sample(len(calls), 4)
    halves = [n for n, name in enumerate(calls, 1) if name in {"write_file", "append_line", "remove_tree"}]
    halves = halves if FULL else halves[:: max(1, len(halves) // 2)]
    return [(when, n) for n in chosen for when in ("before", "after")] + [("half", n) for n in halves]


@pytest.mark.parametrize("scene", SCENARIOS, indirect=True)
def test_f34_killed_at_every_storage_call(
    scene: Scene, request: pytest.FixtureRequest, tally: Callable[[str], Tally]
) -> None:
    """A run killed at any storage call loses, doubles and damages nothing, and costs at most one batch again."""
    name = request.node.callspec.id
    one = tally(f"kill, {name}")
    for when, at in list_kills(scene):
        try_kills(scene, one, [(when, at)])
    one.check()


@pytest.mark.parametrize("scene", SCENARIOS, indirect=True)
def test_f34_killed_again_while_recovering(
    scene: Scene, request: pytest.FixtureRequest, tally: Callable[[str], Tally]
) -> None:
    """The same holds when the run after the kill is killed, too."""
    one = tally(f"kill twice, {request.node.callspec.id}")
    first = list_kills(scene)
    second = [(when, 1 + n * 5) for n in range(14) for when in ("before", "after")]
    step = 5 if FULL else 24
    pairs = [(a, b) for n, a in enumerate(first) for m, b in enumerate(second) if (n * 7 + m) % step == 0]
    for pair in pairs if FULL else pairs[:: max(1, len(pairs) // 2)]:
        try_kills(scene, one, list(pair))
    one.check()


def try_kills(scene: Scene, tally: Tally, kills: list[tuple[str, int]]) -> None:
    """Try once: the kills, a run that recovers, and another run that must be correct as of now.

    Each kill costs at most one batch of pages. A second kill may cost other pages than the first, for instance if
    a run in segments is followed by one without.
    """
    tally.tries += 1
    wrong = tally.unreadable
    copy_lake(scene.before, scene.lake)
    witness = Witness(scene.lake)
    asked(scene.sandbox)
    before, again = asked(scene.sandbox), 0
    for when, at in kills:
        code, said = scene.run_killed(when, at)
        assert code in {0, KILLED}, said
        examine(scene.lake, tally, witness)
        pages = asked(scene.sandbox)
        if witness.is_current():
            again += twice(before, pages)
        before += pages
    published = not witness.is_current()
    assert scene.dump(**scene.options) == 0, kills
    if not published:
        again += twice(before, asked(scene.sandbox))
    tally.again = max(tally.again, -(-again // len(kills)))  # the cost per kill
    examine(scene.lake, tally, witness, settled=True)
    assert scene.since is not None
    judge(scene.sandbox, scene.lake, scene.since, tally)
    today = scene.sandbox.world.now
    assert scene.dump() == 0, kills
    examine(scene.lake, tally, witness, settled=True)
    judge(scene.sandbox, scene.lake, today, tally)
    assert is_tidy(scene.lake), kills
    assert can_be_asked(scene.lake), kills
    assert tally.unreadable == wrong, kills
