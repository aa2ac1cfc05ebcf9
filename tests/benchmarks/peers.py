"""A first dump compared with its peers: whole processes that take turns, each in its own environment, one server.

    python tests/benchmarks/peers.py [--jobs 100000] [--runs 3] [--latency-ms 0] [--page 100] [--only ours,careful]

The rows of each contender are compared with those of the server, so that nobody is fast by leaving something out. The
tap of the Singer SDK and the source of the Airbyte CDK only write messages; loading them would come on top.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import HERE, KEY, ROOT, Cost, Killed, count, make_venv, measure, medians, serve, table

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS = ("ours", "ours_fast")
CONTENDERS = (
    *OURS,
    "careful",
    "threaded",
    "polars_loop",
    "pandas_loop",
    "dlt_arrow",
    "dlt_rest",
    "dlt_duckdb",
    "singer",
    "airbyte",
)
LARGE_PAGES = ("careful", "threaded", "polars_loop", "pandas_loop")
"""The contenders that can ask for pages of another size than 100."""

FIGURES = {"cpu": "CPU s", "wall": "wall s", "peak": "peak MB"}


def load(name: str) -> Any:
    """Import a contender's module, for its title and requirements."""
    sys.path.insert(0, str(HERE / "contenders"))
    spec = importlib.util.spec_from_file_location(name, HERE / "contenders" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(names: list[str]) -> dict[str, tuple[str, str]]:
    """Create the environments; return title and Python of each contender."""
    prepared = {}
    for name in names:
        module = load(name)
        requirements = module.REQUIREMENTS or [f"{ROOT}{getattr(module, 'EXTRA', '')}"]
        prepared[name] = (module.TITLE, make_venv(name, requirements))
        if not module.REQUIREMENTS:  # our own source may have changed since the last run
            pip = [prepared[name][1], "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "--no-deps", "--force-reinstall", str(ROOT)], check=True)
    return prepared


def race(
    prepared: dict[str, tuple[str, str]],
    *,
    jobs: int,
    runs: int,
    latency: float = 0,
    more: Sequence[str] = (),
    warm: bool = True,
    page: int = 100,
    threads: int = 8,
) -> dict[str, Cost]:
    """Return the medians of the contenders, which take turns.

    The first round checks the rows; with `warm` its cost does not count.

    Args:
        prepared: title and Python of each contender.
        jobs: the jobs of the list.
        runs: how often each runs.
        latency: milliseconds that the server waits before each response.
        more: further options of ours.
        warm: run each once more before.
        page: the most rows of a page.
        threads: the requests in flight of contenders with threads.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in prepared}
    with (
        serve(jobs, "--latency-ms", str(latency), "--page", str(page)) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        for number in range(runs + warm):
            for name, (_, python) in prepared.items():
                out = Path(folder, f"{name}-{number}")
                command = [python, str(HERE / "contenders" / f"{name}.py"), server.url, KEY, str(out)]
                command += more if name in OURS else _arguments(name, page, threads)
                try:
                    cost = measure(command)
                except Killed as exc:  # pandas or pyarrow has aborted once, without a word
                    if name in OURS:
                        raise
                    print(f"once more: {exc}", file=sys.stderr)
                    measure(["rm", "-rf", str(out), f"{out}-state"])
                    cost = measure(command)
                if number or not warm:
                    costs[name].append(cost)
                if not number:
                    measure([sys.executable, str(HERE / "compare.py"), str(out), str(jobs)])
                measure(["rm", "-rf", str(out), f"{out}-state"])
    return {name: medians(each) for name, each in costs.items()}


def _arguments(name: str, page: int, threads: int) -> list[str]:
    return [str(page), str(threads)] if name == "threaded" else [str(page)] if name in LARGE_PAGES else []


def tabulate(prepared: dict[str, tuple[str, str]], costs: dict[str, Cost]) -> str:
    """Return a table of contenders; each figure comes with its ratio to ours."""
    ours = costs["ours"]

    def cell(cost: Cost, figure: str) -> str:
        value = getattr(cost, figure)
        return f"{value:,.1f} ({value / getattr(ours, figure):.2f})"

    rows = [[prepared[name][0], *(cell(cost, figure) for figure in FIGURES)] for name, cost in costs.items()]
    return table(["", *FIGURES.values()], rows)


def main() -> None:
    """Prepare the contenders, race them and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--page", type=int, default=100)
    parser.add_argument("--only", default=",".join(CONTENDERS))
    asked = parser.parse_args()
    prepared = prepare(asked.only.split(","))
    costs = race(
        prepared,
        jobs=asked.jobs,
        runs=asked.runs,
        latency=asked.latency_ms,
        more=["--in-flight", str(asked.in_flight)],
        page=asked.page,
        threads=asked.in_flight,
    )
    print(
        f"{count(asked.jobs)} jobs, {asked.latency_ms:g} ms a response, medians of {asked.runs} runs in turn; "
        "in brackets the ratio to ours\n"
    )
    print(tabulate(prepared, costs))


if __name__ == "__main__":
    main()
