"""Real `pleo-extract dump` processes, killed at random times while the world changes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tally import FULL
from theatre import (
    ENVIRONMENT,
    SOON,
    Witness,
    asked,
    examine,
    is_tidy,
    judge,
    twice,
)

from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tally import Tally

KILLS = 1_000 if FULL else 40
ROUNDS = max(2, KILLS // 50)
"""The number of lakes."""


def command(lake: Path, url: str) -> list[str]:
    """Return the command line of a dump."""
    return [sys.executable, "-m", "pleo_extract", "dump", str(lake), "--base-url", url, "--quiet"]


def environment(ground: Path) -> dict[str, str]:
    """Return the environment of a dump."""
    return {**ENVIRONMENT, "PLEO_API_KEY": API_KEY, "XDG_CACHE_HOME": str(ground / "cache")}


def test_f34_killed_at_random(ground: Path, tally: Callable[[str], Tally]) -> None:
    """A lake is complete after any kill, and correct after the next run that is not killed."""
    one = tally("killed at random")
    rng = random.Random(34)
    for n in range(ROUNDS):
        sandbox = Sandbox(
            World(jobs=900, days=90, seed=n), rules=Rules(max_limit=15, tick=1.0, latency=0.004)
        )
        with serve(sandbox) as served:
            torment(ground / f"lake-{n}", served.url, sandbox, rng, one)
    assert one.tries >= KILLS
    one.check()


def torment(
    lake: Path,
    url: str,
    sandbox: Sandbox,
    rng: random.Random,
    tally: Tally,
) -> None:
    """Kill runs on one lake; now and then let a run complete and advance the clock."""
    usual = 1.5
    since = sandbox.world.now
    done = 0
    while done < KILLS // ROUNDS:
        witness = Witness(lake)
        process = subprocess.Popen(
            command(lake, url),
            env=environment(lake.parent),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        started = time.monotonic()
        if rng.random() < 0.75:
            until = started + rng.uniform(0.25, 1.05) * usual
            while time.monotonic() < until and process.poll() is None:
                time.sleep(0.002)
            process.kill()
            killed = process.wait(timeout=SOON) == -9
            done += killed
            tally.tries += killed
        else:
            _, complaint = process.communicate(timeout=SOON)
            assert process.returncode == 0, complaint
            examine(lake, tally, witness, settled=True)
            usual = 0.5 * usual + 0.5 * (time.monotonic() - started)
            judge(sandbox, lake, since, tally)
            assert is_tidy(lake)
            since = sandbox.world.advance(rng.choice([0, 3_600, 86_400, 20 * 86_400]))
        if process.stderr is not None:
            process.stderr.close()
        examine(lake, tally, witness)


def test_f34_a_killed_run_costs_one_batch(ground: Path, tally: Callable[[str], Tally]) -> None:
    """A first dump that is killed again and again completes; each kill costs at most one batch of pages."""
    one = tally("killed over and over")
    rng = random.Random(35)
    sandbox = Sandbox(World(jobs=2_000, days=90, seed=5), rules=Rules(max_limit=10, latency=0.02))
    lake = ground / "again"
    with serve(sandbox) as served:
        since = sandbox.world.now
        seen, again = asked(sandbox), 0
        while not (lake / "_lake/current").exists():
            process = subprocess.Popen(command(lake, served.url), env=environment(ground))
            while not sandbox.requests and process.poll() is None:
                time.sleep(0.002)
            until = time.monotonic() + rng.uniform(0.05, 0.4)
            while time.monotonic() < until and process.poll() is None:
                time.sleep(0.002)
            process.kill()
            process.wait(timeout=SOON)
            time.sleep(0.1)  # the server finishes responses that nobody reads
            pages = asked(sandbox)
            one.tries += 1
            again += twice(seen, pages)
            seen += pages
        one.again = -(-again // one.tries)
        assert subprocess.run(command(lake, served.url), env=environment(ground), check=False).returncode == 0
        judge(sandbox, lake, since, one)
    one.check()
