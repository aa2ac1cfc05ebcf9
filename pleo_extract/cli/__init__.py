"""The command line, `pleo-extract`. The only room that prints.

Exit codes follow sysexits.h, see `errors`. Results go to stdout, everything about the run to stderr. A command is
imported when it is asked for, what it needs when it runs: each starts quickly.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import UserDict
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from pleo_extract.errors import PleoExtractError, StorageError, escape
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["group", "main", "start"]

HELP = """Pleo's export jobs as Parquet that stays up to date, and as answers in SQL.

\b
Try it without an account:  pleo-extract demo
Keep a lake:                PLEO_API_KEY=… pleo-extract dump data/export_jobs
Ask it:                     pleo-extract sql "from failure_rates('month')"
"""
HUNG_UP = 129
INTERRUPTED = 130
TERMINATED = 143
CODES: Final[dict[int, int]] = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: TERMINATED,
    **({signal.SIGHUP: HUNG_UP} if hasattr(signal, "SIGHUP") else {}),
}
"""The signals that end a run, and its exit code then."""
WORDS: Final = {HUNG_UP: "hung up", INTERRUPTED: "interrupted", TERMINATED: "terminated"}
EPILOG = """\b
Credentials come from the environment, never from options:
  PLEO_API_KEY         an API key, or
  PLEO_ACCESS_TOKEN    an access token, or
  PLEO_TOKEN_COMMAND   a command that prints a fresh one
Also read: PLEO_BASE_URL, PLEO_COMPANY_ID.

\b
Exit codes:
   0 done              69 lake is held            77 credentials
   1 a defect          74 disk                    78 configuration
   2 usage             75 try again later        129 hung up
  65 bad data or lake  76 server broke contract  130 interrupted
                                                 143 terminated
"""


MEMORY: Final = ("_RJEM_MALLOC_CONF", "dirty_decay_ms:100,muzzy_decay_ms:0")
"""How soon polars gives memory back that it has freed. Its own pauses are longer: a dump of ten million jobs then peaks
a tenth higher. It is read when polars is imported, and what it is set to stands."""
COMMANDS: Final = (
    "demo",
    "dump",
    "status",
    "plan",
    "sql",
    "report",
    "changes",
    "catalogue",
    "verify",
    "repair",
    "merge",
    "forget",
    "sandbox",
)
"""In the order in which people meet them. Each is a function of that name in a file of that name."""


_LATER: Final = click.Command(None)


class _Commands(UserDict[str, click.Command]):
    """By name; imported when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = self.data[name]
        if command is _LATER:
            command = self.data[name] = getattr(import_module(f"{__name__}.{name}"), name)
        return command


class _InOrder(click.Group):
    """Commands in the order in which they were named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    asked = ""
    """The command that was asked for."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Note the command on its way."""
        found = super().resolve_command(ctx, args)
        self.asked = found[0] or ""
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; where the reader of our output has seen enough, as `head` has, that is no failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())  # what is left to write goes nowhere
            os.close(nowhere)
            raise click.exceptions.Exit(0) from None


@click.group(
    cls=_InOrder,
    commands=_Commands(dict.fromkeys(COMMANDS, _LATER)),
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="pleo-extract")
def group() -> None:
    """The command line; see HELP."""


def _handle_signals(handler: Callable[[int, FrameType | None], NoReturn]) -> None:
    """Handle the signals that end a run. A SIGHUP that is ignored, as under nohup, stays ignored.

    An ignored SIGINT does not: shells without job control ignore it for whatever they start in the background.
    """
    for number, code in CODES.items():
        if code != HUNG_UP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    """Unwind, so that what was fetched is kept; told a second time, leave at once."""
    _handle_signals(_leave)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(CODES[number])


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(CODES[number])


def _mend_streams() -> None:
    """Make sure of the standard streams: what a parent closed is nowhere, and every character can be written.

    A file that is opened while descriptor 1 is closed would get its number, and what is printed would land in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        elif stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for as long as the process


def _say(text: str) -> None:
    """Write a line to stderr, if anybody can still read it."""
    with suppress(OSError, ValueError):
        click.echo(text, err=True)


def main() -> NoReturn:
    """Run the command line and exit with the code that says how it went."""
    _mend_streams()
    _handle_signals(_terminate)
    # Pages are many small objects without cycles: looking for cycles as often as usual costs a tenth of a dump.
    gc.set_threshold(200_000, 50, 50)
    notes: list[str] = []
    try:
        code = group.main(standalone_mode=False, prog_name="pleo-extract")
    except click.ClickException as exc:
        with suppress(OSError, ValueError):
            exc.show()
        code = exc.exit_code
    except PleoExtractError as exc:
        code = exc.code
        _say(f"pleo-extract: {exc.tell()}")
    except OSError as exc:
        code = StorageError.code
        _say(f"pleo-extract: {escape(str(exc), 500)}")
    except (KeyboardInterrupt, click.Abort) as exc:
        code, notes = INTERRUPTED, _read_notes(exc)
    except SystemExit as exc:
        code, notes = exc.code, _read_notes(exc)
    if code in WORDS:
        if not notes and group.asked == "dump":
            notes = ["what was fetched is kept, run again to go on"]
        _say(f"pleo-extract: {'; '.join([WORDS[code], *notes])}")
        with suppress(OSError, ValueError, AttributeError):  # an AttributeError: there is no stdout
            sys.stdout.flush()
        os._exit(code)  # a thread may still wait for an answer
    sys.exit(code if isinstance(code, int) else 0)


def _read_notes(exc: BaseException) -> list[str]:
    """What was noted on the way: that a snapshot had been published when the signal came. click wraps a Ctrl-C."""
    return [note for each in (exc, exc.__cause__) for note in getattr(each, "__notes__", ())]


def start() -> NoReturn:
    """Be the program: `main`, and gone at once. To take all libraries apart would cost a twentieth of a dump."""
    os.environ.setdefault(*MEMORY)
    try:
        main()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 0
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:  # nobody reads it any more
            pass
        except OSError:
            code = code or StorageError.code
    os._exit(code)
