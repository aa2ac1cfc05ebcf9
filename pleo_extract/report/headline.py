"""The most important figures, each next to its value before, and a summary in two or three sentences."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pleo_extract.report.words import count, day, duration, interval, percent, plural, unended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.report.figures import Headline
    from pleo_extract.report.window import ReportPeriod

__all__ = ["name_recent", "name_span", "summary", "tiles"]

Tile = tuple[str, str, list[str]]
"""The name of a figure, its value, and notes on it."""


def name_recent(window: ReportPeriod) -> str:
    """Return the time of the headline figures in words: 30 days to 30 September 2026."""
    return f"{name_span(window)} to {day(window.end - timedelta(microseconds=1))}"


def name_span(window: ReportPeriod) -> str:
    """Return the length of this time in words: 30 days."""
    days = (window.end - window.recent) / timedelta(days=1)
    return plural(round(days), "day") if days >= 0.5 else plural(max(1, round(24 * days)), "hour")


def summary(figures: Headline, window: ReportPeriod) -> str:
    """Return what happened, in two or three sentences."""
    rates, durations = figures.rates, figures.durations
    if rates is None:
        return f"In the {name_recent(window)} no export was started."
    were = "was" if rates["jobs"] == 1 else "were"
    sentences = [f"In the {name_recent(window)}, {plural(rates['jobs'], 'export')} {were} started."]
    if rates["finished"]:
        sentences.append(
            f"{percent(rates['rate'])} of the finished ones failed{_compare_rate(figures, window)}."
        )
    if durations and durations["n"]:
        sentences.append(
            f"Half were done within {duration(durations['p50'])}, 95 % within {duration(durations['p95'])}."
        )
    if figures.stuck and not window.is_over:
        need = "is stuck and needs" if figures.stuck == 1 else "are stuck and need"
        sentences.append(f"{plural(figures.stuck, 'job')} {need} attention.")
    return " ".join(sentences)


def tiles(figures: Headline, window: ReportPeriod) -> str:
    """Return five figures, each with notes about its change."""
    shown = [_jobs(figures), _failure(figures), _median(figures), _slowest(figures), _open(figures, window)]
    return f'<dl class="tiles">{"".join(_tile(name, value, notes) for name, value, notes in shown)}</dl>'


def _tile(name: str, value: str, notes: Sequence[str]) -> str:
    shown = "".join(f"<dd>{note}</dd>" for note in notes if note)
    return f'<div><dt>{name}</dt><dd class="figure">{value}</dd>{shown}</div>'


def _jobs(figures: Headline) -> Tile:
    now = figures.rates["jobs"] if figures.rates else 0
    before = figures.rates_before
    return (
        "Exports started",
        count(now),
        [f"{_relative(now, before['jobs'])} on {count(before['jobs'])} before" if before else ""],
    )


def _failure(figures: Headline) -> Tile:
    rates = figures.rates or {"rate": None, "low": None, "high": None, "finished": 0, "still_open": 0}
    return (
        "Failure rate",
        percent(rates["rate"]),
        [
            f"95 % interval {interval(rates['low'], rates['high'])}" if rates["finished"] else "",
            _change(figures, "failure_rate"),
            f"{count(rates['still_open'])} can still fail" if rates["still_open"] else "",
        ],
    )


def _median(figures: Headline) -> Tile:
    value = figures.durations["p50"] if figures.durations else None
    return "Half done within", duration(value), [_change(figures, "median_total_seconds")]


def _slowest(figures: Headline) -> Tile:
    now, before = figures.durations or {}, figures.durations_before or {}
    return (
        "95 % done within",
        duration(now.get("p95")),
        [
            f"{duration(before['p95'])} before" if before.get("p95") is not None else "",
            f"not counting {unended(now['still_running'])}" if now.get("still_running") else "",
        ],
    )


def _open(figures: Headline, window: ReportPeriod) -> Tile:
    stuck = f'<span class="worse">{count(figures.stuck)} of them stuck</span>'
    before = figures.open_before
    known = stuck if figures.stuck else "none of them is stuck" if figures.open_now else ""
    return (
        "Open at the end" if window.is_over else "Open now",
        count(figures.open_now),
        [
            "" if window.is_over else known,  # jobs are stuck as of now
            f"{count(before)} on {day(window.recent)}" if before is not None else "",
        ],
    )


def _change(figures: Headline, figure: str) -> str:
    row = figures.changes.get(figure)
    if row is None or row["change"] is None:
        return ""
    show = percent if figure == "failure_rate" else duration
    before = f"{show(row['value_a'])} before"
    if row["differs"] is None:
        return before
    if not row["differs"]:
        return f"{before}, may be chance"
    worse = row["change"] > 0
    return f'{before}; <span class="{"worse" if worse else "better"}">{"up" if worse else "down"} by more than chance</span>'


def _compare_rate(figures: Headline, window: ReportPeriod) -> str:
    row = figures.changes.get("failure_rate")
    if row is None or row["change"] is None:
        return ""
    verdict = {True: "the difference is more than chance", False: "the difference may be chance"}.get(
        row["differs"], "too few jobs to compare"
    )
    return f"; in the {name_span(window)} before, it was {percent(row['value_a'])} ({verdict})"


def _relative(now: int, before: int) -> str:
    change = now / before - 1
    return "unchanged" if not change else f"{'up' if change > 0 else 'down'} {percent(abs(change), 0)}"
