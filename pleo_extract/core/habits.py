"""What a run knows of its server's habits, where the contract leaves them open: echo, filter, offsets.

A habit is learned from an answer and believed until a full sync tries again. It saves requests, nothing else: no row is
taken or left out because of one.

Rules of this room: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pleo_extract.contract import PageInfo, Query

__all__ = ["Habits"]


class Habits:
    """The habits of one server as one run knows them, shared by its threads.

    Attributes:
        echoes: the echoed cursor and offset are those of the request, where any are echoed.
        filters: `statuses` is honoured.
        refused_offset: the smallest offset known to be refused; None while none was.
        longest: the largest `total` told of the whole list: an offset beyond it may well lead to nothing.
    """

    def __init__(
        self, *, echoes: bool = True, filters: bool = True, refused_offset: int | None = None
    ) -> None:
        self.echoes = echoes
        self._says_place = False
        self.filters = filters
        self.refused_offset = refused_offset
        self.longest = 0

    def reaches(self, offset: int) -> bool:
        """Whether this offset is worth asking for."""
        return self.refused_offset is None or offset < self.refused_offset

    def note_offset(self, offset: int, *, works: bool) -> None:
        """Remember what became of a request for this offset."""
        if works and not self.reaches(offset):
            self.refused_offset = None  # the server has become more generous
        elif not works:
            self.refused_offset = offset if self.refused_offset is None else min(self.refused_offset, offset)

    def find_misfit(self, query: Query, info: PageInfo) -> str:
        """Return how the echoed place differs from the one asked for, in words; "" where it fits or says nothing.

        A server that has echoed a place before is expected to go on doing so.
        """
        if not self.echoes:
            return ""
        told = {"after": info.after, "before": info.before, "offset": info.offset or None}
        asked = {"after": query.after, "before": query.before, "offset": query.offset or None}
        wrong = [
            f"{name} {'absent' if told[name] is None else told[name]}"
            for name in asked
            if told[name] != asked[name] and (told[name] is not None or self._says_place)
        ]
        self._says_place = self._says_place or (not wrong and any(asked.values()) and any(told.values()))
        return ", ".join(wrong)
