"""The sections that are lists: why exports fail, in which companies, and which jobs need attention."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.report.axis import Axis, share_axis
from pleo_extract.report.drawing import bar_cell, interval_cell
from pleo_extract.report.figures import MOST_COMPANIES, MOST_ROWS
from pleo_extract.report.markup import Column, detail, name_company, note, number, section, table
from pleo_extract.report.words import (
    attribute,
    count,
    day,
    duration,
    interval,
    moment,
    percent,
    plural,
    untrusted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pleo_extract.report.figures import Figures, Row

__all__ = ["LISTS", "draw_companies", "draw_list", "draw_silences"]
MOST_REASONS: Final = 12
FEWEST: Final = 20
"""With fewer finished exports, the interval of a rate is at least 20 points wide, so that hardly any differs."""


@dataclass(frozen=True, slots=True)
class ListSection:
    """A section that shows the first rows of one frame as a table.

    Attributes:
        head: its heading.
        empty: the text if the frame has no row.
        caption: the caption of the table, with fields of its first row in braces.
        columns: returns the columns.
        rest: returns a text about the rows that the table leaves out, empty if it shows all.
        most: how many rows the table shows.
    """

    head: str
    empty: str
    caption: str
    columns: Callable[[Figures], tuple[Column, ...]]
    rest: Callable[[pl.DataFrame], str]
    most: int = MOST_REASONS


def draw_list(name: str, figures: Figures, remark: str = "") -> str:
    """Return one of the sections of `LISTS`, with the frame of the same name, and with a remark below it."""
    shape, rows = LISTS[name], figures.frame(name)
    if rows.is_empty():
        return section(name, shape.head, f"<p>{shape.empty}</p>", note(remark))
    caption = shape.caption.format_map(rows.row(0, named=True))
    listed = table(caption, shape.columns(figures), rows.head(shape.most).iter_rows(named=True))
    return section(name, shape.head, listed, note(shape.rest(rows)), note(remark))


def draw_companies(figures: Figures) -> str:
    """Return the companies by failure rate, each with its interval next to the rate of all companies together."""
    companies, together = figures.frame("companies").head(MOST_COMPANIES), figures.frame("rates")
    finished, failed = sum(together["finished"]), sum(together["failed"])
    if not finished:
        return section("companies", "Companies", "<p>No export has finished yet.</p>")
    overall = failed / finished
    # A few very wide intervals of companies with few jobs may exceed the axis.
    widest = companies["upper_end"].drop_nulls().quantile(0.9) or 0.0
    axis = share_axis(max(widest, *companies["rate"].drop_nulls(), overall))
    ranked = companies.sort("rate", "finished", descending=True, nulls_last=True)
    columns = (
        Column("Company", partial(_company, overall=overall, figures=figures)),
        Column(
            f"0 to {percent(axis.high, 0)}, with its 95\N{NO-BREAK SPACE}% interval",
            partial(_company_interval, axis=axis, overall=overall),
            "plot",
        ),
        number("Failed", "rate", percent),
        Column("Jobs", lambda row: f"{count(row['failed'])} of {count(row['finished'])}", "n less"),
        number("Half within", "p50", duration, "n less"),
        number("95 % within", "p95", duration, "n less"),
    )
    caption = (
        f"Companies by failure rate. Dashed line: all companies together, {percent(overall)}. "
        "Coloured: different from it by more than chance"
    )
    total = companies["all_of_them"][0]
    rest = f"The {MOST_COMPANIES} of {count(total)} companies whose rate is most certainly high."
    listed = table(caption, columns, ranked.iter_rows(named=True))
    return section("companies", "Companies", listed, note(rest if total > companies.height else ""))


def draw_silences(figures: Figures) -> str:
    """Return the companies that have stopped exporting, and how unusual that is."""
    judged, window = figures.frame("silences"), figures.window
    assert window is not None
    # By chance, one company of the whole lake is named once a year; `check` judges by the same rule.
    rare = 365 * judged.filter(~pl.col("has_left")).height
    # Of those that left long ago, the ones that left in the time of the report.
    exported = pl.col("last_job_at") >= window.literal(window.since)
    silent = judged.filter(pl.col("once_in_days") >= rare, exported | ~pl.col("has_left"))
    few = figures.frame("companies")["all_of_them"][0] - judged.filter(exported).height
    unjudged = note(
        f"{plural(few, 'company is', 'companies are')} not judged: that needs more than 20 jobs over more than 14 days."
        if few
        else ""
    )
    if silent.is_empty():
        calm = "No company has been without a new export for longer than its own rhythm explains."
        return section("silences", "Silences", f"<p>{calm}</p>", unjudged)
    columns = (
        Column(
            "Company",
            lambda row: (
                name_company(row["company_id"], figures)
                + detail("has probably left" if row["has_left"] else "")
            ),
        ),
        Column("Last export", lambda row: moment(row["last_job_at"]), "less"),
        number("Silent for", "silent_seconds", duration),
        number("Usual exports in that time", "expected_jobs", lambda x: f"{x:.1f}"),
        number("By chance", "once_in_days", _rarity, "n less"),
    )
    caption = (
        "Companies without a new export for longer than their own rhythm explains, the most unusual first; after 60 "
        "days a company has probably left"
    )
    listed = table(caption, columns, silent.head(MOST_COMPANIES).iter_rows(named=True))
    return section("silences", "Silences", listed, note(_others(silent, MOST_COMPANIES)), unjudged)


def _rarity(days: float) -> str:
    """Return how often chance alone makes such a silence: once in 3 years."""
    years = days / 365
    return "less than once in 100 years" if years > 100 else f"once in {plural(round(years), 'year')}"


def _rarer_reasons(rows: pl.DataFrame, field: str, noun: str) -> str:
    rest = rows.slice(MOST_REASONS)
    together = f"{plural(sum(rest[field]), noun)} together"
    return f"And {plural(rest.height, 'rarer reason')}, {together}." if rest.height else ""


def _others(rows: pl.DataFrame, most: int) -> str:
    """Say how many rows a table of the first `most` leaves out."""
    return f"And {plural(rows.height - most, 'other')}." if rows.height > most else ""


def _other_jobs(rows: pl.DataFrame, macro: str) -> str:
    rest = rows["all_of_them"][0] - rows.head(MOST_ROWS).height
    return f"And {plural(rest, 'other')}: <code>from {macro}</code> lists them all." if rest else ""


def _job_column(figures: Figures) -> Column:
    def cell(row: Row) -> str:
        company = "" if figures.company_id else detail(name_company(row["company_id"], figures))
        return f'<span class="id">{attribute(row["id"])}</span>{company}'

    return Column("Job", cell)


def _created(row: Row) -> str:
    return moment(row["created_at"])


def _outcome(row: Row) -> str:
    shown = {"completed_with_errors": "with errors", "open": row["status"]}
    reason = row["failure_reason_type"] if row["outcome"] == "failed" else None
    return untrusted(shown.get(row["outcome"], row["outcome"])) + detail(untrusted(reason) if reason else "")


def _difference(row: Row, overall: float) -> str:
    """Return `worse` or `better` if the interval of the company excludes the rate of all together, else nothing."""
    if row["rate"] is None:
        return ""
    return "worse" if row["lower_end"] > overall else "better" if row["upper_end"] < overall else ""


def _company(row: Row, overall: float, figures: Figures) -> str:
    difference = {
        "worse": "fails more often than all together",
        "better": "fails less often than all together",
        "": "",
    }[_difference(row, overall)]
    few = "too few finished exports to tell" if not difference and row["finished"] < FEWEST else ""
    known = "nothing finished yet" if row["rate"] is None else difference or few
    return name_company(row["company_id"], figures) + detail(known)


def _company_interval(row: Row, axis: Axis, overall: float) -> str:
    places = [axis.place(row[name]) for name in ("lower_end", "rate", "upper_end") if row["rate"] is not None]
    return interval_cell(places, axis.place(overall), _difference(row, overall))


LISTS: Final = {
    "reasons": ListSection(
        head="Why exports fail",
        empty="No export failed.",
        caption="Failed exports by reason, {failed:,} in all, the most frequent reason first",
        columns=lambda figures: (
            Column(
                "Reason and latest message",
                lambda row: (
                    untrusted(row["reason"])
                    + detail(untrusted(row["example"], 160) if row["example"] else "")
                ),
            ),
            Column(
                "Compared",
                lambda row: bar_cell(row["jobs"] / figures.frame("reasons")["jobs"][0]),
                "plot less",
            ),
            number("Jobs", "jobs"),
            number("Share", "share", partial(percent, digits=0)),
            Column("95 % interval", lambda row: interval(row["share_low"], row["share_high"], 0), "n less"),
        ),
        rest=lambda rows: _rarer_reasons(rows, "jobs", "job"),
    ),
    "recoveries": ListSection(
        head="How long until exports work again",
        empty="No export failed.",
        caption=(
            "From a company's first failure to its next completed export, by the reason of the first failure. "
            "An outage that is not over counts with its time so far"
        ),
        columns=lambda _: (
            Column("Reason", lambda row: untrusted(row["reason"] or "not given")),
            number("Times", "times"),
            number("Half within", "half", duration),
            Column(
                "Longest",
                lambda row: (
                    duration(row["longest"])
                    + detail(f"{count(row['not_yet'])} not over yet" if row["not_yet"] else "")
                ),
                "n less",
            ),
        ),
        rest=lambda rows: _rarer_reasons(rows, "times", "time"),
    ),
    "shifts": ListSection(
        head="Failure rates that have crept up",
        empty="No company's failure rate has crept up.",
        caption="Companies whose exports failed at the first try more often than usual, day after day; those that go on come first, then the clearest",
        columns=lambda figures: (
            Column("Company", lambda row: name_company(row["company_id"], figures)),
            Column("Since about", lambda row: day(row["began"])),
            Column("Until", lambda row: "it goes on" if row["goes_on"] else day(row["ended"]), "less"),
            number("Fail since then", "rate_since", percent),
            number("Usually", "usual_rate", percent),
        ),
        rest=partial(_others, most=MOST_ROWS),
        most=MOST_ROWS,
    ),
    "stuck": ListSection(
        head="Stuck jobs",
        empty="No open job is overdue.",
        caption="Open jobs that should have expired, whenever they were created, the longest overdue first",
        columns=lambda figures: (
            _job_column(figures),
            Column("Status", lambda row: untrusted(row["status"]), "less"),
            Column("Created", _created, "less"),
            number("Overdue", "overdue_seconds", duration),
            number("Jobs waiting behind", "waiting"),
        ),
        rest=lambda rows: _other_jobs(rows, "stuck_jobs()"),
        most=MOST_ROWS,
    ),
    "slow": ListSection(
        head="Unusually slow jobs",
        empty="No job took unusually long for its company.",
        caption=(
            "Jobs that took far longer than their company's other jobs explain, the slowest in proportion first; "
            "stuck jobs are listed above"
        ),
        columns=lambda figures: (
            _job_column(figures),
            Column("Outcome", _outcome, "less"),
            Column("Created", _created, "less"),
            number("Items", "number_of_items", kind="n less"),
            Column(
                "Took",
                lambda row: duration(row["seconds"]) + detail("so far" if row["is_censored"] else ""),
                "n",
            ),
            number(
                "Times its company's limit",
                "times",
                lambda x: "" if x is None else f"{x:.1f}",
            ),
        ),
        rest=lambda rows: _other_jobs(rows, "slow_jobs()"),
        most=MOST_ROWS,
    ),
}
"""The list sections, by the name of their frame."""
