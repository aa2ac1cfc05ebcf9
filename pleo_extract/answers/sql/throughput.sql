-- throughput(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE)
-- How much is exported, and how fast: one row per period and company.
--
-- period          start of the period, in time zone tz. A job belongs to the period of its created_at.
--                 null where the grain is 'all': one period holds all jobs
-- company_id      the company; null if per_company is false, because the row is about all companies
-- jobs            all jobs, open ones included
-- items           accounting entries selected for them, the sum of number_of_items; exact however large
-- exported_jobs   jobs that ended as completed or completed_with_errors
-- exported_items  entries selected for these. This is an upper bound: in a job completed_with_errors some entries did
--                 not arrive, and the API does not say how many
-- timed_jobs      exported jobs with a known run time: run_seconds and items_per_run_second describe these
-- run_seconds     the sum of their run times, started to ended
-- items_per_run_second  the sum of their entries / run_seconds; null if run_seconds is 0 or less
-- still_open      jobs that can still be exported
-- vanished        of all jobs, those that the server no longer lists; they count as last seen
-- starts_at       the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial      true if the period was not over when the company was last read, or if since or until cuts it: its
--                 numbers are not those of a whole period
WITH counts AS (
    SELECT
        j.period,
        j.hour_us,
        CASE WHEN :per_company THEN j.company_id END AS company,
        count(*) AS jobs,
        sum(CAST(j.number_of_items AS DECIMAL(38, 0))) AS items,
        count(*) FILTER (WHERE j.status IN ('completed', 'completed_with_errors')) AS exported_jobs,
        coalesce(
            sum(CAST(j.number_of_items AS DECIMAL(38, 0)))
                FILTER (WHERE j.status IN ('completed', 'completed_with_errors')),
            0
        ) AS exported_items,
        count(j.run_seconds) FILTER (WHERE j.status IN ('completed', 'completed_with_errors')) AS timed_jobs,
        sum(j.run_seconds) FILTER (WHERE j.status IN ('completed', 'completed_with_errors')) AS run_seconds,
        CAST(
            sum(CAST(j.number_of_items AS DECIMAL(38, 0))) FILTER (
                WHERE j.status IN ('completed', 'completed_with_errors') AND j.run_seconds IS NOT NULL
            ) AS DOUBLE
        ) AS timed_items,
        count(*) FILTER (WHERE j.is_censored) AS still_open,
        count(*) FILTER (WHERE j.is_vanished) AS vanished
    FROM jobs_with_period AS j
    GROUP BY period, hour_us, company
)

SELECT
    c.period,
    c.company AS company_id,
    c.jobs,
    CAST(c.items AS DECIMAL(38, 0)) AS items,
    c.exported_jobs,
    CAST(c.exported_items AS DECIMAL(38, 0)) AS exported_items,
    c.timed_jobs,
    coalesce(c.run_seconds, 0e0) AS run_seconds,
    CASE WHEN c.run_seconds > 0 THEN c.timed_items / c.run_seconds END AS items_per_run_second,
    c.still_open,
    c.vanished,
    CASE WHEN :grain = 'hour' THEN make_timestamptz(c.hour_us) ELSE timezone(:tz, c.period) END AS starts_at,
    coalesce(
        CASE
            WHEN :grain = 'all' THEN coalesce(k.is_open, d.is_open)
            WHEN :grain = 'hour'
                THEN c.hour_us >= coalesce(k.now_us, d.now_us) OR c.hour_us = d.since_us OR c.hour_us = d.until_us
            ELSE
                c.period >= coalesce(k.now_period, d.now_period)
                OR c.period = d.since_period
                OR c.period = d.until_period
        END,
        FALSE
    ) AS is_partial
FROM counts AS c
LEFT JOIN company_clocks AS k ON coalesce(c.company, '') = k.company
INNER JOIN company_clocks AS d ON d.company = '*'
ORDER BY c.period, starts_at, c.company NULLS FIRST
