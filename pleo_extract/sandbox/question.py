"""Parse the credential and the parameters of a request, or refuse it as the contract demands."""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass

from pleo_extract.sandbox.life import STATUSES
from pleo_extract.sandbox.rules import Rules
from pleo_extract.sandbox.view import ORDERS, Sort

__all__ = ["Question", "Refusal", "parse_credential", "parse_question", "unauthorized"]

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
CURSOR = re.compile(r"[A-Z2-7=~]+")
Parameters = dict[str, list[str]]


class Refusal(Exception):
    """Raised to answer with an error; carries the status, the type and message of the body, and further headers."""

    def __init__(
        self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, dict(headers or {})


@dataclass(frozen=True, slots=True)
class Question:
    """The parsed parameters of a request.

    Attributes:
        company: the `company_id`, in lower case.
        statuses: the statuses to return; None for all.
        after: the cursor to start after.
        before: the cursor to end before.
        offset: the number of rows to skip.
        limit: the most rows on the page.
        sort: the sorting that the server applies.
        echoed: the sorting that the response claims; differs from `sort` only if `Rules.unsortable` is `lie`.
        parameters: the parameters as received.
    """

    company: str | None
    statuses: frozenset[str] | None
    after: str | None
    before: str | None
    offset: int | None
    limit: int
    sort: Sort
    echoed: Sort
    parameters: Parameters


def parse_credential(header: str | None) -> tuple[str, str]:
    """Parse an Authorization header into its scheme, `bearer` or `basic`, and the credential.

    Raises:
        Refusal: 401; the header is neither a bearer token nor an API key as user name with an empty password.
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
    """Return the refusal of a credential that is missing, wrong or expired."""
    return Refusal(
        401, "unauthorized", message, {"WWW-Authenticate": 'Bearer realm="pleo", Basic realm="pleo"'}
    )


def parse_question(parameters: Parameters, rules: Rules) -> Question:
    """Parse the parameters as a server with these rules does.

    Raises:
        Refusal: 400; the message names the parameter.
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
    if limit is not None and limit > rules.max_limit and rules.large_limits != "lower":
        raise Refusal(rules.large_limits, "bad_limit", f"limit must be at most {rules.max_limit}")
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
