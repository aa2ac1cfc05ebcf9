-- limits(q DOUBLE, duration VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- Each company's exact quantile of the duration that is meant, and how many jobs it is made of.
--
-- The quantile is looked at here, since percentile_cont takes nothing but a constant; for date_trunc see definition.py.
SELECT
    t.company,
    count(t.known_seconds) AS n,
    percentile_cont(:q) WITHIN GROUP (ORDER BY t.known_seconds) AS limit_seconds
FROM lasting AS t
WHERE
    date_trunc(
        CASE
            WHEN :q BETWEEN 0 AND 1 THEN 'day'
            ELSE concat('q ', coalesce(CAST(:q AS VARCHAR), 'null'), ': take a quantile from 0 to 1')
        END,
        TIMESTAMP '2000-01-01'
    ) IS NOT NULL
GROUP BY t.company
