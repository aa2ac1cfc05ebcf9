"""The sandbox on a real socket of the loopback interface: HTTP/1.1 with keep-alive, network faults included."""

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
    """A running server. `url` is scheme, host and port, without a slash at the end."""

    url: str
    sandbox: Sandbox


@contextmanager
def serve(sandbox: Sandbox, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[Served]:
    """Serve the sandbox until the block ends, then close all connections and threads; port 0 takes a free port."""
    with _Server((host, port), sandbox) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="sandbox")
        thread.start()
        try:
            yield Served(f"http://{host}:{server.server_address[1]}", sandbox)
        finally:
            server.shutdown()
            thread.join()
            server.close_connections()


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

    def close_connections(self) -> None:
        """Close all open connections, so that their threads end."""
        self.closing.set()
        for connection in tuple(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up is an expected event, not worth a traceback on stderr.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - the only kind that starts it
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __getattr__(self, name: str) -> Callable[[], None]:
        # BaseHTTPRequestHandler looks for one do_METHOD each and answers 501 with HTML to any other (TRACE, QUERY);
        # the sandbox answers 405 in JSON to all of them, as the contract says.
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self) -> None:
        """Pass the request to the sandbox and send its response, or break the connection, as `wire` says."""
        length = self.headers.get("content-length", "0")
        self.rfile.read(int(length) if length.isdigit() else 0)
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        response = self.server.sandbox(Request(self.command, path, query, headers))
        if response.delay and response.wire != "drip":
            self.server.closing.wait(response.delay)
        WIRES[response.wire](self, response)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the standard library
        """Write nothing: the sandbox keeps its own log."""

    def send(self, response: Response, framing: str) -> None:
        """Write head and body in one go; the response to a HEAD has no body, whatever its length header says."""
        self.wfile.write(_format_head(response, framing) + (b"" if self.command == "HEAD" else response.body))

    def close_after_response(self) -> None:
        """Accept no further request on this connection."""
        self.close_connection = True

    def abort(self) -> None:
        """Reset the connection: with SO_LINGER 0 the kernel sends RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_after_response()
        # Close it here: socketserver would call shutdown() first, which sends a FIN.
        self.server.connections.discard(self.connection)
        socket.socket(fileno=self.connection.detach()).close()


def _format_head(response: Response, framing: str) -> bytes:
    lines = [f"HTTP/1.1 {response.status} {PHRASES.get(response.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    return "\r\n".join((*lines, framing, "", "")).encode("latin-1")


def _content_length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


def _send_whole(handler: _Handler, response: Response) -> None:
    bodiless = response.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    handler.send(response, "Server: sandbox" if bodiless else _content_length(response.body))


def _send_reset(handler: _Handler, _: Response) -> None:
    handler.abort()


def _send_reset_mid(handler: _Handler, response: Response) -> None:
    handler.wfile.write(
        _format_head(response, _content_length(response.body)) + response.body[: len(response.body) // 2]
    )
    handler.abort()


def _send_cut(handler: _Handler, response: Response) -> None:
    # Promise more bytes than follow; how many more does not matter.
    handler.send(response, f"Content-Length: {2 * len(response.body) + 1}")
    handler.close_after_response()


def _send_cut_close(handler: _Handler, response: Response) -> None:
    handler.send(response, "Connection: close")
    handler.close_after_response()


def _send_cut_chunked(handler: _Handler, response: Response) -> None:
    head = _format_head(response, "Transfer-Encoding: chunked")
    handler.wfile.write(head + b"%x\r\n%b\r\n" % (len(response.body), response.body))
    handler.close_after_response()


def _send_drip(handler: _Handler, response: Response) -> None:
    handler.wfile.write(_format_head(response, _content_length(response.body)))
    for place in range(len(response.body)):
        if handler.server.closing.wait(response.delay):
            break
        handler.wfile.write(response.body[place : place + 1])


def _send_nothing(handler: _Handler, _: Response) -> None:
    handler.close_after_response()
    while not handler.server.closing.is_set():
        readable, _writable, _failed = select.select([handler.connection], [], [], 0.05)
        # When the client gives up, the socket becomes readable and a read returns nothing.
        if readable and not handler.connection.recv(1, socket.MSG_PEEK):
            break
        if readable:
            handler.server.closing.wait(0.05)


WIRES: dict[str, Callable[[_Handler, Response], None]] = {
    "whole": _send_whole,
    "reset": _send_reset,
    "reset_mid": _send_reset_mid,
    "cut": _send_cut,
    "cut_close": _send_cut_close,
    "cut_chunked": _send_cut_chunked,
    "drip": _send_drip,
    "silence": _send_nothing,
}
