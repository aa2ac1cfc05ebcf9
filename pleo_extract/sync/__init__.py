"""The hall: the only place where the API and the lake meet. Dump, merge, plan, forget."""

from __future__ import annotations

__all__ = []
