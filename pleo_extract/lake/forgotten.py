"""Know what a lake has forgotten: jobs and people, as salted hashes in `_lake/forgotten.json`.

No id is stored. Every id that is read is hashed with the lake's salt and looked up. So a forgotten job is recognized when
the server lists it again: it is counted and goes no further. And a run that was killed while it forgot can be finished by
any other run, which does not know the ids.

The file is what keeps forgotten jobs from coming back. So it is never ignored if it is broken, and the sync state of each
account says how much was forgotten (`forgotten`, `forgotten_people`), so that a lost file is noticed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from pleo_extract.contract import FIELDS
from pleo_extract.core.decode import Rejected
from pleo_extract.core.state import RereadCounts
from pleo_extract.errors import LakeError, amount
from pleo_extract.lake import disk, strict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from pleo_extract.contract import Key
    from pleo_extract.core.state import JobKey, SyncState
    from pleo_extract.core.walk import Checkpoint
    from pleo_extract.lake.layout import Layout

__all__ = [
    "NOTHING",
    "Forgotten",
    "Stripped",
    "decode_forgotten",
    "encode_forgotten",
    "forget_more",
    "read_forgotten",
    "require_forgotten",
    "write_forgotten",
]

VERSION: Final = 1
_SALT: Final = re.compile(r"[0-9a-f]{64}")
_ID: Final = re.compile(r"(?i)[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")
"""A UUID with or without dashes, since other programs write both."""
_WORD: Final = "forgotten"
"""The word that replaces an id in a text."""
_TEXTS: Final = ("failure_reason", "failure_reason_type", "status", "extra")
"""Columns whose text can contain any id."""
_NAMES: Final = frozenset(each.name for each in FIELDS)


class _Record(msgspec.Struct, kw_only=True):
    """The file; see `Forgotten`."""

    format: int
    salt: str
    jobs: list[str]
    people: list[str]
    pending: bool = False


class _Named(msgspec.Struct, rename="camel"):
    id: Any = None
    created_by: Any = None


_NAMED: Final = msgspec.json.Decoder(_Named)
"""Built here, before there are threads: see `strict`."""


@dataclass(frozen=True, slots=True)
class Stripped:
    """Rows without what is forgotten.

    Attributes:
        rows: the rows that stay.
        lost: company and hashed id of each row that was removed.
        blanked: how many of the rows that stay have lost a value.
    """

    rows: pl.DataFrame
    lost: list[JobKey]
    blanked: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The jobs and people that a lake has forgotten; true if there are any.

    Attributes:
        salt: the key of the hashes, in hex; whoever has it can test ids, so the file is private.
        jobs: the hashes of jobs.
        people: the hashes of people.
        pending: True if the lake can still hold some of them, because the run that forgets has not finished.
    """

    salt: str = ""
    jobs: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()
    pending: bool = False

    def __bool__(self) -> bool:
        return bool(self.jobs or self.people)

    def add(self, jobs: Iterable[str], people: Iterable[str]) -> Forgotten:
        """Return what is forgotten together with these ids; it is pending."""
        start = Forgotten(self.salt or secrets.token_hex(32), self.jobs, self.people, pending=True)
        return Forgotten(
            start.salt,
            start.jobs | {start.hash_job(job) for job in jobs},
            start.people | {start.hash_person(person) for person in people},
            pending=True,
        )

    def number(self) -> int:
        """Return a number for all of it, by which a run knows pages that were staged before more was forgotten."""
        names = "".join(sorted([*self.jobs, *self.people]))
        return int.from_bytes(hashlib.sha256(names.encode()).digest()[:6]) if self else 0

    def settle(self) -> Forgotten:
        """Return the same, no longer pending."""
        return Forgotten(self.salt, self.jobs, self.people)

    def hash_job(self, name: str) -> str:
        """Return the hash of the id of a job, of any company."""
        return self._hash("job", name)

    def hash_person(self, name: str) -> str:
        """Return the hash of the id of a person."""
        return self._hash("person", name)

    def has_job(self, name: str) -> bool:
        """Return whether the job of this id is forgotten."""
        return bool(self.jobs) and self.hash_job(name) in self.jobs

    def has_person(self, name: str) -> bool:
        """Return whether the person of this id is forgotten."""
        return bool(self.people) and self.hash_person(name) in self.people

    def strip_rows(self, rows: pl.DataFrame) -> Stripped:
        """Return these rows without forgotten jobs, and without the values that identify forgotten people.

        The rows of jobs that such a person asked for stay, with null in `created_by`, `failure_reason` and `extra`.
        """
        if not self or rows.is_empty():
            return Stripped(rows, [], 0)
        ids = [name for name in rows["id"].unique() if self.has_job(name)]
        is_gone = pl.col("id").is_in(ids)
        lost = [
            (c, self.hash_job(name)) for c, name in rows.filter(is_gone).select("company_id", "id").rows()
        ]
        left = rows.filter(~is_gone) if ids else rows
        # Files of an older format lack columns.
        asked_by = left["created_by"] if "created_by" in left.columns else pl.Series(dtype=pl.String)
        people = [name for name in asked_by.drop_nulls().unique() if self.has_person(name)]
        stripped = _blank(left, asked_by.is_in(people).fill_null(value=False)) if people else left
        stripped = self._strip_texts(stripped)
        columns = [name for name in ("created_by", *_TEXTS) if name in left.columns]
        differs = pl.any_horizontal(left[name].ne_missing(stripped[name]).alias(name) for name in columns)
        return Stripped(stripped, lost, int(left.select(differs).to_series().sum()) if columns else 0)

    def strip_rejected(self, rejected: Sequence[Rejected]) -> tuple[list[Rejected], list[str]]:
        """Return these rejected rows without what is forgotten, and the hashes of the jobs whose rows were removed."""
        if not self:
            return list(rejected), []
        kept: list[Rejected] = []
        lost: list[str] = []
        for row in rejected:
            name, person = _read_names(row.raw)
            if self.has_job(name):
                lost.append(self.hash_job(name))
            else:
                raw = self._strip_raw(row.raw, is_theirs=self.has_person(person))
                kept.append(Rejected(row.page, row.path, self.strip_text(row.reason), raw))
        return kept, lost

    def strip_account(
        self, account: SyncState, lost: Iterable[str] = (), *, blanked: bool = False
    ) -> SyncState:
        """Return a sync state without the ids of what is forgotten.

        Args:
            account: the state.
            lost: hashes of the jobs of its company whose rows were removed from the lake.
            blanked: True if rows of the lake have lost a value: then the state records how many people are forgotten.
        """
        if not self:
            return account
        vanished = {self.hash_job(job[1]) for job in account.vanished}
        rejected = {name: self.hash_job(name.rpartition("/")[2]) for name in account.rejected}
        was_rejected = self.jobs.intersection(rejected.values())
        unknown = {
            status: RereadCounts(
                [self.strip_key(line) for line in readings.lines],
                {name: n for name, n in readings.rows.items() if not self._is_named(name)},
            )
            for status, readings in account.unknown.items()
        }
        return msgspec.structs.replace(
            account,
            watermark=self._strip_optional(account.watermark),
            vanished=[job for job in account.vanished if not self.has_job(job[1])],
            rejected=[name for name in account.rejected if rejected[name] not in self.jobs],
            spoiled={name: row for name, row in account.spoiled.items() if not self._is_named(name)},
            unknown=unknown,
            forgotten=sorted(
                {*self.jobs.intersection(account.forgotten), *(set(lost) - vanished), *was_rejected}
            ),
            forgotten_people=len(self.people) if blanked else account.forgotten_people,
        )

    def strip_key(self, key: Key) -> Key:
        """Return the key of a job without its id, if the job is forgotten."""
        return (key[0], "") if self.has_job(key[1]) else key

    def strip_checkpoints(self, checkpoints: Mapping[int, Checkpoint]) -> dict[int, Checkpoint]:
        """Return these checkpoints without the ids of forgotten jobs.

        A checkpoint at a forgotten job is dropped, since its cursor can spell the id. So is that of a segment that begins
        with one, since the segment before it ends there; the first segment begins with the list.
        """
        if not self.jobs:
            return dict(checkpoints)
        return {
            number: msgspec.structs.replace(
                point, first=self._strip_optional(point.first), newest=self._strip_optional(point.newest)
            )
            for number, point in checkpoints.items()
            if not self._is_at(point.furthest) and not (number and self._is_at(point.first))
        }

    def strip_text(self, text: str) -> str:
        """Return a text without the ids of what is forgotten."""
        return _ID.sub(lambda found: _WORD if self._is_known(found[0]) else found[0], text) if self else text

    def strip_json(self, value: Any) -> Any:
        """Return a JSON value without the ids of what is forgotten; a pair (company, job), as in `vanished`, is removed."""
        if isinstance(value, str):
            return self.strip_text(value)
        if isinstance(value, dict):
            return {self.strip_text(str(name)): self.strip_json(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.strip_json(each) for each in value if not self._is_pair(each)]
        return value

    def _hash(self, kind: str, name: str) -> str:
        key, plain = bytes.fromhex(self.salt), name.lower().strip("{}")
        if _ID.fullmatch(plain):  # dashes, braces and case do not count
            digits = "".join(plain.split("-"))
            plain = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        return hashlib.blake2b(
            f"{kind} {plain}".encode(errors="replace"), key=key, digest_size=16
        ).hexdigest()

    def _is_known(self, name: str) -> bool:
        return self.has_job(name) or self.has_person(name)

    def _is_at(self, key: Key | None) -> bool:
        return key is not None and self.has_job(key[1])

    def _strip_optional(self, key: Key | None) -> Key | None:
        return None if key is None else self.strip_key(key)

    def _is_named(self, name: str) -> bool:
        """Return whether this is the name of a row of a forgotten job: company/id."""
        return self.has_job(name.rpartition("/")[2])

    def _is_pair(self, value: Any) -> bool:
        is_pair = isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], str)
        return is_pair and self.has_job(value[1])

    def _strip_texts(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Replace the ids of what is forgotten in the texts of these rows."""
        for column in _TEXTS:
            if column not in rows.columns or rows[column].null_count() == rows.height:
                continue
            if column == "extra":
                rows = self._strip_escaped(rows)
            named = rows[column].drop_nulls().str.extract_all(_ID.pattern).explode().drop_nulls().unique()
            if known := [name for name in named if self._is_known(name)]:
                rows = rows.with_columns(pl.col(column).str.replace_many(known, [_WORD] * len(known)))
        return rows

    def _strip_escaped(self, rows: pl.DataFrame) -> pl.DataFrame:
        r"""Replace ids that the JSON in `extra` spells by escapes such as ``\u0061``."""
        escaped = rows["extra"].drop_nulls().unique()
        texts = list(escaped.filter(escaped.str.contains(r"\\u", literal=False)))
        changed = {
            text: less
            for text in texts
            if (less := self._strip_raw(text.encode(), is_theirs=False).decode()) != text
        }
        if not changed:
            return rows
        return rows.with_columns(pl.col("extra").replace_strict(changed, default=pl.col("extra")))

    def _strip_raw(self, raw: bytes, *, is_theirs: bool) -> bytes:
        """Return the JSON of a row without what is forgotten; the very bytes if nothing of it is."""
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text = raw.decode("utf-8", "replace")
            stripped = self.strip_text(text)
            return raw if stripped == text else stripped.encode()
        less = self.strip_json(value)
        if is_theirs and isinstance(less, dict):
            less = {name: each for name, each in less.items() if name in _NAMES}
            less |= {name: None for name in ("createdBy", "failureReason") if name in less}
        return raw if less == value else msgspec.json.encode(less)


NOTHING: Final = Forgotten()


def read_forgotten(layout: Layout) -> Forgotten:
    """Return what the lake has forgotten; nothing if it has no such file.

    Raises:
        LakeError: the file is broken. It is never ignored, since forgotten jobs would come back.
        StorageError: it cannot be read.
    """
    path = layout.forgotten
    is_there = not layout.is_old and path.exists()
    return decode_forgotten(disk.read_file(path) if is_there else None, path, layout.root)


def decode_forgotten(data: bytes | None, where: str | Path, lake: str | Path) -> Forgotten:
    """Decode what a lake has forgotten; nothing for a file that does not exist.

    Args:
        data: the bytes of the file; None if it does not exist.
        where: its path, for the message.
        lake: the lake, for the message.

    Raises:
        LakeError: the file is broken.
    """
    if data is None:
        return NOTHING
    try:
        record = strict.decode(data, _Record)
        _check(record)
    except strict.Malformed as exc:
        raise LakeError(
            f"{where} is broken ({exc}), and without it forgotten jobs would come back. Restore it from a copy, or "
            f"remove it and forget again: pleo-extract forget {lake} …"
        ) from exc
    return Forgotten(record.salt, frozenset(record.jobs), frozenset(record.people), record.pending)


def _check(record: _Record) -> None:
    """Refuse a file that no run writes.

    Raises:
        strict.Malformed: another format, or an invalid salt or hash.
    """
    if record.format != VERSION or not _SALT.fullmatch(record.salt):
        raise strict.Malformed(f"format {record.format}, or an invalid salt")
    if not all(map(strict.HASH.fullmatch, [*record.jobs, *record.people])):
        raise strict.Malformed("an invalid hash")


def encode_forgotten(forgotten: Forgotten) -> bytes:
    """Encode what a lake has forgotten."""
    record = _Record(
        format=VERSION,
        salt=forgotten.salt,
        jobs=sorted(forgotten.jobs),
        people=sorted(forgotten.people),
        pending=forgotten.pending,
    )
    return strict.encode(record)


def write_forgotten(layout: Layout, forgotten: Forgotten) -> None:
    """Write what the lake has forgotten, durably; only the owner can read the file."""
    disk.replace_file(layout.forgotten, encode_forgotten(forgotten), private=True)


def require_forgotten(forgotten: Forgotten, accounts: Iterable[SyncState], lake: str | Path) -> Forgotten:
    """Return what a lake has forgotten, for a run that reads from the server.

    Raises:
        LakeError: it lacks jobs or people that were forgotten, as the sync states of the accounts say.
    """
    jobs, people = _count_missing(forgotten, accounts)
    if jobs or people:
        raise LakeError(
            f"forgotten.json of {lake} is missing or belongs to another lake: it does not name all that was forgotten, and "
            f"the rest would come back. Restore it from a copy of the lake, or forget all of it again in one command, at "
            f"least {amount(jobs, 'job')} and {amount(people, 'person', 'people')}: pleo-extract forget {lake} …"
        )
    return forgotten


def forget_more(
    forgotten: Forgotten,
    accounts: Collection[SyncState],
    lake: str | Path,
    *,
    jobs: Collection[str],
    people: Collection[str],
) -> Forgotten:
    """Return what a lake has forgotten together with these ids.

    If `forgotten.json` was lost, everything that was forgotten must be named again, in one call: a part of it would let the
    next run in, and the rest would come back.

    Raises:
        LakeError: fewer ids are given than are missing.
    """
    more = forgotten.add(jobs, people)
    if any(_count_missing(more, accounts)):
        lost_jobs, lost_people = _count_missing(forgotten, accounts)
        if len(jobs) < lost_jobs or len(people) < lost_people:
            require_forgotten(forgotten, accounts, lake)
    return more


def _count_missing(forgotten: Forgotten, accounts: Iterable[SyncState]) -> tuple[int, int]:
    """Return how many jobs and people were forgotten, as the sync states say, and are not known."""
    states = list(accounts)
    jobs = {name for state in states for name in state.forgotten} - forgotten.jobs
    people = max((state.forgotten_people for state in states), default=0)
    return len(jobs), max(0, people - len(forgotten.people))


def _blank(rows: pl.DataFrame, is_theirs: pl.Series) -> pl.DataFrame:
    """Return the rows with null in `created_by`, `failure_reason` and `extra` of some.

    The columns are made from lists: a value that is only marked as null stays in the buffers, and is written to Arrow files.
    """
    blank = is_theirs.to_list()
    return rows.with_columns(
        pl.Series(
            name, [None if hide else text for text, hide in zip(rows[name], blank, strict=True)], pl.String
        )
        for name in ("created_by", "failure_reason", "extra")
        if name in rows.columns
    )


def _read_names(raw: bytes) -> tuple[str, str]:
    """Return the id of a row and the id of who asked for it; empty texts if they cannot be read."""
    try:
        row = _NAMED.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    return str(row.id), str(row.created_by)
