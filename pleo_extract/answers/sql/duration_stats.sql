-- duration_stats(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE)
-- How long exports take: three rows a period and company, one a duration.
--
-- period         when the period began, on the clocks of tz; a job counts in the period of its created_at;
--                null where the grain is 'all': all periods are one
-- company_id     the company; null where per_company is false and all companies are one
-- duration       queue (created to started), run (started to ended) or total (created to ended)
-- n              jobs whose duration is known; all figures are of these
-- mean           in seconds, like all that follow
-- p50, p90, p95, p99  exact percentiles, a straight line between two values (numpy's `linear`)
-- max            the longest
-- still_running  jobs left out because they are still open and this duration has not ended: the longest are
--                among them, so recent figures are too low until it is 0; see survival() for an answer with them
-- vanished       of the n jobs, those that the server no longer lists; counted as last seen
-- unknown        jobs left out although it has ended: one of its two instants was not sent
WITH long AS (
    SELECT
        m.period,
        m.company,
        1 AS place,
        'queue' AS duration,
        m.queue_n AS n,
        m.queue_mean AS mean,
        m.queue_p50 AS p50,
        m.queue_p90 AS p90,
        m.queue_p95 AS p95,
        m.queue_p99 AS p99,
        m.queue_max AS highest,
        m.queue_vanished AS vanished,
        m.not_started AS still_running,
        m.jobs
    FROM measured AS m
    UNION ALL
    SELECT
        m.period,
        m.company,
        2 AS place,
        'run' AS duration,
        m.run_n AS n,
        m.run_mean AS mean,
        m.run_p50 AS p50,
        m.run_p90 AS p90,
        m.run_p95 AS p95,
        m.run_p99 AS p99,
        m.run_max AS highest,
        m.run_vanished AS vanished,
        m.still_open AS still_running,
        m.jobs
    FROM measured AS m
    UNION ALL
    SELECT
        m.period,
        m.company,
        3 AS place,
        'total' AS duration,
        m.total_n AS n,
        m.total_mean AS mean,
        m.total_p50 AS p50,
        m.total_p90 AS p90,
        m.total_p95 AS p95,
        m.total_p99 AS p99,
        m.total_max AS highest,
        m.total_vanished AS vanished,
        m.still_open AS still_running,
        m.jobs
    FROM measured AS m
)

SELECT
    l.period,
    l.company AS company_id,
    l.duration,
    l.n,
    l.mean,
    l.p50,
    l.p90,
    l.p95,
    l.p99,
    l.highest AS max,
    l.still_running,
    l.jobs - l.n - l.still_running AS unknown,
    l.vanished
FROM long AS l
ORDER BY l.period, l.company NULLS FIRST, l.place
