-- slow_jobs(q DOUBLE := 0.95, duration VARCHAR := 'total', company_id VARCHAR := NULL,
--     since TIMESTAMPTZ := NULL, until TIMESTAMPTZ := NULL)
-- Jobs slower than a quantile of their own company: one row per job, the slowest in proportion first.
--
-- q is the quantile, from 0 to 1. duration is total (created to ended), queue (created to started) or run (started
-- to ended). The limit is the exact quantile of the company's known durations between since and until. An open job
-- is slow as soon as it has lasted longer than the limit.
--
-- id, company_id, status, created_at, number_of_items, failure_reason_type  as in export_jobs
-- outcome        as in job_durations
-- seconds        the duration; if is_censored, the time so far, until now (see `companies`, `snapshot`)
-- is_censored    true if this duration has not ended yet
-- is_vanished    true if the server no longer lists the job; the time so far of an open one then ends with the last
--                action on it
-- limit_seconds  the company's quantile; seconds is above it
-- n              jobs from which the quantile is computed
-- times          seconds / limit_seconds; null if the limit is 0 or less
SELECT
    j.id,
    j.company AS company_id,
    j.status,
    j.outcome,
    j.created_at,
    j.number_of_items,
    j.failure_reason_type,
    coalesce(j.known_seconds, j.seconds_so_far) AS seconds,
    j.known_seconds IS NULL AS is_censored,
    j.is_vanished,
    c.limit_seconds,
    c.n,
    CASE WHEN c.limit_seconds > 0 THEN coalesce(j.known_seconds, j.seconds_so_far) / c.limit_seconds END AS times
FROM jobs_with_duration AS j
INNER JOIN company_quantiles AS c ON j.company = c.company
WHERE coalesce(j.known_seconds, j.seconds_so_far) > c.limit_seconds
ORDER BY times DESC NULLS LAST, j.company, j.id
