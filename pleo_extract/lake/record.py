"""Record how the last run ended, in `_lake/last_run.json`: every run writes it, failed ones too."""

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
    """How a run ended.

    Attributes:
        run: its name.
        ended_at: when it ended (UTC).
        code: its exit code.
        error: its message; None if it succeeded.
        published: True if it made a new snapshot.
        last_complete_at: when a run last ended complete (UTC); None if none has.
        seconds_since_complete: from then to the end of this run.
        receipt: its receipt, as plain data.
        failed: of several accounts those that failed, each with its exit code and message.
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

    @property
    def shift_chance(self) -> float | None:
        """The chance that this run noticed a deletion that a backdated job hides; None if it was not complete.

        The receipt of a run that was refused or cut says 0, as if it had looked.
        """
        is_complete = self.last_complete_at == self.ended_at
        chance: float | None = self.receipt.get("shift_chance") if is_complete else None
        return chance


def write_last_run(
    layout: Layout,
    *,
    receipt: dict[str, Any],
    error: str | None,
    complete: bool,
    failed: dict[str, list[Any]],
) -> None:
    """Record how this run ended.

    Args:
        layout: the lake.
        receipt: its receipt, as plain data, with `run`, `code` and `published`.
        error: its message; None if it succeeded.
        complete: True if it read all that it had to.
        failed: as in `LastRun`.
    """
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
    """Return the record of the last run; None if it is missing or broken, since the next run writes a new one."""
    try:
        return _check(strict.decode(disk.read_file(layout.last_run), LastRun))
    except (LakeError, strict.Malformed):
        return None


def _check(record: LastRun) -> LastRun:
    """Return the record with its instants in UTC.

    Raises:
        strict.Malformed: a value that no run writes.
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
        ended_at=strict.check_instant(record.ended_at, "ended_at"),
        last_complete_at=strict.check_instant(last, "last_complete_at") if last else None,
    )
