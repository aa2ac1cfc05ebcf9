"""The sections that are lists: why exports fail, whose, and which jobs need somebody to look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pleo_extract.report.axis import Axis, share_axis
from pleo_extract.report.drawing import bar_cell, interval_cell
from pleo_extract.report.figures import MOST_COMPANIES
from pleo_extract.report.markup import Column, name_company, note, say, section, table
from pleo_extract.report.words import (
    count,
    duration,
    foreign,
    interval,
    moment,
    percent,
    plural,
    quote,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from pleo_extract.report.figures import Figures

__all__ = ["list_companies", "list_reasons", "list_recoveries", "list_slow", "list_stuck"]

MOST_REASONS: Final = 12

REASONS: Final = (
    Column("Reason and latest message"),
    Column("Beside each other", "plot less"),
    Column("Jobs", "n"),
    Column("Share", "n"),
    Column("95 % interval", "n less"),
)
RECOVERIES: Final = (
    Column("Reason"),
    Column("Times", "n"),
    Column("Half within", "n"),
    Column("Longest", "n less"),
)
STUCK: Final = (
    Column("Job"),
    Column("Status", "less"),
    Column("Created", "less"),
    Column("Overdue", "n"),
    Column("Jobs waiting behind", "n"),
)
SLOW: Final = (
    Column("Job"),
    Column("Outcome", "less"),
    Column("Created", "less"),
    Column("Items", "n less"),
    Column("Took", "n"),
    Column("Times its company's 95 %", "n"),
)
APART: Final = {
    "worse": "fails more often than all together",
    "better": "fails less often than all together",
    "": "",
}

Row = dict[str, Any]


def list_reasons(figures: Figures) -> str:
    """Why exports fail, each reason with its share and its latest message."""
    reasons = figures.frame("reasons")
    if reasons.is_empty():
        return section("reasons", "Why exports fail", "<p>No export failed.</p>")
    most = reasons["jobs"][0]
    rows = (
        (
            foreign(row["reason"]) + say(foreign(row["example"], 160) if row["example"] else ""),
            bar_cell(row["jobs"] / most),
            count(row["jobs"]),
            percent(row["share"], 0),
            interval(row["share_low"], row["share_high"], 0),
        )
        for row in reasons.head(MOST_REASONS).iter_rows(named=True)
    )
    rest = reasons.slice(MOST_REASONS)
    more = f"And {plural(rest.height, 'rarer reason')}, {plural(sum(rest['jobs']), 'job')} together."
    caption = f"Reasons of the {plural(reasons['failed'][0], 'failed export')}, the most frequent first"
    return section(
        "reasons", "Why exports fail", table(caption, REASONS, rows), note(more) if rest.height else ""
    )


def list_recoveries(figures: Figures) -> str:
    """How long until exports work again, by the reason of the first failure."""
    recoveries = figures.frame("recoveries")
    head = "How long until exports work again"
    if recoveries.is_empty():
        return section("recoveries", head, "<p>No export failed.</p>")
    rows = (
        (
            foreign(row["reason"] or "not given"),
            count(row["times"]),
            duration(row["half"]),
            duration(row["longest"]) + say(f"{count(row['not_yet'])} not over yet" if row["not_yet"] else ""),
        )
        for row in recoveries.head(MOST_REASONS).iter_rows(named=True)
    )
    rest = recoveries.slice(MOST_REASONS)
    more = f"And {plural(rest.height, 'rarer reason')}, {plural(sum(rest['times']), 'time')} together."
    caption = (
        "From a company's first failure to its next export that was completed, by the reason of the first failure; "
        "what is not over yet counts with its time so far"
    )
    return section("recoveries", head, table(caption, RECOVERIES, rows), note(more) if rest.height else "")


def list_companies(figures: Figures) -> str:
    """The companies by failure rate, with their intervals beside the rate of all together."""
    companies, all_of_them = figures.frame("companies"), figures.frame("rates")
    finished, failed = sum(all_of_them["finished"]), sum(all_of_them["failed"])
    if not finished:
        return section("companies", "Companies", "<p>No export has finished yet.</p>")
    overall = failed / finished
    widest = companies["high"].drop_nulls().quantile(0.9) or 0.0
    axis = share_axis(max(widest, *companies["rate"].drop_nulls(), overall))
    ranked = companies.sort("rate", "finished", descending=True, nulls_last=True)
    columns = (
        Column("Company"),
        Column(f"0 to {percent(axis.high, 0)}, with its 95 % interval", "plot"),
        Column("Failed", "n"),
        Column("Jobs", "n less"),
        Column("Half within", "n less"),
        Column("95 % within", "n less"),
    )
    left_out = companies["all_of_them"][0] - companies.height
    return section(
        "companies",
        "Companies",
        table(
            f"Companies by failure rate. Dashed: all together, {percent(overall)}. "
            "Coloured: apart from it by more than chance",
            columns,
            (tuple(_company(row, axis, overall, figures)) for row in ranked.iter_rows(named=True)),
        ),
        note(f"The {MOST_COMPANIES} of {count(companies['all_of_them'][0])} that most certainly fail most.")
        if left_out
        else "",
    )


def list_stuck(figures: Figures) -> str:
    """Open jobs that should have expired."""
    stuck = figures.frame("stuck")
    if stuck.is_empty():
        return section("stuck", "Stuck jobs", "<p>No open job is past its time.</p>")
    rows = (
        (
            _job(row, figures),
            foreign(row["status"]),
            moment(row["created_at"]),
            duration(row["overdue_seconds"]),
            count(row["waiting"]),
        )
        for row in stuck.iter_rows(named=True)
    )
    caption = "Open jobs that should have expired, the longest overdue first"
    return section("stuck", "Stuck jobs", table(caption, STUCK, rows), _rest(stuck, "stuck_jobs()"))


def list_slow(figures: Figures) -> str:
    """Jobs slower than 95 % of their company's."""
    slow = figures.frame("slow")
    if slow.is_empty():
        return section("slow", "Slowest jobs", "<p>No job is much slower than the others.</p>")
    rows = (
        (
            _job(row, figures),
            _how_it_went(row),
            moment(row["created_at"]),
            count(row["number_of_items"]),
            duration(row["seconds"]) + say("so far" if row["is_censored"] else ""),
            "" if row["times"] is None else f"{row['times']:.1f}",
        )
        for row in slow.iter_rows(named=True)
    )
    caption = "Jobs that took longer than 95 % of their company's, the slowest in proportion first; stuck ones are above"
    return section("slow", "Slowest jobs", table(caption, SLOW, rows), _rest(slow, "slow_jobs(0.95)"))


def _company(row: Row, axis: Axis, overall: float, figures: Figures) -> Iterator[str]:
    known = row["rate"] is not None
    apart = (
        "" if not known else "worse" if row["low"] > overall else "better" if row["high"] < overall else ""
    )
    yield name_company(row["company_id"], figures.names) + say(
        APART[apart] if known else "nothing finished yet"
    )
    places = [axis.place(row[column]) for column in ("low", "rate", "high")] if known else []
    yield interval_cell(places, axis.place(overall), apart)
    yield percent(row["rate"])
    yield f"{count(row['failed'])} of {count(row['finished'])}"
    yield duration(row["p50"])
    yield duration(row["p95"])


def _job(row: Row, figures: Figures) -> str:
    whose = "" if figures.company_id else say(name_company(row["company_id"], figures.names))
    return f'<span class="id">{quote(row["id"])}</span>{whose}'


def _how_it_went(row: Row) -> str:
    outcome = {"completed_with_errors": "with errors", "open": row["status"]}.get(
        row["outcome"], row["outcome"]
    )
    why = row["failure_reason_type"] if row["outcome"] == "failed" else None
    return foreign(outcome) + say(foreign(why) if why else "")


def _rest(rows: pl.DataFrame, macro: str) -> str:
    rest = rows["all_of_them"][0] - rows.height
    return note(f"And {plural(rest, 'other')}: <code>from {macro}</code> names them all.") if rest else ""
