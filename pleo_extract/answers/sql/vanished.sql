-- vanished
-- Jobs that the server no longer lists: one row a job, as last seen.
--
-- A full walk that misses a job of the lake twice records it here. Its row stays in export_jobs, so every answer still
-- counts it, and says in a column `vanished` how many it counts; `job_durations.is_vanished` leaves them out. An open one
-- is nobody's stuck job: nothing more will be heard of it, and it is only known to have lasted until the last action on it.
--
-- company_id, id, status, created_at, started_at, last_updated_at, number_of_items, failure_reason_type  as in export_jobs
-- outcome, ended_at  as in job_durations
SELECT
    j.company_id,
    j.id,
    j.status,
    j.outcome,
    j.created_at,
    j.started_at,
    j.ended_at,
    j.last_updated_at,
    j.number_of_items,
    j.failure_reason_type
FROM job_durations AS j
WHERE j.is_vanished
