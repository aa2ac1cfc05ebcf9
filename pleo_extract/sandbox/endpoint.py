"""The endpoint: `GET /v3/export-jobs` over a world, as one callable from request to answer."""

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

from pleo_extract.sandbox.chance import chance
from pleo_extract.sandbox.cursor import BadCursor, read_cursor, write_cursor
from pleo_extract.sandbox.exchange import RequestLike, Response
from pleo_extract.sandbox.faults import choose_fault, parse_faults, strike
from pleo_extract.sandbox.kinds import Strike
from pleo_extract.sandbox.life import NEVER, Job
from pleo_extract.sandbox.oracle import CollectedRows, Discrepancy, Rows
from pleo_extract.sandbox.question import Question, Refusal, read_credential, read_question, unauthorized
from pleo_extract.sandbox.rules import Rules, spell_record
from pleo_extract.sandbox.view import Selection, View
from pleo_extract.sandbox.world import World

__all__ = ["API_KEY", "PATH", "TOKEN", "Asked", "Sandbox"]

PATH = "/v3/export-jobs"
API_KEY = "plp_sandbox"
TOKEN = "sandbox-token"  # noqa: S105 - opens nothing but a sandbox
Access = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of the sandbox's log: what was asked, what came back and how.

    `number` counts from 1, as fault scripts do; `time` is in seconds of the sandbox's timer; `fault` is empty where
    none struck.
    """

    number: int
    request: RequestLike
    parameters: Mapping[str, list[str]]
    status: int
    wire: str
    fault: str
    time: float


class Sandbox:
    """Pleo's export jobs in a box: call it with a Request, get a Response. Safe to call from many threads.

    `api_keys` and `tokens` map each credential to the id of its company, or to None for an organisation, which
    sees all. `faults` is a script, see `parse_faults`. `requests` logs what was asked. `timer` (seconds) drives the
    `rate` and `speed` rules and may be replaced by a test's own clock.
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
        self._spelled: dict[Job, tuple[int, int, bytes]] = {}
        self._cursors_asked: list[str] = []
        self._luck = chance("faults", faults)
        self._read_at: float | None = None

    def __call__(self, request: RequestLike) -> Response:
        """Answer one request."""
        with self.world.lock:
            self._move_clock()
            number = len(self.requests) + 1
            parameters = parse_qs(request.query, keep_blank_values=True)
            answer = self._answer(request, parameters)
            fault = choose_fault(self.faults, number, self._luck)
            if fault is not None:
                blow = Strike(
                    number, answer, parameters, self._cursors_asked, self.world.now, self.rules.elsewhere
                )
                answer = strike(fault, blow)
            if self.rules.gzip and "gzip" in request.headers.get("accept-encoding", ""):
                answer = _compress(answer)
            self._cursors_asked += parameters.get("after", [])
            kind = fault.kind if fault else ""
            self.requests.append(
                Asked(number, request, parameters, answer.status, answer.wire, kind, self.timer())
            )
            return answer

    def renew(self, token: str = TOKEN) -> str:
        """Exchange a token for a new one; the old is dead at once.

        Raises:
            KeyError: the token is unknown, or was exchanged before.
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
        """What is wrong with the rows that a walk from `since` until now collected; empty when nothing is.

        Take `since` from `world.now` before the walk. Rows are the API's records or ours; companies and statuses are
        what the walk asked for.
        """
        ignore = frozenset({"expiresIn"} if self.rules.countdown else ())
        walk = CollectedRows(
            since=since,
            companies=companies,
            statuses=statuses,
            shape=lambda record: spell_record(record, self.rules),
            ignore=ignore,
        )
        return self.world.discrepancies(rows, walk)

    def _move_clock(self) -> None:
        seconds = self.rules.tick
        if self.rules.speed:
            read_at, self._read_at = self._read_at, self.timer()
            seconds += self.rules.speed * (self._read_at - (self._read_at if read_at is None else read_at))
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
        company = self._admit(request.headers.get("authorization"))
        question = read_question(parameters, self.rules)
        return self._page(question, self._companies(question, company))

    def _headers(self) -> dict[str, str]:
        # The server's clock is the world's, which is not the client's.
        date = format_datetime(self.world.now.replace(microsecond=0), usegmt=True)
        return {"Content-Type": self.rules.content_type, "Date": date}

    def _admit(self, header: str | None) -> str | None:
        """The company a credential is for, or None for an organisation's; counts its use."""
        scheme, credential = read_credential(header)
        if (scheme, credential) not in self._access:
            raise unauthorized("the credential is unknown, revoked or expired")
        if scheme == "bearer" and self.rules.token_uses is not None:
            self._uses[credential] = self._uses.get(credential, 0) + 1
            if self._uses[credential] > self.rules.token_uses:
                raise unauthorized("the token has expired")
        if self.rules.rate is not None:
            self._count(credential, self.rules.rate)
        return self._access[scheme, credential]

    def _count(self, credential: str, rate: int) -> None:
        recent, now = self._recent.setdefault(credential, deque()), self.timer()
        while recent and recent[0] <= now - 60:
            recent.popleft()
        if len(recent) >= rate:
            wait = ceil(recent[0] + 60 - now) if recent else 60
            raise Refusal(429, "rate_limit", "too many requests", {"Retry-After": str(max(1, wait))})
        recent.append(now)

    def _companies(self, question: Question, own: str | None) -> frozenset[str] | None:
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
        start, stop = self._bounds(question, view)
        info: dict[str, Any] = {
            "currentRequestPagination": self._echo(question),
            "hasNextPage": stop < len(view.keys),
            "hasPreviousPage": start > 0,
        }
        if start < stop:
            info["startCursor"] = write_cursor(question.sort, view.keys[start])
            if stop < len(view.keys) or self.rules.last_cursor:
                info["endCursor"] = write_cursor(question.sort, view.keys[stop - 1])
        if self.rules.total is not False:
            info["total"] = self._total(len(view.keys))
        rows = b",".join([self._spell(job) for job in view.jobs[start:stop]])
        return b'{"data":[%b],"pagination":%b}' % (rows, json.dumps(info).encode())

    def _bounds(self, question: Question, view: View) -> tuple[int, int]:
        """The slice of the view that the page is."""
        count, limit = len(view.keys), question.limit
        if question.after is not None:
            start = self._place(question, question.after, view)[1]
            return start, min(start + limit, count)
        if question.before is not None:
            stop = self._place(question, question.before, view)[0]
            return max(0, stop - limit), stop
        start = min(question.offset or 0, count)
        return start, min(start + limit, count)

    def _place(self, question: Question, cursor: str, view: View) -> tuple[int, int]:
        """How many rows precede the cursor, and how many do not follow it."""
        try:
            key, inclusive = read_cursor(cursor, question.sort)
        except BadCursor as error:
            raise Refusal(400, "bad_request", str(error)) from error
        left, right = bisect_left(view.keys, key), bisect_right(view.keys, key)
        if self.rules.cursors == "row" and left == right:
            raise Refusal(400, "bad_request", "the cursor is gone")
        return left, left if inclusive else right

    def _echo(self, question: Question) -> dict[str, Any]:
        if self.rules.echo == "bare":
            return {"parameters": question.parameters}
        said = {
            "after": question.after,
            "before": question.before,
            "limit": question.limit,
            "offset": question.offset,
            "sortingKeys": [key for key, _ in question.echoed] or None,
            "sortingOrder": [order for _, order in question.echoed] or None,
        }
        return {"parameters": question.parameters} | {k: v for k, v in said.items() if v is not None}

    def _total(self, count: int) -> int:
        lies = {
            True: count,
            "big": count + count // 10 + 3,
            "small": max(0, count - count // 10 - 3),
            "negative": -1,
            "shrinking": max(0, count - 7 * len(self.requests)),
        }
        return lies[self.rules.total]

    def _spell(self, job: Job) -> bytes:
        """The row's JSON, spelled once for each version."""
        t, edits = self.world.t, len(job.changes)
        known = self._spelled.get(job)
        if known is not None and t < known[0] and edits == known[1]:
            return known[2]
        record = spell_record(job.at(t), self.rules)
        if self.rules.countdown:
            record["expiresIn"] = job.expires_in(t)
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        fresh_until = min((turn for turn in job.moments() if turn > t), default=NEVER)
        if not self.rules.countdown:
            self._spelled[job] = fresh_until, edits, text
        return text


def _compress(answer: Response) -> Response:
    if answer.status != HTTPStatus.OK or "Content-Encoding" in answer.headers:
        return answer
    headers = {**answer.headers, "Content-Encoding": "gzip"}
    return replace(answer, headers=headers, body=gzip.compress(answer.body, 1))
