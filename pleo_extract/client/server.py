"""Where the server is, and which transport carries requests to it."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from pleo_extract.client.transport import Transport
from pleo_extract.client.via_app import AppTransport
from pleo_extract.contract import SERVERS
from pleo_extract.errors import ConfigurationError, check_path, escape

if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import SplitResult

    import httpx

    from pleo_extract.client.via_app import AppRequest, AppResponse

__all__ = ["Server", "open_transport", "resolve_server"]

HOST: Final = re.compile(r"(localhost|[\w-]+(?=:\d)|[\w-]+(\.[\w-]+)+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/.*)?")
"""A text that looks like a host: a name with a dot or a port, or an IPv6 address in brackets."""
_NEITHER: Final = "neither production, staging nor an https:// address"
SLIPS: Final = {
    re.compile(pattern, re.IGNORECASE): slip
    for pattern, slip in {
        r"\A\s*\Z": "is empty",
        r"\A\s|\s\Z": "has a space or a line break at its beginning or end; remove it",
        "\\A[\"'`<\u201c\u2018\u201e]": "is in quotes or brackets; write it without them",
        r"\s": "has a space in it",
        r"\Ahttps?(?!://)[:/]": "has no :// after its https",
        r"\Ahttps?://https?:": "has https:// twice",
        r"\Ahttps?://\Z": f"is {_NEITHER}: it has no host",
        r"/v3/export-jobs/?\Z": "ends with the path of the list, /v3/export-jobs; leave that out",
        rf"\A({'|'.join(map(re.escape, SERVERS.values()))})/+[^/?#]": "of Pleo has no path; leave out what follows its host",
    }.items()
}
"""What people paste or type in place of a base URL, the first that fits, and what is wrong with it."""
_LABEL: Final = "[a-z](?:[a-z0-9]{0,61}[a-z0-9])?"
PLAIN: Final = re.compile(
    rf"(https(?=://)|http(?=://(?:localhost|127\.0\.0\.1)(?:[:/]|\Z)))://({_LABEL}(?:\.{_LABEL})*|127\.0\.0\.1)"
    r"(:[1-9]\d{3}|:[1-5]\d{4})?((?:/[a-z0-9][a-z0-9_-]*)*/?)"
)
"""A URL that is allowed and is its own normal form. Any other is left to httpx."""


@dataclass(frozen=True, slots=True)
class Server:
    """The base URL of a server.

    Attributes:
        url: as text, normalized.
        scheme: ``https``, or ``http`` on this machine.
        host: the name or address, for people.
        port: None for the port of the scheme.
        netloc: host and port, as they are sent.
        path: encoded, without a slash at the end.
    """

    url: str
    scheme: str
    host: str
    port: int | None
    netloc: str
    path: str

    def __str__(self) -> str:
        return self.url

    @property
    def doubt(self) -> str:
        """A question to add to a failure that a wrong base URL may have caused; "" for Pleo's own servers."""
        is_own = self.url.rstrip("/") in SERVERS.values()
        return "" if is_own else "; is the base URL right? See --base-url and PLEO_BASE_URL"

    @property
    def ascii_host(self) -> str:
        """The host as it is looked up."""
        return self.netloc.removesuffix(f":{self.port}").strip("[]")


def resolve_server(base_url: str) -> Server:
    """Return the server's URL, from ``production``, ``staging`` or a URL.

    Raises:
        ConfigurationError: the URL has no host, is not https (except for this machine), or holds a user, a query or a
            fragment.
    """
    text = SERVERS.get(base_url, base_url) if isinstance(base_url, str) else base_url
    _refuse_slips(text)
    plain = PLAIN.fullmatch(text) if isinstance(text, str) else None
    if plain is not None:
        scheme, host, port, path = plain.groups(default="")
        return Server(
            text, scheme, host, int(port[1:]) if port else None, host + port, path.removesuffix("/")
        )
    url = _parse(base_url)
    return Server(
        str(url),
        url.scheme,
        url.host,
        url.port,
        url.netloc.decode(),
        url.raw_path.decode().rstrip("/"),
    )


def _refuse_slips(text: object) -> None:
    """Raise ConfigurationError for what people paste or type in place of a base URL, in words that name the slip.

    The text itself is not shown: it may be a key that was pasted into the wrong place.
    """
    if not isinstance(text, str):
        return
    for pattern, slip in SLIPS.items():
        if pattern.search(text):
            raise ConfigurationError(f"the base URL {slip}")
    if "://" not in text and (near := get_close_matches(text.lower(), SERVERS, n=1, cutoff=0.5)):
        raise ConfigurationError(f"the base URL is {_NEITHER}; did you mean {near[0]}?")


def _parse(base_url: str) -> httpx.URL:
    """Return the URL, checked."""
    import httpx  # noqa: PLC0415 - takes 50 ms, which most URLs do not need

    try:
        url = httpx.URL(base_url)
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
        raise ConfigurationError(f"the base URL{shown} is {_NEITHER}")
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
    server: Server,
    given: Transport | httpx.BaseTransport | Callable[[AppRequest], AppResponse] | None,
    in_flight: int,
    ca_file: str | Path | None,
    proxy: str | None,
) -> Transport:
    """Return the transport that carries requests to this server.

    Args:
        server: the base URL.
        given: what to use instead of the network: a transport, ours or one of httpx, or an application.
        in_flight: the most connections.
        ca_file: certificates to trust instead of the usual ones.
        proxy: the URL of a proxy.

    Raises:
        ConfigurationError: the CA file or the proxy cannot be used.
    """
    if given is not None:
        return _open_given(server, given)
    if ca_file is not None:
        check_path(ca_file, "the CA file")
    if ca_file is not None and not Path(ca_file).is_file():
        raise ConfigurationError(f"the CA file {ca_file} does not exist, or is not a file")
    parts = _split_proxy(proxy) if proxy is not None else None
    path = None if ca_file is None else str(ca_file)
    try:
        if _choose() == "curl" and not (parts and parts.scheme.startswith("socks")):
            from pleo_extract.client.via_curl import CurlTransport  # noqa: PLC0415 - an extra

            return CurlTransport(server, path, parts)
        from pleo_extract.client.via_httpcore import HttpcoreTransport  # noqa: PLC0415 - takes 50 ms

        return HttpcoreTransport(server, in_flight, path, parts)
    except OSError as exc:  # an SSLError is one, too
        raise ConfigurationError(f"the CA file {ca_file} cannot be used: {type(exc).__name__}") from exc
    except RuntimeError:
        raise ConfigurationError(
            "a SOCKS proxy needs one more package: pip install 'httpcore[socks]'"
        ) from None


def _choose() -> str:
    """Return which transport to use, from PLEO_TRANSPORT; without it, libcurl where it is installed.

    Raises:
        ConfigurationError: there is no such transport, or it cannot be used here.
    """
    wanted = os.environ.get("PLEO_TRANSPORT") or ""
    if wanted not in ("", "httpx", "curl"):
        raise ConfigurationError(f"PLEO_TRANSPORT is {escape(wanted)!r}; it can be httpx or curl")
    if wanted == "httpx":
        return wanted
    try:
        from pleo_extract.client.via_curl import find_problem  # noqa: PLC0415 - an extra
    except ImportError:
        problem = "pycurl is not installed: pip install 'pleo-extract[fast]'"
    else:
        problem = find_problem()
    if wanted and problem:
        raise ConfigurationError(f"PLEO_TRANSPORT is curl, but {problem}")
    return "httpx" if problem else "curl"


def _open_given(
    server: Server, given: Transport | httpx.BaseTransport | Callable[[AppRequest], AppResponse]
) -> Transport:
    if isinstance(given, Transport):
        return given
    if callable(given) and not hasattr(given, "handle_request"):
        return AppTransport(given)
    from pleo_extract.client.via_httpx import HttpxTransport  # noqa: PLC0415 - only who passes one has use for it

    return HttpxTransport(server, cast("httpx.BaseTransport", given))


def _split_proxy(proxy: str) -> SplitResult:
    """Return a proxy's URL, taken apart.

    Raises:
        ConfigurationError: it is not one. The message does not show it, since it may hold a password.
    """
    try:
        parts = urlsplit(proxy)
        if parts.scheme in ("http", "https", "socks5", "socks5h") and parts.hostname and parts.port != 0:
            return parts
    except (TypeError, ValueError):
        pass
    raise ConfigurationError(
        "the proxy is not a URL; give http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"
    )
