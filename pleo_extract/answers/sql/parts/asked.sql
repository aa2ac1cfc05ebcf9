-- asked(company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- The jobs a question is about: those of the company (of all, when null) created from `since` up to, but not
-- at, `until` (unbounded, when null).
SELECT j.*
FROM job_durations AS j
WHERE
    (:company_id IS NULL OR j.company_id = lower(:company_id))
    AND (:since IS NULL OR j.created_at >= :since)
    AND (:until IS NULL OR j.created_at < :until)
