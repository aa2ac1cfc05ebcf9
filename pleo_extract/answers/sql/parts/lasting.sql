-- lasting(duration VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- The jobs asked for, each with the duration that is meant: known_seconds where it is over, seconds_so_far where the
-- job is open.
SELECT
    a.id,
    a.company_id AS company,
    a.status,
    a.outcome,
    a.created_at,
    a.number_of_items,
    a.failure_reason_type,
    a.is_vanished,
    CASE
        WHEN :duration = 'total' THEN a.total_seconds
        WHEN :duration = 'queue' THEN a.queue_seconds
        ELSE a.run_seconds
    END AS known_seconds,
    CASE
        WHEN NOT a.is_censored THEN NULL
        WHEN :duration = 'queue' AND a.started_at IS NOT NULL THEN NULL
        WHEN :duration = 'run' THEN (epoch_us(a.known_until) - epoch_us(a.started_at)) / 1e6
        ELSE (epoch_us(a.known_until) - epoch_us(a.created_at)) / 1e6
    END AS seconds_so_far
FROM aged AS a
