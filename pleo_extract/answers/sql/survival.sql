-- survival(company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL, until TIMESTAMPTZ := NULL,
--     per_company BOOLEAN := TRUE, step DOUBLE := 1)
-- How long until an export has ended, open ones counted as "at least so long": one row a company and second.
--
-- The estimator of Kaplan and Meier (1958, JASA 53:457). A job ends when it is completed, completed with errors,
-- failed or expired; an open one is known to have lasted from its created_at until now (`companies`, `snapshot`), one
-- that has vanished until the last action on it.
-- `SELECT min(seconds) FROM survival(per_company := FALSE) WHERE survival <= 0.05` is the time in which 95 % of
-- the exports are done.
--
-- Rows are at multiples of step (seconds; 0: at every duration that occurs) with durations rounded up, except
-- around open jobs. Every row is exact: between two open jobs' ages the estimator depends on counts alone.
--
-- company_id  the company; null where per_company is false and all companies are one
-- seconds     since created_at; a duration below 0 counts as 0. The first row of a company is at 0
-- at_risk     jobs that lasted longer than the row before
-- ended       jobs that ended since the row before, up to and at these seconds
-- censored    open jobs that are now so old; they were at risk and are not from here on
-- survival    estimated share of jobs that have not ended after so long; 0 is reached only if the longest ended
-- low, high   95 % interval of it, on the log-log scale with Greenwood's variance (Kalbfleisch and Prentice
--             2002, section 1.4); 1 before the first end, null where survival is 0
-- left_out    the company's ended jobs of which no instant of the end was sent; they count nowhere
WITH observed AS (
    SELECT
        CASE WHEN :per_company THEN a.company_id ELSE '' END AS company,
        a.is_censored,
        CASE
            WHEN a.is_censored AND a.known_until > a.created_at
                THEN (epoch_us(a.known_until) - epoch_us(a.created_at)) / 1e6
            WHEN a.is_censored OR a.total_seconds < 0 THEN 0e0
            ELSE a.total_seconds
        END AS seconds
    FROM aged AS a
),

stepped AS (
    SELECT
        o.company,
        o.is_censored,
        o.seconds,
        CASE WHEN :step > 0 THEN ceil(o.seconds / :step) * :step ELSE o.seconds END AS step_end
    FROM observed AS o
),

mixed AS (
    SELECT
        t.company,
        t.step_end
    FROM stepped AS t
    WHERE t.is_censored
    GROUP BY t.company, t.step_end
),

counted AS (
    SELECT
        t.company,
        CASE WHEN x.company IS NULL THEN t.step_end ELSE t.seconds END AS seconds,
        count(*) AS jobs,
        count(*) FILTER (WHERE NOT t.is_censored) AS ended
    FROM stepped AS t
    LEFT JOIN mixed AS x ON t.company = x.company AND t.step_end = x.step_end
    GROUP BY t.company, CASE WHEN x.company IS NULL THEN t.step_end ELSE t.seconds END
),

started AS (
    SELECT
        c.company,
        c.seconds,
        c.jobs,
        c.ended
    FROM counted AS c
    UNION ALL
    SELECT
        c.company,
        0e0 AS seconds,
        0 AS jobs,
        0 AS ended
    FROM counted AS c
    GROUP BY c.company
    HAVING min(c.seconds) > 0
),

ranked AS (
    SELECT
        b.*,
        sum(CASE WHEN b.seconds IS NULL THEN b.jobs ELSE 0 END) OVER (PARTITION BY b.company) AS left_out,
        sum(CASE WHEN b.seconds IS NULL THEN 0 ELSE b.jobs END) OVER (
            PARTITION BY b.company
            ORDER BY b.seconds DESC NULLS FIRST
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS at_risk
    FROM started AS b
),

multiplied AS (
    SELECT
        r.*,
        sum(CASE WHEN r.ended < r.at_risk THEN ln(CAST(r.at_risk - r.ended AS DOUBLE) / r.at_risk) END)
            OVER so_far AS log_survival,
        sum(CASE WHEN r.ended < r.at_risk THEN r.ended / (CAST(r.at_risk AS DOUBLE) * (r.at_risk - r.ended)) END)
            OVER so_far AS variance
    FROM ranked AS r
    WHERE r.seconds IS NOT NULL
    WINDOW so_far AS (
        PARTITION BY r.company
        ORDER BY r.seconds
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
)

SELECT
    nullif(m.company, '') AS company_id,
    m.seconds,
    CAST(m.at_risk AS BIGINT) AS at_risk,
    m.ended,
    m.jobs - m.ended AS censored,
    CASE WHEN m.ended = m.at_risk THEN 0e0 ELSE exp(m.log_survival) END AS survival,
    CASE
        WHEN m.ended = m.at_risk THEN NULL
        WHEN m.log_survival = 0 THEN 1e0
        ELSE exp(m.log_survival * exp(-1.959963984540054e0 * sqrt(m.variance) / m.log_survival))
    END AS low,
    CASE
        WHEN m.ended = m.at_risk THEN NULL
        WHEN m.log_survival = 0 THEN 1e0
        ELSE exp(m.log_survival * exp(1.959963984540054e0 * sqrt(m.variance) / m.log_survival))
    END AS high,
    CAST(m.left_out AS BIGINT) AS left_out
FROM multiplied AS m
ORDER BY m.company, m.seconds
