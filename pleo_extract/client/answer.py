"""What an answer means: a result, an error of ours, or a failure that may pass.

Every status code and every failure of a transport is translated here and nowhere else. The body of a page goes to a parser
that the caller brings, `fetch/driver.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

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

    from pleo_extract.client.server import Server
    from pleo_extract.client.transport import Failure

__all__ = ["Answer", "Retryable", "Unauthorized", "forget_frames", "interpret", "translate"]

T = TypeVar("T")

REFUSED: Final = frozenset({400, 413, 422})
"""Codes for a query that the server understands and refuses; some send 422 for values out of range."""
GONE: Final = frozenset({404, 410})
"""Codes for a cursor that has expired, where a request has one. The contract names no code for that."""
TRANSIENT: Final = frozenset({408, 425, 429})
"""Codes below 500 for a failure that may pass."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer.

    Attributes:
        status: the HTTP status.
        headers: by name, in lower case.
        body: decompressed.
        generation: the generation of the credential that was sent.
        crowded: whether this is a 429 that arrived while other requests were under way.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    generation: int = 0
    crowded: bool = False


class Retryable(Exception):
    """A failure that may pass.

    Attributes:
        kind: what it is counted as: a status code, ``timeout``, ``bad body``, or the name of an error.
        error: what to raise if it does not pass.
        wait: the seconds that the server asks to wait; None if it does not say.
        unreachable: whether there was no connection at all.
        crowded: whether it is a 429 that arrived while other requests were under way.
        too_fast: whether it is a 429 that arrived while no other request was under way.
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
        """Whether this may be the server's way to refuse a query that is too much for it: a 5xx, or no answer in time."""
        return not self.unreachable and (
            self.kind == "timeout" or (self.kind.isdigit() and int(self.kind) >= 500)
        )


class Unauthorized(Exception):
    """A 401.

    Attributes:
        error: what to raise if the credential cannot be renewed.
        generation: the generation of the credential that was refused.
    """

    def __init__(self, error: CredentialsError, generation: int) -> None:
        super().__init__()
        self.error = error
        self.generation = generation


def interpret(
    answer: Answer,
    params: Sequence[tuple[str, str]],
    parse: Callable[[bytes], T],
    *,
    origin: str,
    server: Server,
) -> T:
    """Return what `parse` makes of a page; raise what any other answer means.

    Args:
        answer: what the server sent.
        params: what was asked.
        parse: turns the body of a page into the result; raises PageError if it cannot.
        origin: where the credential came from, which is what to check after a 401.
        server: who answered.

    Raises:
        Retryable: the failure may pass.
        Unauthorized: the credential was refused.
        RequestRefused: the query was refused.
        CredentialsError: the credential has no access.
        ContractError: the answer is not in the contract.
    """
    status = answer.status
    if status == HTTPStatus.OK:
        try:
            return parse(answer.body)
        except EchoMismatch as exc:
            # A fresh connection helps here, not time: so no wait.
            raise Retryable("stray answer", exc, wait=0.0) from exc
        except PageError as exc:
            kind = escape(answer.headers.get("content-type", "no content type"))
            doubt = "" if "json" in kind.lower() else server.doubt
            raise Retryable("bad body", PageError(f"{exc}, sent as {kind}{doubt}")) from exc
    if status in TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        wait = retry_after(answer.headers)
        error = TryLater(f"the server answered {status}{_quote(answer)}")
        again = Retryable(str(status), error, wait, crowded=answer.crowded)
        again.too_fast = status == HTTPStatus.TOO_MANY_REQUESTS and not answer.crowded
        raise again
    if status == HTTPStatus.UNAUTHORIZED:
        raise Unauthorized(
            CredentialsError(
                f"the server answered 401{_quote(answer)}: the key or token is missing, wrong or expired. "
                f"Check {origin}"
            ),
            answer.generation,
        )
    if status in REFUSED or (status in GONE and "after" in dict(params)):
        raise RequestRefused(f"the server answered {status}{_quote(answer)}", params=params)
    if status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
        company = dict(params).get("company_id", "any company")
        raise CredentialsError(
            f"the server answered {status}{_quote(answer)}: this credential has no access to export jobs of {company} "
            "(scope export-jobs:read), or the address is wrong: check the base URL too"
        )
    if 300 <= status < 400:
        raise ContractError(
            f"the server answered {status}, a redirect to {_describe_target(answer)}; redirects are not followed"
            f"{server.doubt}"
        )
    if status < 300:
        raise Retryable("no page", PageError(f"the server answered {status} without a page"))
    raise ContractError(
        f"the server answered {status}{_quote(answer)}, a status that the contract does not have"
    )


def _quote(answer: Answer) -> str:
    """Return the start of the body in brackets, for a message; "" if it is empty."""
    text = answer.body[:1000].decode("utf-8", "replace").strip()
    return f" ({escape(text, 160)})" if text else ""


def _describe_target(answer: Answer) -> str:
    """Return where a redirect leads, for a message. The host is enough: the rest of a URL may hold a secret."""
    try:
        host = urlsplit(answer.headers.get("location", "")).hostname
    except ValueError:
        return "something that is not a URL"
    return f"host {escape(host)!r}" if host else "the same host"


def forget_frames(exc: BaseException | None) -> None:
    """Remove the tracebacks of an error and its causes: the locals of those frames hold the credential."""
    while exc is not None:
        exc.__traceback__ = None
        exc = exc.__cause__ or exc.__context__


def translate(failure: Failure, server: Server, mask: Callable[[str], str]) -> Retryable | ConfigurationError:
    """Return what a transport says as one of our errors.

    Args:
        failure: what happened.
        server: the server, for the message.
        mask: removes the credential from a text.
    """
    host, text = server.host, escape(mask(failure.text))
    if failure.name == "DecodingError":
        return Retryable("bad body", PageError(f"the body of {host} cannot be decompressed"))
    if failure.name == "CertificateError":
        return ConfigurationError(
            f"the certificate of {host} is not trusted ({text}). If your network has its own certificate authority, "
            "name its file with --ca-file"
        )
    reason = f"{failure.name}: {text}"
    if failure.name in ("UnsupportedProtocol", "ProxyError"):
        return ConfigurationError(
            f"{host} cannot be reached this way: {reason}. Check the base URL and the proxy"
        )
    kind = "timeout" if "Timeout" in failure.name else failure.name
    is_unreachable = failure.name in ("ConnectError", "ConnectTimeout")
    doubt = server.doubt if is_unreachable else ""
    return Retryable(
        kind, TryLater(f"no usable answer from {host}: {reason}{doubt}"), unreachable=is_unreachable
    )
