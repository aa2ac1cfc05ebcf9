-- failure_reasons(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE, split_by VARCHAR := NULL)
-- Why exports fail: one row per period, company (or value of split_by) and reason, the most frequent reason first.
--
-- period        start of the period, in time zone tz. A job belongs to the period of its created_at.
--               null where the grain is 'all': one period holds all jobs
-- company_id    the company; null if per_company is false, because the row is about all companies
-- split         the value of split_by; null without split_by
-- reason        failure_reason_type as sent. A job that failed without one has the reason job_expired if it expired,
--               else not_given. Only reasons that occur have a row
-- jobs          failed jobs with this reason
-- failed        failed jobs with any reason
-- finished      jobs with status failed, completed or completed_with_errors
-- share         jobs / failed: the part of all failures that has this reason
-- share_low, share_high  95 % confidence interval of the share, after Wilson (1927, JASA 22:209)
-- rate          jobs / finished: the part of all finished jobs that failed for this reason
-- rate_low, rate_high    95 % confidence interval of the rate, the same way
-- vanished      of these jobs, those that the server no longer lists; they count as last seen
-- starts_at     the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial    true if the period was not over when the company was last read, or if since or until cuts it: its numbers
--               are not those of a whole period
--
-- With split_by, each period and company has a row for each value: of is_interactive, created_by, vendor_based_bookkeeping
-- or number_of_items (0, 1-9, 10-99 and so on), or of the clock in tz when the job was created: weekday, hour or
-- weekday_hour.
--
-- Open jobs are in none of these numbers.
WITH counts AS (
    SELECT
        j.period,
        j.hour_us,
        CASE WHEN :per_company THEN j.company_id END AS company,
        j.split,
        CASE
            WHEN j.outcome = 'expired' THEN 'job_expired'
            WHEN j.outcome = 'failed' THEN coalesce(j.failure_reason_type, 'not_given')
        END AS reason,
        count(*) AS jobs,
        count(*) FILTER (WHERE j.is_vanished) AS vanished
    FROM jobs_with_split AS j
    WHERE NOT j.is_censored
    GROUP BY period, hour_us, company, split, reason
),

totals AS (
    SELECT
        c.*,
        CAST(sum(CASE WHEN c.reason IS NULL THEN 0 ELSE c.jobs END) OVER in_period AS BIGINT) AS failed,
        CAST(sum(c.jobs) OVER in_period AS BIGINT) AS finished
    FROM counts AS c
    WINDOW in_period AS (PARTITION BY c.period, c.hour_us, c.company, c.split)
),

-- 1.959963984540054 is z, the 97.5 % quantile of the normal distribution; 1.92 is z²/2, 3.84 is z² and 0.96 is z²/4.
wilson AS (
    SELECT
        t.*,
        1.959963984540054e0
        * sqrt(CAST(t.jobs AS DOUBLE) * (t.failed - t.jobs) / t.failed + 0.960364705173531e0) AS share_half_width,
        1.959963984540054e0
        * sqrt(CAST(t.jobs AS DOUBLE) * (t.finished - t.jobs) / t.finished + 0.960364705173531e0) AS rate_half_width
    FROM totals AS t
    WHERE t.reason IS NOT NULL
)

SELECT
    w.period,
    w.company AS company_id,
    w.split,
    w.reason,
    w.jobs,
    w.failed,
    w.finished,
    CAST(w.jobs AS DOUBLE) / w.failed AS share,
    (w.jobs + 1.920729410347062e0 - w.share_half_width) / (w.failed + 3.841458820694124e0) AS share_low,
    CASE
        WHEN w.jobs = w.failed THEN 1e0 -- exactly 1, without a rounding error
        ELSE (w.jobs + 1.920729410347062e0 + w.share_half_width) / (w.failed + 3.841458820694124e0)
    END AS share_high,
    CAST(w.jobs AS DOUBLE) / w.finished AS rate,
    (w.jobs + 1.920729410347062e0 - w.rate_half_width) / (w.finished + 3.841458820694124e0) AS rate_low,
    CASE
        WHEN w.jobs = w.finished THEN 1e0
        ELSE (w.jobs + 1.920729410347062e0 + w.rate_half_width) / (w.finished + 3.841458820694124e0)
    END AS rate_high,
    w.vanished,
    CASE WHEN :grain = 'hour' THEN make_timestamptz(w.hour_us) ELSE timezone(:tz, w.period) END AS starts_at,
    coalesce(
        k.is_open
        OR coalesce(w.hour_us, epoch_us(w.period)) >= k.now_ordinal
        OR coalesce(w.hour_us, epoch_us(w.period)) IN (k.since_ordinal, k.until_ordinal),
        FALSE
    ) AS is_partial
FROM wilson AS w
LEFT JOIN companies AS n ON w.company = n.id AND n.now IS NOT NULL
INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
ORDER BY w.period, starts_at, w.company NULLS FIRST, w.split NULLS FIRST, w.jobs DESC, w.reason
