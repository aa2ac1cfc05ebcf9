"""Read the list: one page, a walk, segments side by side; as a frame, as batches, as a LazyFrame."""

from __future__ import annotations

__all__ = []
