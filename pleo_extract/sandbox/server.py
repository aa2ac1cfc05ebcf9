"""The sandbox behind a real socket on the loopback interface: HTTP/1.1 with keep-alive, faults included."""

import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Event, Thread
from typing import Any

from pleo_extract.sandbox.endpoint import Sandbox
from pleo_extract.sandbox.exchange import Request, Response

__all__ = ["Served", "serve"]

PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Served:
    """A running server: `url` has scheme, host and port, and no slash at its end."""

    url: str
    sandbox: Sandbox


@contextmanager
def serve(sandbox: Sandbox, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[Served]:
    """Serve the sandbox until the block ends; port 0 takes a free one. Ends all connections and threads."""
    with _Server((host, port), sandbox) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="sandbox")
        thread.start()
        try:
            yield Served(f"http://{host}:{server.server_address[1]}", sandbox)
        finally:
            server.shutdown()
            thread.join()
            server.hang_up()


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.closing = Event()
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End what is still connected, so that the threads can be joined."""
        self.closing.set()
        for connection in tuple(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up is no news.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __getattr__(self, name: str) -> Callable[[], None]:
        # The standard library looks for one function a method and knows no 405: the sandbox answers all of them.
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self) -> None:
        """Answer as the sandbox says, in the way the wire says."""
        length = self.headers.get("content-length", "0")
        self.rfile.read(int(length) if length.isdigit() else 0)
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        response = self.server.sandbox(Request(self.command, path, query, headers))
        if response.delay and response.wire != "drip":
            self.server.closing.wait(response.delay)
        WIRES[response.wire](self, response)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the standard library
        """Say nothing; the sandbox keeps its own log."""

    def send(self, response: Response, framing: str) -> None:
        """Write head and body in one go; a HEAD asks for no body, whatever length is said."""
        self.wfile.write(_head(response, framing) + (b"" if self.command == "HEAD" else response.body))

    def end(self) -> None:
        """Take no further request on this connection."""
        self.close_connection = True

    def abort(self) -> None:
        """Reset the connection: with a linger of 0 the kernel sends RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end()
        # Closed here and now, before the server shuts it down in an orderly way.
        self.server.connections.discard(self.connection)
        socket.socket(fileno=self.connection.detach()).close()


def _head(response: Response, framing: str) -> bytes:
    lines = [f"HTTP/1.1 {response.status} {PHRASES.get(response.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    return "\r\n".join((*lines, framing, "", "")).encode("latin-1")


def _length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


def _whole(handler: _Handler, response: Response) -> None:
    bodiless = response.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    handler.send(response, "Server: sandbox" if bodiless else _length(response.body))


def _reset(handler: _Handler, _: Response) -> None:
    handler.abort()


def _reset_mid(handler: _Handler, response: Response) -> None:
    handler.wfile.write(_head(response, _length(response.body)) + response.body[: len(response.body) // 2])
    handler.abort()


def _cut(handler: _Handler, response: Response) -> None:
    # More is promised than comes; how much more does not matter.
    handler.send(response, f"Content-Length: {2 * len(response.body) + 1}")
    handler.end()


def _cut_close(handler: _Handler, response: Response) -> None:
    handler.send(response, "Connection: close")
    handler.end()


def _cut_chunked(handler: _Handler, response: Response) -> None:
    head = _head(response, "Transfer-Encoding: chunked")
    handler.wfile.write(head + b"%x\r\n%b\r\n" % (len(response.body), response.body))
    handler.end()


def _drip(handler: _Handler, response: Response) -> None:
    handler.wfile.write(_head(response, _length(response.body)))
    for place in range(len(response.body)):
        if handler.server.closing.wait(response.delay):
            break
        handler.wfile.write(response.body[place : place + 1])


def _silence(handler: _Handler, _: Response) -> None:
    handler.end()
    while not handler.server.closing.is_set():
        readable, _writable, _failed = select.select([handler.connection], [], [], 0.05)
        # A client that gives up makes the socket readable, with nothing to read.
        if readable and not handler.connection.recv(1, socket.MSG_PEEK):
            break
        if readable:
            handler.server.closing.wait(0.05)


WIRES: dict[str, Callable[[_Handler, Response], None]] = {
    "whole": _whole,
    "reset": _reset,
    "reset_mid": _reset_mid,
    "cut": _cut,
    "cut_close": _cut_close,
    "cut_chunked": _cut_chunked,
    "drip": _drip,
    "silence": _silence,
}
