"""The sections of the page: those with charts here, the lists in `lists`."""

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
    with_days,
)
from pleo_extract.report.lists import (
    list_companies,
    list_reasons,
    list_recoveries,
    list_slow,
    list_stuck,
)
from pleo_extract.report.markup import Column, figure, key, name_company, numbers, say, section, table
from pleo_extract.report.words import count, duration, foreign, interval, percent, plural

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pleo_extract.report.figures import Figures
    from pleo_extract.report.window import ReportPeriod

__all__ = ["number_incidents", "sections"]

MOST_INCIDENTS: Final = 20
FEWEST: Final = 2
"""One period alone is no course of time."""


def sections(figures: Figures, window: ReportPeriod) -> Iterator[str]:
    """All sections on the jobs, in the order of the page."""
    yield _jobs(figures, window)
    yield _rates(figures, window)
    yield _durations(figures, window)
    yield _done(figures)
    yield list_reasons(figures)
    yield list_recoveries(figures)
    yield _throughput(figures, window)
    if figures.company_id is None:
        yield list_companies(figures)
    yield list_stuck(figures)
    yield list_slow(figures)


def _jobs(figures: Figures, window: ReportPeriod) -> str:
    outcomes = by_outcome(figures.frame("rates"), window)
    unit = "hour" if window.grain == "hour" else "day"
    mean = "" if window.grain in ("hour", "day") else f", on average over each {window.grain}"
    there = [name for name in OUTCOMES if any(outcomes[name])]
    parts = " and the ".join(
        name_period(each, window) for each in outcomes.filter(~pl.col("whole"))["period"]
    )
    rows = (
        (name_period(row["period"], window), count(row["jobs"]), *(count(row[name]) for name in there))
        for row in outcomes.iter_rows(named=True)
    )
    return section(
        "jobs",
        f"Exports a {unit}, by outcome",
        figure(
            draw_outcomes(outcomes, window).svg(),
            key((name, OUTCOMES[name]) for name in there),
            f"By the {unit} they were started{mean}." + (f" Pale: the {parts}, not whole." if parts else ""),
        ),
        numbers(
            f"Exports by {window.grain} and outcome",
            _heads(window, "All", *(OUTCOMES[name].capitalize() for name in there)),
            rows,
        ),
    )


def _rates(figures: Figures, window: ReportPeriod) -> str:
    rates = figures.frame("rates").filter(window.is_whole(), pl.col("finished") > 0)
    incidents = figures.frame("incidents")
    listed = _incidents(incidents, figures, window)
    if rates.height < FEWEST:
        said = f"<p>There are not yet two whole {window.grain}s with finished exports.</p>"
        return section("rates", "Failure rate", said, listed)
    marks = number_incidents(incidents.filter(window.is_whole()))
    limits = figures.frame("limits").filter(window.is_whole())
    entries = [("rate", "share that failed"), ("band", "its 95 % interval")]
    entries += [("limit", "limit of what the past explains")] if limits.height else []
    kinds = {kind for _, kind in marks.values()}
    entries += [("mark", "incident")] if "mark" in kinds else []
    entries += [("mark some", "incident of single companies")] if "mark some" in kinds else []
    rows = (
        (
            name_period(row["period"], window),
            count(row["finished"]),
            count(row["failed"]),
            percent(row["rate"]),
            interval(row["low"], row["high"]),
            count(row["still_open"]),
        )
        for row in rates.iter_rows(named=True)
    )
    return section(
        "rates",
        f"Failure rate by {window.grain}",
        figure(
            draw_rates(rates, limits, marks, window).svg(),
            key(entries),
            f"Failed and expired exports, of those that finished. Only whole {window.grain}s: "
            "one that is not over looks like an event.",
        ),
        listed,
        numbers(
            f"Failure rate by {window.grain}",
            _heads(window, "Finished", "Failed", "Rate", "95 % interval", "Still open"),
            rows,
        ),
    )


def number_incidents(incidents: pl.DataFrame) -> dict[datetime, tuple[int, str]]:
    """What to mark in the chart of all: their own incidents, and paler those of single companies."""
    by_period = incidents.group_by("period", "number", maintain_order=True).agg(
        pl.col("company_id").is_null().any()
    )
    return {
        period: (number, "mark" if all_of_them else "mark some")
        for period, number, all_of_them in by_period.iter_rows()
    }


def _incidents(incidents: pl.DataFrame, figures: Figures, window: ReportPeriod) -> str:
    head = "<h3>Incidents</h3>"
    if incidents.is_empty():
        needs = f" It takes eight {window.grain}s with ten finished exports each to judge the next."
        why = "" if figures.frame("limits").height else needs
        return f"{head}<p>No {window.grain} had more failures than its past explains.{why}</p>"
    everyone = figures.company_id is None
    rows = (
        (
            f"{row['number']}",
            name_period(row["period"], window) + say("" if row["whole"] else "not over"),
            name_company(row["company_id"], figures.names) if everyone else percent(row["limit_rate"]),
            percent(row["rate"]) + say(f"{count(row['failed'])} of {count(row['finished'])}"),
            percent(row["usual_rate"]),
            foreign(row["reasons"] or "", 300),
        )
        for row in incidents.tail(MOST_INCIDENTS).with_columns(whole=window.is_whole()).iter_rows(named=True)
    )
    columns = [
        Column("No.", "n"),
        Column("When"),
        Column("Who" if everyone else "Limit"),
        Column("Failed", "n"),
        Column("Usually", "n less"),
        Column("Mostly", "less"),
    ]
    return head + table(
        f"{window.grain.capitalize()}s with more failures than their past explains, by three standard deviations"
        + (f"; the last {MOST_INCIDENTS} of {incidents.height}" if incidents.height > MOST_INCIDENTS else ""),
        columns,
        rows,
    )


def _durations(figures: Figures, window: ReportPeriod) -> str:
    durations = figures.frame("durations").filter(window.is_whole(), pl.col("n") > 0)
    if durations.height < FEWEST:
        said = f"<p>There are not yet two whole {window.grain}s with exports that ended.</p>"
        return section("durations", "How long exports take", said)
    running = sum(durations["still_running"])
    rows = (
        (
            name_period(row["period"], window),
            count(row["n"]),
            *(duration(row[each]) for each in (*PERCENTILES, "max")),
            count(row["still_running"]),
        )
        for row in durations.iter_rows(named=True)
    )
    return section(
        "durations",
        f"How long exports take, by {window.grain}",
        figure(
            draw_durations(durations, window).svg(),
            key((name, f"{share} were done within") for name, share in PERCENTILES.items()),
            "From the start of an export to its end, on a logarithmic scale."
            + (f" Without {count(running)} still running: the next chart has them." if running else ""),
        ),
        numbers(
            f"Durations by {window.grain}",
            _heads(window, "Ended", "Half", "90 %", "95 %", "Longest", "Still running"),
            rows,
        ),
    )


def _done(figures: Figures) -> str:
    survival = figures.frame("survival")
    head = "How long until an export is done"
    if not any(survival["ended"]):
        return section("done", head, "<p>No export has ended yet.</p>")
    known = ((share, done_after(survival, share)) for share in (0.5, 0.9, 0.95, 0.99))
    said = "; ".join(
        f"{percent(share, 0)} within <strong>{duration(seconds)}</strong>"
        for share, seconds in known
        if seconds is not None
    )
    censored = sum(survival["censored"])
    are = "job still open counts" if censored == 1 else "jobs still open count"
    return section(
        "done",
        head,
        f"<p>{said}.</p>" if said else "",
        figure(
            draw_done(survival).svg(),
            key([("rate", "share that is done"), ("band", "its 95 % interval")]),
            f"After Kaplan and Meier: {count(censored)} {are} as “at least so long”. "
            "Done means ended, failures included.",
        ),
    )


def _throughput(figures: Figures, window: ReportPeriod) -> str:
    throughput = figures.frame("throughput")
    head = "How much is exported"
    jobs, items = sum(throughput["exported_jobs"]), sum(throughput["exported_items"])
    if not items:
        return section("throughput", head, "<p>Nothing has been exported yet.</p>")
    unit = "hour" if window.grain == "hour" else "day"
    shown = with_days(throughput, window)
    parts = " and the ".join(name_period(each, window) for each in shown.filter(~pl.col("whole"))["period"])
    rows = (
        (
            name_period(row["period"], window),
            count(row["exported_jobs"]),
            count(row["exported_items"]),
            _speed(row["items_per_run_second"]),
            count(row["still_open"]),
        )
        for row in throughput.iter_rows(named=True)
    )
    return section(
        "throughput",
        f"{head}, by {window.grain}",
        f"<p><strong>{plural(items, 'accounting entry', 'accounting entries')}</strong> in "
        f"{plural(jobs, 'export')} that were completed, {items / jobs:.1f} in each on average.</p>",
        figure(
            draw_items(shown, window).svg(),
            key([("completed", f"entries a {unit}")]),
            "Entries chosen for exports that were completed, with errors or without: of those with errors some did "
            "not arrive." + (f" Pale: the {parts}, not whole." if parts else ""),
        ),
        numbers(
            f"Entries exported by {window.grain}",
            _heads(window, "Exported jobs", "Entries", "Entries a running second", "Still open"),
            rows,
        ),
    )


def _speed(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _heads(window: ReportPeriod, *heads: str) -> list[Column]:
    return [Column(window.grain.capitalize()), *(Column(head, "n") for head in heads)]
