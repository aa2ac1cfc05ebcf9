"""Long random sequences against servers with random habits: after each exit code 0 the lake equals the server.

A sequence is a server with drawn habits, a lake, and steps. In a step the world changes, or a test edits it, or a
run is killed, hits its deadline or request limit, meets a full disk, is interrupted, or completes. Where the world
drifts, rows also break and jobs also move while a run reads. After each run that ends with 0, every job in the lake
must be in a version that the server had between the first and the last request of that run, and no job may be there
twice.

After a run that ends with 65 because rows broke the contract, the same holds for every other job. A job whose row has
been broken since the last 0 may be missing, or be in an older version; it is never in one that did not exist. Once all
rows are healthy, a full sync that a single run reads ends with 0.

Some differences are excused until the next full sync that a single run reads:
- changed settled rows (a resumed full sync has pages from before the change), among them rows that are broken now;
- jobs whose `createdAt` was changed (ruling 7: noticed when read); if that was while the run read, such a job may have
  moved to where the run had been, and be missing;
- deletes, as far as backdated inserts cancel them in `total`;
- every delete and backdated insert if `total` is unusable and the receipt says that the run may have missed some:
  then only pages that are read again can show them;
- deleted jobs on a server that does not sort, where absence proves nothing.
"""

from __future__ import annotations

import errno
import random
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from conftest import FakeClock, cut_long_lists
from habits import TERMINAL, Habits, Server
from lakes import around_storage
from tally import FULL
from theatre import open_ground

from pleo_extract import Client, PleoExtractError, Receipt, dump_export_jobs, scan_lake, verify_lake
from pleo_extract.errors import RejectedRows, StorageError
from pleo_extract.lake.store import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from habits import Job
    from tally import Tally

SEQUENCES = 240 if FULL else 8
CROWDED_SEQUENCES = 60 if FULL else 2
STEPS = 40 if FULL else 18
PAIRS = 600 if FULL else 20
"""How many times a deleted and a backdated job cancel in `total`."""
CROWDED: dict[str, Any] = {
    "page": 7,
    "at_once": 2,
    "sorting": "honoured",
    "total": "exact",
    "offsets": "taken",
}
"""Habits with which a list is certain to be read in segments, and some requests are refused; see `play`."""
SETTLED = (*TERMINAL, "canceled")
"""The statuses whose rows a sync need not read again; those of an unknown status after three readings (ruling 3)."""
PARTS = 4
"""The number of tests that share the sequences, so that they run in parallel."""


class Killed(BaseException):
    """Raised in place of a storage call, as if the process had been killed before it."""


@contextmanager
def failing_from(call: int, make_error: Callable[[], BaseException]) -> Iterator[None]:
    """Make this storage call, counted from 1, and all later ones raise the error that `make_error` makes."""
    count = 0

    def fail(_name: str, go: Callable[[], Any]) -> Any:
        nonlocal count
        count += 1
        if count >= call:
            raise make_error()
        return go()

    with suppress(Killed), around_storage(fail):
        yield


def no_room() -> BaseException:
    """Return the error of a full disk, as `disk` raises it."""
    return StorageError(f"no room: {errno.ENOSPC}")


@dataclass
class Sequence:
    """One lake, one server, and the differences that are excused since the last full sync."""

    seed: int
    lake: Path
    server: Server
    rng: random.Random
    clock: FakeClock = field(default_factory=FakeClock)
    deleted: int = 0
    inserted: int = 0
    meddled: set[str] = field(default_factory=set)
    """The jobs that were deleted or inserted in the past, or moved before a lake had them."""
    changed: set[str] = field(default_factory=set)
    """The settled jobs that were changed or broken, and all jobs that were moved."""
    broken: set[str] = field(default_factory=set)
    """The jobs whose rows have been broken since the last run that ended with 0."""
    midway: set[str] = field(default_factory=set)
    """The jobs that moved while the current run read, and the settled jobs that broke."""
    ended: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)

    def run(self, **options: Any) -> Receipt | None:
        """Run once and return the receipt; None if the run neither ended with 0 nor with 65 because of rejected rows."""
        self.server.on_request = self._tick
        self.midway.clear()
        with Client(
            "http://127.0.0.1:1",
            api_key="plp_soak",
            transport=self.server,
            clock=self.clock,
            rate=10_000_000,
            in_flight=self.rng.choice((1, 4, 8)),
        ) as client:
            try:
                return dump_export_jobs(self.lake, client=client, progress=False, **options)
            except RejectedRows as exc:
                self.log.append(f"  ended with {exc.code}: {exc}")
                return msgspec.convert(exc.receipt, Receipt)
            except PleoExtractError as exc:
                self.ended[f"{exc.code}"] += 1
                self.log.append(f"  ended with {exc.code}: {exc}")
                return None
            except (KeyboardInterrupt, Killed) as exc:
                self.ended[type(exc).__name__] += 1
                return None

    def _tick(self) -> None:
        """Advance the clock by half a second per request."""
        self.clock.now += 0.5

    def meddle_midway(self) -> None:
        """Let a row break or a job move while a run reads, in one of twenty changes.

        Jobs move only where `total` is exact: else nothing shows a run that a job has moved to where it had been.
        """
        habits, chance = self.server.habits, self.server.rng.random()
        if chance < 0.025 and habits.breaks != "never" and (job := self._break()) and job.status in SETTLED:
            self.midway.add(job.id)
        is_shown = habits.moves != "never" and habits.total == "exact"
        if is_shown and 0.025 < chance < 0.05 and (job := self.server.move()):
            self.changed.add(job.id)
            self.midway.add(job.id)

    def go(self, name: str, **options: Any) -> list[str]:
        """Run once, and return what is wrong with the lake if the run ends with 0, or 65 because of rejected rows."""
        start = self.server.changes
        first = self.server.requests
        receipt = self.run(**options)
        self.log.append(
            f"{name} {options}: {self.server.requests - first} requests, "
            + (
                f"{receipt.code}, {receipt.mode}, {receipt.verdict} {receipt.why} {receipt.why_full}"
                if receipt
                else "neither 0 nor 65"
            )
        )
        if receipt is None:
            return []
        self.ended[f"{receipt.code}"] += 1
        wrong = self.judge(start, self.server.changes, receipt)
        if receipt.code == 0:
            self.broken = {key for key, job in self.server.jobs.items() if job.is_broken}
        if _is_whole(receipt):
            self.deleted = self.inserted = 0
            self.meddled.clear()
            self.changed = set(self.midway)  # what changed during the run may have been read before
        return wrong

    def judge(self, start: int, end: int, receipt: Receipt) -> list[str]:
        """Compare the jobs of the lake and of the server with the server's versions during the run."""
        found = verify_lake(self.lake)
        wrong = [f"verify: {problem}" for problem in found.problems]
        jobs = scan_lake(self.lake).collect()
        wrong += [f"double {key}" for key in jobs.filter(jobs["id"].is_duplicated())["id"]]
        rows = {row["id"]: row for row in jobs.iter_rows(named=True)}
        opened = open_lake(self.lake).open()
        assert opened is not None
        vanished = {key for state in opened.manifest.accounts.values() for _, key in state.vanished}
        found_wrong = [
            self._judge_job(job, rows.pop(key, None), (start, end), receipt, vanished)
            for key, job in self.server.jobs.items()
        ]
        balance = sum(each.startswith("missing") for each in found_wrong)
        balance -= sum(each.startswith("ghost") for each in found_wrong)
        wrong += filter(None, found_wrong)
        wrong += [f"invented {key}" for key in rows]
        if not _is_whole(receipt) and self.deleted and self.inserted:
            wrong = [each for each in wrong if not each.startswith(("missing", "ghost")) or balance]
        return wrong

    def _judge_job(  # noqa: PLR0911 - one return for each kind of difference
        self,
        job: Job,
        row: dict[str, Any] | None,
        span: tuple[int, int],
        receipt: Receipt,
        vanished: set[str],
    ) -> str:
        """Return what is wrong with the lake's row of a job, or with its absence; else an empty text."""
        key, versions = job.id, job.between(*span)
        excused = self.meddled if _is_blind(receipt) else set()
        rejected = self.broken if receipt.code else set()
        if row is None:
            is_wrong = None not in versions and key not in excused | rejected | self.midway
            return f"missing {key} {versions[-1]}" if is_wrong else ""
        if any(version and _is_same(row, version) for version in versions):
            return ""
        if not any(version and _is_same(row, version) for version in job.between(0, span[1])):
            return f"invented {key}: {_tell(row)}"
        if key in rejected:
            return ""
        if versions == [None]:
            is_wrong = key not in vanished | excused and self.server.habits.sorting == "honoured"
            return f"ghost {key} {row['status']}" if is_wrong else ""
        if _is_whole(receipt) or key not in self.changed:
            return f"stale {key}: {_tell(row)} is none of {[v and _spell(v) for v in versions]}"
        return ""

    def step(self) -> list[str]:  # noqa: PLR0911 - one return for each kind of step
        """Take one random step, and return what is wrong with the lake after it."""
        server, rng = self.server, self.rng
        what = rng.random()
        if what < 0.4:
            self._live()
            return []
        if what < 0.5:
            self._meddle()
            return []
        if what < 0.56:
            with failing_from(rng.randint(1, 90), Killed):
                return self.go("killed")
        if what < 0.62:
            with failing_from(rng.randint(1, 60), no_room):
                return self.go("full disk")
        if what < 0.68:
            server.failure, server.fail_at = KeyboardInterrupt(), server.requests + rng.randint(1, 30)
            try:
                return self.go("interrupted")
            finally:
                server.failure = None
        if what < 0.76:
            return self.go("cut", max_requests=rng.randint(2, 25))
        if what < 0.8:
            return self.go("short of time", deadline=rng.uniform(1, 15))
        if what < 0.84:
            return self.go("full", full=True, accept_vanished=True)
        return self.go("run")

    def _live(self) -> None:
        for _ in range(self.rng.choice((1, 5, 40))):
            self.server.live()

    def _meddle(self) -> None:
        habits = self.server.habits
        kinds = ["delete", "backdate", "change"]
        kinds += ["move", "move"] if habits.moves != "never" else []
        kinds += ["break", "break", "heal"] if habits.breaks != "never" else []
        what = self.rng.choice(kinds)
        self.log.append(what)
        if what == "delete" and (job := self.server.delete()):
            self.deleted += 1
            self.meddled.add(job.id)
        elif what == "backdate":
            self.meddled.add(self.server.backdate().id)
            self.inserted += 1
        elif what in ("change", "move"):
            if job := self.server.change_settled() if what == "change" else self.server.move():
                self.changed.add(job.id)
                if what == "move" and job.id not in self._list_known():
                    self.meddled.add(job.id)  # to the lake it is a job that is inserted in the past
                    self.inserted += 1
        elif what == "break":
            self._break()
        elif what == "heal":
            self.server.heal_rows()

    def _list_known(self) -> set[str]:
        """Return the jobs of the lake."""
        opened = open_lake(self.lake).open() if self.lake.exists() else None
        return set() if opened is None else set(scan_lake(self.lake).collect()["id"])

    def _break(self) -> Job | None:
        """Let the row of a job break the contract, and return the job, if there is one."""
        if job := self.server.break_row():
            self.broken.add(job.id)
            if job.status in SETTLED:
                self.changed.add(job.id)
        return job

    def end(self) -> list[str]:
        """Heal all rows and read the whole list; return what is wrong with the lake then."""
        self.server.heal_rows()
        self.server.on_drift = lambda: None
        wrong: list[str] = []
        for _ in range(2):  # the first run may resume pages with broken rows, the second one resumes nothing
            rejected = self.ended["65"]
            wrong = self.go("last, full", full=True, accept_vanished=True)
            if wrong or self.ended["65"] == rejected:
                return wrong
        return ["rejected: all rows are healthy, and a full sync ends with 65"]


def _is_whole(receipt: Receipt) -> bool:
    """Return whether the receipt is of a full sync that a single run read."""
    return receipt.mode == "full" and receipt.shift_chance == 1


def _is_blind(receipt: Receipt) -> bool:
    """Return whether the receipt says that no total could check the run."""
    return receipt.total_kind in ("", "unusable") and receipt.shift_chance < 1


def _is_same(row: dict[str, Any], job: dict[str, Any]) -> bool:
    return _tell(row) == _spell(job)


def _tell(row: dict[str, Any]) -> tuple[Any, ...]:
    updated: datetime = row["last_updated_at"]
    created: datetime = row["created_at"]
    return row["status"], created.isoformat()[:19], updated.isoformat()[:19], row["number_of_items"]


def _spell(job: dict[str, Any]) -> tuple[Any, ...]:
    return job["status"], job["createdAt"][:19], job["lastUpdatedAt"][:19], job["numberOfItems"]


def play(seed: int, ground: Path, one: Tally, ended: Counter[str], *, is_crowded: bool = False) -> None:
    """Play one sequence; if the lake is wrong, print the steps that led to it.

    Only a list of many pages is read in more segments than a crowded server takes requests at once.
    """
    rng = random.Random(seed)
    drawn, jobs = Habits.draw(rng), rng.choice((0, 30, 150, 400))
    if is_crowded:
        drawn, jobs = replace(drawn, **CROWDED), 400
    lake = Path(tempfile.mkdtemp(dir=ground)) / "lake"
    server = Server(drawn, seed, jobs)
    sequence = Sequence(seed, lake, server, rng)
    server.on_drift = sequence.meddle_midway
    wrong: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        if is_crowded:
            cut_long_lists(patch)
        for _ in range(STEPS):
            wrong = sequence.step()
            one.tries += 1
            if wrong:
                break
        else:
            wrong = sequence.end()
    ended.update(sequence.ended)
    ended["refusals"] += server.refusals
    one.lost += sum(each.startswith("missing") for each in wrong)
    one.double += sum(each.startswith("verify") for each in wrong)
    one.wrong += sum(not each.startswith(("missing", "verify")) for each in wrong)
    if wrong:
        print(f"\nseed {seed}: {drawn}", *sequence.log, *wrong[:8], sep="\n")  # noqa: T201 - pytest shows it where the test fails
    shutil.rmtree(lake.parent)


@pytest.mark.parametrize("part", range(PARTS))
def test_f57_f59_f60_f61_f62_soak(part: int, tally: Callable[[str], Tally]) -> None:
    """After each run that ends with 0, the lake equals the server at the time of that run; see above."""
    one, ended = tally(f"soak, part {part + 1}"), Counter[str]()
    with open_ground() as ground:
        for seed in range(part, SEQUENCES, PARTS):
            play(seed, ground, one, ended)
    print("runs by how they ended:", dict(ended))  # noqa: T201 - as above
    one.check()


def test_f63_soak_of_a_crowded_server(tally: Callable[[str], Tally]) -> None:
    """The same with a server that is certain to refuse some requests, because too many come at once."""
    one, ended = tally("soak, crowded"), Counter[str]()
    with open_ground() as ground:
        for seed in range(1_000, 1_000 + CROWDED_SEQUENCES):
            play(seed, ground, one, ended, is_crowded=True)
    assert ended["refusals"], "no request was refused because too many came at once"
    print("runs by how they ended:", dict(ended))  # noqa: T201 - as above
    one.check()


def test_f57_pairs_that_cancel(tally: Callable[[str], Tally]) -> None:
    """Deletes and backdated inserts that cancel in `total` are found as often as receipts state; a full sync finds all."""
    one = tally("pairs that cancel")
    found, stated, spread = 0, 0.0, 0.0
    with open_ground() as ground:
        server = Server(Habits(page=50), seed=4, jobs=1_000)
        sequence = Sequence(4, ground / "lake", server, random.Random(4))
        assert sequence.run()
        for _ in range(PAIRS):
            quiet = sequence.run()
            assert quiet is not None
            assert (quiet.mode, quiet.verdict) == ("refresh", "complete")
            stated += quiet.shift_chance
            spread += quiet.shift_chance * (1 - quiet.shift_chance)
            server.delete()
            server.backdate()
            receipt = sequence.run(accept_vanished=True)
            assert receipt is not None
            found += receipt.mode == "full"
            one.tries += 1
            last = receipt if receipt.mode == "full" else sequence.run(full=True, accept_vanished=True)
            assert last is not None
            rows = scan_lake(sequence.lake).collect()["id"].to_list()
            gone = {key for key, job in server.jobs.items() if job.is_deleted}
            one.lost += len(server.jobs.keys() - gone - set(rows))
            one.double += len(rows) - len(set(rows))
    print(f"found {found} of {PAIRS} pairs, stated {stated:.1f}")  # noqa: T201 - as above
    one.check()
    assert abs(found - stated) <= 5 * spread**0.5
