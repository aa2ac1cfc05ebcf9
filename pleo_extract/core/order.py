"""What order a list is proven to have: by what the server echoes, and by the rows themselves.

Theory of operation. A query asks for an order: `strict` (createdAt, then id) or `created` (createdAt alone, ties in
unknown order). That is the candidate. It is proven when the server echoes the sorting that was asked for and the rows
keep it. Evidence only ever weakens it:

- An echo that contradicts the query lowers the candidate to what the echo still promises.
- An echo that is absent, whole or in part, proves nothing either way. Then only the rows count. A few rows may be in
  order by chance (three are in one list of six), so nothing is relied on before `PROOF` of them have kept it, or the
  whole list has.
- Rows out of order disprove the candidate, whatever is echoed. It does not come back.

Servers disagree on how ids are ordered. PostgreSQL compares their bytes, which is the order of their texts. Java's
`UUID.compareTo` compares two signed halves. Both are a strict order. Ids only matter between jobs of one instant, so
each such tie shows which of the two orders are still possible. If neither is, the order is `created`.

Rules of this room: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pleo_extract.contract import Key, PageInfo, Query

__all__ = ["ORDERS", "PROOF", "SORTING", "IdOrder", "Order", "Proof", "weakest"]

Order = Literal["strict", "created", "none"]
ORDERS: Final[tuple[Order, ...]] = ("none", "created", "strict")
"""From the weakest to the strongest."""
_Order = TypeVar("_Order", bound=str)
IdOrder = Literal["bytes", "signed"]
ID_ORDERS: Final[tuple[IdOrder, ...]] = ("bytes", "signed")

PROOF: Final = 10
"""Rows in order that prove it without an echo: by chance, one list in 3.6 million keeps it so long."""
SORTING: Final = ("createdAt", "id")
"""The sorting keys that a query in strict order asks for."""
_FLIP_SIGN: Final = str.maketrans("0123456789abcdef", "89abcdef01234567")
_HALVES: Final = (0, 19)
"""Where the two signed halves of a UUID begin in its text."""


def weakest(orders: Iterable[_Order]) -> _Order:
    """Return the weakest of these orders: several walks together prove no more than each of them."""
    return min(orders, key=ORDERS.index)


class Proof:
    """What is proven of the order of one walk.

    Attributes:
        candidate: the order that nothing has contradicted so far.
        has_echo: whether the server has said how it sorts.
        rows: rows that kept the candidate order.
        id_orders: the orders of ids that are possible after the ties met so far.
    """

    def __init__(self, query: Query) -> None:
        self.candidate: Order = _asked_order(query)
        self.has_echo = False
        self.rows = 0
        self.id_orders: tuple[IdOrder, ...] = ID_ORDERS
        self._last: Key | None = None

    def resume(self, candidate: Order, *, rows: int, has_echo: bool, last: Key | None) -> None:
        """Continue from what an earlier walk had proven; `last` is the key of its last row."""
        self.candidate, self.rows, self.has_echo, self._last = candidate, rows, has_echo, last

    @property
    def is_enough(self) -> bool:
        """Whether the candidate may be relied on before the end of the list."""
        return self.has_echo or self.rows >= PROOF

    def lower(self, query: Query) -> None:
        """Lower the candidate to what a simpler query asks for."""
        self.candidate = weakest((self.candidate, _asked_order(query)))

    def break_off(self) -> None:
        """Expect the next page to begin anywhere, not after the last row."""
        self._last = None

    def check_page(self, query: Query, info: PageInfo) -> None:
        """Lower the candidate by what the echo or the rows of the next page contradict."""
        if self.candidate == "none":
            return
        self._check_echo(query, info)
        if not info.keys:
            return
        chain = info.keys if self._last is None else (self._last, *info.keys)
        self._check_rows(chain, descending=query.descending)
        self.rows += len(info.keys)
        self._last = info.keys[-1]

    def _check_echo(self, query: Query, info: PageInfo) -> None:
        asked = (tuple(query.sorting_keys), _directions(query.sorting_order))
        echo = (info.sorting_keys, None if info.sorting_order is None else _directions(info.sorting_order))
        self.has_echo = self.has_echo or None not in echo
        pairs = [(got, wanted) for got, wanted in zip(echo, asked, strict=True) if got is not None]
        if any(got != wanted for got, wanted in pairs):
            is_first_kept = all(got[:1] == wanted[:1] for got, wanted in pairs)
            self.candidate = weakest((self.candidate, "created" if is_first_kept else "none"))

    def _check_rows(self, chain: Sequence[Key], *, descending: bool) -> None:
        created = [key[0] for key in chain]
        strictly, loosely = (operator.gt, operator.ge) if descending else (operator.lt, operator.le)
        if all(map(strictly, created, created[1:])):  # the common case, and the cheapest to check
            return
        if not all(map(loosely, created, created[1:])):
            self.candidate = "none"
            return
        ties = [(one, other) for one, other in pairwise(chain) if one[0] == other[0]]
        self.id_orders = tuple(
            ids
            for ids in self.id_orders
            if all(strictly(_sort_key(ids, one), _sort_key(ids, other)) for one, other in ties)
        )
        if not self.id_orders:
            self.candidate = "created"

    def sort_key(self, key: Key) -> Key:
        """Return the key in a form that compares as the server sorts."""
        return key if "bytes" in self.id_orders else _sort_key("signed", key)

    def is_certain(self, key: Key, other: Key, *, at_most: bool) -> bool:
        """Return whether `key` <= `other` (else `key` >= `other`) in every order of ids that is still possible."""
        compare = operator.le if at_most else operator.ge
        return all(compare(_sort_key(ids, key), _sort_key(ids, other)) for ids in self.id_orders)


def _asked_order(query: Query) -> Order:
    """Return the order that a query's sorting asks for."""
    if query.sorting_keys[:2] == SORTING:
        return "strict"
    return "created" if query.sorting_keys[:1] == SORTING[:1] else "none"


def _directions(orders: Sequence[str]) -> tuple[str, ...]:
    """Return ASC or DESC for each; where nulls go does not matter, since these fields have none."""
    return tuple(str(order).upper().partition("_")[0] for order in orders)


def _sort_key(ids: IdOrder, key: Key) -> Key:
    """Return the key as text that sorts in this order of ids."""
    created, name = key
    if ids == "bytes" or not name:
        return key
    high, low = _HALVES
    return (
        created,
        f"{name[:1].translate(_FLIP_SIGN)}{name[high + 1 : low]}{name[low : low + 1].translate(_FLIP_SIGN)}{name[low + 1 :]}",
    )
