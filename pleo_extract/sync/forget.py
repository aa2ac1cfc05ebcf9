"""The door of `forget`: jobs and people erased from a lake for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.answers.doors import renew_catalogue
from pleo_extract.contract import canonical_uuid
from pleo_extract.errors import UsageError
from pleo_extract.keywords import check_keywords
from pleo_extract.lake.store import open_lake

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from pleo_extract.lake.folder.forgetting import Erasure

__all__ = ["forget"]


@check_keywords
def forget(
    lake: str | Path,
    *,
    jobs: Collection[str] = (),
    people: Collection[str] = (),
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> Erasure:
    """Erase jobs and people from a lake, from every snapshot of it, for good; no later dump brings them back.

    The rows of a job go. The rows of a person stay, and say neither who asked for the job nor, in words, why it failed:
    `created_by`, `failure_reason` and `extra` are null. An id that another row spells in a text is replaced there. Snapshots keep
    their numbers, and what else the lake keeps is searched too: what was staged goes, rejected rows and records are written
    anew. What is forgotten is remembered as salted hashes, by which later dumps and merges know what to leave out.

    Of a Delta table the older versions can no longer be read afterwards.

    Killed, it is finished by being run again, or by the next dump or repair. A lake that has been copied, backed up or
    merged elsewhere is not reached, nor is the server.

    Args:
        lake: the lake's folder, or the URL or folder of a Delta table.
        jobs: ids of jobs, of whichever company.
        people: ids of people, as they stand in `created_by`.
        storage_options: how the object store of a Delta table is reached, as for delta-rs.
        workspace: where a Delta table's runs keep what is not in it; by default in the user's cache.

    Returns:
        What was done: rows `removed` and `blanked` in the current snapshot, snapshots `rewritten`.

    Raises:
        UsageError: nothing is named, or an id is none; nothing was touched. LakeLocked: a run holds the lake, or others
        commit all the time. LakeError: there is no lake, or it is broken. StorageError, TryLater: run it again.
    """
    chosen = _read_ids(jobs, "jobs", "a job's id"), _read_ids(people, "people", "a person's id")
    if not any(chosen):
        raise UsageError("name the jobs or people to forget")
    store = open_lake(lake, storage_options=storage_options, workspace=workspace)
    done = store.forget(*chosen)
    if store.catalogue is not None and done.snapshot:
        renew_catalogue(store.layout.root, run="forget")
    return done


def _read_ids(given: object, name: str, what: str) -> list[str]:
    if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
        raise UsageError(f"{name} must be a list of ids, not {type(given).__name__}")
    return [canonical_uuid(each, what=what) for each in given]
