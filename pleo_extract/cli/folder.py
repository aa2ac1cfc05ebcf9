"""The folder of a lake, or its URL, and other paths, as people type them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pleo_extract.errors import check_path

if TYPE_CHECKING:
    import os

__all__ = ["FilePathParam", "LakeFolder"]


class FilePathParam(click.Path):
    """A path in UTF-8: another can be neither written into a record nor shown, which is better said before a dump."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(path_type=Path, exists=exists, file_okay=file_okay, dir_okay=dir_okay)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path, if it is text."""
        check_path(value, "a path" if param is None else param.opts[0])
        return super().convert(value, param, ctx)


class LakeFolder(FilePathParam):
    """A path; an empty one would be the folder we happen to be in, and comes from a variable that is not set."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path; a URL as it is."""
        if isinstance(value, str) and not value.strip():
            self.fail("the folder's name is empty; is a variable not set?", param, ctx)
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, param, ctx)
