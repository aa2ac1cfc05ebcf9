"""The oracle: compares the rows that a walk collected with the jobs as they were at that time.

A job that was listed during the whole walk must appear exactly once. A job that was listed during a part of it may
appear. Every row must be a version that its job had during the walk. Rows may be records of the API or rows of
this library (snake_case, datetimes).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from pleo_extract.sandbox.life import NEVER, Job, to_micros

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
_BY_COLUMN = itemgetter(*COLUMNS.values())
Row = tuple[Any, ...]
Rows = Iterable[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]]


class Discrepancy(NamedTuple):
    """One thing that is wrong with the collected rows.

    Attributes:
        kind: `missing`, `double`, `foreign` (not listed during the walk) or `version` (a version that the job did
            not have during the walk).
        company: the company's id.
        id: the job's id.
        detail: what is wrong, in words.
    """

    kind: str
    company: str
    id: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedRows:
    """The scope of a walk whose rows are checked.

    Attributes:
        since: when the walk began, UTC.
        companies: the companies that it asked for; None for all.
        statuses: the statuses that it asked for; None for all.
        shape: formats a record as the server does.
        ignore: the names of fields that are not compared.
    """

    since: datetime
    companies: frozenset[str] | None = None
    statuses: frozenset[str] | None = None
    shape: Callable[[dict[str, Any]], dict[str, Any]] = dict
    ignore: frozenset[str] = frozenset()


def find_discrepancies(
    jobs: Iterable[Job], rows: Rows, walk: CollectedRows, *, until: int
) -> list[Discrepancy]:
    """Return all discrepancies in the rows of a walk that ended at `until` (microseconds since 1970)."""
    normalized = [
        _normalize(row, walk.ignore) for row in (rows.values() if isinstance(rows, Mapping) else rows)
    ]
    jobs_by_key = {
        (job.company, job.id): job for job in jobs if walk.companies is None or job.company in walk.companies
    }
    since = to_micros(walk.since)
    counts = Counter((row[1], row[0]) for row in normalized)
    wrong = [Discrepancy("double", *key, f"{n} times") for key, n in counts.items() if n > 1]
    for row in normalized:
        wrong += _check_row(row, jobs_by_key.get((row[1], row[0])), walk, (since, until))
    for key, job in jobs_by_key.items():
        if key not in counts and all(_matches(job, t, walk) for t in _versions_at(job, since, until)):
            wrong.append(Discrepancy("missing", *key, f"created {job.record(until)['createdAt']}"))
    return wrong


def _check_row(
    row: Row, job: Job | None, walk: CollectedRows, span: tuple[int, int]
) -> Iterator[Discrepancy]:
    seen = [] if job is None else [job.record(t) for t in _versions_at(job, *span) if _matches(job, t, walk)]
    if not seen:
        yield Discrepancy("foreign", str(row[1]), str(row[0]), "not listed during the walk")
        return
    versions = [_normalize(walk.shape(record), walk.ignore) for record in seen]
    if row not in versions:
        names = [name for name, *pair in zip(COLUMNS, row, versions[-1], strict=True) if pair[0] != pair[1]]
        yield Discrepancy("version", row[1], row[0], f"differs in {', '.join(names)} from the last version")


def _matches(job: Job, t: int, walk: CollectedRows) -> bool:
    return job.is_listed(t) and (walk.statuses is None or job.status(t) in walk.statuses)


def _versions_at(job: Job, since: int, until: int) -> list[int]:
    """Return the start of the walk and the instants during it at which the job changed."""
    # Most jobs had ended before the walk. Without this line the oracle needs twice the CPU time.
    if job.ended <= since and job.listed_from <= since and job.deleted_at == NEVER and not job.changes:
        return [since]
    return [since, *(t for t in job.change_times() if since < t <= until)]


def _normalize(record: Mapping[str, Any], ignore: frozenset[str]) -> Row:
    try:
        values = list(_BY_COLUMN(record))
    except KeyError:  # a record of the API, or a row without the fields that the API leaves out
        values = [record.get(name, record.get(column)) for name, column in COLUMNS.items()]
    for place, value in enumerate(values[: len(UUIDS)]):
        if isinstance(value, str):
            values[place] = value.lower()
    for place, value in enumerate(values[len(UUIDS) : len(UUIDS) + len(TIMES)], len(UUIDS)):
        values[place] = _to_seconds(value)
    if ignore:
        values = [None if name in ignore else value for name, value in zip(COLUMNS, values, strict=True)]
    return tuple(values)


def _to_seconds(value: Any) -> Any:
    """Return whole seconds since 1970. Jobs change on whole seconds; `Rules.fraction` only decorates them."""
    if isinstance(value, str):
        return _parse_seconds(value)
    return int(value.timestamp()) if isinstance(value, datetime) else value


@lru_cache(maxsize=1 << 16)
def _parse_seconds(text: str) -> int | str:
    parts = re.fullmatch(r"(.{19})(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if parts is None:
        return text
    return int(datetime.fromisoformat(parts[1] + parts[2].replace("Z", "+00:00")).timestamp())
