"""One dump: the list read into staging, merged into the lake, published; and the account of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pleo_extract.contract import KEY
from pleo_extract.errors import (
    ConfigurationError,
    DataError,
    IncompleteWalk,
    PleoExtractError,
    RejectedRows,
)
from pleo_extract.extract.load import open_client
from pleo_extract.extract.reading import narrow, read_batches
from pleo_extract.extract.receipt import Receipt
from pleo_extract.lake import (
    Layout,
    Staging,
    commit,
    hold_lock,
    name_run,
    prune,
    publish,
    sweep,
    write_last_run,
)
from pleo_extract.paging import BY_CREATION, Verdict, Walk, judge
from pleo_extract.progress import show_progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pleo_extract.client import Client, Run
    from pleo_extract.lake import Manifest

__all__ = ["dump_export_jobs"]

MANY_REJECTED: Final = 100
"""Above this many rejected rows, and above 1 % of all rows, nothing is published."""


def dump_export_jobs(
    lake: str | Path,
    *,
    company_id: str | None = None,
    client: Client | None = None,
    deadline: float | None = None,
    progress: bool | None = None,
) -> Receipt:
    """Bring the lake up to date: every job once, published whole or not at all.

    Args:
        lake: the lake's folder; made where there is none. A lake belongs to one server.
        company_id: one company's jobs; by default the client's company, or all that the credential may see.
        client: server and credential; by default from the environment (PLEO_API_KEY and others, see Client).
        deadline: seconds the run may take; by default as long as its budget of retries lasts.
        progress: show a progress bar; by default on a terminal and in a notebook.

    Returns:
        The receipt: what was read, what that proves, what was published.

    Raises:
        RejectedRows: rows that do not fit the contract were set aside under ``_rejected/``; the rest is published.
        IncompleteWalk: fewer jobs than the server says there are; what there is is published as incomplete.
        LakeLocked, LakeError, StorageError, CredentialsError, ContractError, TryLater, ConfigurationError: nothing is
        published. Each error carries the `receipt` and its exit `code`; ``_meta/last_run.json`` says the same.
    """
    started = time.monotonic()
    layout = Layout(lake)
    with (
        open_client(client) as source,
        hold_lock(layout),
        show_progress(f"dump to {lake}", show=progress) as update,
    ):
        dump = _Dump(layout, source, company_id, deadline)
        dump.receipt.lake = str(lake)
        complaint: PleoExtractError | None = None
        try:
            complaint = dump.make(lambda walk, run: update(walk.rows, walk.last_total, run.waited))
        except PleoExtractError as exc:
            complaint = exc
        receipt = dump.close(started, complaint)
        if complaint is not None:
            complaint.receipt = receipt.to_dict()
            raise complaint
        return receipt


class _Dump:
    """A dump under way."""

    def __init__(
        self, layout: Layout, client: Client, company_id: str | None, deadline: float | None
    ) -> None:
        self.layout = layout
        self.server = str(client.server).rstrip("/")
        self.query = narrow(
            BY_CREATION, company_id=narrow(BY_CREATION, company_id=company_id).company_id or client.company_id
        )
        self.run = client.start_run(deadline=deadline)
        self.receipt = Receipt(
            run=name_run(),
            account=f"{self.server} {self.query.company_id or '*'}",
        )

    def make(self, on_page: Callable[[Walk, Run], None]) -> PleoExtractError | None:
        """Read and publish; returns what the run has to complain of although it published."""
        base = self._open_lake()
        staging = Staging.start(self.layout.staging, self.receipt.run)
        walk, verdict = self._read(staging, on_page)
        self._refuse_many_rejected(staging)
        self._publish(staging, base, walk)
        staging.keep_rejected(self.layout.rejected)
        staging.clear()
        if verdict.name == "incomplete":
            return IncompleteWalk(
                f"{verdict.why}. What there is was published as incomplete; the next run reads all again"
            )
        return self._complain_of_rejected(staging)

    def close(self, started: float, complaint: PleoExtractError | None) -> Receipt:
        """The receipt, finished and recorded."""
        receipt = self.receipt
        receipt.count_run(self.run)
        receipt.seconds = round(time.monotonic() - started, 3)
        receipt.code = complaint.code if complaint else 0
        complete = receipt.verdict != "incomplete" and (
            complaint is None or isinstance(complaint, RejectedRows)
        )
        write_last_run(
            self.layout,
            receipt=receipt.to_dict(),
            error=str(complaint) if complaint else None,
            complete=complete,
        )
        return receipt

    def _open_lake(self) -> Manifest | None:
        snapshot = self.layout.snapshot()
        base = self.layout.manifest(snapshot.number) if snapshot else None
        if base is not None and base.server != self.server:
            raise ConfigurationError(
                f"the lake {self.layout.root} holds jobs of {base.server}; {self.server} needs a lake of its own"
            )
        sweep(self.layout, snapshot)
        return base

    def _read(self, staging: Staging, on_page: Callable[[Walk, Run], None]) -> tuple[Walk, Verdict]:
        walk, distinct = self._walk(staging, on_page)
        verdict = judge(distinct, (walk.first_total, walk.last_total))
        if verdict.again:
            previous = distinct
            walk, distinct = self._walk(staging, on_page, again=True)
            verdict = judge(distinct, (walk.first_total, walk.last_total), previous=previous)
        self.receipt.conclude(verdict, distinct=distinct)
        return walk, verdict

    def _walk(
        self, staging: Staging, on_page: Callable[[Walk, Run], None], *, again: bool = False
    ) -> tuple[Walk, int]:
        """One pass into staging, and how many different jobs are staged now (unusable rows count as read)."""
        walk = Walk(self.query)
        try:
            for frame, rejected in read_batches(self.run, walk, on_page):
                staging.add(frame, rejected)
        finally:
            self.receipt.count_walk(walk)
            self.receipt.rejected = staging.rejected
        if walk.distinct is not None and not again:
            return walk, walk.distinct + walk.unkeyed
        return walk, sum(_count_jobs(staging, month) for month in staging.months()) + walk.unkeyed

    def _refuse_many_rejected(self, staging: Staging) -> None:
        if staging.rejected > MANY_REJECTED and staging.rejected > self.receipt.rows / 100:
            raise DataError(
                f"{staging.rejected} of {self.receipt.rows} rows do not fit the contract, more than 1 %: nothing was "
                f"published. The rows are in {staging.folder}; perhaps the API changed: look for a newer pleo-extract"
            )

    def _publish(self, staging: Staging, base: Manifest | None, walk: Walk) -> None:
        manifest, written = publish(self.layout, staging, base, server=self.server)
        receipt = self.receipt
        receipt.published = base is None or manifest.snapshot != base.snapshot
        receipt.snapshot, receipt.lake_rows, receipt.months_written = (
            manifest.snapshot,
            manifest.rows,
            written,
        )
        receipt.count_run(self.run)
        edge = list(walk.edge) if walk.edge else None
        account = {"verdict": receipt.verdict, "walked_at": datetime.now(UTC).isoformat(), "frontier": edge}
        commit(self.layout, manifest, receipt=receipt.to_dict(), accounts={receipt.account: account})
        prune(self.layout, manifest.snapshot, now=datetime.now(UTC))

    def _complain_of_rejected(self, staging: Staging) -> RejectedRows | None:
        if not staging.rejected:
            return None
        return RejectedRows(staging.reasons)


def _count_jobs(staging: Staging, month: str) -> int:
    return sum(1 for _ in {key for frame in staging.read(month) for key in frame.select(KEY).iter_rows()})
