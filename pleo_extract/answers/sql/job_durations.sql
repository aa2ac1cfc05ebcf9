-- job_durations
-- How each job went and how long its parts took: one row a job, open jobs included.
--
-- id, company_id, created_at, started_at, last_updated_at, expires_in, number_of_items, is_interactive and
-- failure_reason_type are those of export_jobs.
--
-- status         as sent; completed, failed and completed_with_errors are terminal, every other one, unknown
--                ones included, means the job is still open
-- ended_at       when a terminal job ended: completed_at, else expired_at, else last_updated_at; null while open
-- ended_by       which of these three it was: its column's name, or null
-- outcome        completed, completed_with_errors, failed, expired (failed with the reason job_expired, or with
--                no reason but an expired_at), or open
-- is_censored    true while the job is open: it lasts at least until now, its durations are not known yet
-- is_vanished    the server no longer lists the job: the row stays as last seen, and is counted everywhere
-- queue_seconds  created_at to started_at
-- run_seconds    started_at to ended_at
-- total_seconds  created_at to ended_at
--
-- Durations are in seconds, fractions included, and null where one of the two instants is not known. They are
-- negative where the server's instants run backwards: nothing is corrected.
WITH ended AS (
    SELECT
        j.id,
        j.company_id,
        j.status,
        j.created_at,
        j.started_at,
        CASE
            WHEN j.status IN ('completed', 'failed', 'completed_with_errors')
                THEN coalesce(j.completed_at, j.expired_at, j.last_updated_at)
        END AS ended_at,
        CASE
            WHEN j.status NOT IN ('completed', 'failed', 'completed_with_errors') THEN NULL
            WHEN j.completed_at IS NOT NULL THEN 'completed_at'
            WHEN j.expired_at IS NOT NULL THEN 'expired_at'
            WHEN j.last_updated_at IS NOT NULL THEN 'last_updated_at'
        END AS ended_by,
        CASE
            WHEN j.status IN ('completed', 'completed_with_errors') THEN j.status
            WHEN j.status <> 'failed' THEN 'open'
            WHEN j.failure_reason_type = 'job_expired' THEN 'expired'
            WHEN j.failure_reason_type IS NULL AND j.expired_at IS NOT NULL THEN 'expired'
            ELSE 'failed'
        END AS outcome,
        j.status NOT IN ('completed', 'failed', 'completed_with_errors') AS is_censored,
        j.failure_reason_type,
        j.number_of_items,
        j.is_interactive,
        j.last_updated_at,
        j.expires_in,
        g.id IS NOT NULL AS is_vanished
    FROM export_jobs AS j
    LEFT JOIN gone AS g ON j.company_id = g.company_id AND j.id = g.id
)

SELECT
    e.id,
    e.company_id,
    e.status,
    e.outcome,
    e.is_censored,
    e.is_vanished,
    e.created_at,
    e.started_at,
    e.ended_at,
    e.ended_by,
    (epoch_us(e.started_at) - epoch_us(e.created_at)) / 1e6 AS queue_seconds,
    (epoch_us(e.ended_at) - epoch_us(e.started_at)) / 1e6 AS run_seconds,
    (epoch_us(e.ended_at) - epoch_us(e.created_at)) / 1e6 AS total_seconds,
    e.number_of_items,
    e.is_interactive,
    e.failure_reason_type,
    e.last_updated_at,
    e.expires_in
FROM ended AS e
