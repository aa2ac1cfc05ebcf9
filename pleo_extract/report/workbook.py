"""The numbers of the page as a workbook: one sheet for each section, and one about the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pleo_extract.report.figures import Figures

__all__ = ["draw_sheets"]

SHEETS: Final = {
    "rates": "Failure rates",
    "incidents": "Incidents",
    "bad_days": "Bad days",
    "durations": "Durations",
    "survival": "Time until done",
    "reasons": "Reasons",
    "recoveries": "Recoveries",
    "throughput": "Entries",
    "companies": "Companies",
    "shifts": "Shifts",
    "silences": "Silences",
    "stuck": "Stuck jobs",
    "slow": "Slow jobs",
}
"""The name of each frame's sheet, in the order of the page."""
INTERNAL: Final = ("all_of_them", "number", "ends_at", "lower_end", "upper_end")
"""Columns of frames that only the page needs."""
INSTANT: Final = "%Y-%m-%d %H:%M %Z"
OF_SOME: Final = ("period", "starts_at", "company_id")
"""Columns that are null in a row about the whole time, or about all companies."""


def draw_sheets(figures: Figures) -> dict[str, pl.DataFrame]:
    """Return the sheets of the workbook by name."""
    frames = figures.frames or {}
    sheets = {sheet: _clean(frames[name], figures) for name, sheet in SHEETS.items() if name in frames}
    facts = pl.DataFrame(list(_facts(figures)), schema=["About the data", "Value"], orient="row")
    return sheets | {"About": facts}


def _clean(frame: pl.DataFrame, figures: Figures) -> pl.DataFrame:
    """Return the columns for people: without those that are empty by nature, and each company's name after its id."""
    empty = [column.name for column in frame if column.name in OF_SOME and column.is_null().all()]
    shown = frame.drop(*INTERNAL, *empty, strict=False)
    if "company_id" not in shown.columns or not figures.names:
        return shown
    place = shown.get_column_index("company_id")
    name = shown["company_id"].replace_strict(figures.names, default=None, return_dtype=pl.String)
    return shown.insert_column(place + 1, name.alias("company_name"))


def _facts(figures: Figures) -> Iterator[tuple[str, str]]:
    window = figures.window
    if figures.company_id:
        yield "Company", figures.company_id
        yield "Name", figures.names.get(figures.company_id, "")
    if window is not None:
        yield "From", f"{window.since:{INSTANT}}"
        yield "To", f"{window.end:{INSTANT}}"
        yield "Periods", window.grain
    yield "Time zone of the periods", str(figures.zone)
    yield "Data as of", f"{figures.now.astimezone(figures.zone):{INSTANT}}"
    yield "Server", figures.status.server
    yield "Jobs in the lake", f"{figures.status.rows}"
    yield "Made by", f"pleo-extract {__version__}"
    yield (
        "What the columns mean",
        "pleo-extract sql --describe failure_rates, and so on for the other answers",
    )
