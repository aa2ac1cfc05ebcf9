"""A transport that the user passes in: one of httpx, or of httpx2, its successor with the same interface.

It is the user's, so its owner answers for what it does below `handle_request`: proxies, certificates, the bytes after an
answer. The limit is checked between the pieces of a body; before the head, only the timeouts that the transport is given
hold.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, cast

from pleo_extract.client.transport import join_headers, translated
from pleo_extract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import httpx

    from pleo_extract.client.server import Server
    from pleo_extract.client.transport import Limit, Request

__all__ = ["HttpxTransport", "find_library"]

ROOTS: Final = ("HTTPError", "InvalidURL", "StreamError", "CookieConflict")
"""The roots of all errors that httpx raises."""


def find_library(transport: object) -> Any:
    """Return the library that this transport belongs to, httpx or httpx2; None if it is no transport of theirs."""
    for kind in type(transport).__mro__:
        if kind.__name__ == "BaseTransport":
            return sys.modules.get(kind.__module__.partition(".")[0])
    return None


class HttpxTransport:
    """A transport of httpx or httpx2.

    Args:
        server: the base URL.
        inner: the transport.

    Raises:
        UsageError: it is no such transport.
    """

    def __init__(self, server: Server, inner: httpx.BaseTransport) -> None:
        self._library = find_library(inner)
        if self._library is None:
            raise UsageError(
                f"transport is a {type(inner).__name__}; give an httpx transport or a function of a request"
            )
        self._url = self._library.URL(str(server))
        self._foreign = tuple(getattr(self._library, root) for root in ROOTS)
        self._inner = inner
        self.is_networked = isinstance(inner, self._library.HTTPTransport)

    def send(self, request: Request) -> _Reply:
        """Send a request; return when the head of the answer is complete."""
        limit = request.limit
        timeout = {"connect": limit.connect, "read": limit.read, "write": limit.read, "pool": limit.left()}
        asked = self._library.Request(
            "GET",
            self._url.copy_with(raw_path=request.target.encode()),
            headers=request.headers,
            extensions={"timeout": timeout},
        )
        response = translated(lambda: self._inner.handle_request(asked), self._foreign)
        return _Reply(response, limit, self._foreign)

    def drop_idle(self) -> None:
        """Do nothing: the connections are the transport's."""

    def close(self) -> None:
        """Do nothing: the transport is its caller's."""


class _Reply:
    def __init__(self, response: httpx.Response, limit: Limit, foreign: tuple[type[Exception], ...]) -> None:
        self.status = response.status_code
        self.headers = join_headers(response.headers.raw)
        self._foreign = foreign
        self._limit = limit
        self._response = response

    def receive(self) -> Iterator[bytes]:
        pieces = iter(cast("Iterable[bytes]", self._response.stream))
        while (piece := translated(lambda: next(pieces, None), self._foreign)) is not None:
            self._limit.left()
            yield piece

    def close(self) -> None:
        self._response.close()
