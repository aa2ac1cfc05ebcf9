"""The files of rejected rows: rows that do not fit the contract, kept as the server sent them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from pleo_extract.lake import disk

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from pathlib import Path

    from pleo_extract.core.decode import Rejected

__all__ = ["encode_rejected", "is_kept_in", "prune_rejected"]

KEEP_REJECTED: Final = timedelta(days=30)
"""How long a file stays if it is not known that all its rows were read without fault since."""
_FILE: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}\.jsonl")


def encode_rejected(rejected: Sequence[Rejected]) -> bytes:
    """Return the lines of a file of rejected rows."""
    lines = (
        {"page": row.page, "path": row.path, "reason": row.reason, "row": row.raw.decode("utf-8", "replace")}
        for row in rejected
    )
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def is_kept_in(folder: Path, name: str) -> bool:
    """Return whether this folder has a file of rejected rows of this name."""
    return bool(_FILE.fullmatch(name)) and (folder / name).is_file()


def prune_rejected(
    folder: Path, *, named: Collection[str], before: Collection[str], now: datetime
) -> list[str]:
    """Remove the files whose rows are all resolved, and old ones that no state mentions.

    Args:
        folder: where they are.
        named: files that the sync state names, because they have unresolved rows.
        before: files that the sync state named before this run.
        now: the time (UTC).

    Returns:
        The names of the removed files.
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
