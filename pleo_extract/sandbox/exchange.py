"""The request and the response that a transport exchanges with the sandbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Request", "RequestLike", "Response"]


class RequestLike(Protocol):
    """The parts of a request that the sandbox reads, whichever client made it."""

    @property
    def method(self) -> str:
        """The HTTP method, in capitals."""
        ...

    @property
    def path(self) -> str:
        """The path, decoded."""
        ...

    @property
    def query(self) -> str:
        """The query string, not decoded."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by name; names are in lower case."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A request. The query string is not decoded; header names are in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """A response, and how the network delivers it.

    Attributes:
        status: the HTTP status.
        headers: the headers by name.
        body: the body; for the cuts, only the part that is sent.
        wire: how the response travels:
            `whole`: as it should.
            `reset`: the connection is reset before the head.
            `reset_mid`: the connection is reset in the middle of the body.
            `cut`: the connection ends cleanly before the body is as long as `Content-Length` says.
            `cut_close`: the connection ends cleanly; there is no length to miss.
            `cut_chunked`: the connection ends before the last chunk.
            `drip`: one byte at a time.
            `silence`: nothing is sent.
        delay: seconds before the response, or between the bytes of a `drip`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    wire: str = "whole"
    delay: float = 0.0

    def receive(self) -> Iterator[bytes]:
        """Return the body as a client in this process receives it, with the errors of the wire.

        Raises:
            ConnectionResetError, TimeoutError: no response arrives.
            ConnectionAbortedError, TimeoutError: raised by the iterator after the part that was sent.
        """
        if self.wire == "reset":
            raise ConnectionResetError("connection reset")
        if self.wire == "silence":
            raise TimeoutError("no answer")
        return self._stream()

    def _stream(self) -> Iterator[bytes]:
        yield self.body
        if self.wire in ("reset_mid", "cut", "cut_chunked"):
            raise ConnectionAbortedError("the peer closed the connection before the body was complete")
        if self.wire == "drip":
            raise TimeoutError("the answer came too slowly")
