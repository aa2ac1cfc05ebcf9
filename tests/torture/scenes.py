"""The scenarios: each is a world, a lake, and the run that a test kills or disturbs."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from theatre import Victims, copy_lake

from pleo_extract import Client, PleoExtractError, dump_export_jobs
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAY = 86_400.0
TICK = 2.0


@dataclass
class Scene:
    """A world, a lake before the disturbed run, and the options of that run.

    Attributes:
        victims: starts the disturbed runs in child processes.
        sandbox: the server.
        url: its address.
        lake: where the runs dump.
        before: a copy of the lake as it is before each try.
        options: the options of the disturbed run.
        since: the world's time before that run, for the oracle.
        ended: the snapshot that the undisturbed run publishes.
    """

    victims: Victims
    sandbox: Sandbox
    url: str
    lake: Path
    before: Path
    options: dict[str, Any] = field(default_factory=dict)
    since: datetime | None = None
    ended: int = 0

    def run_killed(self, when: str = "", at: int = 0) -> tuple[int, dict[str, Any]]:
        """Run in a child process that is killed at this storage call."""
        return self.victims.run(self.lake, self.url, options=self.options, fail=["kill", when, at])

    def dump(self, **options: Any) -> int:
        """Run in this process, to the end or to its request limit, and return the exit code."""
        with Client(self.url, api_key=API_KEY, transport=self.sandbox, rate=10_000_000) as client:
            try:
                return dump_export_jobs(self.lake, client=client, progress=False, **options).code
            except PleoExtractError as exc:
                return exc.code

    def set_up(self, *steps: Callable[[], None], **options: Any) -> None:
        """Run the steps, and copy the resulting lake to `before`."""
        for step in steps:
            step()
        self.options = options
        copy_lake(self.lake, self.before)

    def run(self, **options: Any) -> Callable[[], None]:
        """Return a step that dumps."""

        def step() -> None:
            self.dump(**options)

        return step

    def move_jobs(self) -> None:
        """Move some of the oldest jobs to the newest month, and the other way round."""
        jobs = sorted(self.sandbox.world.visible(), key=lambda job: str(job["createdAt"]))
        settled = [job for job in jobs if job["status"] == "completed"]
        early, late = settled[:3], settled[-3:]
        for job, other in zip([*early, *late], [*late, *early], strict=True):
            created = datetime.fromisoformat(other["createdAt"]) + timedelta(seconds=1)
            self.sandbox.world.move(job["id"], created, job["companyId"])
        self.since = self.sandbox.world.now

    def age(self) -> None:
        """Convert the lake to format 1, as an older version left it."""
        make_old(self.lake)

    def wait(self, days: float) -> Callable[[], None]:
        """Return a step that advances the world's clock."""

        def step() -> None:
            self.since = self.sandbox.world.advance(days * DAY)

        return step


def make_old(lake: Path) -> None:
    """Convert a lake of format 2 to format 1: a folder of links for each snapshot, and a link to the current one."""
    layout = Layout(lake)
    (lake / "_meta").mkdir()
    for number in layout.numbers():
        manifest = layout.manifest(number)
        for entry in manifest.files:
            path = layout.old.snapshot_folder(number) / entry.path
            path.parent.mkdir(parents=True)
            path.hardlink_to(layout.objects / entry.object)
        files = [msgspec.structs.replace(entry, object="") for entry in manifest.files]
        manifest = msgspec.structs.replace(manifest, format=1, files=files)
        (lake / f"_meta/{number:06d}.json").write_bytes(msgspec.json.encode(manifest))
    (lake / "_meta/last_run.json").write_bytes(layout.last_run.read_bytes())
    (lake / "current").symlink_to(f"snapshots/{layout.number():06d}")
    (lake / "_staging").mkdir()
    (lake / "_lock").touch()
    for path in (*lake.glob("created_month=*"), layout.own):
        shutil.rmtree(path)
    layout.catalogue.rename(lake / "jobs.duckdb")


SCENARIOS: dict[str, Callable[[Scene], None]] = {
    "first dump": lambda scene: scene.set_up(),
    "refresh": lambda scene: scene.set_up(scene.run(), scene.wait(3)),
    "month change": lambda scene: scene.set_up(scene.run(), scene.wait(31)),
    "prune": lambda scene: scene.set_up(*(scene.run(), scene.wait(2)) * 3, keep_count=2),
    "resume of a first dump": lambda scene: scene.set_up(scene.run(max_requests=45)),
    "resume of a refresh": lambda scene: scene.set_up(
        scene.run(), scene.wait(60), scene.run(max_requests=25)
    ),
    "nothing new": lambda scene: scene.set_up(scene.run()),
    "jobs that move": lambda scene: scene.set_up(scene.run(), scene.move_jobs, full=True),
    "carry over": lambda scene: scene.set_up(*(scene.run(), scene.wait(2)) * 2, scene.age),
    "full walk": lambda scene: scene.set_up(scene.run(), scene.wait(1), full=True),
}


@pytest.fixture
def scene(request: pytest.FixtureRequest, victims: Victims, ground: Path) -> Iterator[Scene]:
    """Build the scene of the test's scenario."""
    name = request.param
    world = World(jobs=420, days=50, seed=11)
    # A slow server is read in segments.
    latency = 0.03 if name in {"first dump", "full walk", "resume of a first dump"} else 0.0
    rules = Rules(max_limit=6, tick=0.0 if name == "nothing new" else TICK, latency=latency)
    sandbox = Sandbox(world, rules=rules)
    place = Path(tempfile.mkdtemp(prefix=name.replace(" ", "-"), dir=ground))
    with serve(sandbox) as served:
        scene = Scene(victims, sandbox, served.url, place / "lake", place / "before")
        scene.since = world.now
        SCENARIOS[name](scene)
        yield scene
