-- throughput(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE, fill BOOLEAN := TRUE)
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
--
-- Unless fill is false, periods without jobs have rows too, from each company's first job between since and until up to its
-- now or until: a chart would draw a line over them, or leave them out. Periods before 2000 have rows only if they have jobs.
WITH counts_of_jobs AS (
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
),

spans AS (
    SELECT
        c.company,
        min(coalesce(c.hour_us, epoch_us(c.period))) AS first_ordinal
    FROM counts_of_jobs AS c
    GROUP BY c.company
),

later_periods AS (
    SELECT
        p.period,
        p.hour_us,
        s.company
    FROM spans AS s
    LEFT JOIN companies AS n ON s.company = n.id AND n.now IS NOT NULL
    INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
    INNER JOIN all_periods AS p ON p.ordinal > s.first_ordinal AND p.begins_us < k.end_us
    WHERE :fill
),

-- Rows of zeros add nothing to a period that has jobs.
filled_counts AS (
    SELECT c.*
    FROM counts_of_jobs AS c
    UNION ALL
    SELECT
        p.period,
        p.hour_us,
        p.company,
        0 AS jobs,
        0 AS items,
        0 AS exported_jobs,
        0 AS exported_items,
        0 AS timed_jobs,
        NULL AS run_seconds,
        NULL AS timed_items,
        0 AS still_open,
        0 AS vanished
    FROM later_periods AS p
),

counts AS (
    SELECT
        c.period,
        c.hour_us,
        c.company,
        CAST(sum(c.jobs) AS BIGINT) AS jobs,
        CAST(sum(c.items) AS DECIMAL(38, 0)) AS items,
        CAST(sum(c.exported_jobs) AS BIGINT) AS exported_jobs,
        CAST(sum(c.exported_items) AS DECIMAL(38, 0)) AS exported_items,
        CAST(sum(c.timed_jobs) AS BIGINT) AS timed_jobs,
        sum(c.run_seconds) AS run_seconds,
        sum(c.timed_items) AS timed_items,
        CAST(sum(c.still_open) AS BIGINT) AS still_open,
        CAST(sum(c.vanished) AS BIGINT) AS vanished
    FROM filled_counts AS c
    GROUP BY c.period, c.hour_us, c.company
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
        k.is_open
        OR coalesce(c.hour_us, epoch_us(c.period)) >= k.now_ordinal
        OR coalesce(c.hour_us, epoch_us(c.period)) IN (k.since_ordinal, k.until_ordinal),
        FALSE
    ) AS is_partial
FROM counts AS c
LEFT JOIN companies AS n ON c.company = n.id AND n.now IS NOT NULL
INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
ORDER BY c.period, starts_at, c.company NULLS FIRST
