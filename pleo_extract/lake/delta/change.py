"""The parts of a change to a Delta table: the files of a month, and the state that goes into the commit."""

from __future__ import annotations

import io
import logging
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import polars as pl

from pleo_extract.contract import KEY
from pleo_extract.errors import LakeConflict, LakeLocked, PleoExtractError
from pleo_extract.lake import disk
from pleo_extract.lake.delta.copies import check_sum, keep_copy, path_of
from pleo_extract.lake.delta.log import CommitState
from pleo_extract.lake.delta.version import Version, hash_paths
from pleo_extract.lake.folder.objects import encode_rows
from pleo_extract.lake.layout import FORMAT, FileEntry
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pleo_extract.lake.delta.address import Address
    from pleo_extract.lake.table import Change, Info

__all__ = ["VACUUM_EVERY", "VersionFiles", "encode_file", "make_state", "retry_conflicts"]

T = TypeVar("T")

VACUUM_EVERY: Final = timedelta(days=1)
"""How often files that no kept version needs are removed."""

TRIES: Final = 5
"""How often a repair or an erasure starts again because another writer committed first."""

FILE_ROWS: Final = 100_000
"""Most rows of a file, which makes some megabytes. A month that grows at its end keeps its earlier files."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """Reads files of a version and writes files for the next one; implements `lake.table.Files`."""

    version: Version
    scratch: Path

    def read(self, entry: FileEntry) -> bytes:
        """See `Files`."""
        data = disk.read_file(path_of(self.version, entry))
        check_sum(entry, data, self.version.address.uri)
        return data

    def write(
        self, month: str, pieces: Iterator[pl.DataFrame], there: Sequence[FileEntry]
    ) -> list[FileEntry]:
        """See `Files`."""
        known = {entry.sha256: entry for entry in there if entry.sha256}
        added = self._read_added(there)
        files = []
        for part in _slice_files(pieces):
            if added.width > len(KEY):
                part = part.join(added, on=KEY, how="left", maintain_order="left")  # noqa: PLW2901 - the same rows
            entry, data = encode_file(month, part)
            if entry.sha256 in known:
                entry = known.pop(entry.sha256)
            else:
                self.version.write(entry.path, data)
                keep_copy(self.version, entry, data)
            files.append(entry)
        return files

    def _read_added(self, there: Sequence[FileEntry]) -> pl.DataFrame:
        """Return the values of the columns that other engines have added, by job; our runs keep them."""
        added = self.version.added_columns
        files = [pl.read_parquet(io.BytesIO(self.read(entry))) for entry in there] if added else []
        values = [file.select(*KEY, *(name for name in added if name in file.columns)) for file in files]
        nothing = pl.DataFrame(schema=dict.fromkeys(KEY, pl.String()))
        return pl.concat([nothing, *values], how="diagonal").unique(KEY, keep="last")

    def discard(self, change: Change) -> None:
        """See `Files`. Files that cannot be removed now are removed by the next vacuum."""
        with suppress(PleoExtractError):
            self.version.remove([entry.path for entry in change.new])

    @contextmanager
    def discarded_on_failure(self, change: Change) -> Iterator[None]:
        """Discard a change where this block fails."""
        try:
            yield
        except PleoExtractError:
            self.discard(change)
            raise

    def commit(self, change: Change, info: Info) -> None:
        """Commit a change that is not part of a run, with a random token of its own.

        Raises:
            LakeConflict, LakeError, ConfigurationError, TryLater: see `Version.commit`.
        """
        state = make_state(self.version, secrets.token_hex(16), change, info)
        self.version.commit(change.new, change.old, state)


def retry_conflicts(address: Address, attempt: Callable[[Version], T]) -> T:
    """Call `attempt` with the latest version until no other writer commits first; return its result.

    Raises:
        LakeLocked: other writers committed first every time.
        ConfigurationError: the table has a constraint.
    """
    for _ in range(TRIES):
        version = Version(address)
        version.require_writable()
        try:
            return attempt(version)
        except LakeConflict as exc:
            _log.info("%s; starting again from the latest version", exc)
    raise LakeLocked(
        f"other writers committed to {address.uri} first, {TRIES} times running; run again later"
    )


def make_state(version: Version, run: str, change: Change, info: Info) -> CommitState:
    """Return the state that a run writes into its commit.

    Args:
        version: the version that is committed on top of.
        run: the random token of the run.
        change: the files that the commit adds and removes.
        info: the run's receipt, and the sync state of its accounts.
    """
    now, before = datetime.now(UTC), version.state
    last = before.vacuumed_at if before else now
    months: dict[str, list[FileEntry]] = {}
    for entry in change.files:
        months.setdefault(entry.month, []).append(entry)
    proven = {month: hash_paths(months[month]) for month in change.searched}
    known = change.base.manifest.accounts if change.base.manifest else {}
    return CommitState(
        format=FORMAT,
        run=run,
        server=version.manifest.server,
        library=__version__,
        vacuumed_at=now if now - last >= VACUUM_EVERY else last,
        receipt=dict(info.receipt),
        accounts={**known, **info.accounts},
        proven=_keep_proven({**(before.proven if before else {}), **proven}, months),
    )


def _keep_proven(proven: Mapping[str, str], months: Mapping[str, list[FileEntry]]) -> dict[str, str]:
    """Return the proofs that still hold: for months with files of other programs that have not changed since."""
    return {
        month: proven[month]
        for month, held in months.items()
        if proven.get(month) == hash_paths(held) and not all(entry.sha256 for entry in held)
    }


def _slice_files(pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the same rows, as many as fit in a file at a time, whatever the size of the pieces."""
    held: list[pl.DataFrame] = []
    rows = 0
    for piece in pieces:
        held.append(piece)
        rows += piece.height
        if rows >= FILE_ROWS:
            *full, rest = pl.concat(held, rechunk=False).iter_slices(FILE_ROWS)
            yield from full
            held, rows = [rest], rest.height
    if rows:
        yield pl.concat(held, rechunk=False)


def encode_file(month: str, rows: pl.DataFrame) -> tuple[FileEntry, bytes]:
    """Return the entry and the bytes of a file; its name has the sha256 and a random part, so that no name is used twice."""
    data, sha256 = encode_rows(rows)
    path = f"created_month={month}/part-{sha256}-{secrets.token_hex(4)}.parquet"
    return FileEntry(
        path=path, rows=rows.height, bytes=len(data), sha256=sha256, stats=_describe_rows(rows)
    ), data


def _describe_rows(rows: pl.DataFrame) -> str:
    """Return Delta's statistics of a file as JSON, by which other engines skip files without the rows that they ask for.

    Instants have milliseconds there: the earliest is rounded down and the latest up, so that no row is outside.
    """
    created = pl.col("created_at")
    bounds = {
        "minValues": (pl.col("company_id", "status").min(), created.min()),
        "maxValues": (pl.col("company_id", "status").max(), created.max() + pl.duration(microseconds=999)),
    }
    stats: dict[str, object] = {"numRecords": rows.height}
    for name, (texts, instant) in bounds.items():
        found = rows.select(texts, instant.dt.truncate("1ms").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
        stats[name] = {
            column: value for column, value in found.row(0, named=True).items() if value is not None
        }
    stats["nullCount"] = rows.select(pl.col("company_id", "status", "created_at").null_count()).row(
        0, named=True
    )
    return msgspec.json.encode(stats).decode()
