-- limits(q DOUBLE, duration VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- Each company's exact quantile of the duration that is meant, and how many jobs it is made of.
--
-- From the places of the ordered values, because Spark's percentile_cont takes no parameter of a function for its
-- quantile. In DuckDB this would take four times as long.
WITH ordered AS (
    SELECT
        t.company,
        t.known_seconds,
        :q * (count(*) OVER (PARTITION BY t.company) - 1) AS wanted,
        row_number() OVER (PARTITION BY t.company ORDER BY t.known_seconds) - 1 AS place
    FROM lasting AS t
    WHERE t.known_seconds IS NOT NULL
),

around AS (
    SELECT
        o.company,
        count(*) AS n,
        max(o.wanted - floor(o.wanted)) AS part,
        max(CASE WHEN o.place = floor(o.wanted) THEN o.known_seconds END) AS below,
        max(CASE WHEN o.place = ceil(o.wanted) THEN o.known_seconds END) AS above
    FROM ordered AS o
    GROUP BY o.company
)

SELECT
    a.company,
    a.n,
    a.below + (a.above - a.below) * a.part AS limit_seconds
FROM around AS a
