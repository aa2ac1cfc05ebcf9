"""Lakes of ten thousand to a hundred million jobs: the cost of each step. Writes `docs/scale.json`, for docs/scale.md.

    python tests/benchmarks/scale.py [--up-to 100000000] [--quick] [--delta-only] [--answers-only]

A formula makes the rows (`rows.py`), and the benchmark stages them as a dump does. The rest is the library: publish,
refresh against the benchmark's server, answers, verify. A first dump stages everything and publishes once; here ten
million jobs are published at a time, so that the disk need not hold more. Of a larger Delta table only the first ten
million jobs are published, and the CPU is multiplied in proportion, because months are merged one by one. Each step is
a whole process and runs once. The figures are CPU seconds and peak memory, since wall time says little on a shared
machine. Then it measures every answer over ten million jobs, of twenty and of ten thousand companies; those that take
more than a gigabyte a second time, with a limit on DuckDB's memory.

`--quick` prints and writes nothing; `--delta-only` and `--answers-only` measure only these and keep the other figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from answers import ASK, COMPARE, OURS, make_lake
from curve import dump
from measure import ROOT, Cost, measure, serve, tell
from rows import make_rows
from server import FIRST, Jobs

from pleo_extract.answers import statements
from pleo_extract.contract import instant_key
from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.lake.journal import Header, StagedBatch
from pleo_extract.lake.staging import Staging
from pleo_extract.lake.store import open_lake
from pleo_extract.lake.table import Change, Info, merge_staged

if TYPE_CHECKING:
    from collections.abc import Iterator

FIGURES: Final = ROOT / "docs" / "scale.json"
SIZES: Final = (10_000, 1_000_000, 10_000_000, 100_000_000)
NOWHERE: Final = "https://sandbox.invalid"
PORTION: Final = 10_000_000
BATCH: Final = 2_000
"""The rows of one staged batch of a dump."""
MADE_AT_ONCE: Final = 200_000
NEW, ENDED = 960, 40
COMPANIES: Final = (20, 10_000)
"""The companies of the lakes on which every answer is measured."""
MUCH: Final = 1_000
"""Megabytes; an answer that takes more is measured with a limit, too."""
LIMIT: Final = "700MB"
LIMITED: Final = f"""
import sys
from pleo_extract import connect
con = connect(sys.argv[1])
con.execute("SET memory_limit = '{LIMIT}'")
con.execute(f"SET temp_directory = '{{sys.argv[1]}}-spilled'")
print(con.sql(sys.argv[2]).pl().height)
"""
LIBRARIES = ("polars", "duckdb", "pyarrow", "deltalake")


def run(size: int) -> dict[str, Any]:
    """Measure all steps on a lake of `size` jobs."""
    found: dict[str, Any] = {"jobs": size}
    with serve(size) as server, tempfile.TemporaryDirectory() as folder:
        lake = Path(folder, "lake")
        found |= fill(lake, server.url, size, "parquet")
        found["bytes"] = sum(path.stat().st_size for path in lake.glob("*/*.parquet"))
        for name, new, ended in (("nothing", 0, 0), ("refresh", NEW, ENDED)):
            server.ask(f"/grow?new={new}&ended={ended}")
            before = server.ask("/seen")["requests"]
            found[name] = tell(dump(server.url, lake, "--max-requests", "5000"))
            found[name]["requests"] = server.ask("/seen")["requests"] - before
            receipt = json.loads((lake / "_lake" / "last_run.json").read_text(encoding="utf-8"))["receipt"]
            assert (receipt["mode"], receipt["verdict"]) == ("refresh", "complete"), receipt
            assert receipt["lake_rows"] == size + new, receipt
        for name, question in OURS.items():
            found[name] = tell(measure([sys.executable, "-c", ASK, str(lake), question]))
        found["verify"] = tell(measure([sys.executable, "-m", "pleo_extract", "verify", str(lake)]))
    return found | run_delta(size)


def run_delta(size: int) -> dict[str, Any]:
    """Measure the publish of `size` jobs as a Delta table."""
    with tempfile.TemporaryDirectory() as folder:
        return {"delta": fill(Path(folder, "lake"), NOWHERE, size, "delta", portions_at_most=1)["publish"]}


def run_answers(size: int, companies: int) -> dict[str, Any]:
    """Measure every answer on a lake of `size` jobs of this many companies."""
    python = [sys.executable, "-c"]
    questions = {each.name: f"FROM {each.name}()" for each in statements().values() if each.kind == "macro"}
    found: dict[str, Any] = {"jobs": size, "companies": companies, "limit": LIMIT}
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder, "lake")
        make_lake(lake, size, companies)
        for name, question in sorted((questions | {"compare": COMPARE}).items()):
            found[name] = tell(measure([*python, ASK, str(lake), question]))
            if found[name]["peak"] > MUCH:
                try:
                    found[name]["limited"] = tell(measure([*python, LIMITED, str(lake), question]))
                except SystemExit as exc:
                    if "OutOfMemoryException" not in str(exc):
                        raise
                    found[name]["limited"] = None
            print(f"{companies:,} companies: {name}, {found[name]}", file=sys.stderr, flush=True)
    return found


def fill(
    lake: Path, url: str, size: int, kind: str, *, portions_at_most: int | None = None
) -> dict[str, Any]:
    """Stage and publish in portions; return the cost of publishing and the staged bytes."""
    costs, staged, last = [], 0, 0
    me = [sys.executable, __file__]
    for first, last in islice(portions(Jobs(size)), portions_at_most):
        about = [str(lake), url, kind, str(size), str(first), str(last)]
        measure([*me, "--step", "stage", *about])
        staged += sum(path.stat().st_size for path in lake.rglob("*.arrow"))
        costs.append(measure([*me, "--step", "publish", *about]))
        print(f"{size:,} {kind}: published up to {last:,}, {costs[-1]}", file=sys.stderr, flush=True)
    cpu = sum(each.cpu for each in costs) * size / last
    whole = Cost(cpu, 0, max(each.peak for each in costs))
    return {"publish": tell(whole), "staged": staged}


def portions(jobs: Jobs) -> Iterator[tuple[int, int]]:
    """Yield ranges of job numbers: whole months of about PORTION jobs together."""
    months = [datetime(2023 + n // 12, 1 + n % 12, 1) for n in range(37)]  # noqa: DTZ001 - as the server has it
    starts = [_first_at(jobs, (month - FIRST) // timedelta(seconds=1)) for month in months]
    first = 0
    for start, following in zip(starts[1:], [*starts[2:], None], strict=True):
        if following is None or following - first > PORTION:
            yield first, jobs.count if following is None else start
            first = start


def _first_at(jobs: Jobs, second: int) -> int:
    return bisect_left(range(jobs.count), second, key=lambda n: int(n * jobs.step))


def stage(lake: Path, url: str, kind: Any, size: int, first: int, last: int) -> None:
    """Stage rows as a dump would have, but without fsync."""
    os.fsync = lambda _: None  # type: ignore[assignment] # staging is not measured
    layout = open_lake(lake, kind=kind).layout
    header = Header(run="scale", mode="full", base=0, started_at=datetime.now(UTC))
    staging = Staging.start(layout.staging, url, header)
    for start in range(first, last, MADE_AT_ONCE):
        rows = make_rows(Jobs(size), start, min(start + MADE_AT_ONCE, last))
        for batch in rows.iter_slices(BATCH):
            staging.add(batch)


def publish(lake: Path, url: str, kind: Any, size: int, first: int, last: int) -> None:
    """Publish the staged rows, with the sync state of a complete walk."""
    kept = open_lake(lake, kind=kind)
    newest = make_rows(Jobs(size), last - 1, last).row(0, named=True)
    account = SyncState(
        verdict="complete",
        order="strict" if Jobs(size).step >= 1 else "created",  # jobs of the same second are not sorted by id
        watermark=(instant_key(newest["created_at"]), newest["id"]),
        full_at=datetime.now(UTC),
        updated_at=datetime.now(UTC),
        full_jobs=last,
    )
    (folder,) = kept.layout.staging.iterdir()
    journal = (folder / "journal.jsonl").read_bytes().splitlines()
    staging = Staging(
        folder,
        msgspec.json.decode((folder / "run.json").read_bytes(), type=Header),
        [msgspec.json.decode(line, type=StagedBatch) for line in journal],
    )
    with kept.hold():
        kept.begin()
        change = Change(kept.latest(url))
        merge_staged(kept, change, [staging])
        manifest = kept.commit(change, Info(url, {}, {AccountKey.of(url, None): account}))
        staging.clear()
    assert manifest.rows == last, (manifest.rows, first, last)


def main() -> None:
    """Measure all sizes, or run one step in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--up-to", type=int, default=SIZES[-1])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--delta-only", action="store_true")
    parser.add_argument("--answers-only", action="store_true")
    parser.add_argument("--step", nargs=7)
    asked = parser.parse_args()
    if asked.step:
        step, lake, url, kind, *numbers = asked.step
        {"stage": stage, "publish": publish}[step](Path(lake), url, kind, *map(int, numbers))
        return
    if asked.delta_only or asked.answers_only:
        results = json.loads(FIGURES.read_text(encoding="utf-8"))
        if asked.delta_only:
            results["sizes"] = [each | run_delta(each["jobs"]) for each in results["sizes"]]
        else:
            results["answers"] = [run_answers(PORTION, companies) for companies in COMPANIES]
            results["answers_when"] = f"{datetime.now(UTC):%Y-%m-%d}"
        FIGURES.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        return
    sizes = [size for size in SIZES if size <= (10_000 if asked.quick else asked.up_to)]
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    results = {
        "when": f"{datetime.now(UTC):%Y-%m-%d}",
        "where": f"{os.cpu_count()} cores, {system}, {libraries}",
        "sizes": [run(size) for size in sizes],
        "answers": [run_answers(sizes[0] if asked.quick else PORTION, companies) for companies in COMPANIES],
        "answers_when": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    text = json.dumps(results, indent=1) + "\n"
    if asked.quick:
        print(text)
    else:
        FIGURES.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
