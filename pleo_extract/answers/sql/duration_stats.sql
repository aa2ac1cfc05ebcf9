-- duration_stats(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE, split_by VARCHAR := NULL,
--     fill BOOLEAN := TRUE)
-- How long exports take: three rows per period and company, or per value of split_by, one per duration.
--
-- period         start of the period, in time zone tz. A job belongs to the period of its created_at.
--                null where the grain is 'all': one period holds all jobs
-- company_id     the company; null if per_company is false, because the row is about all companies
-- split          the value of split_by; null without split_by
-- duration       queue (created to started), run (started to ended) or total (created to ended)
-- n              jobs with a known duration: all figures describe these jobs
-- mean           in seconds, like all columns up to max
-- p50, p90, p95, p99  exact percentiles, with linear interpolation (numpy's `linear`)
-- max            the longest
-- still_running  jobs left out because they are open and this duration has not ended. They are often the longest,
--                so figures of recent periods are too low until this is 0; survival() takes them into account
-- unknown        jobs left out although this duration has ended, because the server did not send both of its instants
-- vanished       of the n jobs, those that the server no longer lists; they count as last seen
-- starts_at      the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial     true if the period was not over when the company was last read, or if since or until cuts it: its
--                numbers are not those of a whole period
--
-- With split_by, each period and company has a row for each value: of is_interactive, created_by, vendor_based_bookkeeping
-- or number_of_items (0, 1-9, 10-99 and so on), or of the clock in tz when the job was created: weekday, hour or
-- weekday_hour.
--
-- Unless fill is false, periods without jobs have rows too, from each company's first job between since and until up to its
-- now or until: a chart would draw a line over them, or leave them out. Periods before 2000 have rows only if they have jobs.
WITH spans AS (
    SELECT
        c.company,
        c.split,
        min(coalesce(c.hour_us, epoch_us(c.period))) AS first_ordinal
    FROM duration_summary AS c
    GROUP BY c.company, c.split
),

later_periods AS (
    SELECT
        p.period,
        p.hour_us,
        s.company,
        s.split
    FROM spans AS s
    LEFT JOIN companies AS n ON s.company = n.id AND n.now IS NOT NULL
    INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
    INNER JOIN all_periods AS p ON p.ordinal > s.first_ordinal AND p.begins_us < k.end_us
    WHERE :fill
),

empty_periods AS (
    SELECT p.*
    FROM later_periods AS p
    LEFT JOIN duration_summary AS d
        ON p.period = d.period
        AND coalesce(p.hour_us, 0) = coalesce(d.hour_us, 0)
        AND coalesce(p.company, '') = coalesce(d.company, '')
        AND coalesce(p.split, '') = coalesce(d.split, '')
    WHERE d.jobs IS NULL
),

stats_by_duration AS (
    SELECT
        d.period,
        d.hour_us,
        d.company,
        d.split,
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
        d.hour_us,
        d.company,
        d.split,
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
        d.hour_us,
        d.company,
        d.split,
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
    UNION ALL
    SELECT
        e.period,
        e.hour_us,
        e.company,
        e.split,
        v.duration_no,
        v.duration,
        0 AS n,
        NULL AS mean,
        NULL AS p50,
        NULL AS p90,
        NULL AS p95,
        NULL AS p99,
        NULL AS longest,
        0 AS vanished,
        0 AS still_running,
        0 AS jobs
    FROM empty_periods AS e
    CROSS JOIN (VALUES (1, 'queue'), (2, 'run'), (3, 'total')) AS v (duration_no, duration)
)

SELECT
    s.period,
    s.company AS company_id,
    s.split,
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
    s.vanished,
    CASE WHEN :grain = 'hour' THEN make_timestamptz(s.hour_us) ELSE timezone(:tz, s.period) END AS starts_at,
    coalesce(
        k.is_open
        OR coalesce(s.hour_us, epoch_us(s.period)) >= k.now_ordinal
        OR coalesce(s.hour_us, epoch_us(s.period)) IN (k.since_ordinal, k.until_ordinal),
        FALSE
    ) AS is_partial
FROM stats_by_duration AS s
LEFT JOIN companies AS n ON s.company = n.id AND n.now IS NOT NULL
INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
ORDER BY s.period, starts_at, s.company NULLS FIRST, s.split NULLS FIRST, s.duration_no
