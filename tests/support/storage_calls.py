"""The storage calls that tests strike, in a module that costs nothing to import: the victims of the torture fork early."""

from __future__ import annotations

__all__ = ["WRITING"]

WRITING = (
    "append_line",
    "protect_file",
    "link_file",
    "make_folder",
    "remove_file",
    "remove_tree",
    "rename",
    "replace_file",
    "sync_folder",
    "write_file",
)
"""The functions of `pleo_extract.lake.disk` that change the disk."""
