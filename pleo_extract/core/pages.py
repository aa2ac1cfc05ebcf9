"""How many rows to ask for at a time.

Theory of operation. The contract names no largest page, and a full sync of a hundred thousand jobs is a hundred requests
with pages of 1,000, or a thousand with pages of 100. So whoever wants many rows asks for `MOST` and takes what comes:

- *A server that gives fewer* (the usual way: it lowers the limit) costs nothing. What it gives is remembered, because
  reads by rank must know how far a page reaches.
- *A server that refuses the limit* (400, 413, 422) is asked again for `SAFE` rows. If that works, the limit was at fault.
  One request is lost, once: the lake remembers.
- *A server that fails at it* (5xx, no answer in time) may be too weak for large pages, or just failing. A retry asks for
  `SAFE` rows. If that works, so do the next requests, and the size doubles again after some good pages. Such an episode
  is forgotten with the run.
- *A page that is too large to hold* halves the size, down to one row.

A cursor belongs to the limit that it was given for: it may be the number of a page, and under another limit the next page
would not follow the last one. So the size changes only where a walk begins, or where it looks for its place again by offset
or from its start; see `fetch.driver`. Where few rows are wanted, as in an incremental sync, a walk asks for `SAFE` rows.

Rules of this room: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LARGEST", "MOST", "SAFE", "PageSize"]

MOST: Final = 1_000
"""Rows to ask for where many are wanted."""
SAFE: Final = 100
"""Rows that no server is known to refuse: the largest page that clients of a sibling endpoint have seen."""
LARGEST: Final = 10_000
"""The largest page size that a user may choose."""
GROW_AFTER: Final = 10
"""Good pages after which a size that trouble has lowered doubles again; after each further trouble twice as many."""


class PageSize:
    """The page size of one server. All sessions of a run share it, so that one of thousands of accounts pays for all.

    Args:
        known: the rows that a page of this server had in an earlier run; 0 if that is not known.
        refused: the most rows to ask for, because an earlier run was refused more; 0 if none was.
        chosen: the rows to ask for, come what may; None to find out.

    Attributes:
        most: the rows to ask for where many are wanted.
        refused: the most rows to ask for, because more were refused, by this run or an earlier one; 0 if none were.
    """

    def __init__(self, known: int = 0, refused: int = 0, *, chosen: int | None = None) -> None:
        self.most = chosen or refused or MOST
        self.refused = refused
        self.is_chosen = chosen is not None
        self._known = known
        self._largest = 0  # rows of the largest page asked for with `most`, the last one aside
        self._works = 0  # the largest limit that was answered in this run
        self._is_lowered = False
        self._good, self._grow_after = 0, GROW_AFTER

    @property
    def given(self) -> int:
        """The rows that the server gives if many are asked for, by this run's pages or else an earlier run's; 0 if unknown."""
        return self._largest or self._known

    @property
    def usual(self) -> int:
        """The rows that a page can be relied on to have, if as many are asked for."""
        return min(self.most, self.given or SAFE)

    @property
    def learned(self) -> int:
        """The rows of a page, for later runs to begin with; 0 if this is not known."""
        return self._known if self._is_lowered or self.is_chosen else self.given

    def clip(self, limit: int | None) -> int | None:
        """Return the limit to send where a walk asks for this one; `MOST` stands for as many rows as possible."""
        return self.most if limit is not None and limit >= MOST else limit and min(limit, self.most)

    def after_refusal(self, limit: int | None) -> int | None:
        """Return the limit to try after the server has refused a query with this one; None if the limit is not at fault."""
        if limit is None or limit <= max(SAFE, self._works) or self.is_chosen:
            return None
        return SAFE

    def after_failure(self, limit: int | None) -> int | None:
        """Return the limit to try after the server has failed to answer; None if a smaller page is no easier."""
        return SAFE if limit is not None and limit > SAFE and not self.is_chosen else None

    def after_flood(self, limit: int | None) -> int | None:
        """Return the limit to try after a page was too large to hold; None if it cannot be smaller."""
        return limit // 2 if limit is not None and limit > 1 and not self.is_chosen else None

    def note_page(self, limit: int | None, rows: int, *, has_next: bool) -> None:
        """Learn from a page that answered this limit."""
        if limit is None:
            return
        self._works = max(self._works, limit)
        if limit < self.most:
            return
        if has_next:
            self._largest = max(self._largest, rows)
        self._good += 1
        if self._is_lowered and self._good >= self._grow_after and self.most < MOST:
            self.most, self._good = min(MOST, 2 * self.most), 0

    def refuse(self, limit: int) -> None:
        """Remember for good that the server takes no more than this many rows: it has refused more."""
        self.most = self.refused = self._largest = limit

    def lower(self, limit: int) -> None:
        """Ask for this many rows for a while: more have failed. Requests that fail together count once."""
        if limit >= self.most:
            return
        self._is_lowered, self.most = True, limit
        self._good, self._grow_after = 0, 2 * self._grow_after
