"""The folder of a lake, or its URL, as people type it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import os

__all__ = ["LakeFolder"]


class LakeFolder(click.Path):
    """A path; an empty one would be the folder we happen to be in, and comes from a variable that is not set."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path; a URL as it is."""
        if isinstance(value, str) and not value.strip():
            self.fail("the folder's name is empty; is a variable not set?", param, ctx)
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, param, ctx)
