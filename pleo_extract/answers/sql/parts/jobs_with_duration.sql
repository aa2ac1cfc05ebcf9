-- jobs_with_duration(duration VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- The filtered jobs, each with the chosen duration: known_seconds if it has ended, seconds_so_far if it has not.
SELECT
    o.id,
    o.company_id AS company,
    o.status,
    o.outcome,
    o.created_at,
    o.number_of_items,
    o.failure_reason_type,
    o.is_vanished,
    CASE
        WHEN :duration = 'total' THEN o.total_seconds
        WHEN :duration = 'queue' THEN o.queue_seconds
        ELSE o.run_seconds
    END AS known_seconds,
    CASE
        WHEN NOT o.is_censored THEN NULL
        WHEN :duration = 'queue' AND o.started_at IS NOT NULL THEN NULL
        WHEN :duration = 'run' THEN (epoch_us(o.observed_until) - epoch_us(o.started_at)) / 1e6
        ELSE (epoch_us(o.observed_until) - epoch_us(o.created_at)) / 1e6
    END AS seconds_so_far
FROM observed_jobs AS o
