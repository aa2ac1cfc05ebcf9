"""Answers for Excel: workbooks, and CSV that Excel opens as a table.

Excel has neither time zones nor more than 15 digits, and reads texts as formulas, links or dates where it can. So instants
become UTC, which their heading says; longer numbers become text; and in a workbook every text stays a text.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from pleo_extract.errors import ConfigurationError, StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xlsxwriter import Workbook

__all__ = ["SEPARATORS", "write_excel_csv", "write_workbook"]

SEPARATORS: Final = {"comma": ",", "semicolon": ";", "tab": "\t"}
"""List separators, by name: Windows has one in its regional settings, and Excel reads CSV by it."""

MOST_ROWS: Final = 1_048_575
"""The rows of a sheet below its heading."""
MOST_DIGITS: Final = 10**15
FIRST_DAY: Final = datetime(1900, 3, 1)  # noqa: DTZ001 - Excel has no time zones, and counts a 29 February 1900
LAST_DAY: Final = datetime(9999, 12, 31)  # noqa: DTZ001 - as above
WIDEST: Final = 420
"""The pixels of the widest column."""

INSTANT, DAY = "yyyy-mm-dd hh:mm:ss", "yyyy-mm-dd"
FORMATS: Final = {pl.Datetime: INSTANT, pl.Date: DAY, pl.Int64: "#,##0"}
_SHARE: Final = re.compile(r"(\w+_)?(rate|share)(_\w+)?|survival")
_SHARE_BOUND: Final = re.compile(r"(?!per_)(\w+_)?(low|high)")


def write_workbook(sheets: Mapping[str, pl.DataFrame], path: Path) -> None:
    """Write a workbook with one sheet for each frame. Rates are percentages, and no text is a formula.

    Raises:
        ConfigurationError: xlsxwriter is not installed.
        UsageError: a frame has more rows than a sheet.
        StorageError: the file cannot be written.
    """
    try:
        from xlsxwriter import Workbook  # noqa: PLC0415 - an extra
        from xlsxwriter.exceptions import FileCreateError  # noqa: PLC0415 - as above
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"{exc.name} is not installed, which writes workbooks: pip install 'pleo-extract[excel]'"
        ) from exc
    as_text = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    try:
        with Workbook(path, as_text) as book:
            for name, frame in sheets.items():
                _add_sheet(book, name, frame)
    except FileCreateError as exc:
        raise StorageError(str(exc)) from exc.args[0]


def write_excel_csv(frame: pl.DataFrame, path: Path, *, separator: str = "comma") -> None:
    """Write CSV that a double click in Excel opens as a table.

    It begins with a byte order mark, without which Excel takes UTF-8 for the code page of Windows. Where the list separator
    is a semicolon, the decimal separator is a comma.

    Raises:
        UsageError: the frame has more rows than a sheet.
    """
    shown = _fit_to_cells(frame)
    shown.with_columns(pl.col(_find_days(shown)).cast(pl.Date)).write_csv(
        path,
        include_bom=True,
        separator=SEPARATORS[separator],
        decimal_comma=separator == "semicolon",
        line_terminator="\r\n",
        datetime_format="%Y-%m-%d %H:%M:%S",
        time_format="%H:%M:%S",
    )


def _add_sheet(book: Workbook, name: str, frame: pl.DataFrame) -> None:
    shown = _fit_to_cells(frame)
    formats: dict[Any, str] = dict.fromkeys(_find_shares(shown), "0.0%")
    formats |= dict.fromkeys(_find_days(shown), DAY)
    sheet = book.add_worksheet(name)
    shown.write_excel(
        book,
        sheet,
        column_formats=formats,
        dtype_formats=FORMATS,  # type: ignore[arg-type] # its keys are wider than declared
        table_style="Table Style Light 1",
        float_precision=2,
        freeze_panes=(1, 0),
    )
    sheet.autofit(WIDEST)


def _fit_to_cells(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with values that a cell can hold."""
    if frame.height > MOST_ROWS:
        raise UsageError(
            f"a sheet of Excel has at most {MOST_ROWS:,} rows, and the answer has more: select fewer, or write Parquet or CSV"
        )
    return pl.DataFrame(list(map(_fit_column, frame)))


def _fit_column(column: pl.Series) -> pl.Series:
    kind = column.dtype
    if isinstance(kind, pl.Datetime):
        heading = f"{column.name} (UTC)" if kind.time_zone else column.name
        utc = column.dt.convert_time_zone("UTC") if kind.time_zone else column
        instants = utc.dt.replace_time_zone(None).alias(heading)
        inside = instants.is_between(FIRST_DAY, LAST_DAY).all()
        return instants if inside else instants.dt.strftime("%Y-%m-%d %H:%M:%S")
    if kind == pl.Date:
        return (
            column if column.is_between(FIRST_DAY.date(), LAST_DAY.date()).all() else column.cast(pl.String)
        )
    if kind.is_float():
        return column.to_frame().select(pl.when(pl.first().is_finite()).then(pl.first())).to_series()
    if kind.is_decimal() or kind.is_integer():
        if (column.cast(pl.Float64).abs() >= MOST_DIGITS).any():
            return column.cast(pl.String)
        return column.cast(pl.Float64 if kind.is_decimal() and kind.scale else pl.Int64)  # type: ignore[attr-defined]
    return column


def _find_shares(frame: pl.DataFrame) -> list[str]:
    """Return the columns that hold shares from 0 to 1: the names of the answers say so, and no value denies it."""
    fractions = [column.name for column in frame if column.dtype.is_float() and column.is_between(0, 1).all()]
    shares = list(filter(_SHARE.fullmatch, fractions))
    bounds = filter(
        _SHARE_BOUND.fullmatch, fractions
    )  # without a share beside them they are those of seconds
    return [*shares, *bounds] if shares else []


def _find_days(frame: pl.DataFrame) -> list[str]:
    """Return the columns of instants that all begin a day, as periods do."""
    found = (column for column in frame if column.dtype == pl.Datetime)
    return [column.name for column in found if (column.dt.truncate("1d") == column).all()]
