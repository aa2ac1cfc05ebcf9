"""Signals: how soon each thread notices one, and how to hold them back while a commit or a fetched page would be lost.

Python runs the handler of a signal in the main thread, and only when that thread runs. A signal interrupts the main thread's
wait if the kernel delivers it to this thread, and while it waits: one that comes to another thread, or a moment before the
wait begins, is noticed when the wait ends. On a busy machine that happened in one dump of a hundred, which then went on for
minutes. So nothing here waits longer than `TICK` at a time.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["CODES", "HUNG_UP", "INTERRUPTED", "TERMINATED", "TICK", "WORDS", "hold_signals"]

HUNG_UP: Final = 129
INTERRUPTED: Final = 130
TERMINATED: Final = 143
CODES: Final[dict[int, int]] = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: TERMINATED,
    **({signal.SIGHUP: HUNG_UP} if hasattr(signal, "SIGHUP") else {}),  # Windows has no SIGHUP
}
"""The signals that end a run, each with the exit code of that run."""
WORDS: Final = {HUNG_UP: "hung up", INTERRUPTED: "interrupted", TERMINATED: "terminated"}
"""What each of these exit codes means."""

TICK: Final = 0.25
"""Seconds after which a thread that waits looks again whether a signal has come, or its session was stopped."""


@contextmanager
def hold_signals(received: threading.Event | None = None) -> Iterator[None]:
    """Hold back SIGINT, SIGTERM and SIGHUP until the block ends; a second signal acts immediately.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. Outside the main thread this does nothing, since
    Python delivers signals to the main thread only.

    Args:
        received: an event that the first signal sets, so that the block can end early.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        if held:  # the second signal: the user does not want to wait
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(signal.Signals(number))
        held.append(number)
        if received is not None:
            received.set()

    active = [number for number in CODES if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, hold) for number in active}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(signal.Signals(held[0]))
