"""What a run that writes does first: what killed runs left is finished or swept away, and the state to begin with is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.lake.folder.carry import carry_over
from pleo_extract.lake.folder.filesystem import require_abilities
from pleo_extract.lake.folder.forgetting import finish_forgetting
from pleo_extract.lake.folder.objects import keep_visible
from pleo_extract.lake.folder.opening import require_files
from pleo_extract.lake.folder.pruning import sweep
from pleo_extract.lake.folder.publish import finish_first
from pleo_extract.lake.folder.visible import show_months

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pleo_extract.lake.layout import Layout, Manifest

__all__ = ["begin_run"]


def begin_run(layout: Layout, check: Callable[[], None], *, now: datetime) -> Manifest | None:
    """The state that a run starts from, its files looked at; None for a new lake.

    Raises:
        LakeError: a file of it is missing, or not as long as it was written; or its pointer or manifest is broken.
        ConfigurationError: its file system cannot do what a lake needs.
    """
    carry_over(layout, check=check)
    number = finish_first(layout)
    if number is None:
        require_abilities(layout)
        sweep(layout, None, now=now, check=check)
        finish_forgetting(layout, check=check)
        return None
    manifest = layout.manifest(number)
    for entry in manifest.files:
        keep_visible(layout, entry)
    require_files(layout, manifest, layout.root)  # a missing file would show only when all is read
    sweep(layout, number, now=now, check=check)
    finish_forgetting(layout, check=check)
    manifest = layout.manifest(number)
    show_months(layout, manifest, check=check)
    return layout.apply_state(manifest)
