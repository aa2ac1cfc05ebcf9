"""The first step of every run that writes to a folder: clean up after killed runs, then read the state to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.lake.folder.carry import carry_over
from pleo_extract.lake.folder.filesystem import require_abilities
from pleo_extract.lake.folder.forgetting import finish_forgetting
from pleo_extract.lake.folder.objects import restore_object
from pleo_extract.lake.folder.opening import require_files
from pleo_extract.lake.folder.pruning import sweep
from pleo_extract.lake.folder.publish import finish_first_publish
from pleo_extract.lake.folder.visible import show_months

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pleo_extract.lake.layout import Layout, Manifest

__all__ = ["begin_run"]


def begin_run(layout: Layout, check: Callable[[], None], *, now: datetime) -> Manifest | None:
    """Return the manifest that a run starts from, with all its files checked; None for a new lake.

    Whatever a killed run left is finished or removed first: a half converted lake, a first publish, an erasure, staging.

    Args:
        layout: the lake, locked by this run.
        check: raises LakeLocked when another run has taken the lake.
        now: the current time (UTC).

    Raises:
        LakeError: a file is missing or has the wrong size, or the pointer or the manifest is broken.
        ConfigurationError: the file system cannot hold a lake.
    """
    carry_over(layout, check=check)
    number = finish_first_publish(layout)
    if number is None:
        require_abilities(layout)
        sweep(layout, None, now=now, check=check)
        finish_forgetting(layout, check=check)
        return None
    manifest = layout.manifest(number)
    for entry in manifest.files:
        restore_object(layout, entry)
    # Without this check, a missing file would surface only in the merge, after the whole list was read.
    require_files(layout, manifest, layout.root)
    sweep(layout, number, now=now, check=check)
    finish_forgetting(layout, check=check)
    manifest = layout.manifest(number)
    show_months(layout, manifest, check=check)
    return layout.apply_state(manifest)
