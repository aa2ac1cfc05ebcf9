"""The five charts: jobs by outcome, failure rate, durations over time, how long until an export is done, and entries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from pleo_extract.report.axis import Axis, count_axis, duration_axis, share_axis, time_axis
from pleo_extract.report.drawing import HEIGHT, Chart, across, area, bars, down, line, steps
from pleo_extract.report.words import count, day, duration, interval, moment, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

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

Row = dict[str, Any]
Checkpoint = tuple[int, str]
"""An incident's number and class: `mark`, or `mark some` for one of single companies."""


def by_outcome(rates: pl.DataFrame, window: ReportPeriod) -> pl.DataFrame:
    """Rows of `failure_rates` with one column an outcome, which add up to `jobs`.

    Also what `with_days` adds.
    """
    return with_days(rates, window).with_columns(
        completed=pl.col("finished") - pl.col("failed") - pl.col("with_errors"),
        failed=pl.col("failed") - pl.col("expired"),
    )


def with_days(rows: pl.DataFrame, window: ReportPeriod) -> pl.DataFrame:
    """Rows by period with `days`, how many of the period's lie in the window (hours, where periods are hours), and `whole`."""
    start = pl.max_horizontal("period", pl.lit(_naive(window.since)))
    stop = pl.min_horizontal(pl.col("period").dt.offset_by(window.every), pl.lit(_naive(window.end)))
    hour = 3600 if window.grain == "hour" else 86_400
    return rows.with_columns(
        days=((stop - start).dt.total_seconds() / hour).clip(1 / 24),
        whole=window.is_whole(),
    )


def draw_outcomes(outcomes: pl.DataFrame, window: ReportPeriod) -> Chart:
    """Bars of jobs a day, or an hour, by outcome; a period that is not over is pale."""
    x = time_axis(window.since, window.last)
    daily = outcomes.with_columns(pl.col(*OUTCOMES, "jobs") / pl.col("days"))
    y = count_axis(float(daily["jobs"].max()))  # type: ignore[arg-type]
    edges = list(_edges(daily, window, x))
    paths = []
    floor = [0.0] * daily.height
    for outcome in OUTCOMES:
        roof = [low + high for low, high in zip(floor, daily[outcome], strict=True)]
        boxes = [
            (left, right, y.place(low), y.place(high))
            for (left, right), low, high in zip(edges, floor, roof, strict=True)
        ]
        for whole in (True, False):
            shown = [box for box, is_whole in zip(boxes, daily["whole"], strict=True) if is_whole == whole]
            if any(top > bottom for *_, bottom, top in shown):
                paths.append(bars(shown, f"bar {outcome}" + ("" if whole else " part")))
        floor = roof
    words = [
        f"{name_period(row['period'], window)}{'' if row['whole'] else ', not whole'}: {count(row['jobs'])} jobs; "
        + ", ".join(f"{count(row[outcome])} {said}" for outcome, said in OUTCOMES.items() if row[outcome])
        for row in outcomes.iter_rows(named=True)
    ]
    busiest = daily.sort("jobs").row(-1, named=True)
    description = (
        f"Most in the {name_period(busiest['period'], window)}: {busiest['jobs']:.0f} a {_unit(window)}."
    )
    return Chart(
        "outcomes", f"Jobs a {_unit(window)} by outcome", description, x, y, paths, _pointed(edges, words)
    )


def draw_rates(
    rates: pl.DataFrame, limits: pl.DataFrame, marks: dict[datetime, Checkpoint], window: ReportPeriod
) -> Chart:
    """The failure rate of whole periods with its interval, the control limit, and numbered incidents."""
    x = time_axis(window.since, window.last)
    y = share_axis(_highest_rate(rates, limits))
    low, middle, high = (_points(rates, column, window, x, y) for column in ("low", "rate", "high"))
    limit = _points(limits, "limit_rate", window, x, y)
    over = list(
        _pointed(
            _edges(rates, window, x),
            (
                f"{name_period(row['period'], window)}: {percent(row['rate'])} failed ({count(row['failed'])} of "
                f"{count(row['finished'])}), 95 % interval {interval(row['low'], row['high'])}"
                for row in rates.iter_rows(named=True)
            ),
        )
    )
    rate_of = dict(rates.select("period", "rate").iter_rows())
    for period, (number, kind) in marks.items():
        if period in rate_of:
            place = across(_middle(period, window, x))
            top = down(y.place(rate_of[period]))
            over.append(f'<circle class="{kind}" cx="{place}" cy="{top}" r="9"/>')
            over.append(f'<text class="number" x="{place}" y="{top}" dy="4">{number}</text>')
    description = "No period had more failures than its past explains."
    if marks:
        description = "Incidents: " + "; ".join(
            f"{number}, {name_period(period, window)}, {percent(rate_of.get(period))} failed"
            for period, (number, _) in marks.items()
        )
    paths = [area(low, high, "band"), line(limit, "limit"), line(middle, "rate")]
    return Chart(
        "rates", f"Failure rate by {window.grain}, with its 95 % interval", description, x, y, paths, over
    )


def draw_durations(durations: pl.DataFrame, window: ReportPeriod) -> Chart:
    """Half, 90 % and 95 % of the exports that ended took at most so long, by period, on a logarithmic scale."""
    x = time_axis(window.since, window.last)
    known = durations.select(
        pl.min_horizontal(*PERCENTILES).min().alias("low"),
        pl.max_horizontal(*PERCENTILES).max().alias("high"),
    ).row(0)
    y = duration_axis(*known)
    paths = [line(_points(durations, column, window, x, y), column) for column in reversed(PERCENTILES)]
    words = (
        f"{name_period(row['period'], window)}: half within {duration(row['p50'])}, 90 % within "
        f"{duration(row['p90'])}, 95 % within {duration(row['p95'])}; {count(row['n'])} jobs"
        for row in durations.iter_rows(named=True)
    )
    last = durations.row(-1, named=True)
    description = f"In the last whole {window.grain}, half took up to {duration(last['p50'])}, 95 % up to {duration(last['p95'])}."
    over = _pointed(_edges(durations, window, x), words)
    return Chart(
        "durations",
        f"Durations by {window.grain}: median, 90th and 95th percentile",
        description,
        x,
        y,
        paths,
        over,
    )


def draw_items(throughput: pl.DataFrame, window: ReportPeriod) -> Chart:
    """Bars of accounting entries exported a day, or an hour; a period that is not over is pale."""
    x = time_axis(window.since, window.last)
    daily = throughput.with_columns(each=pl.col("exported_items").cast(pl.Float64) / pl.col("days"))
    y = count_axis(float(daily["each"].max()))  # type: ignore[arg-type]
    edges = list(_edges(daily, window, x))
    boxes = [(left, right, 0.0, y.place(n)) for (left, right), n in zip(edges, daily["each"], strict=True)]
    paths = [
        bars(
            [box for box, is_whole in zip(boxes, daily["whole"], strict=True) if is_whole == whole],
            "bar completed" + ("" if whole else " part"),
        )
        for whole in (True, False)
    ]
    words = [
        f"{name_period(row['period'], window)}{'' if row['whole'] else ', not whole'}: "
        f"{count(row['exported_items'])} entries in {count(row['exported_jobs'])} exported jobs"
        for row in daily.iter_rows(named=True)
    ]
    busiest = daily.sort("each").row(-1, named=True)
    description = (
        f"Most in the {name_period(busiest['period'], window)}: {busiest['each']:.0f} a {_unit(window)}."
    )
    return Chart(
        "items",
        f"Accounting entries exported a {_unit(window)}",
        description,
        x,
        y,
        paths,
        _pointed(edges, words),
    )


def draw_done(survival: pl.DataFrame) -> Chart:
    """The share of exports that are done after so long, with its interval: 1 less the Kaplan-Meier estimate."""
    ends = survival.filter(pl.col("ended") > 0)["seconds"].to_list()
    # From the time in which one in a hundred is done: what ends at once would draw a long line along the floor.
    x = duration_axis(done_after(survival, 0.01) or ends[0], max(ends[-1], 1.0), snug=True)
    y = Axis(0.0, 1.0, [(n / 4, percent(n / 4, 0)) for n in range(5)])
    shown = _thin(survival.filter(pl.col("seconds") <= ends[-1]), x)
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
            place = across(x.place(seconds))
            over.append(f'<circle class="dot" cx="{place}" cy="{down(share)}" r="4.5"/>')
            side, shift = ("end", -10) if x.place(seconds) > 0.4 else ("", 10)
            text = f"{percent(share, 0)} in {duration(seconds)}"
            over.append(
                f'<text class="label {side}" x="{place}" dx="{shift}" y="{down(share)}" dy="{_beside(side)}">{text}</text>'
            )
    description = "; ".join(
        f"{percent(share, 0)} are done within {duration(done_after(survival, share))}"
        for share in (0.5, 0.9, 0.95, 0.99)
    )
    paths = [area(done["high"], done["low"], "band", stepped=True), steps(done["survival"], "rate")]
    return Chart("done", "Share of exports that are done after so long", description, x, y, paths, over)


def done_after(survival: pl.DataFrame, share: float) -> float | None:
    """The time after which this share is done, None where it is not known: too many are still open."""
    # A hair of tolerance, since the estimate is a product of many factors.
    found = survival.filter(pl.col("survival") <= 1 - share + 1e-12)["seconds"]
    return float(found[0]) if found.len() else None


def name_period(period: datetime, window: ReportPeriod) -> str:
    """A period: week of 23 February 2026, 23 February 2026, February 2026."""
    names: dict[str, Callable[[datetime], str]] = {
        "hour": lambda at: f"hour from {moment(at)}",
        "day": day,
        "week": lambda at: f"week of {day(at)}",
        "month": lambda at: f"{at:%B %Y}",
        "year": lambda at: f"{at:%Y}",
    }
    return names[window.grain](period)


def _beside(side: str) -> int:
    return 4 if side else 14


def _unit(window: ReportPeriod) -> str:
    return "hour" if window.grain == "hour" else "day"


def _naive(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)


def _edges(rows: pl.DataFrame, window: ReportPeriod, x: Axis) -> Iterator[tuple[float, float]]:
    """Where each row's period begins and ends, a little apart."""
    stop = rows["period"].dt.offset_by(window.every)
    for begin, end in zip(rows["period"].dt.epoch("us") / 1e6, stop.dt.epoch("us") / 1e6, strict=True):
        gap = (end - begin) * 0.09
        yield x.place(begin + gap), x.place(end - gap)


def _middle(period: datetime, window: ReportPeriod, x: Axis) -> float:
    begin, end = next(_edges(pl.DataFrame({"period": [period]}), window, x))
    return (begin + end) / 2


def _points(rows: pl.DataFrame, column: str, window: ReportPeriod, x: Axis, y: Axis) -> list[Point | None]:
    """A point in the middle of each period; none where there is no value, or no row for a period."""
    if rows.is_empty():
        return []
    first, last = rows["period"][0], rows["period"][-1]
    every = (
        pl.datetime_range(first, last, window.every, time_unit="us", eager=True).alias("period").to_frame()
    )
    filled = every.join(rows.select("period", column), on="period", how="left", maintain_order="left")
    return [
        None if value is None else ((left + right) / 2, y.place(value))
        for (left, right), value in zip(_edges(filled, window, x), filled[column], strict=True)
    ]


def _pointed(edges: Iterable[tuple[float, float]], words: Iterable[str]) -> Sequence[str]:
    """What shows when a period is pointed at."""
    return [
        f'<rect class="point" x="{across(left)}" y="0" width="{across(right - left)}" height="{HEIGHT}"><title>{said}</title></rect>'
        for (left, right), said in zip(edges, words, strict=True)
    ]


def _highest_rate(rates: pl.DataFrame, limits: pl.DataFrame) -> float:
    """What the axis must reach: every rate, and the usual interval; the widest, of few jobs, may leave the chart."""
    found = [
        rates["rate"].max(),
        limits["limit_rate"].max(),
        rates["high"].quantile(0.8),
    ]
    return max((float(value) for value in found if value is not None), default=1.0)  # type: ignore[arg-type]


def _thin(survival: pl.DataFrame, x: Axis) -> pl.DataFrame:
    """At most `MOST_POINTS` rows, evenly over the axis; each kept row is exact."""
    place = survival["seconds"].map_elements(x.place, return_dtype=pl.Float64)
    kept = survival.group_by((place * MOST_POINTS).floor().alias("bin"), maintain_order=True).last()
    return kept.drop("bin").with_columns(pl.col("low", "high").fill_null(0.0))
