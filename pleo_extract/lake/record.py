"""How the last run ended, in `_lake/last_run.json`: written by every run, failed ones too."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from pleo_extract.errors import LakeError
from pleo_extract.lake import disk, strict

if TYPE_CHECKING:
    from pleo_extract.lake.layout import Layout

__all__ = ["LastRun", "read_last_run", "write_last_run"]


class LastRun(msgspec.Struct, kw_only=True):
    """One run's end.

    `code` is the exit code, `error` its message or null, `published` whether a new snapshot came of it,
    `last_complete_at` when a run last ended complete (UTC), `seconds_since_complete` how long that was before the end.
    `failed` names the accounts that failed, each with its code and message, where there is more than one.
    """

    run: str
    ended_at: datetime
    code: int
    error: str | None
    published: bool
    last_complete_at: datetime | None
    seconds_since_complete: float | None
    receipt: dict[str, Any]
    failed: dict[str, list[Any]] = {}


def write_last_run(
    layout: Layout,
    *,
    receipt: dict[str, Any],
    error: str | None,
    complete: bool,
    failed: dict[str, list[Any]],
) -> None:
    """Record how this run ended; `receipt` holds its run, code and whether it published."""
    now = datetime.now(UTC)
    before = read_last_run(layout)
    last = now if complete else before.last_complete_at if before else None
    record = LastRun(
        run=receipt["run"],
        ended_at=now,
        code=receipt["code"],
        error=error,
        published=receipt["published"],
        last_complete_at=last,
        seconds_since_complete=(now - last).total_seconds() if last else None,
        receipt=receipt,
        failed=failed,
    )
    disk.make_folder(layout.last_run.parent)
    disk.replace_file(layout.last_run, strict.encode(record))


def read_last_run(layout: Layout) -> LastRun | None:
    """The last run's record; None where there was none, or where it is broken: the next run writes another."""
    try:
        record = strict.decode(disk.read_file(layout.last_run), LastRun)
        return _checked(record)
    except (LakeError, strict.Malformed):
        return None


def _checked(record: LastRun) -> LastRun:
    """The record, its instants in UTC.

    Raises:
        strict.Malformed: it is none that a run wrote.
    """
    strict.check_name(record.run, "the run")
    strict.check_count(record.code, "code")
    strict.check_receipt(record.receipt)
    for name, end in record.failed.items():
        strict.check_name(name, "an account")
        if [type(each) for each in end] not in ([int, str], [int, type(None)]):
            raise strict.Malformed("an account that failed has a code and an error")
    last = record.last_complete_at
    return msgspec.structs.replace(
        record,
        ended_at=strict.read_instant(record.ended_at, "ended_at"),
        last_complete_at=strict.read_instant(last, "last_complete_at") if last else None,
    )
