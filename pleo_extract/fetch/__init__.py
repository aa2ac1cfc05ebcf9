"""Reading the list: one page, one walk, or segments in parallel; as a frame, as batches, or as a LazyFrame."""

from __future__ import annotations

__all__ = []
