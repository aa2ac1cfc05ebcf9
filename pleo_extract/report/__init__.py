"""The report: the answers of one lake on one page, which can be mailed, printed and read on a phone.

It is one HTML file that contains its style and charts, has no script and loads nothing. The same snapshot gives the same
bytes.

The charts are SVG that this package draws itself. They adapt to the width of the page and to its light or dark colours,
which a chart of fixed size cannot, with a tenth of the bytes that a chart of altair has and without another dependency.

    window      the time of the report, and the length of its periods
    figures     all numbers, from the macros of `sql/`
    words       numbers, times and texts of the data as HTML
    axis        the place of a value on an axis
    drawing     SVG that fits any width
    charts      the five charts
    markup      HTML of sections, figures and tables
    lists       the sections that are lists
    headline    the most important figures, and their change
    sections    the other sections, and the order of all
    workbook    the same numbers for Excel
    page        the page around them, and its information about the data
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pleo_extract.answers.spreadsheet import write_workbook
from pleo_extract.contract import canonical_uuid
from pleo_extract.errors import UsageError, check_path, escape
from pleo_extract.keywords import check_keywords
from pleo_extract.lake import disk
from pleo_extract.report.figures import ask_lake
from pleo_extract.report.page import render
from pleo_extract.report.window import read_bound
from pleo_extract.report.workbook import draw_sheets
from pleo_extract.zones import find_zone

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from pleo_extract.lake.store import StoreOptions

__all__ = ["write_report"]

_log = logging.getLogger(__name__)


@check_keywords
def write_report(  # noqa: PLR0913 - all are independent, and have defaults
    lake: str | Path,
    path: str | Path,
    *,
    company_id: str | None = None,
    since: date | datetime | None = None,
    until: date | datetime | None = None,
    tz: str = "UTC",
    names: str | Path | Mapping[str, str] | None = None,
    workbook: str | Path | None = None,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> Path:
    """Write a report about the export jobs of a lake: one HTML file without script, which loads nothing.

    Without `since`, its charts show the last year, and its headline figures the last 30 days next to the 30 days before.
    With `since`, both begin there. The file is replaced atomically. If no job is in this time, this logs a warning.

    Args:
        lake: the folder of the lake, or the URL or folder of a Delta table.
        path: the file to write; an existing file is replaced.
        company_id: only jobs of this company; a UUID, as for `load_export_jobs`.
        since: only jobs created at or after this; a date means its midnight in `tz`.
        until: only jobs created before this.
        tz: the time zone of all times and periods, such as ``Europe/Copenhagen``.
        names: names of companies, by id, or a CSV file with the columns id and name; see `connect`.
        workbook: an Excel workbook to write, too, with the numbers of the page (extra `excel`).
        storage_options: how to reach the object store of a Delta table; see `scan_lake`.
        workspace: the folder for copies of a Delta table's files.

    Returns:
        The path of the file.

    Raises:
        LakeError: there is no such lake, or it is broken.
        UsageError: the company is not a UUID, or the lake has no job of it; an instant has no time zone; there is no time
            zone `tz`; the time does not begin before it ends; or the name of the file asks for another format than HTML.
        ConfigurationError: the names cannot be used; or a workbook is asked for, and the package that writes it is not
            installed.
        TryLater: the lake has no snapshot, or no job.
        StorageError: the file cannot be written.
    """
    check_path(path, "the report's file")
    path = Path(path)
    _refuse_other_formats(path)
    zone = find_zone(tz)
    first, last = read_bound(since, "since", zone), read_bound(until, "until", zone)
    if first and last and first >= last:
        raise UsageError(f"since ({first:%Y-%m-%d}) is not before until ({last:%Y-%m-%d})")
    store: StoreOptions = {"storage_options": storage_options, "workspace": workspace}
    company = None if company_id is None else canonical_uuid(company_id)
    figures = ask_lake(lake, company_id=company, since=first, until=last, zone=zone, names=names, store=store)
    if figures.window is None:
        _log.warning("%s has no job created in this time, so the page is empty; see since and until", lake)
    if workbook is not None:
        check_path(workbook, "the workbook's file")
        with disk.open_output(Path(workbook)) as place:
            write_workbook(draw_sheets(figures), place)
    disk.write_output(path, render(figures).encode())
    return path


def _refuse_other_formats(path: Path) -> None:
    """Refuse a file whose name promises another format, which the program that opens it would find broken."""
    page = path.with_suffix(".html").name
    ways = {
        ".pdf": (
            f"write {page}, open it in a browser and print it to PDF, or run: "
            f"chromium --headless --no-pdf-header-footer --print-to-pdf={path.name} {page}"
        ),
        ".xlsx": f"write {page}, and its numbers with --xlsx {path.name} (in Python: workbook=)",
    }
    if way := ways.get(path.suffix.lower()):
        raise UsageError(f"{escape(str(path))}: a report is an HTML page; {escape(way, 600)}")
