"""The options that say how a lake in an object store is reached, the same for all commands that open one."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from pleo_extract.cli.folder import FilePathParam
from pleo_extract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pleo_extract.lake.store import StoreOptions

__all__ = ["store_options"]

SECRET_WORDS: Final = ("key", "secret", "token", "password", "sas", "credential")


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--storage-option`` and ``--workspace``; the command is given both as `store`."""
    where = click.option(
        "--workspace",
        type=FilePathParam(file_okay=False),
        metavar="DIR",
        help="Where copies and staged pages of a Delta table are kept [default: the user's cache]",
    )
    how = click.option(
        "--storage-option",
        "storage_option",
        multiple=True,
        metavar="NAME=VALUE",
        help="How an object store is reached, such as aws_region=eu-west-1; credentials come from the environment",
    )

    @wraps(command)
    def with_store(*args: Any, workspace: Path | None, storage_option: tuple[str, ...], **given: Any) -> Any:
        store: StoreOptions = {}
        if workspace is not None or storage_option:
            store = {"storage_options": _read_pairs(storage_option), "workspace": workspace}
        return command(*args, store=store, **given)

    return how(where(with_store))


def _read_pairs(pairs: tuple[str, ...]) -> dict[str, str] | None:
    options: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"--storage-option takes NAME=VALUE, not {name!r}")
        if _is_secret(name):
            raise UsageError(
                f"--storage-option {name} would show a secret to everyone on this machine: put it into the environment, "
                f"as {name.upper()}"
            )
        options[name] = value
    return options or None


def _is_secret(name: str) -> bool:
    """Whether an option of this name may hold a secret; a file's name or a switch is none."""
    lowered = name.lower()
    return any(word in lowered for word in SECRET_WORDS) and not lowered.endswith(("_file", "_load"))
