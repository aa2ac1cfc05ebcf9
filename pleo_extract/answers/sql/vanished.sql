-- vanished
-- Jobs that the server no longer lists: one row per job, as last seen.
--
-- A job is recorded here when a full sync has missed it twice. Its row stays in export_jobs, so every answer still
-- counts it; the column `vanished` of an answer says how many such jobs it counts, and the column
-- `job_durations.is_vanished` lets you leave them out. An open job of this view is not in stuck_jobs(), because nothing
-- more can become known of it: it is only known to have lasted until the last action on it.
--
-- company_id, id, status, created_at, started_at, last_updated_at, number_of_items, failure_reason_type
--                       as in export_jobs
-- outcome, ended_at     as in job_durations
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
