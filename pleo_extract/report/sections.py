"""The sections of the page: those with charts are here, the lists are in `lists`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.report.charts import (
    OUTCOMES,
    PERCENTILES,
    by_outcome,
    done_after,
    draw_done,
    draw_durations,
    draw_items,
    draw_outcomes,
    draw_rates,
    name_period,
    unit_of,
    with_days,
)
from pleo_extract.report.lists import draw_companies, draw_list, draw_silences
from pleo_extract.report.markup import (
    Column,
    detail,
    figure,
    folded,
    legend,
    name_company,
    note,
    number,
    section,
    table,
)
from pleo_extract.report.words import (
    count,
    day,
    duration,
    interval,
    moment,
    percent,
    plural,
    unended,
    untrusted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pleo_extract.report.figures import Figures
    from pleo_extract.report.window import ReportPeriod

__all__ = ["number_incidents", "sections"]

MOST_INCIDENTS: Final = 20
FEWEST: Final = 2
"""A single period shows no development over time."""

RATES: Final = (
    number("Finished", "finished"),
    number("Failed", "failed"),
    number("Rate", "rate", percent),
    Column("95 % interval", lambda row: interval(row["low"], row["high"]), "n"),
    number("Still open", "still_open"),
)
DURATIONS: Final = (
    number("Ended", "n"),
    number("Half", "p50", duration),
    number("90 %", "p90", duration),
    number("95 %", "p95", duration),
    number("Longest", "max", duration),
    number("Not ended", "still_running"),
)
THROUGHPUT: Final = (
    number("Exported jobs", "exported_jobs"),
    number("Entries", "exported_items"),
    number(
        "Entries per second of run time", "items_per_run_second", lambda x: "" if x is None else f"{x:.2f}"
    ),
    number("Still open", "still_open"),
)


def sections(figures: Figures, window: ReportPeriod) -> Iterator[str]:
    """Yield all sections about jobs, in the order of the page."""
    yield _jobs(figures, window)
    yield _rates(figures, window)
    yield _durations(figures, window)
    yield _done(figures)
    yield draw_list("reasons", figures)
    yield draw_list("recoveries", figures)
    yield _throughput(figures, window)
    if figures.company_id is None:
        yield draw_companies(figures)
    yield draw_list("shifts", figures)
    yield draw_silences(figures)
    read = figures.now.astimezone(window.end.tzinfo)
    later = f"As of {moment(read)}, when the lake was last read; not as of the end of this report."
    yield draw_list("stuck", figures, later if window.is_over else "")
    yield draw_list("slow", figures)


def _jobs(figures: Figures, window: ReportPeriod) -> str:
    outcomes, unit = by_outcome(figures.frame("rates"), window), unit_of(window)
    mean = "" if window.grain in ("hour", "day") else f", on average over each {window.grain}"
    found = {name: text for name, text in OUTCOMES.items() if any(outcomes[name])}
    columns = [number("All", "jobs"), *(number(text.capitalize(), name) for name, text in found.items())]
    return section(
        "jobs",
        f"Exports per {unit}, by outcome",
        figure(
            draw_outcomes(outcomes, window).svg(),
            legend(found.items()),
            f"By the {unit} they were started{mean}.{_incomplete(outcomes, window)}",
        ),
        _numbers(f"Exports by {window.grain} and outcome", columns, outcomes, window),
    )


def _rates(figures: Figures, window: ReportPeriod) -> str:
    rates = figures.frame("rates").filter(window.is_whole(), pl.col("finished") > 0)
    incidents = figures.frame("incidents")
    listed = _incidents(incidents, figures, window)
    if rates.height < FEWEST:
        few = f"<p>There are not yet two complete {window.grain}s with finished exports.</p>"
        return section("rates", "Failure rate", few, listed)
    marks = number_incidents(incidents.filter(window.is_whole()))
    limits = figures.frame("limits").filter(window.is_whole())
    kinds = {kind for _, kind in marks.values()}
    entries = {
        "rate": "share that failed",
        "band": "its 95 % interval",
        "limit": "highest rate that the past explains" if limits.height else "",
        "mark": "incident" if "mark" in kinds else "",
        "mark some": "incident of single companies" if "mark some" in kinds else "",
    }
    head = f"Failure rate by {window.grain}"
    return section(
        "rates",
        head,
        figure(
            draw_rates(rates, limits, marks, window).svg(),
            legend((kind, text) for kind, text in entries.items() if text),
            f"Failed and expired exports, as a share of the finished ones. Only complete {window.grain}s: "
            "an incomplete one can look like an incident.",
        ),
        listed,
        _numbers(head, RATES, rates, window),
    )


def number_incidents(incidents: pl.DataFrame) -> dict[datetime, tuple[int, str]]:
    """Return the marks of incidents in the chart, by when the period begins, in UTC: a number, and a CSS class.

    The class is `mark` if all companies together have an incident, and the paler `mark some` if only single ones do.
    """
    # In UTC: Python takes two instants of one zone for equal if their clocks show the same.
    begin = pl.col("starts_at").dt.convert_time_zone("UTC")
    by_period = incidents.group_by(begin, "number", maintain_order=True).agg(
        pl.col("company_id").is_null().any()
    )
    return {at: (n, "mark" if together else "mark some") for at, n, together in by_period.iter_rows()}


def _incidents(incidents: pl.DataFrame, figures: Figures, window: ReportPeriod) -> str:
    head, grain = "<h3>Incidents</h3>", window.grain
    rest = _bad_days(figures, window) + _unjudged(figures, window)
    if incidents.is_empty():
        needs = (
            f" The next {grain} can be judged after eight {grain}s with at least ten finished exports each."
        )
        more = "" if figures.frame("limits").height else needs
        return f"{head}<p>No {grain} had more failures than its past explains.{more}</p>{rest}"
    number_of = Column("No.", lambda row: f"{row['number']}", "n")
    when = Column(
        "When",
        lambda row: name_period(row["starts_at"], window) + detail("" if row["whole"] else "incomplete"),
    )
    left_out = (
        f"; the last {MOST_INCIDENTS} of {incidents.height}" if incidents.height > MOST_INCIDENTS else ""
    )
    caption = f"{grain.capitalize()}s with more failures than their past explains, by 3.2 standard deviations{left_out}"
    rows = incidents.tail(MOST_INCIDENTS).with_columns(whole=window.is_whole())
    columns = (number_of, when, *_incident_columns(figures))
    return head + table(caption, columns, rows.iter_rows(named=True)) + rest


def _bad_days(figures: Figures, window: ReportPeriod) -> str:
    """Return a table of the single days of the last week with more failures than their past explains, if there are any."""
    days = figures.frame("bad_days")
    if days.is_empty():
        return ""
    when = Column("When", lambda row: day(row["starts_at"].astimezone(window.end.tzinfo)))
    shown = days.tail(MOST_INCIDENTS)
    left_out = f"; the last {shown.height} of {days.height}" if days.height > shown.height else ""
    caption = f"Single days of the last seven with more failures than their past explains{left_out}"
    return table(caption, (when, *_incident_columns(figures)), shown.iter_rows(named=True))


def _incident_columns(figures: Figures) -> tuple[Column, ...]:
    if figures.company_id is None:
        who = Column("Company", lambda row: name_company(row["company_id"], figures))
    else:
        who = Column("Limit", lambda row: percent(row["limit_rate"]))
    return (
        who,
        Column(
            "Failed",
            lambda row: percent(row["rate"]) + detail(f"{count(row['failed'])} of {count(row['finished'])}"),
            "n",
        ),
        number("Usual", "usual_rate", percent, "n less"),
        Column("Main reasons", lambda row: untrusted(row["reasons"] or "", 300), "less"),
    )


def _unjudged(figures: Figures, window: ReportPeriod) -> str:
    """Return a note about the companies of which no period could be judged, and why."""
    companies = figures.frame("companies")
    unjudged = companies["all_of_them"][0] - figures.frame("judged").item()
    if figures.company_id is not None or not unjudged:
        return ""
    return note(
        f"{plural(unjudged, 'company has', 'companies have')} too few exports to be judged alone: that needs eight "
        f"{window.grain}s with at least ten finished exports each, and one more to judge."
    )


def _durations(figures: Figures, window: ReportPeriod) -> str:
    durations = figures.frame("durations").filter(window.is_whole(), pl.col("n") > 0)
    if durations.height < FEWEST:
        few = f"<p>There are not yet two complete {window.grain}s with exports that ended.</p>"
        return section("durations", "How long exports take", few)
    running = sum(durations["still_running"])
    open_jobs = f" Without {unended(running)}: the next chart includes them." if running else ""
    return section(
        "durations",
        f"How long exports take, by {window.grain}",
        figure(
            draw_durations(durations, window).svg(),
            legend((name, f"{share} were done within") for name, share in PERCENTILES.items()),
            f"From the start of an export to its end, on a logarithmic scale.{open_jobs}",
        ),
        _numbers(f"Durations by {window.grain}", DURATIONS, durations, window),
    )


def _done(figures: Figures) -> str:
    survival, head = figures.frame("survival"), "How long until an export is done"
    if not any(survival["ended"]):
        return section("done", head, "<p>No export has ended yet.</p>")
    known = ((share, done_after(survival, share)) for share in (0.5, 0.9, 0.95, 0.99))
    times = "; ".join(
        f"{percent(share, 0)} within <strong>{duration(seconds)}</strong>"
        for share, seconds in known
        if seconds is not None
    )
    censored = plural(sum(survival["censored"]), "open job")
    return section(
        "done",
        head,
        f"<p>{times}.</p>" if times else "",
        figure(
            draw_done(survival).svg(),
            legend([("rate", "share that is done"), ("band", "its 95 % interval")]),
            f"Kaplan-Meier estimate, with {censored} counted as “at least this long”. "
            "Done means ended, failures included.",
        ),
    )


def _throughput(figures: Figures, window: ReportPeriod) -> str:
    throughput, head = figures.frame("throughput"), "How much is exported"
    jobs, items = sum(throughput["exported_jobs"]), sum(throughput["exported_items"])
    if not items:
        return section("throughput", head, "<p>Nothing has been exported yet.</p>")
    shown = with_days(throughput, window)
    return section(
        "throughput",
        f"{head}, by {window.grain}",
        f"<p><strong>{plural(items, 'accounting entry', 'accounting entries')}</strong> in "
        f"{plural(jobs, 'completed export')}, {items / jobs:.1f} in each on average.</p>",
        figure(
            draw_items(shown, window).svg(),
            legend([("completed", f"entries per {unit_of(window)}")]),
            "Entries selected for exports that completed, with errors or without. Of those with errors, some entries "
            f"did not arrive.{_incomplete(shown, window)}",
        ),
        _numbers(f"Entries exported by {window.grain}", THROUGHPUT, throughput, window),
    )


def _incomplete(rows: pl.DataFrame, window: ReportPeriod) -> str:
    """Return a sentence about the periods that are pale in a chart."""
    names = " and ".join(name_period(each, window) for each in rows.filter(~pl.col("whole"))["starts_at"])
    return f" Pale: {names}, incomplete." if names else ""


def _numbers(
    caption: str, columns: list[Column] | tuple[Column, ...], rows: pl.DataFrame, window: ReportPeriod
) -> str:
    period = Column(window.grain.capitalize(), lambda row: name_period(row["starts_at"], window))
    return folded(caption, [period, *columns], rows.iter_rows(named=True))
