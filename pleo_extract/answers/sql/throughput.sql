-- throughput(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE)
-- How much is exported, and how fast: one row a period and company.
--
-- period          when the period began, on the clocks of tz; a job counts in the period of its created_at;
--                 null where the grain is 'all': all periods are one
-- company_id      the company; null where per_company is false and all companies are one
-- jobs            all jobs, open ones included
-- items           accounting entries chosen for them (number_of_items), exact whatever they add up to
-- exported_jobs   jobs that ended as completed or completed_with_errors
-- exported_items  entries chosen for these; of completed_with_errors some did not arrive, the API does not say
--                 how many, so this is an upper bound
-- timed_jobs      exported jobs whose run time is known: what the two last figures are made of
-- run_seconds     their run time, started to ended, summed
-- items_per_run_second  their entries / run_seconds; null where run_seconds is 0 or less
-- still_open      jobs that may still be exported
-- vanished        of all jobs, those that the server no longer lists; counted as last seen
WITH counted AS (
    SELECT
        d.period,
        CASE WHEN :per_company THEN d.company_id END AS company,
        count(*) AS jobs,
        sum(CAST(d.number_of_items AS DECIMAL(38, 0))) AS items,
        count(*) FILTER (WHERE d.status IN ('completed', 'completed_with_errors')) AS exported_jobs,
        coalesce(
            sum(CAST(d.number_of_items AS DECIMAL(38, 0)))
                FILTER (WHERE d.status IN ('completed', 'completed_with_errors')),
            0
        ) AS exported_items,
        count(d.run_seconds) FILTER (WHERE d.status IN ('completed', 'completed_with_errors')) AS timed_jobs,
        sum(d.run_seconds) FILTER (WHERE d.status IN ('completed', 'completed_with_errors')) AS run_seconds,
        CAST(
            sum(CAST(d.number_of_items AS DECIMAL(38, 0))) FILTER (
                WHERE d.status IN ('completed', 'completed_with_errors') AND d.run_seconds IS NOT NULL
            ) AS DOUBLE
        ) AS timed_items,
        count(*) FILTER (WHERE d.is_censored) AS still_open,
        count(*) FILTER (WHERE d.is_vanished) AS vanished
    FROM dated AS d
    GROUP BY period, company
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
    c.vanished
FROM counted AS c
ORDER BY c.period, c.company NULLS FIRST
