"""POSIX's file locks, which Windows does not have: what needs them asks `CAN_LOCK` first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import fcntl
else:
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None

__all__ = ["CAN_LOCK", "fcntl"]

CAN_LOCK: Final = bool(fcntl)
"""Whether this system has flock."""
