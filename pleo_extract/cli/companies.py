"""The companies of an accounts file, as dump and plan are told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pleo_extract.client import AccountEntry

__all__ = ["read_companies"]


def read_companies(path: Path, beside: Mapping[str, object]) -> list[AccountEntry]:
    """The accounts of a file; `beside` are the options that say for one company what the file says for each.

    Raises:
        UsageError: one of these was given. ConfigurationError: the file cannot be used.
    """
    from pleo_extract.client import read_accounts

    if wrong := [name for name, value in beside.items() if value is not None]:
        raise UsageError(
            f"{wrong[0]} and --accounts exclude each other: the accounts file says it for each company"
        )
    return read_accounts(path)
