"""The types of options and arguments whose values are paths, or the URL of a lake."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pleo_extract.errors import UsageError, check_path

__all__ = ["FilePathParam", "LakeFolder", "OutputFile", "OutputFileOrUrl"]


class FilePathParam(click.Path):
    """A path in UTF-8.

    Other paths can be neither recorded nor printed. They are refused here: otherwise a dump would fail only after it has
    read the whole list.
    """

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        # Whether it can be read is for whoever reads it to say: click would call a fault of the disk a wrong word.
        super().__init__(
            path_type=Path, exists=exists, file_okay=file_okay, dir_okay=dir_okay, readable=False
        )

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path.

        Raises:
            ConfigurationError: it is not UTF-8.
        """
        check_path(value, "a path" if param is None else param.opts[0])
        return super().convert(value, param, ctx)


class OutputFile(FilePathParam):
    """A file to write, outside any lake: programs that read a lake's folder take every file there for data."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path.

        Raises:
            UsageError: it is in a lake, under a name that such programs do not skip.
        """
        found = super().convert(value, param, ctx)
        path = Path(os.fsdecode(found)).absolute()
        lake = next((folder for folder in path.parents if (folder / "_lake").is_dir()), None)
        if lake is not None and path.name[0] not in "._":
            raise UsageError(
                f"{value} is in the lake {lake}, where other programs take every file for data; write it elsewhere"
            )
        return found


class OutputFileOrUrl(OutputFile):
    """A file to write, outside any lake, or the URL of a receiver."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path, or the URL unchanged."""
        return value if str(value).startswith(("http://", "https://")) else super().convert(value, param, ctx)


class LakeFolder(FilePathParam):
    """The folder of a lake, or its URL.

    An empty path is refused: it would mean the current folder, and usually comes from a shell variable that is not set.
    """

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path, or the URL unchanged."""
        if isinstance(value, str) and not value.strip():
            self.fail("the folder's name is empty; is a variable not set?", param, ctx)
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, param, ctx)
