-- failure_reasons(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE)
-- Why exports fail: one row a period, company and reason, the most frequent reason first.
--
-- period        when the period began, on the clocks of tz; a job counts in the period of its created_at;
--               null where the grain is 'all': all periods are one
-- company_id    the company; null where per_company is false and all companies are one
-- reason        failure_reason_type as sent; job_expired for a job that expired without one, not_given for
--               another failure without one. Only reasons that occur have a row
-- jobs          failed jobs with this reason
-- failed        failed jobs with any reason
-- finished      jobs with status failed, completed or completed_with_errors
-- share         jobs / failed: how much of the failing is for this reason
-- share_low, share_high  95 % interval of the share after Wilson (1927, JASA 22:209)
-- rate          jobs / finished: how many exports fail for this reason
-- rate_low, rate_high    the same interval for the rate
-- vanished      of these jobs, those that the server no longer lists; counted as last seen
--
-- Jobs that are still open count nowhere.
WITH counted AS (
    SELECT
        d.period,
        CASE WHEN :per_company THEN d.company_id END AS company,
        CASE
            WHEN d.outcome = 'expired' THEN 'job_expired'
            WHEN d.outcome = 'failed' THEN coalesce(d.failure_reason_type, 'not_given')
        END AS reason,
        count(*) AS jobs,
        count(*) FILTER (WHERE d.is_vanished) AS vanished
    FROM dated AS d
    WHERE NOT d.is_censored
    GROUP BY period, company, reason
),

totalled AS (
    SELECT
        c.*,
        CAST(sum(CASE WHEN c.reason IS NULL THEN 0 ELSE c.jobs END) OVER same AS BIGINT) AS failed,
        CAST(sum(c.jobs) OVER same AS BIGINT) AS finished
    FROM counted AS c
    WINDOW same AS (PARTITION BY c.period, c.company)
),

bounded AS (
    SELECT
        t.*,
        1.959963984540054e0
        * sqrt(CAST(t.jobs AS DOUBLE) * (t.failed - t.jobs) / t.failed + 0.960364705173531e0) AS share_reach,
        1.959963984540054e0
        * sqrt(CAST(t.jobs AS DOUBLE) * (t.finished - t.jobs) / t.finished + 0.960364705173531e0) AS rate_reach
    FROM totalled AS t
    WHERE t.reason IS NOT NULL
)

SELECT
    b.period,
    b.company AS company_id,
    b.reason,
    b.jobs,
    b.failed,
    b.finished,
    CAST(b.jobs AS DOUBLE) / b.failed AS share,
    (b.jobs + 1.920729410347062e0 - b.share_reach) / (b.failed + 3.841458820694124e0) AS share_low,
    CASE
        WHEN b.jobs = b.failed THEN 1e0 -- exactly, not but for rounding
        ELSE (b.jobs + 1.920729410347062e0 + b.share_reach) / (b.failed + 3.841458820694124e0)
    END AS share_high,
    CAST(b.jobs AS DOUBLE) / b.finished AS rate,
    (b.jobs + 1.920729410347062e0 - b.rate_reach) / (b.finished + 3.841458820694124e0) AS rate_low,
    CASE
        WHEN b.jobs = b.finished THEN 1e0
        ELSE (b.jobs + 1.920729410347062e0 + b.rate_reach) / (b.finished + 3.841458820694124e0)
    END AS rate_high,
    b.vanished
FROM bounded AS b
ORDER BY b.period, b.company NULLS FIRST, b.jobs DESC, b.reason
