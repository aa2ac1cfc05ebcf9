"""Where the server is, and which transport carries requests to it."""

from __future__ import annotations

import ipaddress
import re
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx

from pleo_extract.client.wire import DeadlineNetwork
from pleo_extract.contract import SERVERS
from pleo_extract.errors import ConfigurationError, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


__all__ = ["AppRequest", "AppResponse", "drop_idle", "open_transport", "resolve_server"]

HOST: Final = re.compile(r"(localhost|[\w-]+(?=:\d)|[\w-]+(\.[\w-]+)+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/.*)?")
"""A text that looks like a host: a name with a dot or a port, or an IPv6 address in brackets."""


def resolve_server(base_url: str) -> httpx.URL:
    """Return the server's URL, from ``production``, ``staging`` or a URL.

    Raises:
        ConfigurationError: the URL has no host, is not https (except for this machine), or holds a user, a query or a
            fragment.
    """
    try:
        url = httpx.URL(SERVERS.get(base_url, base_url))
        # The look-up of a name encodes it like this: a host that cannot be encoded fails here, with our error.
        is_name = bool(url.host and url.raw_host.decode("ascii").encode("idna"))
    except (httpx.InvalidURL, TypeError, ValueError) as exc:
        raise ConfigurationError(f"the base URL cannot be read ({type(exc).__name__})") from None
    if url.userinfo:
        raise ConfigurationError("the base URL holds a user or password; set PLEO_API_KEY instead")
    if url.scheme not in ("http", "https") or not is_name:
        if HOST.fullmatch(base_url):
            raise ConfigurationError(
                "the base URL begins with its host; write https:// before it (http:// only for this machine)"
            )
        # A text without a scheme is not shown: it may be a key that was pasted into the wrong place.
        shown = f" {escape(str(url))!r}" if "://" in base_url else ""
        raise ConfigurationError(
            f"the base URL{shown} is neither production, staging nor an https:// address"
        )
    if url.port is not None and not 0 < url.port < 2**16:
        raise ConfigurationError(
            f"the base URL of {escape(url.host)} has port {url.port}; a port is 1 to 65535"
        )
    if url.query or url.fragment:
        raise ConfigurationError(f"the base URL of {escape(url.host)} has a query or fragment; leave it out")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise ConfigurationError(
            f"http://{escape(url.host)} would send the credential unencrypted; use https:// (http:// only for this machine)"
        )
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def open_transport(
    server: httpx.URL,
    transport: httpx.BaseTransport | Callable[[AppRequest], AppResponse] | None,
    in_flight: int,
    ca_file: str | Path | None,
    proxy: str | None,
) -> httpx.BaseTransport:
    """Return the transport that carries requests to this server.

    Args:
        server: the base URL.
        transport: a transport or an application to use instead of the network.
        in_flight: the most connections.
        ca_file: certificates to trust instead of the usual ones.
        proxy: the URL of a proxy.

    Raises:
        ConfigurationError: the CA file or the proxy cannot be used.
    """
    if isinstance(transport, httpx.BaseTransport):
        return transport
    if transport is not None:
        return _InProcess(transport)
    if ca_file is not None and not Path(ca_file).is_file():
        raise ConfigurationError(f"the CA file {ca_file} does not exist, or is not a file")
    if proxy is not None:
        _check_proxy(proxy)
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight, keepalive_expiry=30)
    try:
        verify = _build_tls(ca_file) if server.scheme == "https" else False
        network = httpx.HTTPTransport(verify=verify, limits=limits, trust_env=False, proxy=proxy)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigurationError(f"the CA file {ca_file} cannot be used: {type(exc).__name__}") from exc
    except (ValueError, httpx.InvalidURL, ImportError) as exc:  # ImportError: SOCKS without its package
        socks = "; for SOCKS, pip install 'httpx[socks]'" if isinstance(exc, ImportError) else ""
        raise ConfigurationError(f"the proxy cannot be used ({type(exc).__name__}){socks}") from None
    pool: Any = network._pool  # noqa: SLF001 - httpx offers no other way to its sockets; a test fails if this attribute goes
    pool._network_backend = DeadlineNetwork(pool._network_backend)  # noqa: SLF001 - as above
    return network


def drop_idle(transport: httpx.BaseTransport) -> None:
    """Close all connections that carry no request now: one of them may hold an answer that nobody asked for."""
    for connection in list(getattr(getattr(transport, "_pool", None), "connections", ())):
        if connection.is_idle():
            connection.close()


def _check_proxy(proxy: str) -> None:
    """Raise ConfigurationError if the proxy is not a URL. The message does not show it, since it may hold a password."""
    try:
        url = httpx.URL(proxy)
    except (httpx.InvalidURL, TypeError, ValueError):
        url = httpx.URL("")
    if url.scheme not in ("http", "https", "socks5", "socks5h") or not url.host:
        raise ConfigurationError(
            "the proxy is not a URL; give http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"
        )


def _build_tls(ca_file: str | Path | None) -> ssl.SSLContext:
    return (
        ssl.create_default_context(cafile=str(ca_file))
        if ca_file
        else httpx.create_ssl_context(trust_env=False)
    )


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


class _InProcess(httpx.BaseTransport):
    """A transport to an application in this process, such as the sandbox, which can also simulate network errors."""

    def __init__(self, app: Callable[[AppRequest], AppResponse]) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        query = request.url.query.decode("ascii")
        answer = self._app(AppRequest(request.method, request.url.path, query, headers))
        with _as_network():
            body = answer.receive()
        return httpx.Response(answer.status, headers=dict(answer.headers), stream=_Body(body))


class _Body(httpx.SyncByteStream):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        with _as_network():
            yield from self._pieces


@contextmanager
def _as_network() -> Iterator[None]:
    """Turn an error of the application into the error that httpx raises when a network fails in this way."""
    try:
        yield
    except TimeoutError as exc:
        raise httpx.ReadTimeout(str(exc)) from exc
    except ConnectionAbortedError as exc:
        raise httpx.RemoteProtocolError(str(exc)) from exc
    except ConnectionError as exc:
        raise httpx.ReadError(str(exc)) from exc
