-- company_quantiles(q DOUBLE, duration VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- Each company's exact quantile of the chosen duration, and the number of jobs from which it is computed.
--
-- q is checked here, and not where it is used, because percentile_cont accepts only a constant. The check is a
-- date_trunc, for the reason that `_require` in definition.py gives.
SELECT
    j.company,
    count(j.known_seconds) AS n,
    percentile_cont(:q) WITHIN GROUP (ORDER BY j.known_seconds) AS limit_seconds
FROM jobs_with_duration AS j
WHERE
    date_trunc(
        CASE
            WHEN :q BETWEEN 0 AND 1 THEN 'day'
            ELSE concat('invalid q ', coalesce(CAST(:q AS VARCHAR), 'null'), ': use a quantile from 0 to 1')
        END,
        TIMESTAMP '2000-01-01'
    ) IS NOT NULL
GROUP BY j.company
