-- slow_jobs(q DOUBLE := NULL, duration VARCHAR := 'total', company_id VARCHAR := NULL,
--     since TIMESTAMPTZ := NULL, until TIMESTAMPTZ := NULL)
-- Jobs that were unusually slow for their own company: one row per job, the slowest in proportion first.
--
-- The limit lies far outside the company's known durations between since and until: from their upper quartile, it is
-- three times as far up as from the lower quartile to the upper one, in proportion (Tukey's outer fence of the
-- logarithms, 1977, Exploratory Data Analysis). With quartiles of 40 and 80 seconds that is 640 seconds. If the
-- logarithms are normally distributed, chance alone lists one job in 850,000; a company without unusual jobs has no
-- rows. A company needs 20 known durations. Quartiles are at least a second, and the upper one counts as at least a
-- quarter above the lower one.
--
-- With q, from 0 to 1, the limit is that quantile of the company instead: slow_jobs(0.99) lists one job in a hundred.
--
-- duration is total (created to ended), queue (created to started) or run (started to ended). An open job is slow as
-- soon as it has lasted longer than the limit.
--
-- id, company_id, status, created_at, number_of_items, failure_reason_type  as in export_jobs
-- outcome        as in job_durations
-- seconds        the duration; if is_censored, the time so far, until now (see `companies`, `snapshot`)
-- is_censored    true if this duration has not ended yet
-- is_vanished    true if the server no longer lists the job; the time so far of an open one then ends with the last
--                action on it
-- limit_seconds  the company's limit; seconds is above it
-- n              jobs from which the limit is computed
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
