"""The lake: what a dump keeps, as a folder of Parquet (`folder`) or a Delta table (`delta`); `store` opens either.

What both share is here: rows on their way in (`staging`, `merging`), the protocol of publishing (`table`), the lock
(`lock`), how the last run ended (`record`), what was erased (`forgotten`), and every call of the disk (`disk`).
"""

from __future__ import annotations

__all__ = []
