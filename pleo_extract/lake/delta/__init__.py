"""A lake as a Delta table, on disk or in an object store. The only room with deltalake (delta-rs).

The table is partitioned by `created_month` and holds what a Parquet lake's snapshot holds; a version of the table is a
snapshot. A run merges month by month, puts the new files beside the old ones, and commits them together with its
receipt and the state of its accounts: Delta's log is the pointer and the manifest. A commit goes on top of the version
that was merged. If anyone has committed in between, a compaction included, the run reads that and merges again.

    address      a URL or folder, and how it is reached: options, credentials, where copies go
    translate    delta-rs's errors as ours, without what they may give away
    log          what the commits say: whether they changed rows, and the state that runs write into theirs
    version      one version of the table: its files, its state, and its object store
    copies       data files on this machine
    change       what a change is made of here: the files of a month, and the state in the commit
    repair       a table that holds jobs twice, or has lost files, made whole again
    forgetting   jobs and people erased from the table, and from what it was before
    table_lake   DeltaLake: the verbs of `lakes.Store`
"""

from __future__ import annotations

from pleo_extract.lake.delta.table import DeltaLake

__all__ = ["DeltaLake"]
