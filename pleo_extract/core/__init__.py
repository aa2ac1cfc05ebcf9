"""The core: what to ask next, what the rows prove, which row replaces which. No I/O, clock, threads or randomness."""

from __future__ import annotations

__all__ = []
