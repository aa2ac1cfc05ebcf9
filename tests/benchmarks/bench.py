"""All benchmarks in one run on this machine (`make bench`). Writes `docs/benchmarks.md` and `docs/benchmarks.svg`.

    python tests/benchmarks/bench.py [--quick]

The full run takes about an hour. `--quick` checks with small sizes that everything works; it prints and writes
nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

import altair as alt
import answers
import curve
import decode
import pace
import peers
import polars as pl
import refresh
from measure import HELP, ROOT, Cost, count, make_venv, measure, medians, table

if TYPE_CHECKING:
    from collections.abc import Sequence

SEQUENTIAL = ("ours", "careful", "polars_loop", "pandas_loop", "dlt_arrow", "dlt_rest")
"""The contenders that run at 50 ms a response; the others would only wait longer."""
IMPORTS = {
    "python": "pass",
    "import polars": "import polars",
    "import pleo_extract": "import pleo_extract",
    "pleo-extract --help": HELP,
}
ABOUT = """\
`make bench` writes this page. The figures are medians over whole processes that take turns on one machine: seconds hold \
for this machine, ratios carry over. The server is `tests/benchmarks/server.py` in its own process, which is not counted. \
The rows of each contender are compared with those of the server, one by one."""
FIRST_DUMP = "No latency. In brackets: the ratio to pleo-extract. The tap and the source only write messages; loading them would come on top"
WAITS = "Medians of three runs where several requests are in flight, else one run. The last column compares with ours at the same number in flight, or at 8"
IN_FLIGHT = (8, 16, 32)
PACE = "500 requests a minute; *most* is what the server saw in any 60 seconds"
LIBRARIES = ("polars", "duckdb", "pyarrow", "httpx", "msgspec")


def waits(
    titles: dict[str, tuple[str, str]], alone: dict[str, Cost], together: dict[int, dict[str, Cost]]
) -> str:
    """Return a table of wall times with a slow server.

    Args:
        titles: title and Python of each contender.
        alone: the contenders that request one page after another, and ours with 8 requests in flight.
        together: those that have several requests in flight, by their number.
    """
    rows: list[list[object]] = [
        [titles[name][0], number, cost.wall, cost.wall / costs["ours"].wall]
        for number, costs in together.items()
        for name, cost in costs.items()
    ]
    rows += [
        [titles[name][0], 1, cost.wall, cost.wall / alone["ours"].wall]
        for name, cost in alone.items()
        if name != "ours"
    ]
    return table(["", "in flight", "wall s", "times ours"], rows)


def imports(runs: int) -> str:
    """Return a table of start costs compared with bare Python, in an environment without development tools."""
    python = make_venv("ours", [str(ROOT)])
    costs: dict[str, list[Cost]] = {name: [] for name in IMPORTS}
    for _ in range(runs + 1):
        for name, text in IMPORTS.items():
            costs[name].append(measure([python, "-c", text]))
    middle = {name: medians(each[1:]) for name, each in costs.items()}
    bare = middle["python"].wall
    return table(
        ["", "CPU ms", "wall ms", "wall ms over bare Python"],
        [
            [name, count(cost.cpu * 1000), count(cost.wall * 1000), count((cost.wall - bare) * 1000)]
            for name, cost in middle.items()
        ],
    )


def draw(titles: dict[str, tuple[str, str]], costs: dict[str, Cost], path: str) -> None:
    """Draw CPU and memory of every contender as a multiple of ours."""
    ours = costs["ours"]
    frame = pl.DataFrame(
        [
            {"who": titles[name][0], "what": what, "times": getattr(cost, figure) / getattr(ours, figure)}
            for name, cost in costs.items()
            for figure, what in (("cpu", "CPU"), ("peak", "peak memory"))
        ]
    )
    base = alt.Chart(frame).encode(
        y=alt.Y("who:N", sort=[titles[name][0] for name in costs], title=None, axis=alt.Axis(labelLimit=260)),
        x=alt.X("times:Q", title="times pleo-extract dump"),
    )
    bars = base.mark_bar(color="#2f6690")
    labels = base.mark_text(align="left", dx=4).encode(text=alt.Text("times:Q", format=".2f"))
    chart = (
        (bars + labels)
        .properties(width=300, height=alt.Step(24))
        .facet(column=alt.Column("what:N", title=None))
        # Browsers and librsvg draw the names with wider fonts than altair reckons with.
        .properties(padding={"left": 45, "right": 5, "top": 5, "bottom": 5})
    )
    chart.save(path)


def sections(*, quick: bool) -> list[str]:
    """Run every benchmark and return its section: heading, command and table."""
    jobs, runs = (2_000, 1) if quick else (100_000, 3)
    titles = peers.prepare(list(peers.CONTENDERS))
    everyone = peers.race(titles, jobs=jobs, runs=runs)
    large = {name: titles[name] for name in (*peers.OURS, *peers.LARGE_PAGES)}
    at_1000 = peers.race(large, jobs=jobs, runs=runs, page=1_000)
    if not quick:
        draw(titles, everyone, str(ROOT / "docs" / "benchmarks.svg"))
    waiting = {name: titles[name] for name in SEQUENTIAL}
    at_50 = peers.race(waiting, jobs=jobs, runs=1, latency=50, warm=False)
    both = {name: titles[name] for name in (*peers.OURS, "threaded")}
    together = {
        number: peers.race(
            both,
            jobs=jobs,
            runs=runs,
            latency=50,
            warm=False,
            more=["--in-flight", str(number)],
            threads=number,
        )
        for number in IN_FLIGHT
    }
    sizes = 10_000 if quick else 10_000_000
    return [
        section(f"A first dump of {count(jobs)} jobs", "peers", peers.tabulate(titles, everyone), FIRST_DUMP),
        section(
            "The same with pages of 1,000 jobs",
            "peers --page 1000 --only ours,ours_fast,careful,threaded,polars_loop,pandas_loop",
            peers.tabulate(large, at_1000),
        ),
        section(
            "The same at 50 ms a response",
            "peers --latency-ms 50 --in-flight 16",
            waits(titles, at_50, together),
            WAITS,
        ),
        section("At a pace", "pace", table(pace.HEAD, pace.run(500, 20 if quick else 1050)), PACE),
        section("A refresh", "refresh", table(refresh.HEAD, refresh.run(20_000 if quick else 1_000_000))),
        section(f"From ten thousand to {count(sizes)} jobs", "curve", table(curve.HEAD, curve.run(sizes))),
        section(
            f"Answers over {count(sizes)} jobs",
            "answers --all",
            table(answers.HEAD, answers.run(sizes, runs, everything=True)),
        ),
        section("Decoding", "decode", table(decode.HEAD, decode.run(500))),
        section("Starting", "bench", imports(5)),
    ]


def section(title: str, command: str, figures: str, note: str = "") -> str:
    """Return a section: heading, command, note and table."""
    script, _, more = command.partition(" ")
    intro = f"`python tests/benchmarks/{script}.py{' ' * bool(more)}{more}`. {note}".rstrip(". ")
    return f"## {title}\n\n{intro}.\n\n{figures}"


def page(parts: Sequence[str]) -> str:
    """Return the whole document."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return "\n\n".join(
        [
            "# Benchmarks",
            ABOUT,
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {system}, {libraries}.",
            "![CPU and peak memory of each contender as a multiple of pleo-extract's](benchmarks.svg)",
            *parts,
        ]
    )


def main() -> None:
    """Run all benchmarks and write the page, or with `--quick` print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    text = page(sections(quick=quick)) + "\n"
    if quick:
        print(text)
    else:
        (ROOT / "docs" / "benchmarks.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
