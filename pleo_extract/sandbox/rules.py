"""How this server behaves where the contract leaves it open, and how it may break it for a whole run."""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal
from zlib import crc32

from pleo_extract.sandbox.view import SORTABLE, Sort

__all__ = ["Rules", "spell_record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The switches of a sandbox; the defaults are a friendly server.

    List:
        max_limit, default_limit: rows a page at most (more is capped, as the echo shows), and when none is asked.
        total: True exact, False absent, or a lie: `big`, `small`, `negative`, `shrinking`.
        sorting: the names that `sorting_keys` takes; `unsortable`: any other is refused with 400 (`refuse`),
            left out of sort and echo (`ignore`), or echoed as if it were honoured (`lie`).
        order: the order when none is asked for.
        offsets: `honour`, `refuse` with 400, or `ignore`.
        filter_statuses, filter_company: False ignores the parameter.
        echo: `full`, or `bare`: only the required `parameters`.
        cursors: `position` stays valid for ever, `row` is refused once its row is no longer in the list.
        last_cursor: whether the last page has an `endCursor`.
    Rows:
        fraction: digits of a second's fraction, up to 9; `zone`: minutes east of UTC, None for `Z`.
        extra: unknown fields, nested ones too; unknown_status: canceled jobs have a status of their own.
        null_reason: `failureReasonType` null instead of absent; upper_uuid: UUIDs in capitals.
        countdown: `expiresIn` counts down for open jobs.
    Server:
        content_type; gzip: compress for those who accept it.
        company_required: organisation-wide credentials must send `company_id`.
        token_uses: requests after which a token expires, until `Sandbox.renew`.
        rate: requests a minute and credential, 429 with Retry-After beyond; latency: seconds before each answer.
        tick: seconds the world's clock moves per request; speed: per second of real time.
        elsewhere: where the redirect fault points to.
    """

    max_limit: int = 100
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


def spell_record(record: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """The record as this server spells it."""
    for name in ("createdAt", "startedAt", "completedAt", "expiredAt", "lastUpdatedAt"):
        if record[name] is not None:
            record[name] = _spell_time(record[name], rules)
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


def _spell_time(text: str, rules: Rules) -> str:
    if rules.zone is None and not rules.fraction:
        return text[:19] + "Z"
    zone = "Z"
    if rules.zone is not None:
        local = timezone(timedelta(minutes=rules.zone))
        text = datetime.fromisoformat(text[:19] + "+00:00").astimezone(local).isoformat()
        zone = text[19:]
    # The fraction only looks random: the same instant has the same one always.
    digits = f"{crc32(text[:19].encode()) % 10**9:09d}"[: rules.fraction]
    return text[:19] + ("." + digits if digits else "") + zone
