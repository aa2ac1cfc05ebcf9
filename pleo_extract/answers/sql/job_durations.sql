-- job_durations
-- How each job ended and how long each step took: one row per job, open jobs included.
--
-- id, company_id, created_at, started_at, last_updated_at, expires_in, created_by, is_interactive, number_of_items,
-- vendor_based_bookkeeping and failure_reason_type are the columns of export_jobs.
--
-- status         as sent. completed, failed and completed_with_errors are terminal; with any other status, known or
--                not, the job is open
-- ended_at       when a terminal job ended: completed_at, else expired_at, else last_updated_at; null while it is open
-- ended_by       the column that ended_at comes from, or null
-- outcome        completed, completed_with_errors, failed, expired or open. A failed job is expired if its reason is
--                job_expired, or if it has no reason and an expired_at
-- is_censored    true while the job is open: its durations are not known yet, only that it has lasted until now
-- is_vanished    true if the server no longer lists the job: the row stays as last seen, and every answer counts it
-- queue_seconds  created_at to started_at
-- run_seconds    started_at to ended_at
-- total_seconds  created_at to ended_at
--
-- Durations are seconds with fractions, and null if one of the two instants is not known. They are negative if the
-- server sent the instants in the wrong order: nothing is corrected.
WITH jobs_with_end AS (
    SELECT
        e.id,
        e.company_id,
        e.status,
        e.created_at,
        e.started_at,
        CASE
            WHEN e.status IN ('completed', 'failed', 'completed_with_errors')
                THEN coalesce(e.completed_at, e.expired_at, e.last_updated_at)
        END AS ended_at,
        CASE
            WHEN e.status NOT IN ('completed', 'failed', 'completed_with_errors') THEN NULL
            WHEN e.completed_at IS NOT NULL THEN 'completed_at'
            WHEN e.expired_at IS NOT NULL THEN 'expired_at'
            WHEN e.last_updated_at IS NOT NULL THEN 'last_updated_at'
        END AS ended_by,
        CASE
            WHEN e.status IN ('completed', 'completed_with_errors') THEN e.status
            WHEN e.status <> 'failed' THEN 'open'
            WHEN e.failure_reason_type = 'job_expired' THEN 'expired'
            WHEN e.failure_reason_type IS NULL AND e.expired_at IS NOT NULL THEN 'expired'
            ELSE 'failed'
        END AS outcome,
        e.status NOT IN ('completed', 'failed', 'completed_with_errors') AS is_censored,
        e.failure_reason_type,
        e.number_of_items,
        e.is_interactive,
        e.created_by,
        e.vendor_based_bookkeeping,
        e.last_updated_at,
        e.expires_in,
        v.id IS NOT NULL AS is_vanished
    FROM export_jobs AS e
    LEFT JOIN vanished_keys AS v ON e.company_id = v.company_id AND e.id = v.id
)

SELECT
    j.id,
    j.company_id,
    j.status,
    j.outcome,
    j.is_censored,
    j.is_vanished,
    j.created_at,
    j.started_at,
    j.ended_at,
    j.ended_by,
    (epoch_us(j.started_at) - epoch_us(j.created_at)) / 1e6 AS queue_seconds,
    (epoch_us(j.ended_at) - epoch_us(j.started_at)) / 1e6 AS run_seconds,
    (epoch_us(j.ended_at) - epoch_us(j.created_at)) / 1e6 AS total_seconds,
    j.number_of_items,
    j.is_interactive,
    j.failure_reason_type,
    j.last_updated_at,
    j.expires_in,
    j.created_by,
    j.vendor_based_bookkeeping
FROM jobs_with_end AS j
