"""Pleo's export jobs: as a typed Polars DataFrame, as Parquet that stays up to date, and as answers in DuckDB.

    from pleo_extract import load_export_jobs
    df = load_export_jobs()                       # every job once, typed; or an error that says why not

    from pleo_extract import connect, dump_export_jobs
    dump_export_jobs("data/export_jobs")          # the same as Parquet
    connect("data/export_jobs").sql("from failure_rates('month')").pl()

Names are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.lazy import attach
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from pleo_extract.answers.doors import connect, list_answers
    from pleo_extract.answers.verification import verify_lake
    from pleo_extract.client import Client
    from pleo_extract.contract import COLUMNS, POLARS_SCHEMA, Query
    from pleo_extract.errors import (
        CheckFailed,
        ConfigurationError,
        ContractError,
        CredentialsError,
        CursorRefused,
        DataError,
        DeadlineExceeded,
        EchoMismatch,
        IncompleteWalk,
        LakeConflict,
        LakeError,
        LakeLocked,
        NoLake,
        PageError,
        PageTooLarge,
        PleoExtractError,
        RejectedRows,
        RequestRefused,
        RequestsExceeded,
        Stopped,
        StorageError,
        TryLater,
        UsageError,
        WalkError,
    )
    from pleo_extract.fetch.iterate import iter_export_jobs
    from pleo_extract.fetch.load import fetch_page, load_export_jobs
    from pleo_extract.fetch.scan import scan_export_jobs
    from pleo_extract.lake.store import scan_lake
    from pleo_extract.reader import Lake
    from pleo_extract.sync.dump import dump_accounts, dump_export_jobs
    from pleo_extract.sync.forget import forget
    from pleo_extract.sync.merge import merge_lakes
    from pleo_extract.sync.receipt import Receipt

__all__ = [
    "COLUMNS",
    "POLARS_SCHEMA",
    "CheckFailed",
    "Client",
    "ConfigurationError",
    "ContractError",
    "CredentialsError",
    "CursorRefused",
    "DataError",
    "DeadlineExceeded",
    "EchoMismatch",
    "IncompleteWalk",
    "Lake",
    "LakeConflict",
    "LakeError",
    "LakeLocked",
    "NoLake",
    "PageError",
    "PageTooLarge",
    "PleoExtractError",
    "Query",
    "Receipt",
    "RejectedRows",
    "RequestRefused",
    "RequestsExceeded",
    "Stopped",
    "StorageError",
    "TryLater",
    "UsageError",
    "WalkError",
    "__version__",
    "connect",
    "dump_accounts",
    "dump_export_jobs",
    "fetch_page",
    "forget",
    "iter_export_jobs",
    "list_answers",
    "load_export_jobs",
    "merge_lakes",
    "scan_export_jobs",
    "scan_lake",
    "verify_lake",
]

if not TYPE_CHECKING:
    __getattr__ = attach(
        __name__,
        dict.fromkeys(__all__, "errors")  # all names but these
        | {
            "COLUMNS": "contract",
            "POLARS_SCHEMA": "contract",
            "Client": "client",
            "Lake": "reader",
            "Query": "contract",
            "Receipt": "sync.receipt",
            "connect": "answers.doors",
            "dump_accounts": "sync.dump",
            "dump_export_jobs": "sync.dump",
            "fetch_page": "fetch.load",
            "forget": "sync.forget",
            "iter_export_jobs": "fetch.iterate",
            "list_answers": "answers.doors",
            "load_export_jobs": "fetch.load",
            "merge_lakes": "sync.merge",
            "scan_export_jobs": "fetch.scan",
            "scan_lake": "lake.store",
            "verify_lake": "answers.verification",
        },
    )


def __dir__() -> list[str]:
    return sorted(__all__)
