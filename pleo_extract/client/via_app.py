"""A transport to an application in this process, such as the sandbox, which can also simulate network errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import unquote

from pleo_extract.client.transport import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pleo_extract.client.transport import Request

__all__ = ["AppRequest", "AppResponse", "AppTransport"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AppRequest:
    """A request to an application in this process. The query string is raw, header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


class AppResponse(Protocol):
    """The answer of an application in this process."""

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers by name."""
        ...

    def receive(self) -> Iterator[bytes]:
        """Return the body in pieces. A ConnectionError or TimeoutError counts as one of the network."""
        ...


class AppTransport:
    """A transport to an application: a function of a request."""

    is_networked = False

    def __init__(self, app: Callable[[AppRequest], AppResponse]) -> None:
        self._app = app

    def send(self, request: Request) -> _Reply:
        """Call the application."""
        path, _, query = request.target.partition("?")
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = self._app(AppRequest("GET", unquote(path), query, headers))
        return _Reply(answer.status, dict(answer.headers), _call(answer.receive))

    def drop_idle(self) -> None:
        """Do nothing: there are no connections."""

    def close(self) -> None:
        """Do nothing: the application is its caller's."""


class _Reply:
    def __init__(self, status: int, headers: Mapping[str, str], pieces: Iterator[bytes]) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self._pieces = pieces

    def receive(self) -> Iterator[bytes]:
        while (piece := _call(lambda: next(self._pieces, None))) is not None:
            yield piece

    def close(self) -> None:
        pass


def _call(function: Callable[[], T]) -> T:
    """Return what the function returns; raise Failure where a network would fail in this way."""
    try:
        return function()
    except TimeoutError as exc:
        failure = Failure("ReadTimeout", str(exc))
    except ConnectionAbortedError as exc:
        failure = Failure("RemoteProtocolError", str(exc))
    except ConnectionError as exc:
        failure = Failure("ReadError", str(exc))
    raise failure
