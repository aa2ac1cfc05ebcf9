"""The options and arguments that several commands share. Each is declared here, once, with its help text."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from pleo_extract.cli.folder import FilePathParam, LakeFolder, OutputFile
from pleo_extract.cli.span import CountParam, InstantParam
from pleo_extract.core.pace import RATE
from pleo_extract.core.pages import LARGEST
from pleo_extract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pleo_extract.lake.store import StoreOptions

__all__ = [
    "FORMATS",
    "answer_format_option",
    "full_option",
    "lake_argument",
    "lake_format_option",
    "names_option",
    "now_option",
    "output_option",
    "parse_pairs",
    "quiet_option",
    "server_options",
    "store_options",
]

FORMATS: Final = ("table", "csv", "json", "parquet", "xlsx", "excel-csv")
"""The formats in which a command can write an answer."""

SECRET_WORDS: Final = ("key", "secret", "token", "password", "sas", "credential")

lake_argument: Final = click.argument("lake", type=LakeFolder())

lake_format_option: Final = click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "delta"]),
    help="Format of a new lake [default: delta for a URL, parquet for a folder]",
)

answer_format_option: Final = click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    metavar="KIND",
    help="table (fits the width of the terminal), csv, json, parquet, xlsx (an Excel workbook) or excel-csv (CSV that "
    "Excel opens as a table) [default: by the extension of --output, else table]",
)

output_option: Final = click.option(
    "--output", "-o", type=OutputFile(), metavar="FILE", help="Write to this file, not to the terminal"
)

names_option: Final = click.option(
    "--names",
    type=FilePathParam(exists=True, dir_okay=False),
    metavar="FILE",
    help="Names of companies, shown beside their ids: CSV in UTF-8 with the columns id and name",
)

full_option: Final = click.option("--full", is_flag=True, help="Read the whole list: a full sync")

quiet_option: Final = click.option("--quiet", "-q", is_flag=True, help="Print only warnings and errors")

now_option: Final = click.option(
    "--now", type=InstantParam(), help="Time of the sandbox's clock [default: this machine's time]"
)

_base_url_option: Final = click.option(
    "--base-url", metavar="URL", help="production, staging, or a URL [default: PLEO_BASE_URL or production]"
)

_company_id_option: Final = click.option(
    "--company-id",
    "--company",
    metavar="UUID",
    help="Read this company only [default: PLEO_COMPANY_ID or all]",
)

_accounts_option: Final = click.option(
    "--accounts",
    type=FilePathParam(),
    metavar="FILE",
    help="Read the companies of this TOML file, see docs/scheduling.md",
)

_rate_option: Final = click.option(
    "--rate",
    type=CountParam(min=1),
    metavar="N",
    default=RATE,
    show_default=True,
    help="Maximum number of requests in any 60 seconds",
)

_page_size_option: Final = click.option(
    "--page-size",
    type=CountParam(min=1, max=LARGEST),
    metavar="N",
    help="Rows to ask for at a time [default: up to 1,000, or what the server gives]",
)

_workspace_option: Final = click.option(
    "--workspace",
    type=FilePathParam(file_okay=False),
    metavar="DIR",
    help="Folder for copies and staged pages of a Delta table [default: the user's cache]",
)

_storage_option: Final = click.option(
    "--storage-option",
    "storage_option",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting of the object store, such as aws_region=eu-west-1; credentials come from the environment",
)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which server to ask, for whom, and how fast."""
    return _base_url_option(_company_id_option(_accounts_option(_rate_option(_page_size_option(command)))))


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--storage-option` and `--workspace`; the command receives both as `store`."""

    @wraps(command)
    def with_store(*args: Any, workspace: Path | None, storage_option: tuple[str, ...], **given: Any) -> Any:
        store: StoreOptions = {}
        if workspace is not None or storage_option:
            pairs = parse_pairs(storage_option, "--storage-option")
            _refuse_secrets(pairs)
            store = {"storage_options": pairs or None, "workspace": workspace}
        return command(*args, store=store, **given)

    return _storage_option(_workspace_option(with_store))


def parse_pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """Parse the `NAME=VALUE` texts of a repeatable option.

    Raises:
        UsageError: a text has no name or no `=`. The message shows the name only, as the value may be a secret.
    """
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise UsageError(f"{option} takes NAME=VALUE, not {wrong[0]!r}")
    return {name: value for name, _, value in pairs}


def _refuse_secrets(options: dict[str, str]) -> None:
    """Refuse names that may hold a secret: other users can read a command line. Names of files and switches may pass."""
    for name in options:
        lowered = name.lower()
        if any(word in lowered for word in SECRET_WORDS) and not lowered.endswith(("_file", "_load")):
            raise UsageError(
                f"--storage-option {name} would show a secret to every user of this machine; set the environment variable "
                f"{name.upper()} instead"
            )
