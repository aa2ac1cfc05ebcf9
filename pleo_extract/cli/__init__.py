"""The command line, `pleo-extract`. No other part of the library prints.

Results go to stdout, everything about the run to stderr. Exit codes follow sysexits.h, see `errors`.

So that each command starts quickly, a command is imported when it is called, and imports its libraries when it runs.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import UserDict
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from pleo_extract.errors import PleoExtractError, StorageError, escape
from pleo_extract.signals import CODES, HUNG_UP, INTERRUPTED, WORDS
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["group", "main", "start"]

HELP = """Keep Pleo's export jobs as Parquet that stays up to date, and ask questions about them in SQL.

\b
Try it without an account:
  pleo-extract demo
Keep a lake:
  PLEO_API_KEY=… pleo-extract dump data/export_jobs
Ask it:
  pleo-extract sql "from failure_rates('month')"
"""
EPILOG = """\b
Credentials come from the environment, never from options:
  PLEO_API_KEY         an API key, or
  PLEO_ACCESS_TOKEN    an access token, or
  PLEO_TOKEN_COMMAND   a command that prints a valid token
Also read: PLEO_BASE_URL, PLEO_COMPANY_ID, PLEO_TRANSPORT.

\b
Exit codes:
   0 done              69 lake is held            77 credentials
   1 a bug             74 disk                    78 configuration
   2 wrong usage       75 try again later        129 hung up
   3 a check failed    76 server broke contract  130 interrupted
  65 bad data or lake                            143 terminated
"""


MEMORY: Final = ("_RJEM_MALLOC_CONF", "dirty_decay_ms:100,muzzy_decay_ms:0")
"""Makes polars return freed memory sooner than its allocator does by default: with the default, a dump of ten million
jobs peaks a tenth higher. Polars reads the variable when it is imported. A value that the user has set stays."""
COMMANDS: Final = (
    "demo",
    "dump",
    "status",
    "plan",
    "sql",
    "report",
    "check",
    "names",
    "changes",
    "catalogue",
    "ddl",
    "verify",
    "repair",
    "merge",
    "forget",
    "sandbox",
)
"""The commands, in the order in which a user meets them. Each is a function of that name in a file of that name."""

_LATER: Final = click.Command(None)


class _Commands(UserDict[str, click.Command]):
    """The commands by name; each is imported when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = self.data[name]
        if command is _LATER:
            command = self.data[name] = getattr(import_module(f"{__name__}.{name}"), name)
        return command


class _InOrder(click.Group):
    """A group that lists its commands in the order in which they were named."""

    called = ""
    """The name of the command that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Remember the name of the command, for `main`."""
        found = super().resolve_command(ctx, args)
        self.called = found[0] or ""
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. It succeeds too if the reader of its output closes the pipe early, as `head` does."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Without this the interpreter fails when it flushes stdout at its end.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
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
    """Group the commands; click shows HELP."""


def start() -> NoReturn:
    """Run `main`, then end the process without the interpreter's clean-up, which takes a twentieth of a dump."""
    os.environ.setdefault(*MEMORY)
    try:
        main()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 0
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:  # its reader has closed the pipe
            pass
        except OSError:
            code = code or StorageError.code
    os._exit(code)


def main() -> NoReturn:
    """Run the command line and exit with the code of its outcome."""
    _mend_streams()
    _handle_signals(_terminate)
    # Pages are many small objects without cycles: at the default thresholds, the search for cycles takes a tenth of a dump.
    gc.set_threshold(200_000, 50, 50)
    notes: list[str] = []
    try:
        code = group.main(standalone_mode=False, prog_name="pleo-extract")
    except click.ClickException as exc:
        with suppress(OSError, ValueError):
            (_name_nearest(exc) if isinstance(exc, click.NoSuchOption) else exc).show()
        code = exc.exit_code
    except PleoExtractError as exc:
        code = exc.code
        _print_error(f"pleo-extract: {exc.tell()}")
    except OSError as exc:
        code = StorageError.code
        text = f"cannot use {exc.filename}: {exc.strerror}" if exc.filename and exc.strerror else f"{exc}"
        _print_error(f"pleo-extract: {escape(text, 500)}")
    except (KeyboardInterrupt, click.Abort) as exc:
        code, notes = INTERRUPTED, _read_notes(exc)
    except SystemExit as exc:
        code, notes = exc.code, _read_notes(exc)
    if code in WORDS:
        if not notes and group.called == "dump":
            notes = ["fetched pages are kept, run again to continue"]
        _print_error(f"pleo-extract: {'; '.join([WORDS[code], *notes])}")
        with suppress(OSError, ValueError, AttributeError):  # AttributeError: stdout is None
            sys.stdout.flush()
        os._exit(code)  # a worker thread may still wait for the server, and would hold the process
    sys.exit(code if isinstance(code, int) else 0)


def _name_nearest(exc: click.NoSuchOption) -> click.NoSuchOption:
    """Return the error with the options that the mistyped one begins, or else the one that is most like it.

    Click itself also names `--quiet` for `--max-request`.
    """
    options = exc.possibilities or ()
    begun = [option for option in options if option.startswith(exc.option_name)]
    nearest = begun or get_close_matches(exc.option_name, options, n=1)
    return click.NoSuchOption(exc.option_name, possibilities=nearest, ctx=exc.ctx)


def _handle_signals(handler: Callable[[int, FrameType | None], NoReturn]) -> None:
    """Call `handler` for each signal that ends a run. A SIGHUP that is ignored, as under nohup, stays ignored.

    An ignored SIGINT is handled all the same: shells without job control ignore it for every program that they start in the
    background, and such a dump could not be stopped.
    """
    for number, code in CODES.items():
        if code != HUNG_UP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    """Raise an exception, so that the run can keep its pages. A second signal ends the process immediately."""
    _handle_signals(_leave)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(CODES[number])


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(CODES[number])


def _mend_streams() -> None:
    """Open the standard streams that the parent process closed, and let each write every character.

    A file that is opened while descriptor 1 is closed gets this number, and everything printed would end up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        elif stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the process ends


def _print_error(text: str) -> None:
    """Print a line to stderr; do nothing if stderr cannot be written."""
    with suppress(OSError, ValueError):
        click.echo(text, err=True)


def _read_notes(exc: BaseException) -> list[str]:
    """Return the notes of an exception and its cause: a run notes that it had published a snapshot before the signal.

    The cause counts because click wraps a KeyboardInterrupt.
    """
    return [note for each in (exc, exc.__cause__) for note in getattr(each, "__notes__", ())]
