"""Make `docs/failure-rates.svg` from the sample lake: the picture that the README opens with (`make picture`).

A digest of the numbers drawn goes into the file: a test compares it with the lake's, so that the picture cannot
grow old unnoticed. How the drawing library writes SVG may differ from version to version.
"""
# ruff: noqa: INP001 - a script, no part of a package

from __future__ import annotations

import hashlib
from pathlib import Path

import altair as alt
import polars as pl

from pleo_extract import connect

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "failure-rates.svg"
BLUE, RED, INK, GREY = "#2f6690", "#b23a48", "#1f2933", "#7b8794"

WEEKS = """
from failure_rates('week', per_company := false, since := '2025-10-06',
                   until := (select date_trunc('week', as_of) from snapshot))"""
COMPANIES = "from failure_rates('all') order by rate desc"


def read_rates() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The failure rates of the sample's whole weeks, and those of its companies.

    The week under way is left out: with few jobs in it, it looks like an event.
    """
    con = connect(ROOT / "data" / "sample")
    weeks = con.sql(WEEKS).pl().with_columns(pl.col("period").dt.replace_time_zone("UTC"))
    companies = (
        con.sql(COMPANIES)
        .pl()
        .with_columns(
            (
                "company "
                + pl.col("company_id").str.head(4)
                + ", "
                + pl.col("finished").cast(pl.String)
                + " jobs"
            ).alias("company")
        )
    )
    return weeks, companies


def digest(*frames: pl.DataFrame) -> str:
    """A digest of the numbers, to four decimals: what the picture shows."""
    text = "".join(
        frame.select("finished", "failed", pl.col("rate", "low", "high").round(4)).write_csv()
        for frame in frames
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw(weeks: pl.DataFrame, companies: pl.DataFrame) -> alt.HConcatChart:
    """Two panels: the rate over time with its interval, and the companies beside each other."""
    percent = alt.Axis(format="%", tickCount=5)
    over_time = alt.Chart(weeks).encode(
        x=alt.X(
            "period:T",
            title=None,
            scale=alt.Scale(type="utc"),
            axis=alt.Axis(format="%b %Y", tickCount=4, grid=False),
        )
    )
    band = over_time.mark_area(color=BLUE, opacity=0.18).encode(
        y=alt.Y("low:Q", title=None, axis=percent, scale=alt.Scale(domain=[0, 0.65])), y2="high:Q"
    )
    line = over_time.mark_line(color=BLUE, strokeWidth=2).encode(y="rate:Q")
    high = weeks.filter(pl.col("low") > 0.15)
    marked = (
        alt.Chart(high)
        .mark_point(color=RED, filled=True, size=70, opacity=1)
        .encode(x="period:T", y="rate:Q")
    )
    named = (
        alt.Chart(high.sort("rate").tail(1))
        .mark_text(color=RED, align="left", dx=12, fontSize=12, fontWeight="bold", lineBreak="\n")
        .encode(
            x="period:T",
            y="rate:Q",
            text=alt.value("24 February: accounting\nsystems unreachable for a week"),
        )
    )
    left = alt.layer(band, line, marked, named).properties(
        width=470,
        height=230,
        title=alt.Title(
            "Failed exports by week", subtitle="share of the finished ones, with its 95 % interval"
        ),
    )
    by_company = alt.Chart(companies).encode(
        y=alt.Y("company:N", sort=None, title=None, axis=alt.Axis(labelLimit=180, ticks=False, domain=False))
    )
    interval = by_company.mark_rule(color=BLUE, strokeWidth=7, opacity=0.25, strokeCap="round").encode(
        x=alt.X("low:Q", title=None, axis=percent, scale=alt.Scale(domain=[0, 0.2])), x2="high:Q"
    )
    point = by_company.mark_point(color=BLUE, filled=True, size=70, opacity=1).encode(x="rate:Q")
    right = alt.layer(interval, point).properties(
        width=170, height=230, title=alt.Title("By company, a year", subtitle="apart is more than chance")
    )
    picture: alt.HConcatChart = (
        alt.hconcat(left, right, spacing=30)
        .properties(background="white", padding=16)
        .configure(font="Helvetica, Arial, sans-serif", aria=False)
        .configure_view(stroke=None)
        .configure_title(
            anchor="start", color=INK, fontSize=15, subtitleColor=GREY, subtitleFontSize=12, offset=12
        )
        .configure_axis(
            labelColor=INK, labelFontSize=12, gridColor="#e4e7eb", domainColor=GREY, tickColor=GREY
        )
    )
    return picture


def make_picture(path: Path) -> None:
    """Write the picture."""
    weeks, companies = read_rates()
    draw(weeks, companies).save(path)
    svg = path.read_text(encoding="utf-8")
    path.write_text(
        svg.replace("</svg>", f"<!-- drawn from {digest(weeks, companies)} --></svg>"), encoding="utf-8"
    )


if __name__ == "__main__":
    make_picture(PICTURE)
