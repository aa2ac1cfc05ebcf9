"""How often chance raises an alarm, and how soon a real change raises one. Writes `docs/alarms.json`, for docs/answers.md.

    python tests/benchmarks/alarms.py [--quick] [PART …]

The worlds are those of `tests/support`, where the tests measure the same in small. The parts are `silences`,
`clustering`, `attempts` and `shifts`; without a name all of them run. `--quick` runs a small share and writes nothing. Every seed is fixed.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from drifts import STEADY, count_alarms, find_shift_days, judge_counts  # noqa: E402 - the path comes first
from retries import WORLDS, count_wrong_links, measure_coverage  # noqa: E402 - as above
from rhythms import RHYTHMS, count_false_alarms, find_delays  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Callable

np: Any = import_module("numpy")

FIGURES: Final = ROOT / "docs" / "alarms.json"


def measure_silences(scale: float) -> list[dict[str, Any]]:
    """Measure false alarms and delays of `silences` for each rhythm."""
    rows = []
    for number, rhythm in enumerate(RHYTHMS):
        named, years = count_false_alarms(np.random.default_rng([1, number]), rhythm, round(100 * scale))
        delays = find_delays(np.random.default_rng([2, number]), rhythm, round(50 * scale))
        ratios = delays["expected_jobs"] / delays["usual_jobs"]
        rows.append(
            {
                "rhythm": rhythm,
                "named_by_chance": named,
                "company_years": years,
                "companies": delays.height,
                "median_hours": delays["hours"].median(),
                "slowest_hours": delays["hours"].max(),
                "slowest_in_usual_gaps": ratios.max(),
            }
        )
        print(rows[-1])
    return rows


def measure_clustering(scale: float) -> list[dict[str, Any]]:
    """Measure how often 95 % intervals contain the true rate, if failures come in clusters."""
    return [
        {"world": name}
        | measure_coverage(np.random.default_rng([3, number]), world, companies=round(500 * scale))
        for number, (name, world) in enumerate(WORLDS.items())
    ]


def measure_attempts(scale: float) -> list[dict[str, Any]]:
    """Measure how often `attempts` links wrongly, with as many entries an export as in the sandbox, and with few."""
    rows = []
    for name, items in (
        ("as in the sandbox", None),
        ("5 entries at median", 5.0),
        ("2 entries at median", 2.0),
    ):
        counts = [count_wrong_links(seed, items=items) for seed in range(100, 100 + round(20 * scale))]
        rows.append({"exports": name} | {key: sum(each[key] for each in counts) for key in counts[0]})
    return rows


def measure_shifts(scale: float) -> dict[str, Any]:
    """Measure false alarms of `shifts` and `incidents`, and how soon they notice that a rate has doubled."""
    chance = []
    cases = [(12, 0.02, "independent"), (30, 0.1, "independent"), *((40, 0.04, world) for world in STEADY)]
    for number, (daily, rate, world) in enumerate(cases):
        # Two million days keep or break the promise: at one alarm in 740, the standard error of their number is 2 %.
        counts = [
            count_alarms(
                np.random.default_rng([4, number, repeat]),
                daily=daily,
                rate=rate,
                world=world,
                companies=round(600 * scale),
                judge=judge_counts,
            )
            for repeat in range(10 if world == "independent" else 1)
        ]
        total = {name: sum(each[name] for each in counts) for name in counts[0]}
        chance.append({"daily": daily, "rate": rate, "world": world} | total)
        print(chance[-1])
    # Of 20,000 companies, a share of 90 % has a standard error of 0.2 %.
    companies, seeds = round(800 * scale), range(5, 30)
    found = [
        find_shift_days(np.random.default_rng(seed), companies=companies, judge=judge_counts)
        for seed in seeds
    ]
    shifts, incidents = (np.concatenate(days) for days in zip(*found, strict=True))
    power = {
        name: {str(most): int((days <= most).sum()) for most in (7, 14, 30, 100)}
        for name, days in (
            ("shifts", shifts),
            ("incidents", incidents),
            ("either", np.minimum(shifts, incidents)),
        )
    }
    print(power)
    return {"chance": chance, "companies": companies * len(seeds)} | power


PARTS: Final[dict[str, Callable[[float], Any]]] = {
    "silences": measure_silences,
    "clustering": measure_clustering,
    "attempts": measure_attempts,
    "shifts": measure_shifts,
}


def main() -> None:
    """Measure the parts that are named, and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    found = {name: PARTS[name](0.1 if given.quick else 1.0) for name in given.parts or PARTS}
    if not given.quick:
        known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        FIGURES.write_text(json.dumps(known | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
