"""A recorder of the requests and responses between our client and Prism."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Answer", "Recorder"]


class Answer(NamedTuple):
    """One response: the query, the status, and the violations that Prism found in request and response."""

    query: str
    status: int
    violations: tuple[str, ...]


class Recorder(httpx.BaseTransport):
    """The client's transport, which records each response.

    Prism names violations in a header of the response; if it refuses a request itself, in a body of its own type.
    `last_body` is the last body, to show when a test fails.

    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.last_body = bytearray()
        self._line = httpx.HTTPTransport(trust_env=False)

    @property
    def violations(self) -> list[str]:
        """All violations that Prism found, with their queries."""
        return [f"{wrong} (?{answer.query})" for answer in self.answers for wrong in answer.violations]

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and record what Prism says."""
        response = self._line.handle_request(request)
        query = request.url.query.decode("ascii")
        self.answers.append(Answer(query, response.status_code, _read_violations(response)))
        assert isinstance(response.stream, httpx.SyncByteStream)
        self.last_body = bytearray()
        stream = _Listening(response.stream, self.last_body)
        return httpx.Response(response.status_code, headers=response.headers, stream=stream)

    def close(self) -> None:
        """Close the connections."""
        self._line.close()


def _read_violations(response: httpx.Response) -> tuple[str, ...]:
    reported = json.loads(response.headers.get("sl-violations", "[]"))
    if not reported and response.headers.get("content-type", "").startswith("application/problem+json"):
        return (f"Prism answers {response.status_code} in the API's place",)
    return tuple(
        f"{wrong['location'][0]} {'.'.join(wrong['location'][1:])}: {wrong['message']}" for wrong in reported
    )


class _Listening(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, heard: bytearray) -> None:
        self._stream = stream
        self._heard = heard

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._heard += chunk
            yield chunk

    def close(self) -> None:
        self._stream.close()
