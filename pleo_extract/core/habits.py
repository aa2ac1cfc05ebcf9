"""How one server behaves where the contract leaves it open: echo, filter, offsets.

A habit is learned from an answer and believed until the next full sync tries again. Habits save requests. They never
decide whether a row is taken.

Rules of this room: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pleo_extract.contract import PageInfo, Query

__all__ = ["Habits"]


class Habits:
    """What one run knows about the habits of its server; the threads of the run share it.

    Attributes:
        echoes: whether the echoed cursor and offset, if there are any, are those of the request.
        filters: whether the server honours `statuses`.
        refused_offset: the smallest offset that the server refused; None if it has refused none.
        longest: the largest `total` of the whole list so far; a page beyond it is rightly empty.
    """

    def __init__(
        self, *, echoes: bool = True, filters: bool = True, refused_offset: int | None = None
    ) -> None:
        self.echoes = echoes
        self._has_echoed = False
        self.filters = filters
        self.refused_offset = refused_offset
        self.longest = 0

    def reaches(self, offset: int) -> bool:
        """Return whether this offset is worth a request."""
        return self.refused_offset is None or offset < self.refused_offset

    def note_offset(self, offset: int, *, works: bool) -> None:
        """Remember whether a request for this offset worked."""
        if works and not self.reaches(offset):
            self.refused_offset = None  # the server now reaches deeper than it did
        elif not works:
            self.refused_offset = offset if self.refused_offset is None else min(self.refused_offset, offset)

    def find_misfit(self, query: Query, info: PageInfo) -> str:
        """Return in words how the echoed place differs from the one asked for; "" if it fits or says nothing.

        A server that has echoed a place once is expected to echo every place.
        """
        if not self.echoes:
            return ""
        echo = {"after": info.after, "before": info.before, "offset": info.offset or None}
        asked = {"after": query.after, "before": query.before, "offset": query.offset or None}
        wrong = [
            f"{name} {'absent' if echo[name] is None else echo[name]}"
            for name in asked
            if echo[name] != asked[name] and (echo[name] is not None or self._has_echoed)
        ]
        self._has_echoed = self._has_echoed or (not wrong and any(asked.values()) and any(echo.values()))
        return ", ".join(wrong)
