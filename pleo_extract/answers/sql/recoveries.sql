-- recoveries(company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL, until TIMESTAMPTZ := NULL)
-- How long it takes until a company's exports work again after a failure: one row per failed job, the latest first.
--
-- A failed job recovers with the company's next job that completes, with errors or without. Jobs are in the order of
-- ended_at, then of created_at. since and until select the failed jobs; the recovery can be later than until.
--
-- company_id     the company
-- failed_id      the failed job, expired ones included; a failed job without a known end has no row
-- failed_at      when it ended
-- reason         its failure_reason_type, as sent
-- is_first       true if the company's previous job did not fail: such a row is the start of an outage
-- recovered_id   the next job that completed; null if there is none yet
-- recovered_at   when that job ended
-- attempts       jobs that ended after the failed one, up to and including the recovery, or all of them so far
-- vanished       of the failed job and these, those that the server no longer lists; they count as last seen
-- seconds        failed_at to recovered_at; if is_censored, to the company's now (see `companies`, `snapshot`)
-- is_censored    true if there is no recovery yet: it takes at least this many seconds
WITH finished_jobs AS (
    SELECT
        j.company_id AS company,
        j.id,
        j.status,
        j.created_at,
        j.ended_at,
        j.failure_reason_type,
        row_number() OVER so_far AS row_no,
        count(*) OVER (PARTITION BY j.company_id) AS job_count,
        j.is_vanished,
        count(CASE WHEN j.is_vanished THEN 1 END) OVER (
            PARTITION BY j.company_id
            ORDER BY j.ended_at, j.created_at, j.id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS vanished_so_far,
        count(CASE WHEN j.is_vanished THEN 1 END) OVER (PARTITION BY j.company_id) AS vanished_count,
        coalesce(lag(j.status) OVER so_far, '') = 'failed' AS follows_failure,
        sum(CASE WHEN j.status = 'failed' THEN 0 ELSE 1 END) OVER (
            PARTITION BY j.company_id
            ORDER BY j.ended_at, j.created_at, j.id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS successes
    FROM job_durations AS j
    WHERE j.ended_at IS NOT NULL AND (:company_id IS NULL OR j.company_id = lower(:company_id))
    WINDOW so_far AS (PARTITION BY j.company_id ORDER BY j.ended_at, j.created_at, j.id)
),

failures_and_recoveries AS (
    SELECT f.*
    FROM finished_jobs AS f
    WHERE f.status = 'failed' OR f.follows_failure
)

SELECT
    f.company AS company_id,
    f.id AS failed_id,
    f.ended_at AS failed_at,
    f.failure_reason_type AS reason,
    NOT f.follows_failure AS is_first,
    r.id AS recovered_id,
    r.ended_at AS recovered_at,
    coalesce(r.row_no, f.job_count) - f.row_no AS attempts,
    coalesce(r.vanished_so_far, f.vanished_count) - f.vanished_so_far
    + CASE WHEN f.is_vanished THEN 1 ELSE 0 END AS vanished,
    (epoch_us(coalesce(r.ended_at, c.now, s.now)) - epoch_us(f.ended_at)) / 1e6 AS seconds,
    r.id IS NULL AS is_censored
FROM failures_and_recoveries AS f
CROSS JOIN snapshot AS s
LEFT JOIN companies AS c ON f.company = c.id
LEFT JOIN failures_and_recoveries AS r
    ON f.company = r.company AND r.successes = f.successes + 1 AND r.status <> 'failed'
WHERE
    f.status = 'failed'
    AND (:since IS NULL OR f.created_at >= :since)
    AND (:until IS NULL OR f.created_at < :until)
ORDER BY f.ended_at DESC, f.company, f.created_at DESC, f.id
