"""The macro `changes` of the catalogue: what differs between two snapshots, for clients that know only SQL.

It reads what `Lake.changes` reads, the manifests and the objects that they name, and gives the same rows. It exists only
in the catalogue of a folder: a connection of `connect` has one snapshot, and Python has `Lake.changes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pleo_extract.contract import COLUMNS, DUCKDB_SCHEMA, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["create_changes"]

_MANIFESTS: Final = "/_lake/snapshots/*.json"
_OBJECTS: Final = "/_lake/objects/*"
_CURRENT: Final = "/_lake/current"
_MACRO: Final = """CREATE MACRO changes(since, until := NULL) AS TABLE
WITH manifests AS (
    SELECT m.snapshot, m.made_at, m.files, m.accounts
    FROM read_json({manifests}, format = 'unstructured', maximum_object_size = 1000000000, columns = {{
        snapshot: 'BIGINT', made_at: 'TIMESTAMPTZ', files: 'STRUCT("path" VARCHAR, "object" VARCHAR)[]',
        accounts: 'MAP(VARCHAR, STRUCT(vanished VARCHAR[][]))'
    }}) AS m
), newest AS (
    SELECT CAST(trim(t.content, chr(10)) AS BIGINT) AS snapshot FROM read_text({current}) AS t
), asked AS (
    SELECT {since} AS a, CASE WHEN until IS NULL THEN (SELECT n.snapshot FROM newest AS n) ELSE {until} END AS b
), ends AS (
    SELECT CASE
        WHEN (SELECT count(*) FROM manifests AS m WHERE m.snapshot IN (q.a, q.b)) < CASE WHEN q.a = q.b THEN 1 ELSE 2 END
            OR q.a IS NULL OR q.b IS NULL
            THEN error('no such snapshot is kept; the files in _lake/snapshots are those that are')
        WHEN q.a > q.b THEN error('the first snapshot is later than the second; name the earlier one first')
        ELSE q.a
    END AS a, q.b FROM asked AS q
), files AS (
    SELECT e.a = m.snapshot AS is_before, e.b = m.snapshot AS is_after, unnest(m.files) AS file
    FROM manifests AS m, ends AS e WHERE m.snapshot IN (e.a, e.b)
), vanished AS (
    SELECT v.is_before, v.is_after, v.keys[1] AS company_id, v.keys[2] AS id
    FROM (
        SELECT e.a = m.snapshot AS is_before, e.b = m.snapshot AS is_after,
            unnest(flatten([s.vanished FOR s IN map_values(m.accounts)])) AS keys
        FROM manifests AS m, ends AS e WHERE m.snapshot IN (e.a, e.b)
    ) AS v
), gone AS (
    SELECT v.company_id, v.id FROM vanished AS v WHERE v.is_after
    EXCEPT SELECT v.company_id, v.id FROM vanished AS v WHERE v.is_before
), differing AS (
    SELECT l.file."object" AS object FROM files AS l GROUP BY ALL HAVING NOT (bool_or(l.is_before) AND bool_or(l.is_after))
), jobs AS (
    SELECT {columns}, parse_filename(f.filename) AS object
    FROM read_parquet({objects}, filename = TRUE, hive_partitioning = FALSE) AS f
    WHERE parse_filename(f.filename) IN (SELECT d.object FROM differing AS d)
        OR (f.company_id || '/' || f.id IN (SELECT g.company_id || '/' || g.id FROM gone AS g)
            AND parse_filename(f.filename) IN (SELECT l.file."object" FROM files AS l))
), kept AS (
    SELECT CASE WHEN count(*) > 0 THEN error('a file of one of the snapshots is missing: ' || min(l.file."object")) END AS ok
    FROM files AS l
    WHERE l.file."object" NOT IN (SELECT parse_filename(g.file) FROM glob({objects}) AS g)
), was AS (
    SELECT j.* FROM jobs AS j JOIN files AS l ON l.file."object" = j.object AND l.is_before
), now AS (
    SELECT j.* FROM jobs AS j JOIN files AS l ON l.file."object" = j.object AND l.is_after
), found AS (
    SELECT CASE WHEN g.id IS NOT NULL THEN 'vanished' WHEN w.id IS NULL THEN 'new' WHEN n.id IS NULL THEN 'removed'
        WHEN n.status IN ({terminal}) AND w.status NOT IN ({terminal}) THEN 'ended' ELSE 'changed' END AS change,
        CASE WHEN g.id IS NOT NULL THEN n.status ELSE w.status END AS status_before, {either}
    FROM was AS w
    FULL JOIN now AS n ON n.company_id = w.company_id AND n.id = w.id
    LEFT JOIN gone AS g ON g.company_id = n.company_id AND g.id = n.id
    WHERE g.id IS NOT NULL OR ({row_before}) IS DISTINCT FROM ({row_after})
)
SELECT d.* FROM found AS d LEFT JOIN kept AS k ON k.ok IS NULL ORDER BY d.created_at, d.id"""


def create_changes(path_of: Callable[[str], str]) -> str:
    """Return the CREATE MACRO statement of `changes(since, until := NULL)`.

    Its arguments and rows are those of `Lake.changes`: snapshots by number or by an instant with its zone; one row a job.

    Args:
        path_of: gives the SQL of a path below the lake.
    """
    compared = [name for name in COLUMNS if name != "expires_in"]  # it counts down, as `find_changes` says
    return _MACRO.format(
        manifests=path_of(_MANIFESTS),
        objects=path_of(_OBJECTS),
        current=path_of(_CURRENT),
        since=_snapshot("since"),
        until=_snapshot("until"),
        columns=", ".join(f"CAST(f.{name} AS {kind}) AS {name}" for name, kind in DUCKDB_SCHEMA.items()),
        terminal=", ".join(f"'{status}'" for status in TERMINAL),
        either=", ".join(
            f"CASE WHEN n.id IS NULL THEN w.{name} ELSE n.{name} END AS {name}" for name in COLUMNS
        ),
        row_before=", ".join(f"w.{name}" for name in compared),
        row_after=", ".join(f"n.{name}" for name in compared),
    )


def _snapshot(argument: str) -> str:
    """Return SQL for the number of the snapshot that was current at this instant, or that has this number."""
    instant = f"try_cast(CAST({argument} AS VARCHAR) AS TIMESTAMPTZ)"
    number = f"try_cast(CAST({argument} AS VARCHAR) AS BIGINT)"
    at = f"(SELECT max(m.snapshot) FROM manifests AS m WHERE m.made_at <= {instant})"  # noqa: S608 -- parameters of the macro
    return f"CASE WHEN {number} IS NOT NULL THEN {number} ELSE {at} END"
