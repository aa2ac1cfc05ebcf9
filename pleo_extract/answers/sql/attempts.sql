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
WITH ordered_jobs AS (
    SELECT
        j.*,
        lag(j.ended_at) OVER of_same_fields AS previous_ended_at,
        lag(j.status) OVER of_same_fields AS previous_status
    FROM job_durations AS j
    WINDOW of_same_fields AS (
        PARTITION BY j.company_id, j.created_by, j.is_interactive, j.number_of_items, j.vendor_based_bookkeeping
        ORDER BY j.created_at, j.id
    )
),

flagged_jobs AS (
    SELECT
        o.*,
        CASE
            WHEN
                o.previous_status = 'failed'
                AND epoch_us(o.created_at) >= epoch_us(o.previous_ended_at)
                AND epoch_us(o.created_at) - epoch_us(o.previous_ended_at) <= 7200000000
                THEN 0
            ELSE 1
        END AS begins_export
    FROM ordered_jobs AS o
),

numbered_exports AS (
    SELECT
        f.*,
        sum(f.begins_export) OVER (
            PARTITION BY f.company_id, f.created_by, f.is_interactive, f.number_of_items, f.vendor_based_bookkeeping
            ORDER BY f.created_at, f.id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS export_no
    FROM flagged_jobs AS f
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
    a.company_id,
    a.id,
    a.export_id,
    a.attempt,
    a.begins_export = 1 AS is_first,
    a.is_last,
    a.status,
    a.outcome,
    a.created_at,
    a.ended_at,
    a.failure_reason_type,
    a.created_by,
    a.is_interactive,
    a.number_of_items,
    a.is_vanished,
    CASE
        WHEN a.begins_export = 0 THEN (epoch_us(a.created_at) - epoch_us(a.previous_ended_at)) / 1e6
    END AS gap_seconds
FROM numbered_attempts AS a
