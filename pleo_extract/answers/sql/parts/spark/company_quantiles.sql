-- company_quantiles(q DOUBLE, duration VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- The limit of each company for the chosen duration, see slow_jobs, and the number of jobs from which it is computed.
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
        max(CASE WHEN r.row_no = ceil(r.target) THEN r.known_seconds END) AS above,
        greatest(1, percentile_cont(0.25) WITHIN GROUP (ORDER BY r.known_seconds)) AS lower_quarter,
        greatest(1, percentile_cont(0.75) WITHIN GROUP (ORDER BY r.known_seconds)) AS upper_quarter
    FROM ranked AS r
    GROUP BY r.company
)

SELECT
    n.company,
    n.n,
    CASE
        WHEN :q IS NOT NULL THEN n.below + (n.above - n.below) * n.fraction
        WHEN n.n >= 20 THEN n.upper_quarter * power(greatest(1.25e0, n.upper_quarter / n.lower_quarter), 3)
    END AS limit_seconds
FROM neighbours AS n
