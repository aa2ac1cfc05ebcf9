-- limits(q DOUBLE, duration VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- Each company's exact quantile of the duration that is meant, and how many jobs it is made of.
SELECT
    t.company,
    count(t.known_seconds) AS n,
    percentile_cont(:q) WITHIN GROUP (ORDER BY t.known_seconds) AS limit_seconds
FROM lasting AS t
GROUP BY t.company
