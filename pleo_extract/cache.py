"""Where the user's cache is: `XDG_CACHE_HOME`, or `~/.cache`, and in it the folder `pleo_extract`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["cache_path"]


def cache_path(identity: str, *folders: str) -> Path:
    """Return the path in the user's cache that belongs to this identity; nothing is created.

    The name is a hash: an identity may hold a credential, or characters that no file name can have.

    Raises:
        RuntimeError: there is no home folder: HOME is not set, and the machine does not know the user.
    """
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return Path(root, "pleo_extract", *folders, hashlib.sha256(identity.encode()).hexdigest()[:16])
    finally:
        del identity  # a traceback may show the locals of this frame
