-- company_quantiles(q DOUBLE, duration VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- The limit of each company for the chosen duration, see slow_jobs, and the number of jobs from which it is computed.
--
-- q is checked here, and not where it is used, because percentile_cont accepts only a constant, and not NULL: for
-- DuckDB, a condition on the parameter itself, q, is constant, one on a cast of it is not. The check is a date_trunc,
-- for the reason that `_require` in definition.py gives.
SELECT
    j.company,
    count(j.known_seconds) AS n,
    CASE
        WHEN :q IS NOT NULL
            THEN percentile_cont(CASE WHEN q IS NULL THEN 0 ELSE :q END) WITHIN GROUP (ORDER BY j.known_seconds)
        WHEN count(j.known_seconds) >= 20
            THEN
                greatest(1, percentile_cont(0.75) WITHIN GROUP (ORDER BY j.known_seconds)) * power(
                    greatest(
                        1.25e0,
                        greatest(1, percentile_cont(0.75) WITHIN GROUP (ORDER BY j.known_seconds))
                        / greatest(1, percentile_cont(0.25) WITHIN GROUP (ORDER BY j.known_seconds))
                    ),
                    3
                )
    END AS limit_seconds
FROM jobs_with_duration AS j
WHERE
    date_trunc(
        CASE
            WHEN :q IS NULL OR :q BETWEEN 0 AND 1 THEN 'day'
            ELSE concat('invalid q ', coalesce(CAST(:q AS VARCHAR), 'null'), ': use a quantile from 0 to 1')
        END,
        TIMESTAMP '2000-01-01'
    ) IS NOT NULL
GROUP BY j.company
