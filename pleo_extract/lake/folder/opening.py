"""Open one snapshot for reading: resolve the pointer once, and check that every file exists."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pleo_extract.errors import ConfigurationError, LakeError, StorageError, escape
from pleo_extract.lake import disk
from pleo_extract.lake.layout import Layout, scan_files
from pleo_extract.lake.record import read_last_run

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import polars as pl

    from pleo_extract.lake.layout import FileEntry, Manifest

__all__ = [
    "Opened",
    "open_snapshot",
    "refuse_other_server",
    "require_files",
    "require_folder",
    "require_lake",
    "require_pointer",
]


@dataclass(frozen=True, slots=True)
class Opened:
    """One whole snapshot of a lake of either kind, for reading.

    Attributes:
        manifest: its description.
        files: its data files on this machine, in the order of the manifest.
    """

    manifest: Manifest
    files: tuple[Path, ...]

    def read(self, entry: FileEntry) -> pl.LazyFrame:
        """Return the rows of one file of the manifest, after checking its sha256.

        Raises:
            LakeError: the file was changed since it was written.
        """
        path = self.files[self.manifest.files.index(entry)]
        if entry.sha256 and disk.hash_file(path) != entry.sha256:
            raise LakeError(f"{path} was changed since it was written (sha256 differs); run verify")
        return scan_files([path])


def open_snapshot(lake: str | Path, as_of: datetime | int | None = None) -> Opened | None:
    """Return a snapshot to read; None if nothing was published yet.

    Args:
        lake: the folder.
        as_of: a snapshot's number, or an instant; the current snapshot by default.

    Raises:
        LakeError: there is no such folder, it is not a lake, its pointer is lost, or a file is missing or has the wrong
            size.
        UsageError: no such snapshot is kept.
    """
    layout = Layout(lake)
    require_lake(layout)
    number = layout.number_as_of(as_of)
    if number is None:
        require_pointer(layout)
        return None
    manifest = layout.manifest(number)
    return Opened(layout.apply_state(manifest), require_files(layout, manifest, lake))


def require_files(layout: Layout, manifest: Manifest, lake: str | Path) -> tuple[Path, ...]:
    """Check that each file of a snapshot exists and has the recorded size, without reading it; return all paths.

    Raises:
        LakeError: a file is missing or has the wrong size.
    """
    paths = layout.paths_of(manifest)
    for path, entry in zip(paths, manifest.files, strict=True):
        try:
            size = disk.size_of(path)
        except LakeError as exc:
            raise LakeError(
                f"{entry.path} is missing from the lake {lake}; run: pleo-extract repair {lake}"
            ) from exc
        if size != entry.bytes:
            raise LakeError(
                f"{entry.path} of {lake} was changed since it was written ({size} bytes, not {entry.bytes}); "
                f"run: pleo-extract repair {lake}"
            )
    return paths


def refuse_other_server(lake: str, held: str, server: str) -> None:
    """Raise if a run would add jobs of one server to the lake of another.

    Args:
        lake: its name, for the message.
        held: the server whose jobs the lake holds; empty if the lake does not say.
        server: the server of the run.

    Raises:
        ConfigurationError: the two differ.
    """
    if "" not in (held, server) and held != server:
        raise ConfigurationError(
            f"the lake {lake} holds jobs of {escape(held)}; {server} needs a lake of its own. Nothing was changed"
        )


def require_lake(layout: Layout) -> None:
    """Raise unless the folder exists and is a lake or empty: a mistyped path must not look like an empty lake.

    Raises:
        LakeError: there is no folder, or it holds files but no lake.
    """
    require_folder(layout)
    if what := layout.describe_foreign():
        above = layout.above
        hint = f"it lies in the lake {above}; name that folder" if above else "check the path"
        raise LakeError(f"{layout.root} is not a lake ({what}); {hint}")


def require_folder(layout: Layout) -> None:
    """Raise unless the folder exists. The message names the lake beside it whose name is most like that of the folder.

    Raises:
        LakeError: there is no such folder.
    """
    if layout.root.is_dir():
        return
    beside: list[Path] = []
    with suppress(StorageError):  # the folder above may be closed to this user
        beside = [path for path in disk.list_folder(layout.root.parent) if path.is_dir()]
    lakes = [path.name for path in beside if Layout(path).is_old or Layout(path).current.is_file()]
    hint = f"make one with: pleo-extract dump {layout.root}"
    if (above := layout.above) is not None:
        hint = f"it lies in the lake {above}; name that folder"
    for name in get_close_matches(layout.root.name, lakes, n=1):
        hint = f"did you mean {escape(str(layout.root.with_name(name)), 200)}?"
    raise LakeError(f"there is no lake at {layout.root}; {hint}")


def require_pointer(layout: Layout) -> None:
    """Raise if a lake without a pointer once had one: the last run recorded a snapshot, or there is a catalogue.

    Raises:
        LakeError: the pointer is lost.
    """
    last = read_last_run(layout)
    if (last is not None and last.receipt.get("snapshot")) or layout.catalogue.exists():
        raise LakeError(
            f"{layout.root} has lost its pointer {layout.current.name!r}; run: pleo-extract repair {layout.root}"
        )
