"""The tables of docs/scale.md: what `tests/benchmarks/scale.py` measured, and what follows from it.

Requests and time are computed from the library's own constants. CPU, memory and disk are measured and extrapolated
linearly from the two largest sizes.
"""
# ruff: noqa: INP001 - a script, not part of a package

from __future__ import annotations

import json
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pleo_extract.core.pace import RATE
from pleo_extract.core.pages import SAFE
from pleo_extract.core.state import FULL_EVERY, OVERLAP
from pleo_extract.lake.staging import KEEP_STAGED
from pleo_extract.sync.audit import AUDIT_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "count_requests",
    "scale_answers",
    "scale_limits",
    "scale_measured",
    "scale_model",
    "scale_origin",
    "scale_refresh",
]

FIGURES: Final = Path(__file__).with_name("scale.json")
MODEL: Final = (10_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
BILLION: Final = MODEL[-1]
A_DAY: Final = (1_000, 100_000, 1_000_000, 10_000_000, 30_000_000)
OPEN: Final = 100
"""The number of open jobs at a refresh in the model."""
MEMORY: Final = 16_384
"""The memory of the machine in the model, megabytes."""
DISK: Final = 10**12
"""The disk of the machine in the model, bytes."""
MINUTE: Final = timedelta(minutes=1)
MEASURES: Final = (
    ("publish a first dump", "publish"),
    ("the same, as a Delta table", "delta"),
    ("refresh, nothing new", "nothing"),
    ("refresh, 1,000 jobs new or changed", "refresh"),
    ("`duration_stats('month')`", "duration_stats"),
    ("`failure_rates('month')`", "failure_rates"),
    ("`verify`", "verify"),
)


def scale_origin() -> Iterator[str]:
    """Return when and where the figures were measured."""
    measured = _read()
    yield f"`python tests/benchmarks/scale.py`, {measured['when']}, {measured['where']}."


def scale_model() -> Iterator[str]:
    """Return the requests, time and disk that a first dump needs."""
    lake, staged = _bytes("bytes"), _bytes("staged")
    rows = [
        [
            _count(jobs),
            _count(_pages(jobs)),
            _time(_pages(jobs) / RATE * MINUTE),
            _size(jobs * staged),
            _size(jobs * lake),
        ]
        for jobs in MODEL
    ]
    head = ["jobs", "requests", f"at {RATE} a minute", "staged before it is published", "the lake"]
    return _table(head, rows)


def scale_refresh() -> Iterator[str]:
    """Return the requests of an hourly refresh, by the number of new jobs."""
    rows = []
    for a_day in A_DAY:
        an_hour = a_day / 24
        requests = count_requests(new=an_hour, an_hour=an_hour, is_open=OPEN)
        share = requests / RATE * MINUTE / timedelta(hours=1)
        rows.append([_count(a_day), _count(requests), _time(requests / RATE * MINUTE), f"{share:.0%}"])
    return _table(["new jobs a day", "requests an hour", f"at {RATE} a minute", "share of the hour"], rows)


def count_requests(*, new: float, an_hour: float, is_open: int) -> int:
    """Return the number of requests of a refresh.

    Args:
        new: jobs created since the last refresh.
        an_hour: jobs created per hour.
        is_open: open jobs.
    """
    overlap = an_hour * (OVERLAP / timedelta(hours=1))
    return ceil(is_open / SAFE) + ceil((new + overlap) / SAFE) + AUDIT_PAGES


def scale_measured() -> Iterator[str]:
    """Return CPU seconds and peak memory at each size, and extrapolated to a billion jobs."""
    sizes = _read()["sizes"]
    head = ["CPU s, peak MB", *(_count(each["jobs"]) for each in sizes), f"{_count(BILLION)}, by the model"]
    rows = []
    for title, name in MEASURES:
        cells = [_cell(each[name]["cpu"], each[name]["peak"]) for each in sizes]
        rows.append([title, *cells, _cell(_line(name, "cpu", BILLION), _line(name, "peak", BILLION))])
    each_job = [f"{each['bytes'] / each['jobs']:.0f}" for each in sizes]
    rows.append(["bytes of Parquet per job", *each_job, f"{_bytes('bytes'):.0f}"])
    return _table(head, rows)


def scale_answers() -> Iterator[str]:
    """Return CPU seconds and peak memory of every answer over ten million jobs, by the number of companies."""
    measured = _read()
    lakes = measured["answers"]
    head = ["CPU s, peak MB", *(f"{_count(each['companies'])} companies" for each in lakes)]
    rows = []
    for name in (name for name, cost in lakes[0].items() if isinstance(cost, dict)):
        cells = []
        for each in lakes:
            cell = _cell(each[name]["cpu"], each[name]["peak"])
            if "limited" in each[name]:
                limited = each[name]["limited"]
                cell += f"; limited: {_cell(limited['cpu'], limited['peak']) if limited else 'does not fit'}"
            cells.append(cell)
        rows.append([f"`{name}`", *cells])
    yield from _table(head, rows)
    yield ""
    yield f"`python tests/benchmarks/scale.py --answers-only`, {measured['answers_when']}, {measured['where']}."


def scale_limits() -> Iterator[str]:
    """Return the limit of each part, and what to use beyond it."""
    an_hour = RATE * 60 * SAFE
    week = an_hour * (FULL_EVERY / timedelta(hours=1))
    newest = an_hour * 24 / (1 + OVERLAP / timedelta(hours=1))
    rows = [
        [
            "the rate limit of one key",
            f"{_count(an_hour)} jobs an hour; a billion in {_time(_pages(BILLION) / RATE * MINUTE)}",
            "more keys: one for each company in an accounts file; `--shard` over several machines",
        ],
        [
            "resuming a first dump",
            f"no limit: it may be interrupted any number of times; staged pages that no run resumes for {KEEP_STAGED.days} days are removed",
            "an accounts file: each company is staged and resumed separately",
        ],
        [
            f"the full sync every {FULL_EVERY.days} days",
            f"takes as long as a first dump: a whole week for {_count(week)} jobs of one key",
            "`--full-every 30d` or more; more keys",
        ],
        [
            "an hourly refresh",
            f"{_count(newest)} new jobs of one key a day: then it takes a whole hour",
            "more keys; fewer refreshes, since each reads the hour before again",
        ],
        [
            "a refresh",
            _memory("refresh"),
            "an accounts file over several lakes; a machine with more memory",
        ],
        ["publishing a first dump", _memory("publish"), "a Delta table, whose files are small; `--shard`"],
        [
            "publishing it as a Delta table",
            _memory("delta"),
            "`--shard` over several machines that write one table",
        ],
        [
            "the disk, 1 TB",
            f"{_round(DISK / (_bytes('bytes') + _bytes('staged')))} jobs staged and published at once",
            "an accounts file split in parts; a Delta table in an object store",
        ],
        [
            "`duration_stats` in DuckDB",
            _memory("duration_stats"),
            "`since` and `until`; Spark on the same Parquet files",
        ],
        ["`failure_rates` in DuckDB", _memory("failure_rates"), "the same"],
        ["`verify`", _memory("verify"), "a machine with more memory"],
        [
            "`_jobs.duckdb`, the catalogue",
            "no limit: it holds views and macros, not jobs",
            "",
        ],
    ]
    return _table(["part", "its limit", "beyond it"], rows)


def _memory(name: str) -> str:
    """Describe the peak memory of a step, and how many jobs fill the machine's memory."""
    jobs = _ends()[1]["jobs"]
    peak = _line(name, "peak", jobs)
    measured = f"{peak:,.0f} MB at {_count(jobs)} jobs"
    growth = (_line(name, "peak", BILLION) - peak) / (BILLION - jobs)
    if growth * BILLION < MEMORY / 100:
        return f"{measured}, and hardly more with more jobs"
    return f"{measured}; 16 GB at {_round(jobs + (MEMORY - peak) / growth)} jobs"


def _line(name: str, figure: str, jobs: int) -> float:
    """Extrapolate linearly from the two largest sizes; a figure that falls is taken as constant."""
    low, high = _ends()
    slope = max(0.0, (high[name][figure] - low[name][figure]) / (high["jobs"] - low["jobs"]))
    return float(high[name][figure] + slope * (jobs - high["jobs"]))


def _ends() -> tuple[dict[str, Any], dict[str, Any]]:
    low, high = _read()["sizes"][-2:]
    return low, high


def _bytes(name: str) -> float:
    """Return the bytes per job at the largest size."""
    high = _ends()[1]
    return float(high[name] / high["jobs"])


def _read() -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return measured


def _pages(jobs: int) -> int:
    return ceil(jobs / SAFE)


def _cell(cpu: float, peak: float) -> str:
    return f"{cpu:,.{int(cpu < 100)}f} s, {peak:,.0f} MB"


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _round(number: float) -> str:
    """Format a number rounded down to two significant digits."""
    digits = 10 ** max(0, len(str(int(number))) - 2)
    return _count(int(number) // digits * digits)


def _size(number: float) -> str:
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if number >= unit:
            return f"{number / unit:,.1f} {name}"
    return f"{number / 1000:,.0f} kB"


def _time(span: timedelta) -> str:
    """Format a duration in the largest unit that fits."""
    seconds = span.total_seconds()
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.0f} s"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| --- |{' ---: |' * (len(head) - 1)}" if len(head) > 3 else f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
