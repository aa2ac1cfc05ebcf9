"""What a walk should have found: judges collected rows against the lives of the jobs.

A job listed throughout a walk must come out exactly once; one listed during a part of it may; each in a version
that it had during the walk. Rows may be the API's records or ours (snake_case, datetimes).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from pleo_extract.sandbox.life import NEVER, Job, instant

__all__ = ["CollectedRows", "Discrepancy", "find_discrepancies"]

TIMES = ("createdAt", "startedAt", "completedAt", "expiredAt", "lastUpdatedAt")
UUIDS = ("id", "companyId", "createdBy")
PLAIN = (
    "status",
    "expiresIn",
    "isInteractive",
    "numberOfItems",
    "vendorBasedBookkeeping",
    "failureReasonType",
    "failureReason",
)
COLUMNS = {
    name: re.sub("[A-Z]", lambda capital: "_" + capital[0].lower(), name) for name in (*UUIDS, *TIMES, *PLAIN)
}
OURS = itemgetter(*COLUMNS.values())
Row = tuple[Any, ...]
Rows = Iterable[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]]


class Discrepancy(NamedTuple):
    """One thing wrong: `missing`, `double`, `foreign` (never listed in the walk) or `version` (never so then)."""

    kind: str
    company: str
    id: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedRows:
    """What was walked: since when (UTC), which companies and statuses (None: all).

    `shape` is how the server spells a record; fields named in `ignore` are not compared.
    """

    since: datetime
    companies: frozenset[str] | None = None
    statuses: frozenset[str] | None = None
    shape: Callable[[dict[str, Any]], dict[str, Any]] = dict
    ignore: frozenset[str] = frozenset()


def find_discrepancies(
    jobs: Iterable[Job], rows: Rows, walk: CollectedRows, *, until: int
) -> list[Discrepancy]:
    """Everything wrong with the rows of a walk that ended at `until` (microseconds since 1970)."""
    found = [_plain(row, walk.ignore) for row in (rows.values() if isinstance(rows, Mapping) else rows)]
    lives = {
        (job.company, job.id): job for job in jobs if walk.companies is None or job.company in walk.companies
    }
    since = instant(walk.since)
    counts = Counter((row[1], row[0]) for row in found)
    wrong = [Discrepancy("double", *key, f"{n} times") for key, n in counts.items() if n > 1]
    for row in found:
        wrong += _judge(row, lives.get((row[1], row[0])), walk, (since, until))
    for key, job in lives.items():
        if key not in counts and all(_matches(job, t, walk) for t in _turns(job, since, until)):
            wrong.append(Discrepancy("missing", *key, f"created {job.at(until)['createdAt']}"))
    return wrong


def _judge(row: Row, job: Job | None, walk: CollectedRows, span: tuple[int, int]) -> Iterator[Discrepancy]:
    seen = [] if job is None else [job.at(t) for t in _turns(job, *span) if _matches(job, t, walk)]
    if not seen:
        yield Discrepancy("foreign", str(row[1]), str(row[0]), "not listed during the walk")
        return
    versions = [_plain(walk.shape(record), walk.ignore) for record in seen]
    if row not in versions:
        names = [name for name, *pair in zip(COLUMNS, row, versions[-1], strict=True) if pair[0] != pair[1]]
        yield Discrepancy("version", row[1], row[0], f"differs in {', '.join(names)} from the last version")


def _matches(job: Job, t: int, walk: CollectedRows) -> bool:
    return job.exists(t) and (walk.statuses is None or job.status(t) in walk.statuses)


def _turns(job: Job, since: int, until: int) -> list[int]:
    """The instants of a walk at which the job may be seen to be another; most jobs were over when it began."""
    if job.ended <= since and job.born <= since and job.gone == NEVER and not job.changes:
        return [since]
    return [since, *(t for t in job.moments() if since < t <= until)]


def _plain(record: Mapping[str, Any], ignore: frozenset[str]) -> Row:
    try:
        values = list(OURS(record))
    except KeyError:  # spelled as the API does, or without fields that it leaves out
        values = [record.get(name, record.get(column)) for name, column in COLUMNS.items()]
    for place, value in enumerate(values[: len(UUIDS)]):
        if isinstance(value, str):
            values[place] = value.lower()
    for place, value in enumerate(values[len(UUIDS) : len(UUIDS) + len(TIMES)], len(UUIDS)):
        values[place] = _seconds(value)
    if ignore:
        values = [None if name in ignore else value for name, value in zip(COLUMNS, values, strict=True)]
    return tuple(values)


def _seconds(value: Any) -> Any:
    """Whole seconds since 1970; the sandbox's lives turn on whole seconds, fractions are decoration."""
    if isinstance(value, str):
        return _seconds_of_text(value)
    return int(value.timestamp()) if isinstance(value, datetime) else value


@lru_cache(maxsize=1 << 16)
def _seconds_of_text(text: str) -> int | str:
    parts = re.fullmatch(r"(.{19})(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if parts is None:
        return text
    return int(datetime.fromisoformat(parts[1] + parts[2].replace("Z", "+00:00")).timestamp())
