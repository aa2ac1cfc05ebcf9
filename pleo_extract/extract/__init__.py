"""The verbs: load, iterate, dump, connect. Here paging, client, decode, lake and warehouse meet.

client.get(query) -> bytes -> decode -> typed frame -> staging -> merge into partitions -> snapshot -> view -> answer
      ^---------- paging <- PageInfo <-'    '-> load_export_jobs() returns here
"""

from pleo_extract.extract.answers import connect, list_answers
from pleo_extract.extract.dump import DumpOptions, dump_accounts, dump_export_jobs
from pleo_extract.extract.iterate import Batches, iter_export_jobs, stream_wanted
from pleo_extract.extract.load import JobPage, fetch_page, load_export_jobs
from pleo_extract.extract.plan import DumpPlan, plan_dump
from pleo_extract.extract.receipt import Receipt
from pleo_extract.extract.status import LakeStatus, read_status
from pleo_extract.extract.wanted import check_wanted

__all__ = [
    "Batches",
    "DumpOptions",
    "DumpPlan",
    "JobPage",
    "LakeStatus",
    "Receipt",
    "check_wanted",
    "connect",
    "dump_accounts",
    "dump_export_jobs",
    "fetch_page",
    "iter_export_jobs",
    "list_answers",
    "load_export_jobs",
    "plan_dump",
    "read_status",
    "stream_wanted",
]
