"""SIGTERM and Ctrl-C, at random times and at every storage call: the run ends in seconds and keeps its pages."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tally import FULL, sample
from test_sigkill import command, environment
from theatre import (
    SOON,
    Witness,
    asked,
    copy_lake,
    examine,
    is_tidy,
    judge,
    twice,
)

from pleo_extract.lake.layout import Layout
from pleo_extract.lake.record import read_last_run
from pleo_extract.sandbox import Rules, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scenes import Scene
    from tally import Tally

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
PROMISED = 5.0
MARGIN = 10.0
"""Additional seconds for a busy machine."""


def start(lake: Path, served: object, ground: Path) -> subprocess.Popen[bytes]:
    """Start a dump and wait for its first request."""
    sandbox: Sandbox = served.sandbox  # type: ignore[attr-defined]
    sandbox.requests.clear()
    process = subprocess.Popen(
        command(lake, served.url),  # type: ignore[attr-defined]
        env=environment(ground),
        stderr=subprocess.PIPE,
    )
    while not sandbox.requests and process.poll() is None:
        time.sleep(0.005)
    return process


@pytest.mark.parametrize("number", CODES)
def test_f36_told_to_stop_at_random(
    number: signal.Signals,
    ground: Path,
    tally: Callable[[str], Tally],
) -> None:
    """A signal ends a run within 5 s with 143 or 130, and the next run resumes from its pages."""
    one = tally(f"signal, {number.name}")
    rng = random.Random(number)
    # Some responses are slow and some never come: a thread that waits for one must not keep the process alive.
    rules = Rules(max_limit=10, latency=0.15)
    for n in range(40 if FULL else 5):
        sandbox = Sandbox(World(jobs=900, days=60, seed=n), rules=rules, faults="40:silence,41:silence")
        lake = ground / f"{number.name}-{n}"
        with serve(sandbox) as served:
            since = sandbox.world.now
            process = start(lake, served, ground)
            time.sleep(rng.uniform(0, 2.0))
            told = time.monotonic()
            process.send_signal(number)
            _, complaint = process.communicate(timeout=SOON)
            took = time.monotonic() - told
            one.tries += 1
            assert process.returncode in {CODES[number], 0}, complaint
            assert took < PROMISED + MARGIN
            examine(lake, one)
            if process.returncode:
                assert b"run again to continue" in complaint
                last = read_last_run(Layout(lake))
                assert last is not None
                assert last.code == CODES[number]
            before = asked(sandbox)
            sandbox.faults = ()
            again = subprocess.run(
                command(lake, served.url), env=environment(ground), check=False, capture_output=True
            )
            assert again.returncode == 0, again.stderr
            if process.returncode:
                one.again = max(one.again, twice(before, asked(sandbox)))
            judge(sandbox, lake, since, one)
            assert is_tidy(lake)
    one.check()


@pytest.mark.parametrize("number", CODES)
def test_f36_told_twice_leaves_at_once(
    number: signal.Signals,
    ground: Path,
    tally: Callable[[str], Tally],
) -> None:
    """A second signal ends the run immediately."""
    one = tally(f"signal, {number.name} twice")
    for n in range(10 if FULL else 2):
        sandbox = Sandbox(World(jobs=900, days=60, seed=n), rules=Rules(max_limit=10), faults="20-90:silence")
        lake = ground / f"{number.name}-twice-{n}"
        with serve(sandbox) as served:
            process = start(lake, served, ground)
            time.sleep(0.5)
            process.send_signal(number)
            time.sleep(0.1)
            process.send_signal(number)
            told = time.monotonic()
            process.communicate(timeout=SOON)
            one.tries += 1
            assert process.returncode in {CODES[number], -number}
            assert time.monotonic() - told < PROMISED + MARGIN
            examine(lake, one)
    one.check()


@pytest.mark.parametrize("scene", ["first dump", "refresh", "nothing new"], indirect=True)
@pytest.mark.parametrize("told", ["term", "int"])
def test_f36_told_at_every_storage_call(
    scene: Scene,
    told: str,
    request: pytest.FixtureRequest,
    tally: Callable[[str], Tally],
) -> None:
    """A signal during the publish lets it complete; a signal before it prevents it."""
    one = tally(f"signal, at every call, {request.node.callspec.id}")
    copy_lake(scene.before, scene.lake)
    calls = scene.run_killed()[1]["calls"]
    places = [n for n, name in enumerate(calls, 1) if name in {"place", "rename", "link_file", "swap_link"}]
    for at in sorted({*sample(len(calls), 5), *(places if FULL else places[-2:])}):
        one.tries += 1
        copy_lake(scene.before, scene.lake)
        asked(scene.sandbox)
        witness = Witness(scene.lake)
        victim = scene.victims.start(scene.lake, scene.url, what="command", fail=[told, "before", at])
        code = victim.wait()
        assert code in {143 if told == "term" else 130, 0}, (at, victim.complained())
        before = asked(scene.sandbox)
        examine(scene.lake, one, witness)
        published = not witness.is_current()
        assert scene.dump() == 0
        if not published:
            one.again = max(one.again, twice(before, asked(scene.sandbox)))
        assert scene.since is not None
        judge(scene.sandbox, scene.lake, scene.since, one)
        assert is_tidy(scene.lake), at
    one.check()
