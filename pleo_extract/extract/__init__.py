"""The verbs: load, iterate, dump, connect. Here paging, client, decode, lake and warehouse meet.

client.get(query) -> bytes -> decode -> typed frame -> staging -> merge into partitions -> snapshot -> view -> answer
      ^---------- paging <- PageInfo <-'    '-> load_export_jobs() returns here
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.lazy import attach

if TYPE_CHECKING:
    from pleo_extract.extract.answers import connect, list_answers
    from pleo_extract.extract.dump import dump_accounts, dump_export_jobs
    from pleo_extract.extract.erasing import forget
    from pleo_extract.extract.iterate import Batches, iter_export_jobs, stream_wanted
    from pleo_extract.extract.load import DEADLINE, JobPage, fetch_page, load_export_jobs
    from pleo_extract.extract.merge import merge_lakes
    from pleo_extract.extract.plan import DumpPlan, plan_dump
    from pleo_extract.extract.receipt import Receipt
    from pleo_extract.extract.status import LakeStatus, read_status
    from pleo_extract.extract.wanted import check_amount, check_wanted

__all__ = [
    "DEADLINE",
    "Batches",
    "DumpPlan",
    "JobPage",
    "LakeStatus",
    "Receipt",
    "check_amount",
    "check_wanted",
    "connect",
    "dump_accounts",
    "dump_export_jobs",
    "fetch_page",
    "forget",
    "iter_export_jobs",
    "list_answers",
    "load_export_jobs",
    "merge_lakes",
    "plan_dump",
    "read_status",
    "stream_wanted",
]

if not TYPE_CHECKING:
    __getattr__ = attach(
        __name__,
        {
            "DEADLINE": "load",
            "Batches": "iterate",
            "DumpPlan": "plan",
            "JobPage": "load",
            "LakeStatus": "status",
            "Receipt": "receipt",
            "check_amount": "wanted",
            "check_wanted": "wanted",
            "connect": "answers",
            "dump_accounts": "dump",
            "dump_export_jobs": "dump",
            "fetch_page": "load",
            "forget": "erasing",
            "iter_export_jobs": "iterate",
            "list_answers": "answers",
            "load_export_jobs": "load",
            "merge_lakes": "merge",
            "plan_dump": "plan",
            "read_status": "status",
            "stream_wanted": "iterate",
        },
    )
