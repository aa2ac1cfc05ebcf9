"""The sync state of many companies: a compressed file of its own that a commit names.

A commit carries the state of every company. With 10,000 companies that would be 5.8 MB in each commit, and every engine
reads the log. So a state of more than `MOST_INLINE` bytes goes into a file beside it. Its folder begins with an underscore,
which a VACUUM of other engines leaves alone, and a file stays as long as the log has its commit. Losing one costs requests,
never rows: the companies are then read in full.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import secrets
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.lake import strict

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FOLDER", "is_name", "list_expired", "name_file", "pack_accounts", "unpack_accounts"]

FOLDER: Final = "_pleo_extract/state"
MOST_INLINE: Final = 16_384
"""Bytes of JSON up to which a commit carries the state itself: about 25 companies."""
_MOST: Final = 2**30
"""Bytes of JSON that a file may unpack to; a million companies need a quarter."""
_FILE: Final = re.compile(rf"{FOLDER}/([0-9]{{20}})-[0-9a-f]{{64}}-[0-9a-f]{{8}}\.json\.gz")


def pack_accounts(accounts: dict[AccountKey, SyncState]) -> bytes | None:
    """Return the bytes of the file; None if the commit can carry the state itself."""
    data = msgspec.json.encode(accounts)
    return gzip.compress(data, compresslevel=6, mtime=0) if len(data) > MOST_INLINE else None


def name_file(version: int, data: bytes) -> str:
    """Return a path for the state of this version that was never used."""
    return f"{FOLDER}/{version:020d}-{hashlib.sha256(data).hexdigest()}-{secrets.token_hex(4)}.json.gz"


def unpack_accounts(path: str, data: bytes | None) -> dict[AccountKey, SyncState]:
    """Return the state that a file holds.

    Raises:
        strict.Malformed: the file is missing, or is not what a run of ours has written.
    """
    if data is None:
        raise strict.Malformed("it is missing")
    if not _FILE.fullmatch(path) or hashlib.sha256(data).hexdigest() not in path:
        raise strict.Malformed("it was changed")
    try:
        text = zlib.decompressobj(wbits=31).decompress(data, _MOST)
    except zlib.error as exc:
        raise strict.Malformed(f"{exc}") from exc
    accounts = strict.decode(text, dict[AccountKey, SyncState])
    strict.check_accounts(accounts)
    return accounts


def is_name(path: str) -> bool:
    """Return whether a path is one of ours; nothing else that a commit names is read."""
    return bool(_FILE.fullmatch(path))


def list_expired(paths: Iterable[str], *, before: int, keep: str = "") -> list[str]:
    """Return the files of versions before this one, apart from `keep`."""
    found = [(path, match) for path in paths if (match := _FILE.fullmatch(path))]
    return [path for path, match in found if int(match[1]) < before and path != keep]
