"""Small lakes of chosen jobs, as a dump leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from warehouse_jobs import Row, parquet

from pleo_extract.lake import FORMAT, FileEntry, Manifest
from pleo_extract.refresh import Account

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

__all__ = ["SERVER", "WRITING", "make_lake"]

SERVER = "https://sandbox.invalid"
WRITING = (
    "append_line",
    "link_file",
    "make_folder",
    "make_link",
    "remove_file",
    "remove_tree",
    "rename",
    "replace_file",
    "swap_link",
    "sync_folder",
    "write_file",
)
"""The functions of `pleo_extract.lake.disk` that change something."""


def make_lake(
    root: Path, rows: Sequence[Row], made_at: datetime, names: Mapping[str, str] | None = None
) -> Path:
    """A lake with one snapshot of these jobs; `names` of companies by id, each with an account of its own."""
    folder = root / "snapshots" / "000001"
    by_month: dict[str, list[Row]] = {}
    for row in rows:
        by_month.setdefault(f"created_month={row['created_at']:%Y-%m}", []).append(row)
    folder.mkdir(parents=True)
    for month, jobs in by_month.items():
        (folder / month).mkdir()
        parquet(folder / month / "part-0.parquet", jobs)
    accounts = {
        f"{SERVER} {company}": Account(name=name, verdict="complete", full_at=made_at)
        for company, name in (names or {"*": ""}).items()
    }
    manifest = Manifest(
        format=FORMAT,
        snapshot=1,
        server=SERVER,
        made_at=made_at,
        rows=len(rows),
        files=[
            FileEntry(
                path=f"{month}/part-0.parquet",
                rows=len(jobs),
                bytes=(folder / month / "part-0.parquet").stat().st_size,
                sha256="",
            )
            for month, jobs in by_month.items()
        ],
        library="0",
        accounts=accounts,
    )
    (root / "_meta").mkdir()
    (root / "_meta" / "000001.json").write_bytes(msgspec.json.encode(manifest))
    (root / "current").symlink_to("snapshots/000001")
    return root
