-- attempts
-- Which jobs are attempts of one export: one row per job, with its export and its number.
--
-- The API does not say that a job repeats another one. A job counts as the next attempt of an earlier one if
--
-- - both have the same company_id, created_by, is_interactive, number_of_items and vendor_based_bookkeeping,
-- - no job with the same five was created between them,
-- - the earlier one has the status failed, expired ones included, and
-- - the later one was created within 2 hours after the earlier one ended.
--
-- A retry with other entries, by another user or after hours counts as a new export, and another export of the same user
-- with as many entries soon after a failure counts as a retry. docs/answers.md says how often that happens.
--
-- company_id, id, status, outcome, created_at, ended_at, failure_reason_type, created_by, is_interactive, number_of_items
--                as in job_durations
-- export_id      id of the first attempt: the name of the export
-- attempt        the number of the attempt, from 1
-- is_first       true if attempt is 1
-- is_last        true if no later attempt is known
-- is_vanished    true if the server no longer lists the job, as in job_durations
-- gap_seconds    from the end of the attempt before to created_at; null for a first attempt
WITH neighbours AS (
    SELECT
        j.company_id,
        j.id,
        j.status,
        j.created_at,
        j.ended_at,
        j.created_by,
        j.is_interactive,
        j.number_of_items,
        j.vendor_based_bookkeeping,
        lag(j.status) OVER of_same_fields AS previous_status,
        lag(j.ended_at) OVER of_same_fields AS previous_ended_at,
        lead(j.created_at) OVER of_same_fields AS next_created_at
    FROM job_durations AS j
    WINDOW of_same_fields AS (
        PARTITION BY j.company_id, j.created_by, j.is_interactive, j.number_of_items, j.vendor_based_bookkeeping
        ORDER BY j.created_at, j.id
    )
),

linked_jobs AS (
    SELECT
        n.*,
        CASE
            WHEN
                n.previous_status = 'failed'
                AND epoch_us(n.created_at) >= epoch_us(n.previous_ended_at)
                AND epoch_us(n.created_at) - epoch_us(n.previous_ended_at) <= 7200000000
                THEN 0
            ELSE 1
        END AS begins_export,
        n.status = 'failed'
        AND epoch_us(n.next_created_at) >= epoch_us(n.ended_at)
        AND epoch_us(n.next_created_at) - epoch_us(n.ended_at) <= 7200000000 AS is_retried
    FROM neighbours AS n
),

-- Most jobs are the only attempt of their export, and need no number.
numbered_exports AS (
    SELECT
        l.*,
        sum(l.begins_export) OVER (
            PARTITION BY l.company_id, l.created_by, l.is_interactive, l.number_of_items, l.vendor_based_bookkeeping
            ORDER BY l.created_at, l.id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS export_no
    FROM linked_jobs AS l
    WHERE l.begins_export = 0 OR l.is_retried
),

numbered_attempts AS (
    SELECT
        n.*,
        row_number() OVER of_same_export AS attempt,
        first_value(n.id) OVER of_same_export AS export_id,
        lead(n.id) OVER of_same_export IS NULL AS is_last
    FROM numbered_exports AS n
    WINDOW of_same_export AS (
        PARTITION BY
            n.company_id, n.created_by, n.is_interactive, n.number_of_items, n.vendor_based_bookkeeping, n.export_no
        ORDER BY n.created_at, n.id
    )
)

SELECT
    j.company_id,
    j.id,
    coalesce(a.export_id, j.id) AS export_id,
    coalesce(a.attempt, 1) AS attempt,
    coalesce(a.begins_export, 1) = 1 AS is_first,
    coalesce(a.is_last, TRUE) AS is_last,
    j.status,
    j.outcome,
    j.created_at,
    j.ended_at,
    j.failure_reason_type,
    j.created_by,
    j.is_interactive,
    j.number_of_items,
    j.is_vanished,
    CASE
        WHEN a.begins_export = 0 THEN (epoch_us(j.created_at) - epoch_us(a.previous_ended_at)) / 1e6
    END AS gap_seconds
FROM job_durations AS j
LEFT JOIN numbered_attempts AS a ON j.company_id = a.company_id AND j.id = a.id
