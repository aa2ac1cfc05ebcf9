"""The hall between the two wings, where rows go from the API into the lake: dump, merge, plan, forget."""

from __future__ import annotations

__all__ = []
