"""The companies of an accounts file, for the commands that read many: dump and plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pleo_extract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pleo_extract.client import AccountEntry

__all__ = ["read_companies"]


def read_companies(
    path: Path, others: Mapping[str, object], *, page_size: int | None = None
) -> list[AccountEntry]:
    """Return the accounts of a file.

    Args:
        path: the accounts file.
        others: the options that set for one company what the file sets for each, with their values.
        page_size: the rows to ask for at a time, for all companies.

    Raises:
        UsageError: one of the other options has a value.
        ConfigurationError: the file cannot be used.
    """
    from pleo_extract.client import read_accounts

    if wrong := [name for name, value in others.items() if value is not None]:
        raise UsageError(
            f"{wrong[0]} and --accounts exclude each other: the accounts file sets it for each company"
        )
    return [replace(entry, page_size=page_size) for entry in read_accounts(path)]
