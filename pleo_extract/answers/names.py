"""Names of companies: from a CSV file of the user, or kept in a lake.

The API knows companies by their ids only. A lake takes names from the accounts file of its dump; a names file adds others,
above all for a lake that is read with one credential for all companies.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pleo_extract.contract import canonical_uuid
from pleo_extract.errors import (
    ConfigurationError,
    LakeError,
    UsageError,
    check_path,
    escape,
    is_shown_whole,
)
from pleo_extract.lake import disk
from pleo_extract.lake.folder.opening import open_snapshot
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.store import is_delta

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["keep_names", "read_kept_names", "read_names"]

KEPT: Final = "names.csv"
"""The file in `_lake`."""
LONGEST: Final = 200


def read_names(names: str | Path | Mapping[str, str]) -> dict[str, str]:
    """Return names of companies, by id.

    Args:
        names: a CSV file with the columns id and name, separated by comma, semicolon or tab; or the names themselves.

    Raises:
        ConfigurationError: the file or a name cannot be used; the message names the line.
    """
    if not isinstance(names, str | Path):
        return _check_names("the names", enumerate(names.items(), 1))
    check_path(names, "the names file")
    try:
        data = Path(names).read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"the names file {names} cannot be read: {exc.strerror}") from exc
    return _parse_names(str(names), data)


def keep_names(lake: str | Path, names: Mapping[str, str]) -> None:
    """Keep names in a lake, in place of those that it keeps; without any, it keeps none.

    Raises:
        UsageError: the lake is a Delta table.
        LakeError: there is no such lake.
        StorageError: the file cannot be written.
    """
    if is_delta(lake):
        raise UsageError(
            f"{lake} is a Delta table, which keeps no names; give them each time, with --names FILE"
        )
    layout = Layout(lake)
    if open_snapshot(lake) is None or layout.is_old:
        raise LakeError(f"{lake} has no snapshot to keep names beside; run: pleo-extract dump {lake}")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("id", "name"), *names.items()])
    disk.write_output(layout.own / KEPT, text.getvalue().encode())


def read_kept_names(lake: str | Path) -> dict[str, str]:
    """Return the names that a lake keeps, by id.

    Raises:
        LakeError: the file is damaged.
    """
    if is_delta(lake) or not (path := Layout(lake).own / KEPT).exists():
        return {}
    try:
        return _parse_names(str(path), disk.read_file(path))
    except ConfigurationError as exc:
        raise LakeError(f"{exc}; write it again with: pleo-extract names {lake} FILE") from exc


def _parse_names(where: str, data: bytes) -> dict[str, str]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ConfigurationError(
            f"{where} is not UTF-8, see line {line}; in Excel, save it as “CSV UTF-8”"
        ) from exc
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    rows = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        columns = [name.strip().lower() for name in next(rows, [])]
        if sorted(columns) != ["id", "name"]:
            raise ConfigurationError(
                f"{where} has the columns {escape(', '.join(columns), 120) or 'of an empty file'}; it needs id and name"
            )
        entries = []
        for row in rows:
            if len(row) not in {0, 2}:
                raise ConfigurationError(
                    f"{where}, line {rows.line_num}: {len(row)} fields, and 2 are needed; put a name with a separator in "
                    "double quotes"
                )
            if row:
                entries.append((rows.line_num, (row[columns.index("id")], row[columns.index("name")])))
    except csv.Error as exc:
        raise ConfigurationError(f"{where}, line {rows.line_num}: {exc}") from exc
    return _check_names(where, entries)


def _check_names(where: str, entries: Iterable[tuple[int, tuple[str, str]]]) -> dict[str, str]:
    """Return the names by canonical id; `entries` are pairs of id and name, each with its line."""
    names: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, (company, given) in entries:
        place = f"{where}, line {line}"
        try:
            found = canonical_uuid(company.strip(), what="the id")
        except UsageError as exc:
            raise ConfigurationError(f"{place}: {exc}") from exc
        name = given.strip()
        if not name:
            raise ConfigurationError(f"{place}: the name is empty")
        if len(name) > LONGEST:
            raise ConfigurationError(
                f"{place}: the name has {len(name):,} characters, and at most {LONGEST} are allowed"
            )
        if not is_shown_whole(name):
            raise ConfigurationError(
                f"{place}: the name {escape(name)} contains a line break, a mark of direction or another control character"
            )
        if found in names:
            raise ConfigurationError(f"{place}: {found} has a name already, in line {lines[found]}")
        names[found], lines[found] = name, line
    return names
