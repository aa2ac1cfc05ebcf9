"""The performance check of CI: ratios to other programs in the same run, never seconds. Exit code 1 beyond a bound.

    python tests/benchmarks/guard.py

The bounds are above the ratios of a quiet machine (see docs/benchmarks.md): noise passes, a costly change does not.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from measure import HELP, HERE, KEY, Cost, measure, medians, serve, table

JOBS: Final = 30_000
RUNS: Final = 3
BOUNDS: Final = {
    "dump / careful script, CPU": 2.2,
    "dump / careful script, CPU, pages of 1,000": 2.6,
    "dump / careful script, peak memory": 1.6,
    "import pleo_extract / import polars, CPU": 0.5,
    "pleo-extract --help / import polars, CPU": 0.9,
}
"""The bounds are wider than the ratios of 100,000 jobs: 30,000 jobs share the same fixed cost (imports, catalogue)."""


def race(page: int) -> dict[str, Cost]:
    """Return the medians of all programs, which take turns, after a round that does not count."""
    python = sys.executable
    costs: dict[str, list[Cost]] = {
        name: [] for name in ("ours", "careful", "polars", "pleo_extract", "help")
    }
    with serve(JOBS, "--page", str(page)) as server, tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS + 1):
            for name in ("ours", "careful"):
                script, out = HERE / "contenders" / f"{name}.py", Path(folder, f"{name}-{number}")
                limit = [str(page)] if name == "careful" else []
                command = [python, str(script), server.url, KEY, str(out), *limit]
                costs[name].append(measure(command, {"PLEO_TRANSPORT": "httpx"}))  # the default of a user
            costs["polars"].append(measure([python, "-c", "import polars"]))
            costs["pleo_extract"].append(measure([python, "-c", "import pleo_extract"]))
            costs["help"].append(measure([python, "-c", HELP]))
    return {name: medians(each[1:]) for name, each in costs.items()}


def main() -> int:
    """Measure, print the ratios, and return 1 if one exceeds its bound."""
    found, large = race(100), race(1_000)
    ours, careful, polars = found["ours"], found["careful"], found["polars"]
    figures = (
        ours.cpu / careful.cpu,
        large["ours"].cpu / large["careful"].cpu,
        ours.peak / careful.peak,
        found["pleo_extract"].cpu / polars.cpu,
        found["help"].cpu / polars.cpu,
    )
    rows = [(name, figure, bound) for (name, bound), figure in zip(BOUNDS.items(), figures, strict=True)]
    print(table(["ratio", "measured", "bound"], rows))
    return int(any(figure > bound for _, figure, bound in rows))


if __name__ == "__main__":
    sys.exit(main())
