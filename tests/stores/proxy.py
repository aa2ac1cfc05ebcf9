"""A proxy before an object store that passes requests on, or injects faults."""

from __future__ import annotations

import http.client
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Proxy", "serve_proxy"]

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}


class Proxy:
    """The requests of a proxy, and the faults that it injects.

    Attributes:
        asked: method and path of each request.
        given: bytes of the response to each request, in order of the responses.
        fault_for: called with method and path; returns the fault: ``503``; ``reset`` before the store gets the request;
            ``lost``: the store does it, but the response never arrives; None for no fault.
        after: called when the store has answered, before the client gets the response.

    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.calm()

    def calm(self) -> None:
        """Remove all faults and clear the log."""
        self.asked: list[tuple[str, str]] = []
        self.given: list[int] = []
        self.fault_for: Callable[[str, str], str | None] = lambda _method, _path: None
        self.after: Callable[[str, str], None] = lambda _method, _path: None


@contextmanager
def serve_proxy(target: int) -> Iterator[Proxy]:
    """Run a proxy until the block ends."""
    proxy = Proxy(target)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients that are killed
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
            """Write nothing."""

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.asked.append((self.command, self.path))
            fault = proxy.fault_for(self.command, self.path)
            if fault == "reset":
                self.close_connection = True
                return
            if fault == "503":
                self.answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                return
            store = http.client.HTTPConnection("127.0.0.1", proxy.target, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            store.request(self.command, self.path, body=body, headers=headers)
            answer = store.getresponse()
            data = answer.read()
            store.close()
            proxy.after(self.command, self.path)
            if fault == "lost":
                self.close_connection = True
                return
            self.answer(answer.status, dict(answer.getheaders()), data)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815 - their names

        def answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in HOP | {"content-length", "date", "server"}:
                    self.send_header(name, value)
            known = headers.get("Content-Length", headers.get("content-length", "0"))
            self.send_header("Content-Length", known if self.command == "HEAD" else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                proxy.given.append(len(data))
                self.wfile.write(data)

    return Handler
