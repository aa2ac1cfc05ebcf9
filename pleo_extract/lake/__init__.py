"""The lake: what a dump keeps, as a folder of Parquet (`folder`) or as a Delta table (`delta`), and the door to both (`store`).

What both share stands here: the rows on their way in (`staging`, `merging`), the protocol that publishing speaks (`table`),
who may write (`lock`), how the last run ended (`record`), what was erased (`forgotten`), and every call of the disk (`disk`).
"""

from __future__ import annotations

__all__ = []
