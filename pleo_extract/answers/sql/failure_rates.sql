-- failure_rates(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE)
-- How often exports fail: one row per period and company.
--
-- period        start of the period, in time zone tz. A job belongs to the period of its created_at.
--               null where the grain is 'all': one period holds all jobs
-- company_id    the company; null if per_company is false, because the row is about all companies
-- jobs          all jobs, open ones included
-- finished      jobs with status failed, completed or completed_with_errors: the denominator of rate
-- failed        of these, jobs with status failed, expired ones included: the numerator of rate
-- expired       of these, jobs that failed because they expired
-- with_errors   jobs with status completed_with_errors: some items failed, the job did not, so it is not in failed
-- rate          failed / finished, from 0 to 1; null if no job has finished
-- low, high     95 % confidence interval of the rate, after Wilson (1927, JASA 22:209)
-- still_open    jobs with any other status: they have not failed and not succeeded, so the rate can still change
-- vanished      of all jobs, those that the server no longer lists; they count as last seen
-- starts_at     the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial    true if the period was not over when the company was last read, or if since or until cuts it: its numbers
--               are not those of a whole period
WITH counts AS (
    SELECT
        j.period,
        j.hour_us,
        CASE WHEN :per_company THEN j.company_id END AS company,
        count(*) AS jobs,
        count(*) FILTER (WHERE NOT j.is_censored) AS finished,
        count(*) FILTER (WHERE j.status = 'failed') AS failed,
        count(*) FILTER (WHERE j.outcome = 'expired') AS expired,
        count(*) FILTER (WHERE j.status = 'completed_with_errors') AS with_errors,
        count(*) FILTER (WHERE j.is_vanished) AS vanished
    FROM jobs_with_period AS j
    GROUP BY period, hour_us, company
),

-- 1.959963984540054 is z, the 97.5 % quantile of the normal distribution; 1.92 is z²/2, 3.84 is z² and 0.96 is z²/4.
wilson AS (
    SELECT
        c.*,
        c.failed + 1.920729410347062e0 AS center,
        1.959963984540054e0
        * sqrt(
            CAST(c.failed AS DOUBLE) * (c.finished - c.failed) / nullif(c.finished, 0) + 0.960364705173531e0
        ) AS half_width,
        c.finished + 3.841458820694124e0 AS denominator
    FROM counts AS c
)

SELECT
    w.period,
    w.company AS company_id,
    w.jobs,
    w.finished,
    w.failed,
    w.expired,
    w.with_errors,
    CAST(w.failed AS DOUBLE) / nullif(w.finished, 0) AS rate,
    CASE
        WHEN w.finished = 0 THEN NULL
        WHEN w.failed = 0 THEN 0e0 -- exactly 0, without a rounding error
        ELSE (w.center - w.half_width) / w.denominator
    END AS low,
    CASE
        WHEN w.finished = 0 THEN NULL
        WHEN w.failed = w.finished THEN 1e0
        ELSE (w.center + w.half_width) / w.denominator
    END AS high,
    w.jobs - w.finished AS still_open,
    w.vanished,
    CASE WHEN :grain = 'hour' THEN make_timestamptz(w.hour_us) ELSE timezone(:tz, w.period) END AS starts_at,
    coalesce(
        CASE
            WHEN :grain = 'all' THEN coalesce(k.is_open, d.is_open)
            WHEN :grain = 'hour'
                THEN w.hour_us >= coalesce(k.now_us, d.now_us) OR w.hour_us = d.since_us OR w.hour_us = d.until_us
            ELSE
                w.period >= coalesce(k.now_period, d.now_period)
                OR w.period = d.since_period
                OR w.period = d.until_period
        END,
        FALSE
    ) AS is_partial
FROM wilson AS w
LEFT JOIN company_clocks AS k ON coalesce(w.company, '') = k.company
INNER JOIN company_clocks AS d ON d.company = '*'
ORDER BY w.period, starts_at, w.company NULLS FIRST
