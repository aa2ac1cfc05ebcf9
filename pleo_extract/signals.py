"""Signals held back for a while: a snapshot is published whole or not at all, and no page is lost on its way."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["hold_signals"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


@contextmanager
def hold_signals(told: threading.Event | None = None) -> Iterator[None]:
    """Let signals that end a run act when this is over; a second one acts at once.

    One that is ignored, as SIGHUP is under nohup, stays ignored. Does nothing outside the main thread.

    Args:
        told: is set by the first signal, so that what goes on meanwhile can come to its end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        if held:  # told twice
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        held.append(number)
        if told is not None:
            told.set()

    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, hold) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            os.kill(os.getpid(), held[0])
