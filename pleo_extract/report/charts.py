"""The five charts: jobs by outcome, failure rate, durations over time, time until an export is done, and entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.report.axis import Axis, count_axis, duration_axis, share_axis, time_axis
from pleo_extract.report.drawing import HEIGHT, Chart, area, bars, line, steps, x_at, y_at
from pleo_extract.report.words import count, day, duration, interval, moment, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from pleo_extract.report.drawing import Point
    from pleo_extract.report.window import ReportPeriod

__all__ = [
    "OUTCOMES",
    "PERCENTILES",
    "by_outcome",
    "done_after",
    "draw_done",
    "draw_durations",
    "draw_items",
    "draw_outcomes",
    "draw_rates",
    "name_period",
    "unit_of",
    "with_days",
]

OUTCOMES: Final = {
    "completed": "completed",
    "with_errors": "completed with errors",
    "failed": "failed",
    "expired": "expired",
    "still_open": "still open",
}
PERCENTILES: Final = {"p50": "half", "p90": "90 %", "p95": "95 %"}
MOST_POINTS: Final = 300

IncidentMark = tuple[int, str]
"""The number of an incident, and its CSS class; see `sections.number_incidents`."""


def by_outcome(rates: pl.DataFrame, window: ReportPeriod) -> pl.DataFrame:
    """Return rows of `failure_rates` with one column per outcome, which add up to `jobs`, and those of `with_days`."""
    return with_days(rates, window).with_columns(
        completed=pl.col("finished") - pl.col("failed") - pl.col("with_errors"),
        failed=pl.col("failed") - pl.col("expired"),
    )


def with_days(rows: pl.DataFrame, window: ReportPeriod) -> pl.DataFrame:
    """Return rows by period with two more columns.

    `days` is the number of days of the period that are in the window; if periods are hours, the number of hours. `whole`
    is true if the window contains the whole period.
    """
    start = pl.max_horizontal("starts_at", window.literal(window.since))
    stop = pl.min_horizontal("ends_at", window.literal(window.end))
    if window.grain == "hour":
        units = (stop - start).dt.total_seconds() / 3600
    else:  # by the clock: a day of 25 hours is one day
        units = (
            stop.dt.replace_time_zone(None) - start.dt.replace_time_zone(None)
        ).dt.total_seconds() / 86_400
    return rows.with_columns(days=units.clip(1 / 24), whole=window.is_whole())


def draw_outcomes(outcomes: pl.DataFrame, window: ReportPeriod) -> Chart:
    """Draw bars of jobs per day or hour, stacked by outcome."""
    texts = (
        f"{count(row['jobs'])} jobs; "
        + ", ".join(f"{count(row[name])} {text}" for name, text in OUTCOMES.items() if row[name])
        for row in outcomes.iter_rows(named=True)
    )
    columns = {name: name for name in OUTCOMES}
    title = f"Jobs per {unit_of(window)} by outcome"
    return _stacked_bars(
        "outcomes", title, outcomes, columns=columns, total="jobs", texts=texts, window=window
    )


def draw_items(throughput: pl.DataFrame, window: ReportPeriod) -> Chart:
    """Draw bars of accounting entries exported per day or hour."""
    texts = (
        f"{count(row['exported_items'])} entries in {count(row['exported_jobs'])} exported jobs"
        for row in throughput.iter_rows(named=True)
    )
    columns = {"completed": "exported_items"}
    title = f"Accounting entries exported per {unit_of(window)}"
    return _stacked_bars(
        "items", title, throughput, columns=columns, total="exported_items", texts=texts, window=window
    )


def _stacked_bars(  # noqa: PLR0913 - the two charts differ in all of them
    name: str,
    title: str,
    rows: pl.DataFrame,
    *,
    columns: Mapping[str, str],
    total: str,
    texts: Iterable[str],
    window: ReportPeriod,
) -> Chart:
    """Draw one bar per period, as high as `total` per day or hour; an incomplete period is pale.

    Args:
        name: the id of the chart.
        title: its title.
        rows: one row per period, with the columns of `with_days`.
        columns: what a bar consists of, from below: a CSS class and a column of `rows` for each part.
        total: the column with the sum of these.
        texts: the tooltip of each period, without its name.
        window: the time of the report.
    """
    x = time_axis(window.since, window.last)
    daily = rows.with_columns(pl.col(*columns.values(), total).cast(pl.Float64) / pl.col("days"))
    y = count_axis(float(daily[total].max()))  # type: ignore[arg-type]
    edges = list(_period_edges(daily, x))
    paths = []
    floor = [0.0] * daily.height
    for kind, column in columns.items():
        roof = [low + high for low, high in zip(floor, daily[column], strict=True)]
        boxes = [
            (left, right, y.place(low), y.place(high))
            for (left, right), low, high in zip(edges, floor, roof, strict=True)
        ]
        for whole in (True, False):
            shown = [box for box, is_whole in zip(boxes, daily["whole"], strict=True) if is_whole == whole]
            if any(top > bottom for *_, bottom, top in shown):
                paths.append(bars(shown, f"bar {kind}" + ("" if whole else " part")))
        floor = roof
    busiest = daily.sort(total).row(-1, named=True)
    description = (
        f"Highest: {busiest[total]:.0f} per {unit_of(window)}, {name_period(busiest['starts_at'], window)}."
    )
    named = (
        f"{name_period(begin, window)}{'' if whole else ', incomplete'}: {text}"
        for begin, whole, text in zip(rows["starts_at"], rows["whole"], texts, strict=True)
    )
    return Chart(name, title, description, x, y, paths, _tooltips(edges, named))


def draw_rates(
    rates: pl.DataFrame, limits: pl.DataFrame, marks: dict[datetime, IncidentMark], window: ReportPeriod
) -> Chart:
    """Draw the failure rate of complete periods with its interval, the control limit, and numbered incidents.

    Args:
        rates: rows of `failure_rates`.
        limits: rows of `incidents`.
        marks: the incidents by when their period begins, in UTC.
        window: the time of the report.
    """
    x = time_axis(window.since, window.last)
    y = share_axis(_highest_rate(rates, limits))
    low, middle, high = (_points(rates, column, x, y) for column in ("low", "rate", "high"))
    limit = _points(limits, "limit_rate", x, y)
    over = list(
        _tooltips(
            _period_edges(rates, x),
            (
                f"{name_period(row['starts_at'], window)}: {percent(row['rate'])} failed ({count(row['failed'])} of "
                f"{count(row['finished'])}), 95 % interval {interval(row['low'], row['high'])}"
                for row in rates.iter_rows(named=True)
            ),
        )
    )
    in_utc = pl.col("starts_at").dt.convert_time_zone("UTC")
    middle_of = {
        begin: ((x.place(begin.timestamp()) + x.place(end.timestamp())) / 2, rate)
        for begin, end, rate in rates.select(in_utc, "ends_at", "rate").iter_rows()
    }
    for begin, (number, kind) in marks.items():
        if begin in middle_of:
            place, rate = middle_of[begin]
            left, top = x_at(place), y_at(y.place(rate))
            over.append(f'<circle class="{kind}" cx="{left}" cy="{top}" r="9"/>')
            over.append(f'<text class="number" x="{left}" y="{top}" dy="4">{number}</text>')
    description = "No period had more failures than its past explains."
    if marks:
        description = "Incidents: " + "; ".join(
            f"{number}, {name_period(begin, window)}, {percent(middle_of.get(begin, (0.0, None))[1])} failed"
            for begin, (number, _) in marks.items()
        )
    paths = [area(low, high, "band"), line(limit, "limit"), line(middle, "rate")]
    return Chart(
        "rates", f"Failure rate by {window.grain}, with its 95 % interval", description, x, y, paths, over
    )


def draw_durations(durations: pl.DataFrame, window: ReportPeriod) -> Chart:
    """Draw the durations within which 50, 90 and 95 % of the exports ended, by period, on a logarithmic scale."""
    x = time_axis(window.since, window.last)
    known = durations.select(
        pl.min_horizontal(*PERCENTILES).min().alias("low"),
        pl.max_horizontal(*PERCENTILES).max().alias("high"),
    ).row(0)
    y = duration_axis(*known)
    paths = [line(_points(durations, column, x, y), column) for column in reversed(PERCENTILES)]
    texts = (
        f"{name_period(row['starts_at'], window)}: half within {duration(row['p50'])}, 90 % within "
        f"{duration(row['p90'])}, 95 % within {duration(row['p95'])}; {count(row['n'])} jobs"
        for row in durations.iter_rows(named=True)
    )
    last = durations.row(-1, named=True)
    description = f"In the last complete {window.grain}, half took up to {duration(last['p50'])}, 95 % up to {duration(last['p95'])}."
    over = _tooltips(_period_edges(durations, x), texts)
    return Chart(
        "durations",
        f"Durations by {window.grain}: median, 90th and 95th percentile",
        description,
        x,
        y,
        paths,
        over,
    )


def draw_done(survival: pl.DataFrame) -> Chart:
    """Draw the share of exports that are done after a time, with its interval: 1 minus the Kaplan-Meier estimate."""
    ends = survival.filter(pl.col("ended") > 0)["seconds"].to_list()
    # The axis begins where 1 % are done. Otherwise jobs that end in a fraction of a second would, on a logarithmic
    # scale, give half of the chart to a line along its floor.
    x = duration_axis(done_after(survival, 0.01) or ends[0], max(ends[-1], 1.0), snug=True)
    y = Axis(0.0, 1.0, [(n / 4, percent(n / 4, 0)) for n in range(5)])
    shown = _downsample(survival.filter(pl.col("seconds") <= ends[-1]), x)
    done = {
        column: [
            (x.place(seconds), y.place(1 - value))
            for seconds, value in shown.select("seconds", column).iter_rows()
        ]
        for column in ("survival", "low", "high")
    }
    over = []
    for share in (0.5, 0.95):
        if (seconds := done_after(survival, share)) is not None:
            left, top = x_at(x.place(seconds)), y_at(share)
            over.append(f'<circle class="dot" cx="{left}" cy="{top}" r="4.5"/>')
            side, dx, dy = ("end", -10, 4) if x.place(seconds) > 0.4 else ("", 10, 14)
            text = f"{percent(share, 0)} in {duration(seconds)}"
            over.append(f'<text class="label {side}" x="{left}" dx="{dx}" y="{top}" dy="{dy}">{text}</text>')
    description = "; ".join(
        f"{percent(share, 0)} are done within {duration(done_after(survival, share))}"
        for share in (0.5, 0.9, 0.95, 0.99)
    )
    paths = [area(done["high"], done["low"], "band", stepped=True), steps(done["survival"], "rate")]
    return Chart("done", "Share of exports that are done after a time", description, x, y, paths, over)


def done_after(survival: pl.DataFrame, share: float) -> float | None:
    """Return the seconds after which this share is done; None if that is not known, because too many jobs are open."""
    # A tolerance for rounding errors: the estimate is a product of many factors.
    found = survival.filter(pl.col("survival") <= 1 - share + 1e-12)["seconds"]
    return float(found[0]) if found.len() else None


def name_period(begin: datetime, window: ReportPeriod) -> str:
    """Return the name of the period that begins at an instant: week of 23 February 2026, 23 February 2026, February 2026.

    An hour has its offset, such as CET: when clocks are set back, two hours show the same time.
    """
    names: dict[str, Callable[[datetime], str]] = {
        "hour": lambda at: f"hour from {moment(at)}",
        "day": day,
        "week": lambda at: f"week of {day(at)}",
        "month": lambda at: f"{at:%B %Y}",
        "year": lambda at: f"{at:%Y}",
    }
    return names[window.grain](begin.astimezone(window.end.tzinfo))


def unit_of(window: ReportPeriod) -> str:
    """Return the unit of time in which charts count: day, or hour if periods are hours."""
    return "hour" if window.grain == "hour" else "day"


def _period_edges(rows: pl.DataFrame, x: Axis) -> Iterator[tuple[float, float]]:
    """Yield the places where each row's period begins and ends, with a small gap between periods."""
    edges = rows.select(pl.col("starts_at", "ends_at").dt.epoch("us") / 1e6)
    for begin, end in edges.iter_rows():
        gap = (end - begin) * 0.09
        yield x.place(begin + gap), x.place(end - gap)


def _points(rows: pl.DataFrame, column: str, x: Axis, y: Axis) -> list[Point | None]:
    """Return a point in the middle of each period; None for a period without a value, and where rows are missing."""
    is_after_gap = (rows["starts_at"] > rows["ends_at"].shift(1)).fill_null(value=False)
    points: list[Point | None] = []
    for (left, right), value, jump in zip(_period_edges(rows, x), rows[column], is_after_gap, strict=True):
        if jump:
            points.append(None)
        points.append(None if value is None else ((left + right) / 2, y.place(value)))
    return points


def _tooltips(edges: Iterable[tuple[float, float]], texts: Iterable[str]) -> Sequence[str]:
    """Return an invisible area for each period, whose text appears under the pointer."""
    return [
        f'<rect class="point" x="{x_at(left)}" y="0" width="{x_at(right - left)}" height="{HEIGHT}">'
        f"<title>{text}</title></rect>"
        for (left, right), text in zip(edges, texts, strict=True)
    ]


def _highest_rate(rates: pl.DataFrame, limits: pl.DataFrame) -> float:
    """Return the value that the axis must reach: the highest rate, limit, and upper bound of all but the widest intervals.

    The widest fifth of the intervals comes from periods with few jobs, and may exceed the chart.
    """
    found = [
        rates["rate"].max(),
        limits["limit_rate"].max(),
        rates["high"].quantile(0.8),
    ]
    return max((float(value) for value in found if value is not None), default=1.0)  # type: ignore[arg-type]


def _downsample(survival: pl.DataFrame, x: Axis) -> pl.DataFrame:
    """Return at most `MOST_POINTS` rows, evenly distributed over the axis; no value is averaged."""
    place = survival["seconds"].map_elements(x.place, return_dtype=pl.Float64)
    kept = survival.group_by((place * MOST_POINTS).floor().alias("bin"), maintain_order=True).last()
    return kept.drop("bin").with_columns(pl.col("low", "high").fill_null(0.0))
