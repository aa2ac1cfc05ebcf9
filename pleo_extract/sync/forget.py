"""The door of `forget`: erase jobs and people from a lake for good."""

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
    """Erase jobs and people from every snapshot of a lake, for good. No later dump brings them back.

    The rows of a job are removed. The rows of a person stay, with null in `created_by`, `failure_reason` and `extra`. Where
    another row holds the id in a text, the id is replaced. Snapshots keep their numbers. Staged rows are removed, rejected
    rows and records are rewritten. The lake remembers what it has forgotten as salted hashes, so that later dumps and
    merges leave it out.

    The older versions of a Delta table can no longer be read afterwards.

    If `forget` is killed, run it again; the next dump or repair finishes it too. Copies, backups and merges of the lake
    are not changed, nor is the server.

    Args:
        lake: the lake's folder, or the URL or folder of a Delta table.
        jobs: ids of jobs, of any company.
        people: ids of people, as in `created_by`.
        storage_options: options for the object store of a Delta table, as for delta-rs.
        workspace: the local folder for staging and records of a Delta table; by default in the user's cache.

    Returns:
        What was done: rows `removed` and `blanked` in the current snapshot, snapshots `rewritten`.

    Raises:
        UsageError: no job or person is named, or an id is not a UUID; nothing was changed.
        LakeLocked: a run holds the lake, or other writers keep committing first.
        LakeError: there is no lake, or it is damaged.
        StorageError, TryLater: the erasure is not finished; run it again.
    """
    chosen = _check_ids(jobs, "jobs", "a job's id"), _check_ids(people, "people", "a person's id")
    if not any(chosen):
        raise UsageError("name the jobs or people to forget")
    store = open_lake(lake, storage_options=storage_options, workspace=workspace)
    done = store.forget(*chosen)
    if store.catalogue is not None and done.snapshot:
        renew_catalogue(store.layout.root, run="forget")
    return done


def _check_ids(given: object, name: str, what: str) -> list[str]:
    """Return the ids in canonical form."""
    if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
        raise UsageError(f"{name} must be a list of ids, not {type(given).__name__}")
    return [canonical_uuid(each, what=what) for each in given]
