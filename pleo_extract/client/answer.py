"""What an answer means: a page, an error of ours, or something that may pass.

Every status code and every error of httpx is translated here and nowhere else.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import httpx

from pleo_extract.core.pace import retry_after
from pleo_extract.errors import (
    ConfigurationError,
    ContractError,
    CredentialsError,
    EchoMismatch,
    PageError,
    RequestRefused,
    TryLater,
    escape,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["FOREIGN", "Answer", "Retryable", "Unauthorized", "forget_frames", "interpret", "translate"]

T = TypeVar("T")

REFUSED: Final = frozenset({400, 422})
"""Codes for a query that the server understands and will not answer; some send the second for values out of range."""
TRANSIENT: Final = frozenset({408, 425, 429})
"""Below 500, what may pass by itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    generation: int = 0
    """Of the credential that was sent."""
    crowded: bool = False
    """A 429 that came while other requests were under way."""


class Retryable(Exception):
    """A failure that may pass: its kind, the error it is when it does not, and the wait the server asks for.

    `unreachable`: there was no connection at all. `crowded`: a 429 that came while other requests were under way;
    `too_fast`: one that came alone.
    """

    too_fast = False

    def __init__(
        self,
        kind: str,
        error: TryLater | PageError,
        wait: float | None = None,
        *,
        unreachable: bool = False,
        crowded: bool = False,
    ) -> None:
        super().__init__(kind)
        self.kind = kind
        self.error = error
        self.wait = wait
        self.unreachable = unreachable
        self.crowded = crowded

    @property
    def may_be_refusal(self) -> bool:
        """Whether this can be how a server refuses one query that it finds too much: a 5xx, or no answer in time."""
        return not self.unreachable and (
            self.kind == "timeout" or (self.kind.isdigit() and int(self.kind) >= 500)
        )


class Unauthorized(Exception):
    """A 401, the generation of the credential it refused, and the error it is when that cannot be renewed."""

    def __init__(self, error: CredentialsError, generation: int) -> None:
        super().__init__()
        self.error = error
        self.generation = generation


def interpret(
    answer: Answer, params: Sequence[tuple[str, str]], read: Callable[[bytes], T], *, origin: str
) -> T:
    """What a status code means. The tables of `errors` and of the contract, in one place.

    `origin` is where the credential came from: what to check when it is refused.
    """
    status = answer.status
    if status == httpx.codes.OK:
        try:
            return read(answer.body)
        except EchoMismatch as exc:
            raise Retryable(
                "stray answer", exc, wait=0.0
            ) from exc  # a fresh connection is what helps, not time
        except PageError as exc:
            kind = escape(answer.headers.get("content-type", "no content type"))
            raise Retryable("bad body", PageError(f"{exc}, sent as {kind}")) from exc
    if status in TRANSIENT or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        wait = retry_after(answer.headers)
        error = TryLater(f"the server answered {status}{_said(answer)}")
        again = Retryable(str(status), error, wait, crowded=answer.crowded)
        again.too_fast = status == httpx.codes.TOO_MANY_REQUESTS and not answer.crowded
        raise again
    if status == httpx.codes.UNAUTHORIZED:
        raise Unauthorized(
            CredentialsError(
                f"the server answered 401{_said(answer)}: the key or token is missing, wrong or expired. "
                f"Check {origin}"
            ),
            answer.generation,
        )
    if status in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
        company = dict(params).get("company_id", "any company")
        raise CredentialsError(
            f"the server answered {status}{_said(answer)}: this credential has no access to export jobs of {company} "
            "(scope export-jobs:read), or the address is wrong: check the base URL too"
        )
    if status in REFUSED:
        raise RequestRefused(f"the server answered {status}{_said(answer)}", params=params)
    if httpx.codes.is_redirect(status) or 300 <= status < 400:
        raise ContractError(
            f"the server answered {status}, a redirect to {_target(answer)}; redirects are not followed"
        )
    if status < 300:
        raise Retryable("no page", PageError(f"the server answered {status} without a page"))
    raise ContractError(f"the server answered {status}{_said(answer)}, which the contract does not have")


def _said(answer: Answer) -> str:
    text = answer.body[:1000].decode("utf-8", "replace").strip()
    return f" ({escape(text, 160)})" if text else ""


def _target(answer: Answer) -> str:
    try:
        host = httpx.URL(answer.headers.get("location", "")).host
    except (httpx.InvalidURL, ValueError):  # a ValueError: a host that is no name
        return "what is no URL"
    return f"host {escape(host)!r}" if host else "the same host"


FOREIGN: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict)
"""The roots of all that httpx raises."""


def forget_frames(exc: BaseException | None) -> None:
    """Take the tracebacks from a foreign error and its causes: the locals of those frames hold the credential."""
    while exc is not None:
        exc.__traceback__ = None
        exc = exc.__cause__ or exc.__context__


def translate(exc: Exception, host: str, mask: Callable[[str], str]) -> Retryable | ConfigurationError:
    """An error of httpx as one of ours, which keeps nothing of it; `mask` takes the credential out of its text."""
    if isinstance(exc, httpx.DecodingError):
        return Retryable("bad body", PageError(f"the body of {host} cannot be decompressed"))
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the certificate of {host} is not trusted ({escape(cause.verify_message)}). If your network has its own "
                "authority, name its file with --ca-file"
            )
        cause = cause.__cause__ or cause.__context__
    said = f"{type(exc).__name__}: {escape(mask(str(exc)))}"
    if isinstance(exc, httpx.UnsupportedProtocol | httpx.ProxyError):
        return ConfigurationError(f"the way to {host} cannot be used: {said}")
    kind = "timeout" if isinstance(exc, httpx.TimeoutException) else type(exc).__name__
    error = TryLater(f"no proper answer from {host}: {said}")
    return Retryable(kind, error, unreachable=isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout))
