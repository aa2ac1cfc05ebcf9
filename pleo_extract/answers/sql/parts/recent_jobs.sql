-- recent_jobs(company_id VARCHAR, as_of TIMESTAMPTZ)
-- The jobs of the 26 weeks before each company's last job, that is before its last one up to as_of, or up to the company's
-- now if that is null. reference_at is that instant. A company whose last job is more than 3,650 days ago has no row,
-- so that a calendar of all days since then stays short.
WITH jobs_until AS (
    SELECT
        j.company_id AS company,
        j.created_at,
        j.is_vanished,
        coalesce(:as_of, c.now, s.now) AS reference_at
    FROM job_durations AS j
    CROSS JOIN snapshot AS s
    LEFT JOIN companies AS c ON j.company_id = c.id
    WHERE
        (:company_id IS NULL OR j.company_id = lower(:company_id))
        AND j.created_at <= coalesce(:as_of, c.now, s.now)
),

last_jobs AS (
    SELECT j.company, max(j.created_at) AS last_job_at
    FROM jobs_until AS j
    GROUP BY j.company
)

SELECT
    j.company,
    j.created_at,
    j.is_vanished,
    j.reference_at,
    l.last_job_at
FROM jobs_until AS j
INNER JOIN last_jobs AS l ON j.company = l.company
WHERE
    epoch_us(j.created_at) >= epoch_us(l.last_job_at) - 15724800000000 -- 182 days
    AND (epoch_us(j.reference_at) - epoch_us(l.last_job_at)) / 86400000000e0 <= 3650
