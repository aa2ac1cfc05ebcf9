-- filtered_jobs(company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- The jobs of one company, or of all if it is null, that were created at or after `since` and before `until`.
--
-- A null bound is no bound.
SELECT j.*
FROM job_durations AS j
WHERE
    (:company_id IS NULL OR j.company_id = lower(:company_id))
    AND (:since IS NULL OR j.created_at >= :since)
    AND (:until IS NULL OR j.created_at < :until)
