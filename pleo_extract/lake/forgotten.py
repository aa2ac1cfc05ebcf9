"""What a lake has forgotten: jobs and people, known by salted hashes alone, in `_lake/forgotten.json`.

Nothing here names them: each id that is read is hashed with the lake's salt and looked up. So a job that was forgotten is
known when the server lists it again, is counted, and goes no further; and a run that was killed while it forgot is
finished by one that has never been told the ids.
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
from pleo_extract.errors import LakeError
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
    "forget_more",
    "read_forgotten",
    "require_forgotten",
    "spell_forgotten",
    "write_forgotten",
]

VERSION: Final = 1
_SALT: Final = re.compile(r"[0-9a-f]{64}")
_ID: Final = re.compile(r"(?i)[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")
"""With dashes or without, as other programs write them."""
_WORD: Final = "forgotten"
"""What stands in a text where an id stood."""
_TEXTS: Final = ("failure_reason", "failure_reason_type", "status", "extra")
"""Columns whose text may name anybody."""
_NAMES: Final = frozenset(each.name for each in FIELDS)


class _Record(msgspec.Struct, kw_only=True):
    """The file. `pending`: the lake may still hold what is to be forgotten."""

    format: int
    salt: str
    jobs: list[str]
    people: list[str]
    pending: bool = False


class _Named(msgspec.Struct, rename="camel"):
    id: Any = None
    created_by: Any = None


@dataclass(frozen=True, slots=True)
class Stripped:
    """Rows without what is forgotten: company and hash of each row that went, and how many stay and say less."""

    rows: pl.DataFrame
    lost: list[JobKey]
    blanked: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The jobs and people that a lake has forgotten, by their hashes; true where there are any.

    Attributes:
        salt: what the hashes are made with; as secret as the file. jobs, people: the hashes.
        pending: whether the lake may still hold some of them.
    """

    salt: str = ""
    jobs: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()
    pending: bool = False

    def __bool__(self) -> bool:
        return bool(self.jobs or self.people)

    def add(self, jobs: Iterable[str], people: Iterable[str]) -> Forgotten:
        """Return what is forgotten with these ids, which the lake may still hold."""
        start = Forgotten(self.salt or secrets.token_hex(32), self.jobs, self.people, pending=True)
        return Forgotten(
            start.salt,
            start.jobs | {start.hash_job(job) for job in jobs},
            start.people | {start.hash_person(person) for person in people},
            pending=True,
        )

    def number(self) -> int:
        """Return a number that stands for all of it: what was staged while the lake had forgotten other things has another."""
        names = "".join(sorted([*self.jobs, *self.people]))
        return int.from_bytes(hashlib.sha256(names.encode()).digest()[:6]) if self else 0

    def settle(self) -> Forgotten:
        """Return the same, of which the lake no longer holds anything."""
        return Forgotten(self.salt, self.jobs, self.people)

    def hash_job(self, name: str) -> str:
        """Return the hash of a job's id, whichever company it is of."""
        return self._hash("job", name)

    def hash_person(self, name: str) -> str:
        """Return the hash of the id of a person."""
        return self._hash("person", name)

    def has_job(self, name: str) -> bool:
        """Whether the job of this id is forgotten."""
        return bool(self.jobs) and self.hash_job(name) in self.jobs

    def has_person(self, name: str) -> bool:
        """Whether the person of this id is forgotten."""
        return bool(self.people) and self.hash_person(name) in self.people

    def strip_rows(self, rows: pl.DataFrame) -> Stripped:
        """Return these rows without those of forgotten jobs; what people did says neither who nor, in words, why it failed."""
        if not self or rows.is_empty():
            return Stripped(rows, [], 0)
        ids = [name for name in rows["id"].unique() if self.has_job(name)]
        is_gone = pl.col("id").is_in(ids)
        lost = [
            (c, self.hash_job(name)) for c, name in rows.filter(is_gone).select("company_id", "id").rows()
        ]
        left = rows.filter(~is_gone) if ids else rows
        named = left.select(
            name for name in ("created_by",) if name in left.columns
        )  # old files lack columns
        people = [name for each in named for name in each.drop_nulls().unique() if self.has_person(name)]
        stripped = _blank(left, left["created_by"].is_in(people).fill_null(value=False)) if people else left
        stripped = self._strip_texts(stripped)
        columns = [name for name in ("created_by", *_TEXTS) if name in left.columns]
        differs = pl.any_horizontal(left[name].ne_missing(stripped[name]).alias(name) for name in columns)
        return Stripped(stripped, lost, int(left.select(differs).to_series().sum()) if columns else 0)

    def strip_rejected(self, rejected: Sequence[Rejected]) -> tuple[list[Rejected], list[str]]:
        """Return these rows that do not fit without what is forgotten, and the hashes of the jobs whose rows went."""
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
        """Return a state that names nobody who is forgotten.

        Args:
            account: the state.
            lost: hashes of the jobs of its company whose rows the lake no longer has.
            blanked: whether rows of the lake were somebody's who is forgotten: then the state says of how many it knows.
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
            watermark=self._strip_end(account.watermark),
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
        """Return this place in the list without the job that stands there, if that is forgotten."""
        return (key[0], "") if self.has_job(key[1]) else key

    def strip_marks(self, marks: Mapping[int, Checkpoint]) -> dict[int, Checkpoint]:
        """Return these marks without forgotten jobs.

        Where a walk stands at one there is no mark, since a cursor may spell its id; nor of a segment that begins with one,
        since the segment before ends there. The first segment begins where the list does.
        """
        if not self.jobs:
            return dict(marks)
        return {
            number: msgspec.structs.replace(
                mark, first=self._strip_end(mark.first), newest=self._strip_end(mark.newest)
            )
            for number, mark in marks.items()
            if not self._is_at(mark.furthest) and not (number and self._is_at(mark.first))
        }

    def strip_text(self, text: str) -> str:
        """Return a text without the ids of what is forgotten."""
        return _ID.sub(lambda found: _WORD if self._is_known(found[0]) else found[0], text) if self else text

    def strip_json(self, value: Any) -> Any:
        """Return what JSON spells without what is forgotten; a pair that names a job, as `vanished` holds, goes as a whole."""
        if isinstance(value, str):
            return self.strip_text(value)
        if isinstance(value, dict):
            return {self.strip_text(str(name)): self.strip_json(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.strip_json(each) for each in value if not self._is_pair(each)]
        return value

    def _hash(self, kind: str, name: str) -> str:
        key, plain = bytes.fromhex(self.salt), name.lower().strip("{}")
        if _ID.fullmatch(plain):  # however it is written, it is the same
            digits = "".join(plain.split("-"))
            plain = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        return hashlib.blake2b(
            f"{kind} {plain}".encode(errors="replace"), key=key, digest_size=16
        ).hexdigest()

    def _is_known(self, name: str) -> bool:
        return self.has_job(name) or self.has_person(name)

    def _is_at(self, key: Key | None) -> bool:
        return key is not None and self.has_job(key[1])

    def _strip_end(self, key: Key | None) -> Key | None:
        return None if key is None else self.strip_key(key)

    def _is_named(self, name: str) -> bool:
        """Whether the name of a row, company and id, is a forgotten job's."""
        return self.has_job(name.rpartition("/")[2])

    def _is_pair(self, value: Any) -> bool:
        is_pair = isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], str)
        return is_pair and self.has_job(value[1])

    def _strip_texts(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows without ids that a text of theirs spells."""
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
        """The rows without ids that the JSON in `extra` spells by escapes."""
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
        """The JSON of a row without what is forgotten; one that nothing of is forgotten as it was sent."""
        try:
            said = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self.strip_text(raw.decode("utf-8", "replace")).encode() if self._is_in(raw) else raw
        less = self.strip_json(said)
        if is_theirs and isinstance(less, dict):
            less = {name: value for name, value in less.items() if name in _NAMES}
            less |= {name: None for name in ("createdBy", "failureReason") if name in less}
        return raw if less == said else msgspec.json.encode(less)

    def _is_in(self, raw: bytes) -> bool:
        text = raw.decode("utf-8", "replace")
        return self.strip_text(text) != text


NOTHING: Final = Forgotten()


def read_forgotten(layout: Layout) -> Forgotten:
    """Return what the lake has forgotten; nothing where it has no such file.

    Raises:
        LakeError: the file is broken. It is never passed over: forgotten jobs would come back. StorageError: it cannot be read.
    """
    path = layout.forgotten
    is_there = not layout.is_old and path.exists()
    return decode_forgotten(disk.read_file(path) if is_there else None, path, layout.root)


def decode_forgotten(data: bytes | None, where: str | Path, lake: str | Path) -> Forgotten:
    """Return what these bytes of a file spell; nothing where there is none.

    Raises:
        LakeError: they are no such file's.
    """
    if data is None:
        return NOTHING
    try:
        record = strict.decode(data, _Record)
        _check(record)
    except strict.Malformed as exc:
        raise LakeError(
            f"{where} is broken ({exc}); it keeps what was forgotten from coming back. Restore it from a copy, or remove it "
            f"and forget again: pleo-extract forget {lake} …"
        ) from exc
    return Forgotten(record.salt, frozenset(record.jobs), frozenset(record.people), record.pending)


def _check(record: _Record) -> None:
    """Refuse what no run has written.

    Raises:
        strict.Malformed: another format, or a salt or hash that is none.
    """
    if record.format != VERSION or not _SALT.fullmatch(record.salt):
        raise strict.Malformed(f"format {record.format}, or a salt that is none")
    if not all(map(strict.HASH.fullmatch, [*record.jobs, *record.people])):
        raise strict.Malformed("a hash that is none")


def spell_forgotten(forgotten: Forgotten) -> bytes:
    """Return the bytes of the file that says so."""
    record = _Record(
        format=VERSION,
        salt=forgotten.salt,
        jobs=sorted(forgotten.jobs),
        people=sorted(forgotten.people),
        pending=forgotten.pending,
    )
    return strict.encode(record)


def write_forgotten(layout: Layout, forgotten: Forgotten) -> None:
    """Write it durably, for its owner alone."""
    disk.replace_file(layout.forgotten, spell_forgotten(forgotten), private=True)


def require_forgotten(forgotten: Forgotten, accounts: Iterable[SyncState], lake: str | Path) -> Forgotten:
    """Return what a lake has forgotten, for a run that reads from the server.

    Raises:
        LakeError: jobs or people were forgotten that it does not name.
    """
    jobs, people = _count_missing(forgotten, accounts)
    if jobs or people:
        raise LakeError(
            f"forgotten.json of {lake} is missing or is not its own: it does not name all that was forgotten, which would "
            f"come back. Restore it from a copy of the lake, or forget all of it again at once, at least {jobs} job(s) and "
            f"{people} people: pleo-extract forget {lake} …"
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
    """Return what a lake has forgotten with these ids, which it may still hold.

    Where its memory was lost, all that it had forgotten must be named again: only then is the next run let in.

    Raises:
        LakeError: fewer are named than had been forgotten and are not known.
    """
    more = forgotten.add(jobs, people)
    if any(_count_missing(more, accounts)):
        lost_jobs, lost_people = _count_missing(forgotten, accounts)
        if len(jobs) < lost_jobs or len(people) < lost_people:
            require_forgotten(forgotten, accounts, lake)
    return more


def _count_missing(forgotten: Forgotten, accounts: Iterable[SyncState]) -> tuple[int, int]:
    """How many jobs and people were forgotten, as the states of accounts say, that are not known."""
    told = list(accounts)
    jobs = {name for account in told for name in account.forgotten} - forgotten.jobs
    people = max((account.forgotten_people for account in told), default=0)
    return len(jobs), max(0, people - len(forgotten.people))


def _blank(rows: pl.DataFrame, is_theirs: pl.Series) -> pl.DataFrame:
    """The rows, some of which no longer say who asked for the job, why it failed, and what the API has no field for.

    Their columns are built anew: a value that is only marked as null stays in memory, and goes into a file of Arrow.
    """
    marks = is_theirs.to_list()
    return rows.with_columns(
        pl.Series(
            name, [None if mark else text for text, mark in zip(rows[name], marks, strict=True)], pl.String
        )
        for name in ("created_by", "failure_reason", "extra")
        if name in rows.columns
    )


def _read_names(raw: bytes) -> tuple[str, str]:
    """The id of a row and of who asked for it, as far as they can be read."""
    try:
        row = msgspec.json.decode(raw, type=_Named)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    return str(row.id), str(row.created_by)
