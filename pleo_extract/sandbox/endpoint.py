"""The endpoint `GET /v3/export-jobs` of a world, as one callable from request to response."""

import gzip
import json
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus
from math import ceil
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

from pleo_extract.sandbox.chance import make_rng
from pleo_extract.sandbox.cursor import BadCursor, decode_cursor, encode_cursor
from pleo_extract.sandbox.exchange import RequestLike, Response
from pleo_extract.sandbox.faults import apply_fault, choose_fault, parse_faults
from pleo_extract.sandbox.kinds import FaultContext
from pleo_extract.sandbox.life import NEVER, Job
from pleo_extract.sandbox.oracle import CollectedRows, Discrepancy, Rows
from pleo_extract.sandbox.question import Question, Refusal, parse_credential, parse_question, unauthorized
from pleo_extract.sandbox.rules import Rules, format_record
from pleo_extract.sandbox.view import Selection, View
from pleo_extract.sandbox.world import World

__all__ = ["API_KEY", "PATH", "TOKEN", "Asked", "Sandbox"]

PATH = "/v3/export-jobs"
API_KEY = "plp_sandbox"
TOKEN = "sandbox-token"  # noqa: S105 - opens nothing but a sandbox
Access = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Asked:
    """One entry of the sandbox's request log.

    Attributes:
        number: the number of the request, from 1, as fault scripts count.
        request: the request as it came in.
        parameters: its query parameters.
        status: the HTTP status of the response.
        wire: how the response travelled, see `Response`.
        fault: the kind of fault that was applied; empty if none was.
        time: seconds of the sandbox's timer.
    """

    number: int
    request: RequestLike
    parameters: Mapping[str, list[str]]
    status: int
    wire: str
    fault: str
    time: float


class Sandbox:
    """A server of Pleo's export jobs: call it with a Request to get a Response. Safe to call from many threads.

    Args:
        world: the jobs that it serves.
        rules: how it behaves, see `Rules`.
        faults: a fault script, see `parse_faults`.
        api_keys: the company id of each API key; None for an organisation, which sees all companies.
        tokens: the same for bearer tokens.

    Attributes:
        requests: the log of requests.
        timer: seconds; drives the rules `rate` and `speed`. A test may replace it by its own clock.
    """

    timer: Callable[[], float]

    def __init__(
        self,
        world: World,
        *,
        rules: Rules | None = None,
        faults: str = "",
        api_keys: Access | None = None,
        tokens: Access | None = None,
    ) -> None:
        keys = {API_KEY: None} if api_keys is None else api_keys
        bearers = {TOKEN: None} if tokens is None else tokens
        self.world = world
        self.rules = rules or Rules()
        self.faults = parse_faults(faults)
        self.requests: list[Asked] = []
        self.timer = monotonic
        self._access = {("basic", key): company for key, company in keys.items()}
        self._access.update({("bearer", token): company for token, company in bearers.items()})
        self._uses: dict[str, int] = {}
        self._recent: dict[str, deque[float]] = {}
        self._encoded_rows: dict[Job, tuple[int, int, bytes]] = {}
        self._requested_cursors: list[str] = []
        self._rng = make_rng("faults", faults)
        self._timer_read: float | None = None

    def __call__(self, request: RequestLike) -> Response:
        """Return the response to one request."""
        with self.world.lock:
            self._move_clock()
            number = len(self.requests) + 1
            parameters = parse_qs(request.query, keep_blank_values=True)
            answer = self._answer(request, parameters)
            fault = choose_fault(self.faults, number, self._rng)
            if fault is not None:
                context = FaultContext(
                    number, answer, parameters, self._requested_cursors, self.world.now, self.rules.elsewhere
                )
                answer = apply_fault(fault, context)
            if self.rules.gzip and "gzip" in request.headers.get("accept-encoding", ""):
                answer = _compress(answer)
            self._requested_cursors += parameters.get("after", [])
            kind = fault.kind if fault else ""
            self.requests.append(
                Asked(number, request, parameters, answer.status, answer.wire, kind, self.timer())
            )
            return answer

    def renew(self, token: str = TOKEN) -> str:
        """Exchange a token for a new one; the old one stops working immediately.

        Raises:
            KeyError: the token is unknown or was already exchanged.
        """
        with self.world.lock:
            company = self._access.pop(("bearer", token))
            stem, _, count = token.partition("~")
            fresh = f"{stem}~{int(count or 0) + 1}"
            self._access["bearer", fresh] = company
            return fresh

    def truth(
        self,
        rows: Rows,
        since: datetime,
        *,
        companies: frozenset[str] | None = None,
        statuses: frozenset[str] | None = None,
    ) -> list[Discrepancy]:
        """Return what is wrong with the rows that a walk collected between `since` and now; [] if nothing is.

        Args:
            rows: records of the API, or rows with this library's column names.
            since: `world.now` before the walk, UTC.
            companies: the companies that the walk asked for; None for all.
            statuses: the statuses that the walk asked for; None for all.
        """
        ignore = frozenset({"expiresIn"} if self.rules.countdown else ())
        walk = CollectedRows(
            since=since,
            companies=companies,
            statuses=statuses,
            shape=lambda record: format_record(record, self.rules),
            ignore=ignore,
        )
        return self.world.discrepancies(rows, walk)

    def _move_clock(self) -> None:
        seconds = self.rules.tick
        if self.rules.speed:
            before, self._timer_read = self._timer_read, self.timer()
            seconds += self.rules.speed * (
                self._timer_read - (self._timer_read if before is None else before)
            )
        if seconds:
            self.world.advance(seconds)

    def _answer(self, request: RequestLike, parameters: dict[str, list[str]]) -> Response:
        status, headers = 200, self._headers()
        try:
            body = self._list(request, parameters)
        except Refusal as refusal:
            status = refusal.status
            body = json.dumps({"type": refusal.kind, "message": refusal.message}).encode()
            headers |= {"Content-Type": "application/json;charset=UTF-8"} | refusal.headers
        return Response(status, headers, body, "whole", self.rules.latency)

    def _list(self, request: RequestLike, parameters: dict[str, list[str]]) -> bytes:
        if request.path != PATH:
            raise Refusal(404, "not_found", "there is nothing here")
        if request.method != "GET":
            raise Refusal(405, "method_not_allowed", "the list can only be read", {"Allow": "GET"})
        company = self._authenticate(request.headers.get("authorization"))
        question = parse_question(parameters, self.rules)
        return self._page(question, self._allowed_companies(question, company))

    def _headers(self) -> dict[str, str]:
        # The Date header shows the world's clock: a client must not compare it with its own.
        date = format_datetime(self.world.now.replace(microsecond=0), usegmt=True)
        return {"Content-Type": self.rules.content_type, "Date": date}

    def _authenticate(self, header: str | None) -> str | None:
        """Return the company of a credential, or None for an organisation's, and count the request against it."""
        scheme, credential = parse_credential(header)
        if (scheme, credential) not in self._access:
            raise unauthorized("the credential is unknown, revoked or expired")
        if scheme == "bearer" and self.rules.token_uses is not None:
            self._uses[credential] = self._uses.get(credential, 0) + 1
            if self._uses[credential] > self.rules.token_uses:
                raise unauthorized("the token has expired")
        if self.rules.rate is not None:
            self._check_rate(credential, self.rules.rate)
        return self._access[scheme, credential]

    def _check_rate(self, credential: str, rate: int) -> None:
        recent, now = self._recent.setdefault(credential, deque()), self.timer()
        while recent and recent[0] <= now - 60:
            recent.popleft()
        if len(recent) >= rate:
            wait = ceil(recent[0] + 60 - now) if recent else 60
            raise Refusal(429, "rate_limit", "too many requests", {"Retry-After": str(max(1, wait))})
        recent.append(now)

    def _allowed_companies(self, question: Question, own: str | None) -> frozenset[str] | None:
        asked = question.company
        if own is None:
            if asked is None:
                if self.rules.company_required and self.rules.filter_company:
                    raise Refusal(
                        400, "bad_request", "company_id must be sent with an organisation's credential"
                    )
                return None
            if asked not in self.world.companies:
                raise Refusal(403, "forbidden", "the credential may not see this company")
            return frozenset({asked})
        if asked not in (None, own):
            raise Refusal(403, "forbidden", "the credential may not see this company")
        return frozenset({own})

    def _page(self, question: Question, companies: frozenset[str] | None) -> bytes:
        view = self.world.view(Selection(companies, question.statuses, question.sort))
        start, stop = self._page_bounds(question, view)
        info: dict[str, Any] = {
            "currentRequestPagination": self._echo(question),
            "hasNextPage": stop < len(view.keys),
            "hasPreviousPage": start > 0,
        }
        if start < stop:
            info["startCursor"] = encode_cursor(question.sort, view.keys[start])
            if stop < len(view.keys) or self.rules.last_cursor:
                info["endCursor"] = encode_cursor(question.sort, view.keys[stop - 1])
        if self.rules.total is not False:
            info["total"] = self._total(len(view.keys))
        rows = b",".join([self._encode_row(job) for job in view.jobs[start:stop]])
        return b'{"data":[%b],"pagination":%b}' % (rows, json.dumps(info).encode())

    def _page_bounds(self, question: Question, view: View) -> tuple[int, int]:
        """Return the slice of the view that the page shows."""
        count, limit = len(view.keys), question.limit
        if question.after is not None:
            start = self._locate(question, question.after, view)[1]
            return start, min(start + limit, count)
        if question.before is not None:
            stop = self._locate(question, question.before, view)[0]
            return max(0, stop - limit), stop
        start = min(question.offset or 0, count)
        return start, min(start + limit, count)

    def _locate(self, question: Question, cursor: str, view: View) -> tuple[int, int]:
        """Return the number of rows before the cursor, and the number of rows up to and including it."""
        try:
            key, inclusive = decode_cursor(cursor, question.sort)
        except BadCursor as error:
            raise Refusal(400, "bad_request", str(error)) from error
        left, right = bisect_left(view.keys, key), bisect_right(view.keys, key)
        if self.rules.cursors == "row" and left == right:
            raise Refusal(400, "bad_request", "the cursor is gone")
        return left, left if inclusive else right

    def _echo(self, question: Question) -> dict[str, Any]:
        if self.rules.echo == "bare":
            return {"parameters": question.parameters}
        echoed = {
            "after": question.after,
            "before": question.before,
            "limit": question.limit,
            "offset": question.offset,
            "sortingKeys": [key for key, _ in question.echoed] or None,
            "sortingOrder": [order for _, order in question.echoed] or None,
        }
        return {"parameters": question.parameters} | {k: v for k, v in echoed.items() if v is not None}

    def _total(self, count: int) -> int:
        totals = {
            True: count,
            "big": count + count // 10 + 3,
            "small": max(0, count - count // 10 - 3),
            "negative": -1,
            "shrinking": max(0, count - 7 * len(self.requests)),
        }
        return totals[self.rules.total]

    def _encode_row(self, job: Job) -> bytes:
        """Return the row as JSON; each version of a job is encoded once."""
        t, edits = self.world.t, len(job.changes)
        cached = self._encoded_rows.get(job)
        if cached is not None and t < cached[0] and edits == cached[1]:
            return cached[2]
        record = format_record(job.record(t), self.rules)
        if self.rules.countdown:
            record["expiresIn"] = job.expires_in(t)
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        valid_until = min((moment for moment in job.change_times() if moment > t), default=NEVER)
        if not self.rules.countdown:
            self._encoded_rows[job] = valid_until, edits, text
        return text


def _compress(answer: Response) -> Response:
    if answer.status != HTTPStatus.OK or "Content-Encoding" in answer.headers:
        return answer
    headers = {**answer.headers, "Content-Encoding": "gzip"}
    return replace(answer, headers=headers, body=gzip.compress(answer.body, 1))
