-- failure_rates(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE)
-- How often exports fail: one row a period and company.
--
-- period        when the period began, on the clocks of tz; a job counts in the period of its created_at;
--               null where the grain is 'all': all periods are one
-- company_id    the company; null where per_company is false and all companies are one
-- jobs          all jobs, open ones included
-- finished      jobs with status failed, completed or completed_with_errors: the denominator
-- failed        of these, status failed, expired ones included: the numerator
-- expired       of these, the ones that failed by expiring
-- with_errors   finished as completed_with_errors: some items failed, the job did not; not counted as failed
-- rate          failed / finished, from 0 to 1; null where nothing has finished
-- low, high     95 % interval of the rate after Wilson (1927, JASA 22:209)
-- still_open    jobs in any other status: neither failed nor not, so the rate may still move
-- vanished      of all jobs, those that the server no longer lists; counted as last seen
WITH counted AS (
    SELECT
        d.period,
        CASE WHEN :per_company THEN d.company_id END AS company,
        count(*) AS jobs,
        count(*) FILTER (WHERE NOT d.is_censored) AS finished,
        count(*) FILTER (WHERE d.status = 'failed') AS failed,
        count(*) FILTER (WHERE d.outcome = 'expired') AS expired,
        count(*) FILTER (WHERE d.status = 'completed_with_errors') AS with_errors,
        count(*) FILTER (WHERE d.is_vanished) AS vanished
    FROM dated AS d
    GROUP BY period, company
),

bounded AS (
    SELECT
        c.*,
        c.failed + 1.920729410347062e0 AS middle,
        1.959963984540054e0
        * sqrt(
            CAST(c.failed AS DOUBLE) * (c.finished - c.failed) / nullif(c.finished, 0) + 0.960364705173531e0
        ) AS reach,
        c.finished + 3.841458820694124e0 AS width
    FROM counted AS c
)

SELECT
    b.period,
    b.company AS company_id,
    b.jobs,
    b.finished,
    b.failed,
    b.expired,
    b.with_errors,
    CAST(b.failed AS DOUBLE) / nullif(b.finished, 0) AS rate,
    CASE
        WHEN b.finished = 0 THEN NULL
        WHEN b.failed = 0 THEN 0e0 -- exactly, not but for rounding
        ELSE (b.middle - b.reach) / b.width
    END AS low,
    CASE
        WHEN b.finished = 0 THEN NULL
        WHEN b.failed = b.finished THEN 1e0
        ELSE (b.middle + b.reach) / b.width
    END AS high,
    b.jobs - b.finished AS still_open,
    b.vanished
FROM bounded AS b
ORDER BY b.period, b.company NULLS FIRST
