"""The only door to the API: send a `Query` at an allowed pace, and return what a parser makes of the body.

    client = Client()                                       # credential from the environment
    session = client.start_session(deadline=3600)           # one budget of time and retries, and its counters
    page = session.fetch(query, parse_page)

Requests go through a transport, below redirects, cookies, `.netrc` and proxies from the environment: they do not exist on
this level. The client speaks only to the host that was named, and only over https unless that host is this machine.

Each file answers one question: `session` when to send and when to retry, `gate` and `window` whether a request may go
now, `transport` and the `via_…` files how a request travels, `wire` how its body is read, `answer` what it means,
`credential` who asks, `mask` what a message must not show, `server` where the server is, `accounts` which companies there
are.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

from pleo_extract.client.credential import Credential, Secret, find_exposed
from pleo_extract.client.gate import Gate
from pleo_extract.client.server import open_transport, resolve_server
from pleo_extract.client.session import Channel, Clock, RealClock, Session
from pleo_extract.client.waits import Waits
from pleo_extract.client.window import SharedRateWindow, open_window
from pleo_extract.contract import PATH, canonical_uuid
from pleo_extract.core.pace import RATE, Patience
from pleo_extract.core.pages import LARGEST, PageSize
from pleo_extract.errors import UsageError
from pleo_extract.keywords import check_keywords
from pleo_extract.lazy import attach
from pleo_extract.zones import check_zones

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    import httpx

    from pleo_extract.client.accounts import AccountEntry, choose_shard, read_accounts
    from pleo_extract.client.transport import Transport
    from pleo_extract.client.via_app import AppRequest, AppResponse

__all__ = [
    "AccountEntry",
    "Client",
    "Clock",
    "Secret",
    "Session",
    "Waits",
    "choose_shard",
    "find_exposed",
    "read_accounts",
    "resolve_server",
]

if not TYPE_CHECKING:
    __getattr__ = attach(
        __name__, dict.fromkeys(("AccountEntry", "choose_shard", "read_accounts"), "accounts")
    )

IN_FLIGHT: Final = 8


class Client:
    """A server, a credential and the pace of requests. Threads may share it; close it, or use it in a `with` block.

    Args:
        base_url: ``production``, ``staging`` or a URL; by default PLEO_BASE_URL, else production.
        api_key: sent as the user name of Basic authentication with an empty password; by default PLEO_API_KEY.
        access_token: sent as Bearer token. Either a text, or a function that returns a valid token; the client calls
            it again after a 401. By default PLEO_ACCESS_TOKEN, or the output of PLEO_TOKEN_COMMAND.
        company_id: the company to ask for when a call names none; by default PLEO_COMPANY_ID.
        rate: requests allowed in any 60 seconds, 500 by default; all threads share it.
        in_flight: the most requests that are under way at the same time; the client lowers this number when the
            server answers 429 to parallel requests.
        ca_file: a file of certificates to trust instead of the usual ones.
        proxy: the URL of a proxy.
        page_size: the rows to ask for at a time where many are wanted, 1 to 10,000; by default 1,000, or what the server
            turns out to give.
        transport: what carries requests: a transport of httpx or httpx2, or a function like the sandbox. By default a
            network, through the library that PLEO_TRANSPORT names (``httpx`` or ``curl``), or the faster one installed.
        clock: the source of time, for tests.
        patience: how long to wait for what.

    Raises:
        ConfigurationError: a server, file or setting cannot be used.
        CredentialsError: there is no credential, or more than one.
        UsageError: `company_id`, `rate`, `in_flight` or `page_size` cannot be used.
    """

    @check_keywords
    def __init__(  # noqa: PLR0913 - each is one fact about the outside world, and all have defaults
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        access_token: str | Callable[[], str] | None = None,
        company_id: str | None = None,
        rate: int = RATE,
        in_flight: int = IN_FLIGHT,
        ca_file: str | Path | None = None,
        proxy: str | None = None,
        page_size: int | None = None,
        transport: Transport | httpx.BaseTransport | Callable[[AppRequest], AppResponse] | None = None,
        clock: Clock | None = None,
        patience: Patience | None = None,
    ) -> None:
        check_zones()
        try:
            credential = Credential.find(api_key, access_token)
        finally:
            del api_key, access_token  # a traceback may show the locals of this frame
        self.server = resolve_server(
            base_url if base_url is not None else os.environ.get("PLEO_BASE_URL") or "production"
        )
        company = company_id or os.environ.get("PLEO_COMPANY_ID") or None
        self.company_id = canonical_uuid(company) if company is not None else None
        if not isinstance(in_flight, int) or isinstance(in_flight, bool) or in_flight < 1:
            raise UsageError(f"in_flight must be a whole number from 1, not {in_flight!r}")
        is_number = isinstance(page_size, int) and not isinstance(page_size, bool)
        if page_size is not None and not (is_number and 1 <= page_size <= LARGEST):
            raise UsageError(f"page_size must be a whole number from 1 to {LARGEST:,}, not {page_size!r}")
        self.in_flight = in_flight
        self.rate = rate
        self.page_size = page_size
        self._closed = False
        self._owns_transport = transport is None
        carrier = open_transport(self.server, transport, in_flight, ca_file, proxy)
        self._channel = Channel(
            server=self.server,
            path=self.server.path + PATH,
            transport=carrier,
            credential=credential,
            window=open_window(rate, str(self.server), credential.fixed() if carrier.is_networked else None),
            patience=patience or Patience(),
            clock=clock or RealClock(),
            gate=Gate(in_flight),
            pages=PageSize(chosen=self.page_size),
        )

    def __repr__(self) -> str:
        # A traceback may show a client whose __init__ failed: some attributes are missing then.
        known = vars(self)
        return f"Client({str(known.get('server'))!r}, company_id={known.get('company_id')!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that this client opened. Its caller closes a transport that was passed in."""
        self._closed = True
        if self._owns_transport:
            self._channel.transport.close()
        if isinstance(self._channel.window, SharedRateWindow):
            self._channel.window.close()

    @check_keywords
    def foresee(self, requests: int, latency: float = 0.0) -> float:
        """Return the seconds that this many requests of `latency` seconds each would take from now; send none.

        The estimate counts what this credential has asked in the last minute, also in other processes of this machine.

        Raises:
            UsageError: the client is closed.
        """
        if self._closed:
            raise UsageError("this client is closed; open another")
        now = self._channel.clock.monotonic()
        return self._channel.window.foresee(now, requests, latency / self.in_flight)

    @check_keywords
    def start_session(
        self,
        *,
        deadline: float | None = None,
        max_requests: int | None = None,
        name: str = "",
        waits: Waits | None = None,
        pages: PageSize | None = None,
    ) -> Session:
        """Return a session: one budget of retries, time and requests.

        Args:
            deadline: seconds from now in which the session must end; None for no limit.
            max_requests: the most requests that the session sends; None for no limit.
            name: the run that log records name.
            waits: where the seconds that this session waits are also counted, for a dump of many accounts.
            pages: the page size that the sessions of a run share; by default the client's own.

        Raises:
            UsageError: the client is closed.
        """
        if self._closed:
            raise UsageError("this client is closed; open another")
        return Session(self._channel, deadline, max_requests, name, waits, pages)
