-- stuck_jobs(as_of TIMESTAMPTZ := NULL, company_id VARCHAR := NULL)
-- Open jobs that should have expired: one row per job, the longest overdue first.
--
-- A job should expire expires_in seconds after the last action on it. One that is open after that probably waits for
-- something that will not happen. A company's jobs run one at a time, so the jobs behind it wait too.
--
-- as_of is the instant at which jobs are overdue or not. By default it is each company's now (see `companies`,
-- `snapshot`): for a company that could not be read since, that is the instant of the last read. An earlier as_of
-- misses jobs that were open then and have ended since. Jobs that the server no longer lists are left out: see the
-- view `vanished`.
--
-- id, company_id, status, created_at, started_at, number_of_items  as in export_jobs; status is pending,
--                  in_progress, or one that is not known to be terminal
-- last_action_at   last_updated_at, else started_at, else created_at
-- age_seconds      created_at to as_of
-- overdue_seconds  last_action_at + expires_in to as_of; always above 0
-- waiting          open jobs of the same company that were created later
WITH open_jobs AS (
    SELECT
        j.id,
        j.company_id AS company,
        j.status,
        j.created_at,
        j.started_at,
        j.number_of_items,
        j.expires_in,
        coalesce(j.last_updated_at, j.started_at, j.created_at) AS last_action_at,
        coalesce(:as_of, c.now, s.now) AS reference_at,
        row_number() OVER (PARTITION BY j.company_id ORDER BY j.created_at DESC, j.id DESC) - 1 AS waiting
    FROM job_durations AS j
    CROSS JOIN snapshot AS s
    LEFT JOIN companies AS c ON j.company_id = c.id
    WHERE
        j.is_censored
        AND NOT j.is_vanished
        AND j.created_at <= coalesce(:as_of, c.now, s.now)
        AND (:company_id IS NULL OR j.company_id = lower(:company_id))
)

SELECT
    o.id,
    o.company AS company_id,
    o.status,
    o.created_at,
    o.started_at,
    o.number_of_items,
    o.last_action_at,
    (epoch_us(o.reference_at) - epoch_us(o.created_at)) / 1e6 AS age_seconds,
    (epoch_us(o.reference_at) - epoch_us(o.last_action_at)) / 1e6 - o.expires_in AS overdue_seconds,
    o.waiting
FROM open_jobs AS o
WHERE (epoch_us(o.reference_at) - epoch_us(o.last_action_at)) / 1e6 - o.expires_in > 0
ORDER BY overdue_seconds DESC, o.company, o.id
