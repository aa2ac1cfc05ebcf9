"""What a request asks for: who asks, with which parameters, or the refusal it deserves."""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass

from pleo_extract.sandbox.life import STATUSES
from pleo_extract.sandbox.rules import Rules
from pleo_extract.sandbox.view import ORDERS, Sort

__all__ = ["Question", "Refusal", "read_credential", "read_question", "unauthorized"]

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
CURSOR = re.compile(r"[A-Z2-7=~]+")
Parameters = dict[str, list[str]]


class Refusal(Exception):
    """An answer other than 200: status, the body's type and message, more headers."""

    def __init__(
        self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, dict(headers or {})


@dataclass(frozen=True, slots=True)
class Question:
    """The parameters of a request as understood; `sort` is what will be honoured, `echoed` what is said of it."""

    company: str | None
    statuses: frozenset[str] | None
    after: str | None
    before: str | None
    offset: int | None
    limit: int
    sort: Sort
    echoed: Sort
    parameters: Parameters


def read_credential(header: str | None) -> tuple[str, str]:
    """The scheme, `bearer` or `basic`, and the credential of an Authorization header.

    Raises:
        Refusal: 401, for anything but a bearer token, or an API key as user name with an empty password.
    """
    scheme, _, value = (header or "").partition(" ")
    if scheme.lower() == "bearer" and value:
        return "bearer", value
    if scheme.lower() == "basic":
        try:
            key, colon, password = b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            key, colon, password = "", "", ""
        if key and colon and not password:
            return "basic", key
    raise unauthorized("send a bearer token, or the API key as user name with an empty password")


def unauthorized(message: str) -> Refusal:
    """The answer to a credential that is missing, wrong or expired."""
    return Refusal(
        401, "unauthorized", message, {"WWW-Authenticate": 'Bearer realm="pleo", Basic realm="pleo"'}
    )


def read_question(parameters: Parameters, rules: Rules) -> Question:
    """What the parameters ask of a server with these rules.

    Raises:
        Refusal: 400, naming the parameter.
    """
    company = _one(parameters, "company_id")
    if company is not None and not UUID.fullmatch(company):
        raise _bad("company_id", "must be a UUID")
    statuses = parameters.get("statuses", [])
    for status in statuses:
        if status not in STATUSES:
            raise _bad("statuses", f"must be of {', '.join(STATUSES)}")
    after, before = _cursor(parameters, "after"), _cursor(parameters, "before")
    offset = _number(parameters, "offset", bits=63)
    if sum(value is not None for value in (after, before, offset)) > 1:
        raise _bad("after, before and offset", "exclude each other")
    if offset is not None and rules.offsets == "refuse":
        raise _bad("offset", "is not supported")
    limit = _number(parameters, "limit", bits=31)
    sort, echoed = _read_sort(parameters, rules)
    return Question(
        company=company.lower() if company is not None and rules.filter_company else None,
        statuses=frozenset(statuses) if statuses and rules.filter_statuses else None,
        after=after,
        before=before,
        offset=offset if rules.offsets == "honour" else None,
        limit=min(rules.default_limit if limit is None else limit, rules.max_limit),
        sort=sort or rules.order,
        echoed=echoed,
        parameters=parameters,
    )


def _read_sort(parameters: Parameters, rules: Rules) -> tuple[Sort, Sort]:
    keys, orders = parameters.get("sorting_keys", []), parameters.get("sorting_order", [])
    if len(keys) != len(orders):
        raise _bad("sorting_order", "must have the same length as sorting_keys")
    for order in orders:
        if order not in ORDERS:
            raise _bad("sorting_order", f"must be of {', '.join(ORDERS)}")
    if rules.unsortable == "refuse" and not set(keys) <= set(rules.sorting):
        raise _bad(
            "sorting_keys", f"must be of {', '.join(rules.sorting) or 'nothing: sorting is not supported'}"
        )
    asked = tuple(zip(keys, orders, strict=True))
    sort = tuple(pair for pair in asked if pair[0] in rules.sorting)
    return sort, asked if rules.unsortable == "lie" else sort


def _bad(name: str, problem: str) -> Refusal:
    return Refusal(400, "bad_request", f"{name} {problem}")


def _one(parameters: Parameters, name: str) -> str | None:
    values = parameters.get(name, [])
    if len(values) > 1:
        raise _bad(name, "must be given once")
    return values[0] if values else None


def _cursor(parameters: Parameters, name: str) -> str | None:
    value = _one(parameters, name)
    if value is not None and not CURSOR.fullmatch(value):
        raise _bad(name, f"must match ^{CURSOR.pattern}$")
    return value


def _number(parameters: Parameters, name: str, *, bits: int) -> int | None:
    value = _one(parameters, name)
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", value) or int(value) >> bits:
        raise _bad(name, f"must be a whole number from 0 to {(1 << bits) - 1}")
    return int(value)
