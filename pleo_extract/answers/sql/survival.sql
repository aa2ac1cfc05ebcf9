-- survival(company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL, until TIMESTAMPTZ := NULL,
--     per_company BOOLEAN := TRUE, step DOUBLE := 1)
-- How long until an export has ended, open ones counted as "at least this long": one row per company and second.
--
-- This is the estimator of Kaplan and Meier (1958, JASA 53:457). The event is the end of a job: completed, completed
-- with errors, failed or expired. An open job is censored: it is known to have lasted from its created_at until now
-- (see `companies`, `snapshot`), or, if it has vanished, until the last action on it.
-- `SELECT min(seconds) FROM survival(per_company := FALSE) WHERE survival <= 0.05` is the time after which 95 % of
-- the exports are done.
--
-- Rows are at multiples of step seconds, with durations rounded up. With step 0 there is a row at each duration that
-- occurs. Steps that contain the age of an open job are not rounded, so every row is exact: between the ages of two
-- open jobs the estimate depends on counts alone.
--
-- company_id  the company; null if per_company is false, because the row is about all companies
-- seconds     since created_at; negative durations count as 0. The first row of a company is at 0
-- at_risk     jobs that lasted longer than the previous row's seconds
-- ended       jobs that ended after the previous row's seconds, up to and including these
-- censored    open jobs that are this old; they are at risk here and in no later row
-- survival    estimated share of jobs that have not ended after this time; it reaches 0 only if the longest job ended
-- low, high   95 % confidence interval of survival, on the log-log scale with Greenwood's variance (Kalbfleisch and
--             Prentice 2002, section 1.4); 1 before the first end, null where survival is 0
-- vanished    of the ended and censored jobs, those that the server no longer lists; they count as last seen
-- left_out    the company's ended jobs without a known end; they are in none of these numbers
WITH lifetimes AS (
    SELECT
        CASE WHEN :per_company THEN o.company_id ELSE '' END AS company,
        o.is_censored,
        o.is_vanished,
        CASE
            WHEN o.is_censored AND o.observed_until > o.created_at
                THEN (epoch_us(o.observed_until) - epoch_us(o.created_at)) / 1e6
            WHEN o.is_censored OR o.total_seconds < 0 THEN 0e0
            ELSE o.total_seconds
        END AS seconds
    FROM observed_jobs AS o
),

rounded_lifetimes AS (
    SELECT
        l.company,
        l.is_censored,
        l.is_vanished,
        l.seconds,
        CASE WHEN :step > 0 THEN ceil(l.seconds / :step) * :step ELSE l.seconds END AS step_end
    FROM lifetimes AS l
),

steps_with_open_jobs AS (
    SELECT
        r.company,
        r.step_end
    FROM rounded_lifetimes AS r
    WHERE r.is_censored
    GROUP BY r.company, r.step_end
),

counts AS (
    SELECT
        r.company,
        CASE WHEN s.company IS NULL THEN r.step_end ELSE r.seconds END AS seconds,
        count(*) AS jobs,
        count(*) FILTER (WHERE NOT r.is_censored) AS ended,
        count(*) FILTER (WHERE r.is_vanished) AS vanished
    FROM rounded_lifetimes AS r
    LEFT JOIN steps_with_open_jobs AS s ON r.company = s.company AND r.step_end = s.step_end
    GROUP BY r.company, CASE WHEN s.company IS NULL THEN r.step_end ELSE r.seconds END
),

counts_from_zero AS (
    SELECT
        c.company,
        c.seconds,
        c.jobs,
        c.ended,
        c.vanished
    FROM counts AS c
    UNION ALL
    SELECT
        c.company,
        0e0 AS seconds,
        0 AS jobs,
        0 AS ended,
        0 AS vanished
    FROM counts AS c
    GROUP BY c.company
    HAVING min(c.seconds) > 0
),

risk_sets AS (
    SELECT
        c.*,
        sum(CASE WHEN c.seconds IS NULL THEN c.jobs ELSE 0 END) OVER (PARTITION BY c.company) AS left_out,
        sum(CASE WHEN c.seconds IS NULL THEN 0 ELSE c.jobs END) OVER (
            PARTITION BY c.company
            ORDER BY c.seconds DESC NULLS FIRST
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS at_risk
    FROM counts_from_zero AS c
),

cumulative_sums AS (
    SELECT
        r.*,
        sum(CASE WHEN r.ended < r.at_risk THEN ln(CAST(r.at_risk - r.ended AS DOUBLE) / r.at_risk) END)
            OVER so_far AS log_survival,
        sum(CASE WHEN r.ended < r.at_risk THEN r.ended / (CAST(r.at_risk AS DOUBLE) * (r.at_risk - r.ended)) END)
            OVER so_far AS variance
    FROM risk_sets AS r
    WHERE r.seconds IS NOT NULL
    WINDOW so_far AS (
        PARTITION BY r.company
        ORDER BY r.seconds
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
)

SELECT
    nullif(c.company, '') AS company_id,
    c.seconds,
    CAST(c.at_risk AS BIGINT) AS at_risk,
    c.ended,
    c.jobs - c.ended AS censored,
    CASE WHEN c.ended = c.at_risk THEN 0e0 ELSE exp(c.log_survival) END AS survival,
    CASE
        WHEN c.ended = c.at_risk THEN NULL
        WHEN c.log_survival = 0 THEN 1e0
        ELSE exp(c.log_survival * exp(-1.959963984540054e0 * sqrt(c.variance) / c.log_survival))
    END AS low,
    CASE
        WHEN c.ended = c.at_risk THEN NULL
        WHEN c.log_survival = 0 THEN 1e0
        ELSE exp(c.log_survival * exp(1.959963984540054e0 * sqrt(c.variance) / c.log_survival))
    END AS high,
    c.vanished,
    CAST(c.left_out AS BIGINT) AS left_out
FROM cumulative_sums AS c
ORDER BY c.company, c.seconds
