"""Power loss at every system call: unsynced writes are lost, all or some of them, and the lake stays complete."""

from __future__ import annotations

import pickle
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from power import Disk
from scenes import SCENARIOS, Scene
from tally import FULL, Tally, sample
from theatre import (
    Witness,
    asked,
    copy_lake,
    examine,
    is_tidy,
    judge,
    twice,
)

from pleo_extract.lake.layout import Layout

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from tap import Operation

SUBSETS = 3 if FULL else 1


@pytest.mark.parametrize("scene", SCENARIOS, indirect=True)
def test_f35_power_lost_at_every_call(
    scene: Scene,
    request: pytest.FixtureRequest,
    tally: Callable[[str], Tally],
) -> None:
    """Power loss at any system call loses no job after the next run, and keeps what a completed run published."""
    one = tally(f"power, {request.node.callspec.id}")
    log, _ = record(scene, 0)
    for at in [*sample(len(log), 8), len(log)]:
        for seed in range(SUBSETS + 1):
            lose_power(scene, one, log[:at], random.Random(f"{at} {seed}") if seed else None)
            if at == len(log):
                assert is_kept(scene), "the run had ended, and its snapshot is gone"
            recover(scene, one)
    one.check()


def record(scene: Scene, code: int) -> tuple[list[Operation], Counter[str]]:
    """Run to this exit code; return what the run did to the disk, and which pages it read."""
    copy_lake(scene.before, scene.lake)
    asked(scene.sandbox)
    victim = scene.victims.start(scene.lake, scene.url, options=scene.options, record=True)
    assert victim.wait() == 0, victim.complained()
    assert victim.said()["code"] == code, victim.said()
    scene.ended = victim.said()["receipt"]["snapshot"]
    log = pickle.loads(Path(f"{victim.result}.log").read_bytes())
    return log, asked(scene.sandbox)


def lose_power(
    scene: Scene,
    tally: Tally,
    log: list[Operation],
    rng: random.Random | None,
) -> None:
    """Replace the lake by what is left after power loss at the end of `log`."""
    tally.tries += 1
    place = scene.lake.parent
    shutil.rmtree(place / "here", ignore_errors=True)
    (place / "here").mkdir()
    copy_lake(scene.before, place / "here/lake")
    disk = Disk(place / "here")
    disk.base = scene.lake.resolve().parent  # the paths in the log are below it
    disk.play(log)
    shutil.rmtree(place / "here")
    disk.write_to(place / "here", rng)
    copy_lake(place / "here/lake", scene.lake)


def is_kept(scene: Scene) -> bool:
    """Return whether the snapshot of the completed run is current."""
    return Layout(scene.lake).number() == scene.ended


def recover(scene: Scene, tally: Tally) -> None:
    """Dump twice and check the lake after each run."""
    examine(scene.lake, tally)
    witness = Witness(scene.lake)
    assert scene.dump(**scene.options) == 0
    examine(scene.lake, tally, witness, settled=True)
    assert scene.since is not None
    judge(scene.sandbox, scene.lake, scene.since, tally)
    today = scene.sandbox.world.now
    assert scene.dump() == 0
    examine(scene.lake, tally, witness, settled=True)
    judge(scene.sandbox, scene.lake, today, tally)
    assert is_tidy(scene.lake)


@pytest.mark.parametrize("scene", ["first dump"], indirect=True)
def test_f35_power_lost_under_way_costs_one_batch(
    scene: Scene,
    tally: Callable[[str], Tally],
) -> None:
    """Staged pages survive power loss: the next run fetches at most one batch again."""
    one = tally("power, staged pages")
    scene.set_up(max_requests=55)
    log, pages = record(scene, 75)
    for seed in range(12 if FULL else 3):
        lose_power(scene, one, log, random.Random(seed) if seed else None)
        assert scene.dump() == 0
        one.again = max(one.again, twice(pages, asked(scene.sandbox)))
        assert scene.since is not None
        judge(scene.sandbox, scene.lake, scene.since, one)
    one.check()
