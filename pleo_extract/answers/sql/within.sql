-- within(seconds DOUBLE := 600, grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE, split_by VARCHAR := NULL,
--     fill BOOLEAN := TRUE)
-- How many exports are done within a time, such as the 10 minutes of a promise: one row per period and company.
--
-- Done means ended: completed, completed with errors, failed or expired. A job that was open when it was last observed (see
-- survival) is late if it was that old by then, else not known yet. Without the latter the share would be too high, because
-- the fast jobs of their age have ended and count; with them as late it would be too low. The estimator of Kaplan and
-- Meier takes each for as long as it was observed.
--
-- period         start of the period, in time zone tz. A job belongs to the period of its created_at.
--                null where the grain is 'all': one period holds all jobs
-- company_id     the company; null if per_company is false, because the row is about all companies
-- split          the value of split_by, as in failure_rates; null without split_by
-- jobs           all jobs: the sum of the next four
-- done           jobs that ended at most seconds after created_at; negative durations count as 0
-- late           jobs that lasted longer, open ones included
-- too_young      open jobs that have not lasted that long yet
-- left_out       ended jobs without a known end
-- vanished       of all jobs, those that the server no longer lists; they count as last seen
-- share          estimated share of jobs that end within seconds. Without too_young it is done / (done + late). Null if
--                no job is known to have lasted that long, although some have not ended, and if there is no job
-- low, high      95 % confidence interval of the share: Wilson's for the sample size that Greenwood's variance belongs to
--                (Rothman 1978, Journal of Chronic Diseases 31:557), as if jobs were independent of each other
-- starts_at      the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial     true if the period was not over when the company was last read, or if since or until cuts it: its
--                numbers are not those of a whole period
--
-- Unless fill is false, periods without jobs have rows too, from each company's first job between since and until up to its
-- now or until: a chart would draw a line over them, or leave them out. Periods before 2000 have rows only if they have jobs.
WITH ranked_rows AS (
    SELECT
        c.*,
        sum(c.jobs - c.ended) OVER so_far AS censored_so_far,
        row_number() OVER (
            PARTITION BY c.period, c.hour_us, c.company, c.split
            ORDER BY c.seconds DESC
        ) AS row_no
    FROM done_curves AS c
    WHERE c.seconds <= :seconds
    WINDOW so_far AS (
        PARTITION BY c.period, c.hour_us, c.company, c.split
        ORDER BY c.seconds
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
),

-- Jobs that are exactly this old and open are late.
counts AS (
    SELECT
        r.*,
        r.censored_so_far - CASE WHEN r.seconds = :seconds THEN r.jobs - r.ended ELSE 0 END AS too_young
    FROM ranked_rows AS r
    WHERE r.row_no = 1
),

late_jobs AS (
    SELECT
        c.*,
        c.jobs_of_group - c.left_out - c.ended_so_far - c.too_young AS late
    FROM counts AS c
),

shares AS (
    SELECT
        c.period,
        c.hour_us,
        c.company,
        c.split,
        CAST(c.jobs_of_group AS BIGINT) AS jobs,
        CAST(c.ended_so_far AS BIGINT) AS done,
        CAST(c.late AS BIGINT) AS late,
        CAST(c.too_young AS BIGINT) AS too_young,
        CAST(c.left_out AS BIGINT) AS left_out,
        CAST(c.vanished_of_group AS BIGINT) AS vanished,
        CASE WHEN c.late > 0 OR c.is_last THEN c.done END AS share,
        CASE WHEN c.late > 0 OR c.is_last THEN c.done_low END AS low,
        CASE
            WHEN c.ended_so_far = 0 AND c.late > 0 THEN 3.841458820694124e0 / (c.late + 3.841458820694124e0)
            WHEN c.late > 0 OR c.is_last THEN c.done_high
        END AS high
    FROM late_jobs AS c
),

spans AS (
    SELECT
        c.company,
        c.split,
        min(coalesce(c.hour_us, epoch_us(c.period))) AS first_ordinal
    FROM shares AS c
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

filled_shares AS (
    SELECT s.*
    FROM shares AS s
    UNION ALL
    SELECT
        p.period,
        p.hour_us,
        p.company,
        p.split,
        0 AS jobs,
        0 AS done,
        0 AS late,
        0 AS too_young,
        0 AS left_out,
        0 AS vanished,
        NULL AS share,
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
        max(f.done) AS done,
        max(f.late) AS late,
        max(f.too_young) AS too_young,
        max(f.left_out) AS left_out,
        max(f.vanished) AS vanished,
        max(f.share) AS share,
        max(f.low) AS low,
        max(f.high) AS high
    FROM filled_shares AS f
    GROUP BY f.period, f.hour_us, f.company, f.split
)

SELECT
    c.period,
    nullif(c.company, '') AS company_id,
    c.split,
    c.jobs,
    c.done,
    c.late,
    c.too_young,
    c.left_out,
    c.vanished,
    c.share,
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
