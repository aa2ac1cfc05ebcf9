"""A lake kept as a folder of Parquet: objects, snapshots, the pointer, and the visible months."""

from __future__ import annotations

__all__ = []
