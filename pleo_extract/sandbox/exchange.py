"""A request and its answer, as a transport sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Request", "RequestLike", "Response"]


class RequestLike(Protocol):
    """What the sandbox reads of a request, whichever client made it."""

    @property
    def method(self) -> str:
        """In capitals."""
        ...

    @property
    def path(self) -> str:
        """Decoded."""
        ...

    @property
    def query(self) -> str:
        """The query string, raw."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, in lower case."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A request: the query string raw, header names in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer and how it travels.

    `wire`: `whole`; `reset` before the head; `reset_mid` and `cut` (an orderly end) in the middle of the body,
    whose `Content-Length` promises all of it; `cut_chunked` as `cut`, without a length; `drip` one byte at a time;
    `silence` nothing at all. For the cuts `body` is the part that is sent.
    `delay` is in seconds: before the answer, or for `drip` between its bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    wire: str = "whole"
    delay: float = 0.0

    def receive(self) -> Iterator[bytes]:
        """Return the body as a client in this process gets it, broken where the wire breaks it.

        Raises:
            ConnectionResetError, TimeoutError: instead of any answer.
            ConnectionAbortedError, TimeoutError: by the iterator, once the part that is sent was read.
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
