-- duration_stats(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE)
-- How long exports take: three rows per period and company, one per duration.
--
-- period         start of the period, in time zone tz. A job belongs to the period of its created_at.
--                null where the grain is 'all': one period holds all jobs
-- company_id     the company; null if per_company is false, because the row is about all companies
-- duration       queue (created to started), run (started to ended) or total (created to ended)
-- n              jobs with a known duration: all figures describe these jobs
-- mean           in seconds, like all columns up to max
-- p50, p90, p95, p99  exact percentiles, with linear interpolation (numpy's `linear`)
-- max            the longest
-- still_running  jobs left out because they are open and this duration has not ended. They are often the longest,
--                so figures of recent periods are too low until this is 0; survival() takes them into account
-- vanished       of the n jobs, those that the server no longer lists; they count as last seen
-- unknown        jobs left out although this duration has ended, because the server did not send both of its instants
WITH stats_by_duration AS (
    SELECT
        d.period,
        d.company,
        1 AS duration_no,
        'queue' AS duration,
        d.queue_n AS n,
        d.queue_mean AS mean,
        d.queue_p50 AS p50,
        d.queue_p90 AS p90,
        d.queue_p95 AS p95,
        d.queue_p99 AS p99,
        d.queue_max AS longest,
        d.queue_vanished AS vanished,
        d.not_started AS still_running,
        d.jobs
    FROM duration_summary AS d
    UNION ALL
    SELECT
        d.period,
        d.company,
        2 AS duration_no,
        'run' AS duration,
        d.run_n AS n,
        d.run_mean AS mean,
        d.run_p50 AS p50,
        d.run_p90 AS p90,
        d.run_p95 AS p95,
        d.run_p99 AS p99,
        d.run_max AS longest,
        d.run_vanished AS vanished,
        d.still_open AS still_running,
        d.jobs
    FROM duration_summary AS d
    UNION ALL
    SELECT
        d.period,
        d.company,
        3 AS duration_no,
        'total' AS duration,
        d.total_n AS n,
        d.total_mean AS mean,
        d.total_p50 AS p50,
        d.total_p90 AS p90,
        d.total_p95 AS p95,
        d.total_p99 AS p99,
        d.total_max AS longest,
        d.total_vanished AS vanished,
        d.still_open AS still_running,
        d.jobs
    FROM duration_summary AS d
)

SELECT
    s.period,
    s.company AS company_id,
    s.duration,
    s.n,
    s.mean,
    s.p50,
    s.p90,
    s.p95,
    s.p99,
    s.longest AS max,
    s.still_running,
    s.jobs - s.n - s.still_running AS unknown,
    s.vanished
FROM stats_by_duration AS s
ORDER BY s.period, s.company NULLS FIRST, s.duration_no
