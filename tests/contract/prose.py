"""The rules that the contract states only in prose, as hooks for schemathesis.

schemathesis loads this file in its own environment (SCHEMATHESIS_HOOKS). Of `before`, `after` and `offset` the hooks
keep one. They replace cursors by cursors of the server, give every sorting key an order, use only fields of a job as
keys, and now and then use a company that exists. Then schemathesis can demand that the server accepts every case that
the schema calls valid, and the pages have rows. Cases that break the schema stay unchanged: the server must refuse
them.

"""

from __future__ import annotations

import json
from importlib import import_module
from itertools import count
from typing import Any

SORTABLE = ("createdAt", "id", "status", "completedAt", "lastUpdatedAt", "numberOfItems")
PLACES = ("after", "before", "offset")

_turn = count()
_companies: list[str] = []
_cursors: list[str] = []


def before_call(_: Any, case: Any, kwargs: Any) -> None:
    """Make a case that the schema calls valid valid by the prose, too."""
    if case.method == "GET" and case.meta is not None and case.meta.generation.mode.is_positive:
        case.query = _mend_query(dict(case.query or {}), next(_turn))


def after_call(_: Any, case: Any, response: Any) -> None:
    """Remember the cursors of the default order, and the companies."""
    if case.method != "GET" or response.status_code != 200 or (case.query or {}).get("sorting_keys"):
        return
    page = json.loads(response.content)
    _companies.extend(row["companyId"] for row in page["data"])
    info = page["pagination"]
    _cursors.extend(info[name] for name in ("startCursor", "endCursor") if name in info)


def _mend_query(query: dict[str, Any], turn: int) -> dict[str, Any]:
    places = [name for name in PLACES if name in query]
    for name in places:
        if name != places[turn % len(places)]:
            del query[name]
    if {"after", "before"} & set(query):
        query = _at_cursor(query, turn)
    if "company_id" in query and _companies and turn % 3:
        query["company_id"] = _companies[turn % len(_companies)]
    return _pair_sorting(query, turn)


def _at_cursor(query: dict[str, Any], turn: int) -> dict[str, Any]:
    """Return the query with a cursor of the server and the order it belongs to; without a cursor, from the start."""
    kept = {name: value for name, value in query.items() if not name.startswith("sorting_")}
    for name in {"after", "before"} & set(kept):
        if _cursors:
            kept[name] = _cursors[turn % len(_cursors)]
        else:
            del kept[name]
    return kept


def _pair_sorting(query: dict[str, Any], turn: int) -> dict[str, Any]:
    orders = list(query.pop("sorting_order", []))[: len(SORTABLE)]
    keys = [SORTABLE[(turn + place) % len(SORTABLE)] for place in range(len(orders))]
    query.pop("sorting_keys", None)
    return {**query, "sorting_keys": keys, "sorting_order": orders} if orders else query


# Import by name: the type checker runs in the other environment, which has no schemathesis.
_hook = import_module("schemathesis").hook
_hook(before_call)
_hook(after_call)
