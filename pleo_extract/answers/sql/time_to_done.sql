-- time_to_done(share DOUBLE := 0.95, grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE, split_by VARCHAR := NULL,
--     fill BOOLEAN := TRUE)
-- How long until a share of the exports is done, open ones counted as "at least this long": one row per period and company.
--
-- Done means ended: completed, completed with errors, failed or expired. An open job is known to have lasted until now, or, if
-- it has vanished, until the last action on it; a percentile of duration_stats leaves it out and is too low. This is the
-- quantile of the curve of Kaplan and Meier, see survival.
--
-- period         start of the period, in time zone tz. A job belongs to the period of its created_at.
--                null where the grain is 'all': one period holds all jobs
-- company_id     the company; null if per_company is false, because the row is about all companies
-- split          the value of split_by, as in failure_rates; null without split_by
-- jobs           all jobs
-- still_open     of these, jobs that have not ended
-- left_out       ended jobs without a known end; they are in neither estimate nor interval
-- vanished       of all jobs, those that the server no longer lists; they count as last seen
-- seconds        the shortest time after which at least this share is estimated to be done; null if the curve does not get
--                that far, because too many of the longest jobs are open, or if there is no job
-- low, high      95 % confidence interval of seconds: the times at which share lies in the interval that within() gives. high
--                is null if no time is long enough for that, as with few jobs: it has no upper bound then
-- starts_at      the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial     true if the period was not over when the company was last read, or if since or until cuts it: its
--                numbers are not those of a whole period
--
-- Unless fill is false, periods without jobs have rows too, from each company's first job between since and until up to its
-- now or until: a chart would draw a line over them, or leave them out. Periods before 2000 have rows only if they have jobs.
WITH reached AS (
    SELECT
        c.*,
        -- 1e-12 is for rounding errors of the curve
        CASE WHEN c.at_risk > 0 AND c.done >= :share - 1e-12 THEN c.seconds END AS seconds_done,
        CASE WHEN c.at_risk > 0 AND c.done_high >= :share - 1e-12 THEN c.seconds END AS seconds_low,
        CASE WHEN c.at_risk > 0 AND c.done_low >= :share - 1e-12 THEN c.seconds END AS seconds_high
    FROM done_curves AS c
),

times AS (
    SELECT
        c.period,
        c.hour_us,
        c.company,
        c.split,
        CAST(max(c.jobs_of_group) AS BIGINT) AS jobs,
        CAST(sum(c.jobs - c.ended) AS BIGINT) AS still_open,
        CAST(max(c.left_out) AS BIGINT) AS left_out,
        CAST(max(c.vanished_of_group) AS BIGINT) AS vanished,
        min(c.seconds_done) AS seconds,
        min(c.seconds_low) AS low,
        min(c.seconds_high) AS high
    FROM reached AS c
    GROUP BY c.period, c.hour_us, c.company, c.split
),

spans AS (
    SELECT
        c.company,
        c.split,
        min(coalesce(c.hour_us, epoch_us(c.period))) AS first_ordinal
    FROM times AS c
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

filled_times AS (
    SELECT t.*
    FROM times AS t
    UNION ALL
    SELECT
        p.period,
        p.hour_us,
        p.company,
        p.split,
        0 AS jobs,
        0 AS still_open,
        0 AS left_out,
        0 AS vanished,
        NULL AS seconds,
        NULL AS low,
        NULL AS high
    FROM later_periods AS p
),

-- Rows of zeros and nulls do not change the maximum where a period has jobs.
rows_by_period AS (
    SELECT
        f.period,
        f.hour_us,
        f.company,
        f.split,
        max(f.jobs) AS jobs,
        max(f.still_open) AS still_open,
        max(f.left_out) AS left_out,
        max(f.vanished) AS vanished,
        max(f.seconds) AS seconds,
        max(f.low) AS low,
        max(f.high) AS high
    FROM filled_times AS f
    GROUP BY f.period, f.hour_us, f.company, f.split
)

SELECT
    c.period,
    nullif(c.company, '') AS company_id,
    c.split,
    c.jobs,
    c.still_open,
    c.left_out,
    c.vanished,
    c.seconds,
    c.low,
    c.high,
    CASE WHEN :grain = 'hour' THEN make_timestamptz(c.hour_us) ELSE timezone(:tz, c.period) END AS starts_at,
    coalesce(
        k.is_open
        OR coalesce(c.hour_us, epoch_us(c.period)) >= k.now_ordinal
        OR coalesce(c.hour_us, epoch_us(c.period)) IN (k.since_ordinal, k.until_ordinal),
        FALSE
    ) AS is_partial
FROM rows_by_period AS c
LEFT JOIN companies AS n ON c.company = n.id AND n.now IS NOT NULL
INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
ORDER BY c.period, starts_at, c.company, c.split NULLS FIRST
