"""The report: answers of one lake on one page that can be sent, printed and read on a phone.

One HTML file with its style and its charts in it, no script, nothing to load. The same snapshot gives the same
bytes. The charts are SVG drawn here, not by a drawing library: they follow the page's width and its light or dark
colours, which a picture of a fixed size cannot, at a tenth of the bytes and without an installation.

    window      which stretch of time, in which periods
    figures     all numbers, asked of the macros of `sql/`
    words       numbers, times and foreign texts as HTML
    axis        where a value lies
    drawing     SVG that fits any width
    charts      the five charts
    markup      sections, figures, tables
    lists       the sections that are lists
    headline    the first figures and their change
    sections    the rest of the page
    page        the page around them, and what is known of the data
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pleo_extract.contract import canonical_uuid
from pleo_extract.errors import StorageError, UsageError, check_path
from pleo_extract.keywords import check_keywords
from pleo_extract.lake import disk
from pleo_extract.report.figures import ask_lake
from pleo_extract.report.page import render
from pleo_extract.report.window import read_bound

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from pleo_extract.lake.store import StoreOptions

__all__ = ["write_report"]


@check_keywords
def write_report(  # noqa: PLR0913 - each is a choice of its own, and all have defaults
    lake: str | Path,
    path: str | Path,
    *,
    company_id: str | None = None,
    since: date | datetime | None = None,
    until: date | datetime | None = None,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> Path:
    """Write a report on a lake's export jobs: one HTML file, without script, that loads nothing.

    Without `since` its charts show the last year and its headline figures the last 30 days beside the 30 before;
    with it, both begin there. The file is put in place whole.

    Args:
        lake: the lake's folder, or the URL or folder of a Delta table.
        path: the file to write; one that is there is replaced.
        company_id: only this company's jobs; its UUID, as for `load_export_jobs`.
        since: only jobs created from then on; a date begins at midnight, UTC.
        until: only jobs created before then.
        storage_options: how the object store of a Delta table is reached; see `scan_lake`.
        workspace: where copies of a Delta table's files are kept.

    Returns:
        The path.

    Raises:
        LakeError: there is no such lake, or it is broken.
        UsageError: no UUID, a company of which the lake has no job, an instant without a time zone, or a time that
        ends before it begins. TryLater: nothing was published yet, or no job.
        StorageError: the file cannot be written.
    """
    check_path(path, "the report's file")
    first, last = read_bound(since, "since"), read_bound(until, "until")
    if first and last and first >= last:
        raise UsageError(f"since {first:%Y-%m-%d} is not before until {last:%Y-%m-%d}")
    store: StoreOptions = {"storage_options": storage_options, "workspace": workspace}
    company = None if company_id is None else canonical_uuid(company_id)
    figures = ask_lake(lake, company_id=company, since=first, until=last, store=store)
    path = Path(path)
    try:
        disk.write_output(path, render(figures).encode())
    except StorageError as exc:
        raise StorageError(f"the report cannot be written: {exc}") from exc
    return path
