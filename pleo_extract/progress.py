"""The progress bar: shown on a terminal or in a notebook, silent everywhere else. Only this file imports tqdm."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["show_progress"]

LONGEST = 32
"""Most characters before the bar: a long path of a lake would leave no room for the bar on 80 columns."""


@contextmanager
def show_progress(what: str, *, show: bool | None = None) -> Iterator[Callable[[int, int | None, str], None]]:
    """Show a bar of the jobs read, with total, rate and time left.

    Args:
        what: the words before the bar.
        show: whether to show it; by default on a terminal and in a notebook.

    Yields:
        A function that takes the jobs read so far, the total if known, and a note, such as how long the run waits.
    """
    if not (_is_interactive() if show is None else show and _is_open()):
        yield lambda _rows, _total, _note: None
        return
    from tqdm import tqdm  # noqa: PLC0415 - only where a bar is shown
    from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415 - as above

    what = what if len(what) <= LONGEST else f"…{what[-LONGEST + 1 :]}"
    log = logging.getLogger("pleo_extract")
    above = (
        logging_redirect_tqdm([log]) if log.handlers else nullcontext()
    )  # a line of the log goes above the bar
    with (
        above,
        tqdm(
            desc=what, unit=" jobs", unit_scale=False, dynamic_ncols=True, leave=False, smoothing=0.1
        ) as bar,
    ):

        def update(rows: int, total: int | None, note: str) -> None:
            bar.total = max(total, rows) if total else None
            # Rate and time left stand still during a wait, and would push the note off a narrow terminal.
            bar.bar_format = "{desc}: {n_fmt} jobs{postfix}" if note.startswith("waiting ") else None
            bar.set_postfix_str(note, refresh=rows == bar.n)  # nothing else draws a bar that stands still
            bar.update(rows - bar.n)

        yield update


def _is_interactive() -> bool:
    return _is_open() and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def _is_open() -> bool:
    """Return whether there is a stream to draw on: under pythonw and some services it is missing or closed."""
    stream: TextIO | None = sys.stderr
    return stream is not None and not stream.closed
