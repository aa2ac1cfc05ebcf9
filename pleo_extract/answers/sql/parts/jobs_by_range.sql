-- jobs_by_range(since_a TIMESTAMPTZ, until_a TIMESTAMPTZ, since_b TIMESTAMPTZ, until_b TIMESTAMPTZ, company_id VARCHAR,
--     per_company BOOLEAN)
-- The jobs that compare takes from each of its two ranges, a and b. A job in both has two rows.
SELECT
    'a' AS time_range,
    CASE WHEN :per_company THEN j.company_id ELSE '' END AS company,
    CASE WHEN :per_company THEN '' ELSE j.company_id END AS cluster_company,
    CAST(floor(epoch_us(j.created_at) / 86400000000e0) AS BIGINT) AS day_no,
    j.status,
    j.is_censored,
    j.is_vanished,
    j.queue_seconds,
    j.run_seconds,
    j.total_seconds
FROM job_durations AS j
CROSS JOIN compared_ranges AS r
WHERE
    (:company_id IS NULL OR j.company_id = lower(:company_id))
    AND (NOT r.is_period OR (j.created_at >= r.a_begins AND j.created_at < r.a_ends))
    AND (:since_a IS NULL OR j.created_at >= :since_a)
    AND (:until_a IS NULL OR j.created_at < :until_a)
UNION ALL
SELECT
    'b' AS time_range,
    CASE WHEN :per_company THEN j.company_id ELSE '' END AS company,
    CASE WHEN :per_company THEN '' ELSE j.company_id END AS cluster_company,
    CAST(floor(epoch_us(j.created_at) / 86400000000e0) AS BIGINT) AS day_no,
    j.status,
    j.is_censored,
    j.is_vanished,
    j.queue_seconds,
    j.run_seconds,
    j.total_seconds
FROM job_durations AS j
CROSS JOIN compared_ranges AS r
WHERE
    (:company_id IS NULL OR j.company_id = lower(:company_id))
    AND (NOT r.is_period OR (j.created_at >= r.b_begins AND j.created_at < r.b_ends))
    AND (:since_b IS NULL OR j.created_at >= :since_b)
    AND (:until_b IS NULL OR j.created_at < :until_b)
