"""The door for readers: one snapshot, resolved once, with all its files there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pleo_extract.errors import ConfigurationError, LakeError, escape
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
    "require_lake",
    "require_pointer",
]


@dataclass(frozen=True, slots=True)
class Opened:
    """One whole state of a lake of either kind, for reading: its manifest, and its data files on this machine, in its order."""

    manifest: Manifest
    files: tuple[Path, ...]

    def read(self, entry: FileEntry) -> pl.LazyFrame:
        """The rows of one of the manifest's files, its bytes compared with its sum first.

        Raises:
            LakeError: it is not as it was written.
        """
        path = self.files[self.manifest.files.index(entry)]
        if entry.sha256 and disk.hash_file(path) != entry.sha256:
            raise LakeError(f"{path} is not as it was written (sha256 differs); run verify")
        return scan_files([path])


def open_snapshot(lake: str | Path, as_of: datetime | int | None = None) -> Opened | None:
    """A state to read, resolved once; None for a lake in which nothing was published yet.

    Raises:
        LakeError: there is no such folder, it is not a lake, its pointer is lost, or a file is missing or not as long
        as it was written. UsageError: no such snapshot is kept.
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
    """All files of a snapshot, each as long as it was written: what can be told without reading them.

    Raises:
        LakeError: one is missing, or is not.
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
                f"{entry.path} of {lake} is not as it was written ({size} bytes, not {entry.bytes}); "
                f"run: pleo-extract repair {lake}"
            )
    return paths


def refuse_other_server(lake: str, held: str, server: str) -> None:
    """Refuse a run for one server to a lake that holds jobs of another; an empty name is of a lake that does not say.

    Raises:
        ConfigurationError: they are two.
    """
    if "" not in (held, server) and held != server:
        raise ConfigurationError(
            f"the lake {lake} holds jobs of {escape(held)}; {server} needs a lake of its own. Nothing was changed"
        )


def require_lake(layout: Layout) -> None:
    """A folder that is there, and that does not hold other files and no lake: a slip in the path is no empty lake.

    Raises:
        LakeError: it is not so.
    """
    if not layout.root.is_dir():
        raise LakeError(f"there is no lake at {layout.root}; make one with: pleo-extract dump {layout.root}")
    if what := layout.describe_foreign():
        raise LakeError(f"{layout.root} is no lake ({what}); check the path")


def require_pointer(layout: Layout) -> None:
    """A lake without a pointer is one without a snapshot, unless a run has published to it, or made a catalogue of it.

    Raises:
        LakeError: the pointer is lost.
    """
    last = read_last_run(layout)
    if (last is not None and last.receipt.get("snapshot")) or layout.catalogue.exists():
        raise LakeError(
            f"{layout.root} has lost its pointer {layout.current.name!r}; run: pleo-extract repair {layout.root}"
        )
