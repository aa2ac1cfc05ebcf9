"""The one door to the API: sends a Query, waits as `pace` says, gives back what `read` makes of the body.

    client = Client()                                  credentials from the environment
    run = client.start_run(deadline=3600)              one budget of time and retries, and its counters
    page = run.fetch(query, parse_page)

Requests go through one httpx transport, below httpx.Client: no redirects, no cookies, no proxies or .netrc from
the environment. Only the host that was named is ever spoken to, and only https unless it is this machine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

import httpx

from pleo_extract.client.credential import Credential, Secret
from pleo_extract.client.gate import Gate
from pleo_extract.client.server import open_transport, resolve_server
from pleo_extract.client.session import Channel, Clock, RealClock, Session
from pleo_extract.client.waits import Waits
from pleo_extract.client.window import SharedRateWindow, open_window
from pleo_extract.contract import canonical_uuid
from pleo_extract.core.pace import RATE, Patience
from pleo_extract.errors import UsageError
from pleo_extract.keywords import check_keywords
from pleo_extract.lazy import attach
from pleo_extract.zones import check_zones

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from pleo_extract.client.accounts import AccountEntry, choose_shard, read_accounts
    from pleo_extract.client.server import AppRequest, AppResponse

__all__ = [
    "AccountEntry",
    "Client",
    "Clock",
    "Secret",
    "Session",
    "Waits",
    "choose_shard",
    "read_accounts",
    "resolve_server",
]

if not TYPE_CHECKING:
    __getattr__ = attach(
        __name__, dict.fromkeys(("AccountEntry", "choose_shard", "read_accounts"), "accounts")
    )

IN_FLIGHT: Final = 8


class Client:
    """A server, a credential and their pace. Safe to share between threads; close it, or use it as a context.

    Args:
        base_url: ``production`` (default), ``staging`` or a URL; else the environment's PLEO_BASE_URL.
        api_key: sent as Basic user name with an empty password; else PLEO_API_KEY.
        access_token: sent as Bearer; a text, or a callable that returns a valid one and is called again after a
            401; else PLEO_ACCESS_TOKEN, or the output of PLEO_TOKEN_COMMAND.
        company_id: the company to ask for where a call names none; else PLEO_COMPANY_ID.
        rate: requests in any minute, 500 by default, shared by all threads.
        in_flight: requests under way at once, at most; fewer where the server refuses so many with 429.
        ca_file: certificates to trust in place of the usual ones. proxy: URL of a proxy to go through.
        transport: what carries requests, in place of the network: an httpx transport, or a callable like the
            sandbox. clock: time, for tests. patience: how long to wait for what.

    Raises:
        ConfigurationError: a server, file or setting that cannot be used. CredentialsError: no credential, or two.
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
        transport: httpx.BaseTransport | Callable[[AppRequest], AppResponse] | None = None,
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
        self.in_flight = in_flight
        self.rate = rate
        self._closed = False
        self._owns_transport = transport is None
        networked = transport is None or isinstance(transport, httpx.HTTPTransport)
        self._channel = Channel(
            server=self.server,
            networked=networked and proxy is None,
            transport=open_transport(self.server, transport, in_flight, ca_file, proxy),
            credential=credential,
            window=open_window(rate, str(self.server), credential.fixed() if networked else None),
            patience=patience or Patience(),
            clock=clock or RealClock(),
            gate=Gate(in_flight),
        )

    def __repr__(self) -> str:
        said = vars(self)  # empty while it is made, when a traceback may already show it
        return f"Client({str(said.get('server'))!r}, company_id={said.get('company_id')!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that it opened; a transport that was passed in is its owner's."""
        self._closed = True
        if self._owns_transport:
            self._channel.transport.close()
        if isinstance(self._channel.window, SharedRateWindow):
            self._channel.window.close()

    def foresee(self, requests: int, latency: float = 0.0) -> float:
        """Seconds that so many requests would take from now on, of `latency` seconds each; none is sent.

        The pace counts what was asked with this credential in the last minute, by other runs of this machine as well.
        """
        if self._closed:
            raise UsageError("this client is closed; open another")
        now = self._channel.clock.monotonic()
        return self._channel.window.foresee(now, requests, latency / self.in_flight)

    def start_session(
        self,
        *,
        deadline: float | None = None,
        max_requests: int | None = None,
        name: str = "",
        waits: Waits | None = None,
    ) -> Session:
        """A run: one budget of retries, of time (`deadline`, seconds from now) and of requests where they are given.

        Its `name` stands in what it logs; what it waits counts in `waits` too.
        """
        if self._closed:
            raise UsageError("this client is closed; open another")
        return Session(self._channel, deadline, max_requests, name, waits)
