-- slow_jobs(q DOUBLE := 0.95, duration VARCHAR := 'total', company_id VARCHAR := NULL,
--     since TIMESTAMPTZ := NULL, until TIMESTAMPTZ := NULL)
-- Jobs slower than their company's own quantile: one row a job, the slowest in proportion first.
--
-- q is the quantile, from 0 to 1; duration is total (created to ended), queue (created to started) or run
-- (started to ended). The limit is the exact quantile over the company's jobs, in the time asked for, whose
-- duration is known. An open job is slow as soon as it has lasted longer than that.
--
-- id, company_id, status, created_at, number_of_items, failure_reason_type  as in export_jobs
-- outcome        as in job_durations
-- seconds        the duration; where is_censored, what it has come to by now (`companies`, `snapshot`)
-- is_censored    it has not ended yet
-- is_vanished    the server no longer lists it; an open one is then as slow as it was when last acted on
-- limit_seconds  the company's quantile; seconds is above it
-- n              jobs that the limit is made of
-- times          seconds / limit_seconds; null where the limit is 0 or less
SELECT
    t.id,
    t.company AS company_id,
    t.status,
    t.outcome,
    t.created_at,
    t.number_of_items,
    t.failure_reason_type,
    coalesce(t.known_seconds, t.seconds_so_far) AS seconds,
    t.known_seconds IS NULL AS is_censored,
    t.is_vanished,
    l.limit_seconds,
    l.n,
    CASE WHEN l.limit_seconds > 0 THEN coalesce(t.known_seconds, t.seconds_so_far) / l.limit_seconds END AS times
FROM lasting AS t
INNER JOIN limits AS l ON t.company = l.company
WHERE coalesce(t.known_seconds, t.seconds_so_far) > l.limit_seconds
ORDER BY times DESC NULLS LAST, t.company, t.id
