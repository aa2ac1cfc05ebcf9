"""The core: what to ask, what rows prove, what replaces what. No I/O, no clock, no threads, no randomness."""

from __future__ import annotations

__all__ = []
