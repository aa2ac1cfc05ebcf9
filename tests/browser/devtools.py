"""A real Chromium, controlled over the DevTools protocol through two pipes: no driver, no socket, no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Page", "open_browser"]

FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--disable-extensions",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class Page:
    """One tab. `events` are the browser's events so far, oldest first."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def attach(self) -> None:
        """Open a tab and listen to its events."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        """Send a command and return the browser's response."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (reported := self._read()).get("id") != self._number:
            self.events.append(reported)
        assert "error" not in reported, reported
        return reported["result"]

    def show(self, path: Path, *, width: int, dark: bool = False) -> None:
        """Open a file at this width."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(reported.get("method") == "Page.loadEventFired" for reported in self.events):
            self.events.append(self._read())

    def ask(self, expression: str) -> Any:
        """Evaluate a JavaScript expression under the page's own policy, and await it if it is a promise."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self) -> bytes:
        """Return the whole page as PNG."""
        return self._bytes("Page.captureScreenshot", captureBeyondViewport=True)

    def paper(self) -> bytes:
        """Return the page printed on A4, as PDF."""
        return self._bytes(
            "Page.printToPDF",
            paperWidth=8.27,
            paperHeight=11.69,
            preferCSSPageSize=True,
            printBackground=False,
        )

    def _bytes(self, method: str, **params: Any) -> bytes:
        return base64.b64decode(self.send(method, **params)["data"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._answers, 1 << 20)
            assert more, "the browser has gone"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        reported: dict[str, Any] = json.loads(message)
        return reported


@contextmanager
def open_browser(program: str) -> Iterator[Page]:
    """Yield a tab of a browser with an empty profile; close it at the end."""
    commands, reported = os.pipe(), os.pipe()
    # Chromium reads commands from descriptor 3 and answers on 4. A shell moves the pipes there from descriptors above
    # 9, so that neither overwrites the other.
    read, write = (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (commands[0], reported[1]))
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        asked = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        shell = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", *asked]
        with subprocess.Popen(
            shell, pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as browser:
            for each in (read, write, commands[0], reported[1]):
                os.close(each)
            try:
                page = Page(commands[1], reported[0])
                page.attach()
                yield page
            finally:
                browser.terminate()
                browser.wait(10)
                os.close(commands[1])
                os.close(reported[0])
