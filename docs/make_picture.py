"""Make `docs/failure-rates.svg`, the picture at the top of the README, from the sample lake (`make picture`).

The report's own code and style draw it, for light and dark screens. The same lake gives the same bytes. A test
compares them with the file, so that the picture cannot become stale unnoticed.
"""
# ruff: noqa: INP001 - a script, not part of a package

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.report.axis import share_axis
from pleo_extract.report.charts import draw_rates
from pleo_extract.report.drawing import interval_cell
from pleo_extract.report.figures import ask_lake
from pleo_extract.report.sections import number_incidents
from pleo_extract.report.words import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pleo_extract.report.figures import Figures

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "failure-rates.svg"
WIDE, HIGH = 940, 318
_COLOURS = re.compile(r":root \{([^}]*)\}")
_VARIABLE = re.compile(r"(--[\w-]+): ([^;]+);")
_RULE = re.compile(r"[^{}]+\{[^{}]*\}")
STYLE = """
svg { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.sheet { fill: var(--card); stroke: var(--rule); }
.head { font-size: 17px; font-weight: 650; fill: var(--ink); }
.name { font-size: 13px; fill: var(--ink); } .small { font-size: 12.5px; fill: var(--soft); }
.chart { margin: 0; width: 100%; } .plot { width: auto; }
"""


def draw(figures: Figures) -> str:
    """Draw two panels: the rate over time with its interval and incidents, and the rate of each company."""
    assert figures.window is not None
    window = figures.window
    rates, limits, incidents = (
        figures.frame(name).filter(window.is_whole()) for name in ("rates", "limits", "incidents")
    )
    chart = draw_rates(rates.filter(pl.col("finished") > 0), limits, number_incidents(incidents), window)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}">',
        f"<style>{_resolve_style()}</style>",
        f'<rect class="sheet" x="0.5" y="0.5" width="{WIDE - 1}" height="{HIGH - 1}" rx="8"/>',
        _write(20, 34, "head", f"Failure rate by {window.grain}"),
        _write(
            20, 54, "small", "with its 95 % interval; dotted: what the past explains; numbered: incidents"
        ),
        f'<svg x="66" y="76" width="524" height="226" overflow="visible">{chart.svg()}</svg>',
        _write(640, 34, "head", "Failure rate by company"),
        *_companies(figures),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _companies(figures: Figures) -> Iterator[str]:
    """Yield a line for each company, worst first, as in the report."""
    companies = figures.frame("companies").sort("rate", descending=True)
    overall = sum(figures.frame("rates")["failed"]) / sum(figures.frame("rates")["finished"])
    axis = share_axis(max(companies["upper_end"]))
    yield _write(640, 54, "small", f"a year; dotted: all together, {percent(overall)}")
    for number, row in enumerate(companies.iter_rows(named=True)):
        y = 100 + 44 * number
        apart = "worse" if row["lower_end"] > overall else "better" if row["upper_end"] < overall else ""
        cell = interval_cell(
            [axis.place(row[name]) for name in ("lower_end", "rate", "upper_end")], axis.place(overall), apart
        )
        yield _write(640, y, "name", figures.names[row["company_id"]])
        yield f'<svg x="764" y="{y - 13}" width="100" height="18" overflow="visible"><g class="plot">{cell}</g></svg>'
        yield _write(920, y, "name end", percent(row["rate"]))


def _resolve_style() -> str:
    """Return the style of the page's drawings with colours as values: outside browsers, variables would draw all black."""
    css = (resources.files("pleo_extract.report") / "page.css").read_text(encoding="utf-8")
    light, dark, *_ = (dict(_VARIABLE.findall(colours)) for colours in _COLOURS.findall(css))
    rules = [rule.strip() for rule in _RULE.findall(css.partition("* {")[2].partition("@media")[0] + STYLE)]
    drawing = [rule for rule in rules if re.search("fill|stroke|anchor|opacity|svg|chart", rule)]
    plain = "\n".join(drawing)
    coloured = "\n".join(rule for rule in drawing if "var(" in rule)

    def resolve(text: str, colours: Mapping[str, str]) -> str:
        return re.sub(r"var\((--[\w-]+)\)", lambda found: colours[found[1]], text)

    in_the_dark = f"@media screen and (prefers-color-scheme: dark) {{\n{resolve(coloured, light | dark)}\n}}"
    return f"\n{resolve(plain, light)}\n{in_the_dark}\n"


def _write(x: int, y: int, kind: str, text: str) -> str:
    anchor = ' text-anchor="end"' if kind.endswith("end") else ""
    return f'<text class="{kind}" x="{x}" y="{y}"{anchor}>{text}</text>'


def make_picture(path: Path) -> None:
    """Draw the picture and write it to `path`."""
    data = ROOT / "data"
    figures = ask_lake(
        data / "sample", company_id=None, since=None, until=None, names=data / "names.csv", store={}
    )
    path.write_text(draw(figures), encoding="utf-8")


if __name__ == "__main__":
    make_picture(PICTURE)
