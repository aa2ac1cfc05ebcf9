-- backlog(as_of TIMESTAMPTZ := NULL, company_id VARCHAR := NULL, per_company BOOLEAN := TRUE)
-- How many exports are waiting or running at an instant: one row per company, the longest backlog first.
--
-- as_of is the instant. By default it is each company's now (see `companies`, `snapshot`). A job is in the backlog from its
-- created_at until it ended. A job that the server no longer lists, and that was open when last seen, is in it until the last
-- action on it. A company without any job up to the instant has no row.
--
-- company_id      the company; null if per_company is false, because the row is about all companies
-- backlog         jobs created up to the instant that had not ended by then: waiting + running
-- waiting         of these, jobs that had not started
-- running         of these, jobs that had started
-- items           accounting entries selected for the jobs of the backlog; exact however large
-- oldest_at       created_at of the oldest job of the backlog; null if there is none
-- oldest_seconds  oldest_at to the instant
-- left_out        ended jobs without a known end, created up to the instant: they may have been in the backlog
-- vanished        of the backlog, jobs that the server no longer lists; they count as last seen
-- last_as_of      the instant; if per_company is false and as_of null, the latest of the companies' instants
WITH jobs_until AS (
    SELECT
        CASE WHEN :per_company THEN j.company_id ELSE '' END AS company,
        j.created_at,
        j.started_at,
        j.number_of_items,
        coalesce(:as_of, c.now, s.now) AS reference_at,
        NOT j.is_censored AND j.ended_at IS NULL AS is_unknown,
        j.is_vanished,
        CASE
            WHEN j.is_censored AND NOT j.is_vanished THEN TRUE
            WHEN j.is_censored
                THEN coalesce(j.last_updated_at, j.started_at, j.created_at) > coalesce(:as_of, c.now, s.now)
            ELSE coalesce(j.ended_at > coalesce(:as_of, c.now, s.now), FALSE)
        END AS is_open
    FROM job_durations AS j
    CROSS JOIN snapshot AS s
    LEFT JOIN companies AS c ON j.company_id = c.id
    WHERE
        j.created_at <= coalesce(:as_of, c.now, s.now)
        AND (:company_id IS NULL OR j.company_id = lower(:company_id))
),

counts AS (
    SELECT
        j.company,
        count(*) FILTER (WHERE j.is_open) AS backlog,
        count(*) FILTER (WHERE j.is_open AND j.started_at <= j.reference_at) AS running,
        coalesce(sum(CAST(j.number_of_items AS DECIMAL(38, 0))) FILTER (WHERE j.is_open), 0) AS items,
        min(j.created_at) FILTER (WHERE j.is_open) AS oldest_at,
        max(epoch_us(j.reference_at) - epoch_us(j.created_at)) FILTER (WHERE j.is_open) AS oldest_us,
        count(*) FILTER (WHERE j.is_unknown) AS left_out,
        count(*) FILTER (WHERE j.is_open AND j.is_vanished) AS vanished,
        max(j.reference_at) AS last_as_of
    FROM jobs_until AS j
    GROUP BY j.company
)

SELECT
    nullif(c.company, '') AS company_id,
    c.backlog,
    c.backlog - c.running AS waiting,
    c.running,
    CAST(c.items AS DECIMAL(38, 0)) AS items,
    c.oldest_at,
    c.oldest_us / 1e6 AS oldest_seconds,
    c.left_out,
    c.vanished,
    c.last_as_of
FROM counts AS c
ORDER BY c.backlog DESC, c.company
