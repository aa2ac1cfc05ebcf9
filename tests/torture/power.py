"""A model of power loss: a disk that keeps only what was synced.

The model is stricter than any file system we know. After power loss a file has the content of its last sync, or is
empty if it was never synced. The names in a folder (new files, links, renames, removals) are those of the folder's
last sync; syncing a file does not keep its name. A rename is atomic, and syncing the target folder keeps it. Writes
that were not synced are lost: all of them or, with a `Random`, a random part.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from tap import Operation

__all__ = ["Disk"]


@dataclass(eq=False)
class Node:
    """A file, a folder or a link, as the program sees it and (`kept_…`) as it is after power loss."""

    kind: str
    leads: str = ""
    data: bytes = b""
    kept_data: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    kept_names: dict[str, Node] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)


@dataclass(eq=False)
class Change:
    """A change of names that is not synced yet: the node of each (folder, name), or None for a removed name."""

    names: list[tuple[Node, str, Node | None]]

    def keep(self) -> None:
        """Apply the change to the disk."""
        for folder, name, node in self.names:
            if node is None:
                folder.kept_names.pop(name, None)
            else:
                folder.kept_names[name] = node
        for folder, _, _ in self.names:
            if self in folder.pending:
                folder.pending.remove(self)


class Disk:
    """A disk below one folder, as the program sees it and as it would be after power loss."""

    def __init__(self, base: Path) -> None:
        """Read the folder; everything in it counts as synced."""
        self.base = base.resolve()
        self.root = _read(self.base)

    def play(self, operations: Iterable[Operation]) -> None:
        """Replay the operations of a process, see `tap.py`."""
        for what, path, more in operations:
            getattr(self, f"_{what}")(path, more)

    def write_to(self, folder: Path, rng: Random | None = None) -> None:
        """Write what is left after power loss to `folder`."""
        if rng is not None:
            self._keep_some(rng)
        _write(self.root, folder, rng)

    def _keep_some(self, rng: Random) -> None:
        folders, seen = [self.root], [self.root]
        while folders:
            folder = folders.pop()
            for change in list(folder.pending):
                if rng.random() < 0.5:
                    change.keep()
            for node in (*folder.names.values(), *folder.kept_names.values()):
                if node.kind == "folder" and node not in seen:
                    folders.append(node)
                    seen.append(node)

    def _find(self, path: str) -> tuple[Node, str]:
        """Return the node of the folder, and the name in it."""
        *parts, name = Path(path).relative_to(self.base).parts
        node = self.root
        for part in parts:
            node = node.names[part]
        return node, name

    def _change(self, *names: tuple[Node, str, Node | None]) -> None:
        change = Change(list(names))
        for folder, name, node in names:
            if node is None:
                folder.names.pop(name, None)
            else:
                folder.names[name] = node
        # The last name is the target of a rename: syncing its folder keeps the rename.
        names[-1][0].pending.append(change)

    def _open(self, path: str, flags: int) -> None:
        folder, name = self._find(path)
        if name not in folder.names:
            self._change((folder, name, Node("file")))
        elif flags & os.O_TRUNC:
            folder.names[name].data = b""

    def _write(self, path: str, data: bytes) -> None:
        folder, name = self._find(path)
        folder.names[name].data += data

    def _sync(self, path: str, _: object) -> None:
        folder, name = self._find(path) if path != str(self.base) else (self.root, "")
        node = folder.names[name] if name else self.root
        node.kept_data = node.data
        for change in list(node.pending):
            change.keep()

    def _mkdir(self, path: str, _: object) -> None:
        self._change((*self._find(path), Node("folder")))

    def _rmdir(self, path: str, _: object) -> None:
        self._change((*self._find(path), None))

    _unlink = _rmdir

    def _symlink(self, path: str, leads: str) -> None:
        self._change((*self._find(path), Node("link", leads=leads)))

    def _link(self, path: str, other: str) -> None:
        folder, name = self._find(path)
        self._change((*self._find(other), folder.names[name]))

    def _replace(self, path: str, other: str) -> None:
        folder, name = self._find(path)
        self._change((folder, name, None), (*self._find(other), folder.names[name]))

    def _duckdb(self, path: str, data: bytes) -> None:
        self._change((*self._find(path), Node("file", data=data, kept_data=data)))


def _read(path: Path) -> Node:
    if path.is_symlink():
        return Node("link", leads=str(path.readlink()))
    if path.is_dir():
        names = {each.name: _read(each) for each in path.iterdir()}
        return Node("folder", names=names, kept_names=dict(names))
    data = path.read_bytes()
    return Node("file", data=data, kept_data=data)


def _write(node: Node, path: Path, rng: Random | None) -> None:
    if node.kind == "link":
        path.symlink_to(node.leads)
    elif node.kind == "file":
        data = node.kept_data
        if rng is not None and node.data != data:
            data = rng.choice(
                [data, node.data, node.data[: rng.randint(0, len(node.data))], bytes(len(node.data))]
            )
        path.write_bytes(data)
    else:
        path.mkdir()
        for name, each in node.kept_names.items():
            _write(each, path / name, rng)
