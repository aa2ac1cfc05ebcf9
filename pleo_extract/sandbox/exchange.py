"""A request and its answer, as a transport sees them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Request", "Response"]


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
