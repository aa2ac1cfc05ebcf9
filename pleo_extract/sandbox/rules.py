"""The behaviour of the server: what the contract leaves open, and how the server breaks it throughout."""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal
from zlib import crc32

from pleo_extract.sandbox.view import SORTABLE, Sort

__all__ = ["Rules", "format_record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of a sandbox. The defaults make a server that keeps the contract.

    List:
        max_limit: the largest page, rows.
        large_limits: what happens to a larger limit: lowered (`lower`), which the echo shows, or answered with this status.
        default_limit: the rows of a page if the request has no limit.
        total: True is exact, False absent; `big`, `small`, `negative` and `shrinking` are wrong.
        sorting: the names that `sorting_keys` accepts.
        unsortable: what happens to other names: 400 (`refuse`), left out of sort and echo (`ignore`), or left out
            of the sort but echoed (`lie`).
        order: the order if the request names none.
        offsets: `honour`, `refuse` (400) or `ignore`.
        filter_statuses: whether the parameter `statuses` works; False ignores it.
        filter_company: whether the parameter `company_id` works; False ignores it.
        echo: `full`, or `bare` for only the required `parameters`.
        cursors: `position` cursors stay valid; a `row` cursor is refused once its row is no longer listed.
        last_cursor: whether the last page has an `endCursor`.
    Rows:
        fraction: digits of the fraction of a second, 0 to 9.
        zone: the offset of timestamps from UTC, minutes east; None for `Z`.
        extra: whether rows have unknown fields, one of them nested.
        unknown_status: whether cancelled jobs have a status that the contract does not list.
        null_reason: whether `failureReasonType` is null instead of absent.
        upper_uuid: whether UUIDs are in capitals.
        countdown: whether `expiresIn` of open jobs counts down.
    Server:
        content_type: the Content-Type of a page.
        gzip: whether pages are compressed for clients that accept it.
        company_required: whether an organisation's credential must send `company_id`.
        token_uses: the requests after which a token expires, until `Sandbox.renew`.
        rate: requests a minute per credential; more get 429 with Retry-After.
        latency: seconds before each response.
        tick: seconds that the world's clock advances per request.
        speed: seconds that the world's clock advances per second of real time.
        elsewhere: the server that the redirect fault points to.
    """

    max_limit: int = 100
    large_limits: Literal["lower", 400, 413, 422, 500, 503, 504] = "lower"
    default_limit: int = 20
    total: bool | Literal["big", "small", "negative", "shrinking"] = True
    sorting: tuple[str, ...] = tuple(SORTABLE)
    unsortable: Literal["refuse", "ignore", "lie"] = "refuse"
    order: Sort = (("id", "ASC"),)
    offsets: Literal["honour", "refuse", "ignore"] = "honour"
    filter_statuses: bool = True
    filter_company: bool = True
    echo: Literal["full", "bare"] = "full"
    cursors: Literal["position", "row"] = "position"
    last_cursor: bool = True
    fraction: int = 0
    zone: int | None = None
    extra: bool = False
    unknown_status: bool = False
    null_reason: bool = False
    upper_uuid: bool = False
    countdown: bool = False
    content_type: str = "application/json;charset=UTF-8"
    gzip: bool = False
    company_required: bool = False
    token_uses: int | None = None
    rate: int | None = None
    latency: float = 0.0
    tick: float = 0.0
    speed: float = 0.0
    elsewhere: str = "https://elsewhere.invalid"


def format_record(record: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """Format the record in place as a server with these rules does, and return it."""
    for name in ("createdAt", "startedAt", "completedAt", "expiredAt", "lastUpdatedAt"):
        if record[name] is not None:
            record[name] = _format_time(record[name], rules)
    if rules.upper_uuid:
        for name in ("id", "companyId", "createdBy"):
            record[name] = record[name] and record[name].upper()
    if rules.null_reason:
        record.setdefault("failureReasonType", None)
    if rules.unknown_status and record.get("failureReasonType") == "canceled_by_user":
        record["status"] = "canceled"
    if rules.extra:
        record["attempt"] = 1 + record["numberOfItems"] % 3
        record["exportTarget"] = {"system": "e-conomic", "ledgers": [{"id": 7, "name": 'Köb "A/S"'}]}
    return record


def _format_time(text: str, rules: Rules) -> str:
    if rules.zone is None and not rules.fraction:
        return text[:19] + "Z"
    zone = "Z"
    if rules.zone is not None:
        local = timezone(timedelta(minutes=rules.zone))
        text = datetime.fromisoformat(text[:19] + "+00:00").astimezone(local).isoformat()
        zone = text[19:]
    # A hash of the second, not a random number: the same instant must have the same fraction in every response.
    digits = f"{crc32(text[:19].encode()) % 10**9:09d}"[: rules.fraction]
    return text[:19] + ("." + digits if digits else "") + zone
