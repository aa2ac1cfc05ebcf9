"""A real Chromium, driven over its own DevTools protocol through a pair of pipes: no driver, no socket, no package."""

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
    """One tab. `events` are what the browser has told so far, oldest first."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def attach(self) -> None:
        """Open a tab and listen to it."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        """What the browser answers to one command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (told := self._read()).get("id") != self._number:
            self.events.append(told)
        assert "error" not in told, told
        return told["result"]

    def show(self, path: Path, *, width: int, dark: bool = False) -> None:
        """Open a file, as wide as a phone, a tablet or a desk has it."""
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
        while not any(told.get("method") == "Page.loadEventFired" for told in self.events):
            self.events.append(self._read())

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript, waited for where it is a promise. The page's policy stands."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self) -> bytes:
        """The whole page as PNG."""
        return self._bytes("Page.captureScreenshot", captureBeyondViewport=True)

    def paper(self) -> bytes:
        """The page printed on A4, as PDF."""
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
        told: dict[str, Any] = json.loads(message)
        return told


@contextmanager
def open_browser(program: str) -> Iterator[Page]:
    """A browser with an empty profile and one tab; gone at the end."""
    commands, told = os.pipe(), os.pipe()
    # Chromium reads commands from descriptor 3 and answers on 4. They are moved there by a shell, from beyond 9,
    # so that neither stands in the other's place.
    read, write = (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (commands[0], told[1]))
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        asked = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        shell = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", *asked]
        with subprocess.Popen(
            shell, pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as browser:
            for each in (read, write, commands[0], told[1]):
                os.close(each)
            try:
                page = Page(commands[1], told[0])
                page.attach()
                yield page
            finally:
                browser.terminate()
                browser.wait(10)
                os.close(commands[1])
                os.close(told[0])
