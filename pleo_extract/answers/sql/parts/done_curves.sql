-- done_curves(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR, per_company BOOLEAN,
--     split_by VARCHAR)
-- The share of jobs that have ended after each duration that occurs: one row per period, company, split and duration.
--
-- Kaplan and Meier's estimator: see survival. Each group begins with a row at 0 seconds. A group of which no duration is known
-- has only that row, with nothing at risk. done_low and done_high are Rothman's interval (1978, Journal of Chronic
-- Diseases 31:557): Wilson's for the sample size that Greenwood's variance belongs to. Without open jobs that is the
-- number of jobs. While no job or every job has ended, there is no variance: then it is the number at risk, or the size before.
WITH lifetimes AS (
    SELECT
        j.period,
        j.hour_us,
        CASE WHEN :per_company THEN j.company_id ELSE '' END AS company,
        j.split,
        j.is_censored,
        j.is_vanished,
        CASE
            WHEN NOT j.is_censored THEN j.total_seconds
            -- the instant up to which a job was observed: as in observed_jobs
            WHEN j.is_vanished
                THEN (epoch_us(coalesce(j.last_updated_at, j.started_at, j.created_at)) - epoch_us(j.created_at)) / 1e6
            ELSE (epoch_us(coalesce(c.now, s.now)) - epoch_us(j.created_at)) / 1e6
        END AS seconds
    FROM jobs_with_split AS j
    CROSS JOIN snapshot AS s
    LEFT JOIN companies AS c ON j.company_id = c.id
),

counts AS (
    SELECT
        l.period,
        l.hour_us,
        l.company,
        l.split,
        CASE WHEN l.seconds < 0 THEN 0e0 ELSE l.seconds END AS seconds,
        count(*) AS jobs,
        count(*) FILTER (WHERE NOT l.is_censored) AS ended,
        count(*) FILTER (WHERE l.is_vanished) AS vanished
    FROM lifetimes AS l
    GROUP BY l.period, l.hour_us, l.company, l.split, CASE WHEN l.seconds < 0 THEN 0e0 ELSE l.seconds END
),

counts_from_zero AS (
    SELECT c.*
    FROM counts AS c
    UNION ALL
    SELECT
        c.period,
        c.hour_us,
        c.company,
        c.split,
        0e0 AS seconds,
        0 AS jobs,
        0 AS ended,
        0 AS vanished
    FROM counts AS c
    GROUP BY c.period, c.hour_us, c.company, c.split
    HAVING coalesce(min(c.seconds), 1e0) > 0
),

risk_sets AS (
    SELECT
        c.*,
        sum(c.jobs) OVER in_group AS jobs_of_group,
        sum(c.vanished) OVER in_group AS vanished_of_group,
        sum(CASE WHEN c.seconds IS NULL THEN c.jobs ELSE 0 END) OVER in_group AS left_out,
        sum(CASE WHEN c.seconds IS NULL THEN 0 ELSE c.jobs END) OVER (
            PARTITION BY c.period, c.hour_us, c.company, c.split
            ORDER BY c.seconds DESC NULLS FIRST
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS at_risk
    FROM counts_from_zero AS c
    WINDOW in_group AS (PARTITION BY c.period, c.hour_us, c.company, c.split)
),

cumulative_sums AS (
    SELECT
        r.*,
        r.ended > 0 AND r.ended = r.at_risk AS is_last,
        sum(r.ended) OVER so_far AS ended_so_far,
        coalesce(sum(CASE WHEN r.ended < r.at_risk THEN ln(CAST(r.at_risk - r.ended AS DOUBLE) / r.at_risk) END) OVER so_far, 0e0)
            AS log_survival,
        sum(CASE WHEN r.ended < r.at_risk THEN r.ended / (CAST(r.at_risk AS DOUBLE) * (r.at_risk - r.ended)) END)
            OVER so_far AS variance
    FROM risk_sets AS r
    WHERE r.seconds IS NOT NULL
    WINDOW so_far AS (
        PARTITION BY r.period, r.hour_us, r.company, r.split
        ORDER BY r.seconds
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
),

sample_sizes AS (
    SELECT
        c.*,
        CASE WHEN c.is_last THEN 1e0 ELSE 1 - exp(c.log_survival) END AS done,
        CASE
            WHEN c.ended_so_far = 0 OR (c.is_last AND c.ended = c.ended_so_far) THEN CAST(c.at_risk AS DOUBLE)
            WHEN NOT c.is_last THEN (exp(-c.log_survival) - 1) / c.variance
            ELSE
                lag((exp(-c.log_survival) - 1) / nullif(c.variance, 0)) OVER (
                    PARTITION BY c.period, c.hour_us, c.company, c.split
                    ORDER BY c.seconds
                )
        END AS size
    FROM cumulative_sums AS c
)

-- 1.96 is z, the 97.5 % quantile of the normal distribution; 1.92 is z²/2, 3.84 is z² and 0.96 is z²/4.
SELECT
    s.*,
    CASE
        WHEN s.ended_so_far = 0 THEN 0e0
        ELSE
            (
                s.done * s.size + 1.920729410347062e0
                - 1.959963984540054e0
                * sqrt(s.done * (1 - s.done) * s.size + 0.960364705173531e0)
            )
            / (s.size + 3.841458820694124e0)
    END AS done_low,
    CASE
        WHEN s.is_last THEN 1e0
        ELSE
            (
                s.done * s.size + 1.920729410347062e0
                + 1.959963984540054e0
                * sqrt(s.done * (1 - s.done) * s.size + 0.960364705173531e0)
            )
            / (s.size + 3.841458820694124e0)
    END AS done_high
FROM sample_sizes AS s
