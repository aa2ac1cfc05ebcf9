"""The files of rows that do not fit the contract: each row once for what it says, and no longer than it is of use."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pleo_extract.lake import disk

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from pathlib import Path

__all__ = ["is_kept_in", "prune_rejected"]

KEEP_REJECTED: Final = timedelta(days=30)
"""How long a file stays of which it is not known that all its rows were read right since."""
_FILE: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}\.jsonl")


def is_kept_in(folder: Path, name: str) -> bool:
    """Whether this folder has a file of rejected rows of this name."""
    return bool(_FILE.fullmatch(name)) and (folder / name).is_file()


def prune_rejected(
    folder: Path, *, named: Collection[str], before: Collection[str], now: datetime
) -> list[str]:
    """Remove files whose rows are all resolved, and old ones of which nothing is known; returns their names.

    Args:
        folder: where they are.
        named: files that the state names, since rows of theirs are unresolved.
        before: files that the state named before this run.
        now: the instant, UTC.
    """
    gone = []
    for path in disk.list_folder(folder):
        if path.name in named or not _FILE.fullmatch(path.name):
            continue
        age = now.timestamp() - path.lstat().st_mtime
        if path.name in before or age > KEEP_REJECTED.total_seconds():
            disk.remove_file(path)
            gone.append(path.name)
    return gone
