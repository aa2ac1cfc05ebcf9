-- company_quantiles(q DOUBLE, duration VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- Each company's exact quantile of the chosen duration, and the number of jobs from which it is computed.
--
-- The quantile is interpolated between ranked values, because Spark's percentile_cont accepts no function parameter as
-- its quantile. DuckDB would need four times as long for this (16 s instead of 4 s on 10 million jobs), so it has
-- its own part.
WITH ranked AS (
    SELECT
        j.company,
        j.known_seconds,
        :q * (count(*) OVER (PARTITION BY j.company) - 1) AS target,
        row_number() OVER (PARTITION BY j.company ORDER BY j.known_seconds) - 1 AS row_no
    FROM jobs_with_duration AS j
    WHERE j.known_seconds IS NOT NULL
),

neighbours AS (
    SELECT
        r.company,
        count(*) AS n,
        max(r.target - floor(r.target)) AS fraction,
        max(CASE WHEN r.row_no = floor(r.target) THEN r.known_seconds END) AS below,
        max(CASE WHEN r.row_no = ceil(r.target) THEN r.known_seconds END) AS above
    FROM ranked AS r
    GROUP BY r.company
)

SELECT
    n.company,
    n.n,
    n.below + (n.above - n.below) * n.fraction AS limit_seconds
FROM neighbours AS n
