"""A lake as a Delta table, on disk or in an object store. No other room imports deltalake (delta-rs).

The table is partitioned by `created_month` and holds the rows that the snapshot of a Parquet lake holds. A version of the
table is a snapshot. A run merges month by month, writes the new files beside the old ones, and commits them together
with its receipt and the sync state of its accounts: Delta's log is both the pointer and the manifest. The module
`version` opens with the theory of the commit.

    address      a URL or folder, and how it is reached: options, credentials, the folder for copies
    translate    errors of delta-rs as errors of ours, without the secrets that their text may carry
    log          what a commit says: whether it changed rows, and the state that a run wrote into it
    version      one version of the table: its files, its state, its object store, and the commit on top of it
    copies       data files on this machine
    change       the parts of a change: the files of a month, and the state for the commit
    repair       repair a table that holds jobs twice or has lost files
    forgetting   erase jobs and people from the table and from its history
    table        DeltaLake, which implements `Store`
"""

from __future__ import annotations

from pleo_extract.lake.delta.table import DeltaLake

__all__ = ["DeltaLake"]
