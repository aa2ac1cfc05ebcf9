"""What the order of a list is proven to be: by what the server echoes, and by the rows themselves.

Theory of operation. A query hopes for an order: `strict` (createdAt, then id) or `created` (createdAt alone; ties in
unknown order). An echo that contradicts the query takes the hope away, down to what it still promises. An echo that is
absent, whole or in part, proves nothing either way: then only the rows count, and a few rows may stand in order by
chance (three do in one list of six), so nothing is relied on before `PROOF` of them, or the whole list, kept it.
Rows out of order take the hope away whatever is echoed, and it does not come back.

Servers disagree on how ids are ordered. PostgreSQL compares their bytes, which is the order of their texts; Java's
`UUID.compareTo` compares two signed halves. Both are a strict order. Ids only matter between jobs of one instant, so
each such tie tells which of the two orders it can be; where neither fits, the order is `created`.

Rules of this room: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pleo_extract.contract import Key, PageInfo, Query

__all__ = ["ORDERS", "PROOF", "IdOrder", "Order", "Proof", "weakest"]

Order = Literal["strict", "created", "none"]
ORDERS: Final[tuple[Order, ...]] = ("none", "created", "strict")
"""From the weakest to the strongest."""
_Order = TypeVar("_Order", bound=str)
IdOrder = Literal["bytes", "signed"]
ID_ORDERS: Final[tuple[IdOrder, ...]] = ("bytes", "signed")

PROOF: Final = 10
"""Rows in order that prove it without an echo: they stand so by chance in one list of 3.6 million."""
_BY: Final = ("createdAt", "id")
_FLIP: Final = str.maketrans("0123456789abcdef", "89abcdef01234567")
_HALVES: Final = (0, 19)
"""Where the two signed halves of a UUID begin, as text."""


class Proof:
    """What is proven of one walk's order so far.

    Attributes:
        hope: the order that nothing contradicts yet.
        told: the server has said how it sorts. rows: rows that kept the order.
        ids: the id orders that the ties met so far allow.
    """

    def __init__(self, query: Query) -> None:
        self.hope: Order = _hope_for(query)
        self.told = False
        self.rows = 0
        self.ids = ID_ORDERS

    @property
    def is_enough(self) -> bool:
        """Whether the hope may be relied on before the end of the list is seen."""
        return self.told or self.rows >= PROOF

    def lower(self, query: Query) -> None:
        """Hope for no more than a simpler query promises."""
        self.hope = weakest((self.hope, _hope_for(query)))

    def weigh(self, query: Query, info: PageInfo, prior: Key | None) -> None:
        """Take back what the echo or the rows of this page contradict; `prior` is the key before its first."""
        if self.hope == "none":
            return
        self._weigh_echo(query, info)
        chain = info.keys if prior is None else (prior, *info.keys)
        self._weigh_rows(chain, descending=query.descending)
        self.rows += len(info.keys)

    def _weigh_echo(self, query: Query, info: PageInfo) -> None:
        asked = (tuple(query.sorting_keys), _directions(query.sorting_order))
        told = (info.sorting_keys, None if info.sorting_order is None else _directions(info.sorting_order))
        self.told = self.told or None not in told
        pairs = [(said, wanted) for said, wanted in zip(told, asked, strict=True) if said is not None]
        if any(said != wanted for said, wanted in pairs):
            first = all(said[:1] == wanted[:1] for said, wanted in pairs)
            self.hope = weakest((self.hope, "created" if first else "none"))

    def _weigh_rows(self, chain: Sequence[Key], *, descending: bool) -> None:
        created = [key[0] for key in chain]
        strictly, loosely = (operator.gt, operator.ge) if descending else (operator.lt, operator.le)
        if all(map(strictly, created, created[1:])):  # the rule, and the cheapest to look at
            return
        if not all(map(loosely, created, created[1:])):
            self.hope = "none"
            return
        ties = [(one, other) for one, other in pairwise(chain) if one[0] == other[0]]
        self.ids = tuple(
            ids for ids in self.ids if all(strictly(_place(ids, a), _place(ids, b)) for a, b in ties)
        )
        if not self.ids:
            self.hope = "created"

    def place(self, key: Key) -> Key:
        """Return the key as it compares in the order that the ids are found in."""
        return key if "bytes" in self.ids else _place("signed", key)

    def is_sure(self, key: Key, other: Key, *, at_most: bool) -> bool:
        """Whether `key` <= `other` (else `key` >= `other`) in every id order that is still possible."""
        compare = operator.le if at_most else operator.ge
        return all(compare(_place(ids, key), _place(ids, other)) for ids in self.ids)


def weakest(orders: Iterable[_Order]) -> _Order:
    """Return the order that says least: of several walks together, no more is proven than of each."""
    return min(orders, key=ORDERS.index)


def _hope_for(query: Query) -> Order:
    """The order that a query's sorting promises, should the server keep it."""
    if query.sorting_keys[:2] == _BY:
        return "strict"
    return "created" if query.sorting_keys[:1] == _BY[:1] else "none"


def _directions(orders: Sequence[str]) -> tuple[str, ...]:
    """ASC or DESC: where nulls go does not matter to fields that have none."""
    return tuple(str(order).upper().partition("_")[0] for order in orders)


def _place(ids: IdOrder, key: Key) -> Key:
    """The key as text that sorts in this id order."""
    created, name = key
    if ids == "bytes" or not name:
        return key
    high, low = _HALVES
    return (
        created,
        f"{name[:1].translate(_FLIP)}{name[high + 1 : low]}{name[low : low + 1].translate(_FLIP)}{name[low + 1 :]}",
    )
