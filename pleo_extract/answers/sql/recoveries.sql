-- recoveries(company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL, until TIMESTAMPTZ := NULL)
-- How long until a company's exports work again after a failure: one row a failed job, latest first.
--
-- The next success is the company's next job, in the order in which jobs ended, then in
-- which they were created, that was completed, with errors or without. since and until choose the failed jobs; the success may come later.
--
-- company_id     the company
-- failed_id      the failed job, expired ones included; one of which no instant of the end was sent has no row
-- failed_at      when it ended
-- reason         its failure_reason_type, as sent
-- is_first       whether the job that ended before it did not fail: each such row is the start of one outage
-- recovered_id   the next success; null where there is none yet
-- recovered_at   when that ended
-- attempts       jobs that ended after the failed one, up to and with the success, or so far
-- seconds        failed_at to recovered_at; where is_censored, to the company's now (`companies`, `snapshot`)
-- is_censored    there is no success yet: it takes at least these seconds
WITH finished AS (
    SELECT
        j.company_id AS company,
        j.id,
        j.status,
        j.created_at,
        j.ended_at,
        j.failure_reason_type,
        row_number() OVER so_far AS place,
        count(*) OVER (PARTITION BY j.company_id) AS places,
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

concerned AS (
    SELECT f.*
    FROM finished AS f
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
    coalesce(r.place, f.places) - f.place AS attempts,
    (epoch_us(coalesce(r.ended_at, c.now, s.now)) - epoch_us(f.ended_at)) / 1e6 AS seconds,
    r.id IS NULL AS is_censored
FROM concerned AS f
CROSS JOIN snapshot AS s
LEFT JOIN companies AS c ON f.company = c.id
LEFT JOIN concerned AS r
    ON f.company = r.company AND r.successes = f.successes + 1 AND r.status <> 'failed'
WHERE
    f.status = 'failed'
    AND (:since IS NULL OR f.created_at >= :since)
    AND (:until IS NULL OR f.created_at < :until)
ORDER BY f.ended_at DESC, f.company, f.created_at DESC, f.id
