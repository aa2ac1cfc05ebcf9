-- downtime(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC')
-- For how many hours a company's exports did not work: one row per period and company.
--
-- Exports do not work from the end of a failed job until the company's next job that completes, with errors or without, as in
-- recoveries: if it comes in another period, each period has its part. If there is none yet, they do not work until now.
-- Nights and weekends count: a failure on Friday evening that recovers on Monday morning is more than two days.
--
-- period        start of the period, in time zone tz. The first is that of the company's first job between since and until
--               or of 2000
-- company_id    the company
-- outages       times without exports that lie in the period, at least in part
-- hours         how long they were in all, in this period
-- longest       the longest of these parts, hours
-- share         hours / the hours of the period between since and until that are over
-- vanished      of the jobs that begin and end these outages, those that the server no longer lists; they count as
--               last seen
-- starts_at     the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial    true if the period was not over when the company was last read, or if since or until cuts it
WITH finished_jobs AS (
    SELECT
        j.company_id AS company,
        j.status,
        epoch_us(j.ended_at) AS ended_us,
        CASE WHEN j.is_vanished THEN 1 ELSE 0 END AS vanished,
        coalesce(lag(j.status) OVER (PARTITION BY j.company_id ORDER BY j.ended_at, j.created_at, j.id), '') = 'failed'
            AS follows_failure,
        sum(CASE WHEN j.status = 'failed' THEN 0 ELSE 1 END) OVER (
            PARTITION BY j.company_id
            ORDER BY j.ended_at, j.created_at, j.id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS successes
    FROM job_durations AS j
    WHERE j.ended_at IS NOT NULL AND (:company_id IS NULL OR j.company_id = lower(:company_id))
),

-- 2^62 microseconds stand for no end.
-- Only the jobs at the two ends of an outage are joined: the rest of the ten million would fill two gigabytes.
ends AS (
    SELECT f.*
    FROM finished_jobs AS f
    WHERE f.status = 'failed' OR f.follows_failure
),

outages AS (
    SELECT
        f.company,
        f.ended_us AS begins_us,
        coalesce(s.ended_us, 4611686018427387904) AS ends_us,
        f.vanished + coalesce(s.vanished, 0) AS vanished
    FROM ends AS f
    LEFT JOIN ends AS s
        ON f.company = s.company AND s.successes = f.successes + 1 AND s.status <> 'failed'
    WHERE f.status = 'failed' AND NOT f.follows_failure
),

first_jobs AS (
    SELECT f.company_id AS company, min(epoch_us(f.created_at)) AS first_us
    FROM filtered_jobs AS f
    GROUP BY f.company_id
),

bounded_periods AS (
    SELECT
        p.*,
        lead(p.begins_us) OVER (ORDER BY p.begins_us) AS next_us
    FROM all_periods AS p
),

company_periods AS (
    SELECT
        f.company,
        p.period,
        p.hour_us,
        greatest(p.begins_us, epoch_us(:since)) AS begins_us,
        least(p.next_us, k.end_us) AS ends_us
    FROM first_jobs AS f
    LEFT JOIN companies AS n ON f.company = n.id AND n.now IS NOT NULL
    INNER JOIN company_clocks AS k ON k.company = coalesce(n.id, '*')
    INNER JOIN bounded_periods AS p
        ON p.begins_us < k.end_us AND (p.next_us IS NULL OR p.next_us > f.first_us)
),

parts_of_outages AS (
    SELECT
        p.*,
        o.vanished,
        CASE
            WHEN o.company IS NOT NULL THEN least(o.ends_us, p.ends_us) - greatest(o.begins_us, p.begins_us)
        END AS outage_us
    FROM company_periods AS p
    LEFT JOIN outages AS o ON p.company = o.company AND o.begins_us < p.ends_us AND o.ends_us > p.begins_us
),

counts AS (
    SELECT
        p.company,
        p.period,
        p.hour_us,
        p.ends_us - p.begins_us AS length_us,
        count(p.outage_us) AS outages,
        coalesce(sum(p.outage_us) / 3.6e9, 0e0) AS hours,
        coalesce(max(p.outage_us) / 3.6e9, 0e0) AS longest,
        coalesce(CAST(sum(p.vanished) AS BIGINT), 0) AS vanished
    FROM parts_of_outages AS p
    GROUP BY p.company, p.period, p.hour_us, p.ends_us - p.begins_us
)

SELECT
    c.period,
    c.company AS company_id,
    c.outages,
    c.hours,
    c.longest,
    c.hours / (c.length_us / 3.6e9) AS share,
    c.vanished,
    CASE WHEN :grain = 'hour' THEN make_timestamptz(c.hour_us) ELSE timezone(:tz, c.period) END AS starts_at,
    coalesce(
        k.is_open
        OR coalesce(c.hour_us, epoch_us(c.period)) >= k.now_ordinal
        OR coalesce(c.hour_us, epoch_us(c.period)) IN (k.since_ordinal, k.until_ordinal),
        FALSE
    ) AS is_partial
FROM counts AS c
LEFT JOIN companies AS n ON c.company = n.id AND n.now IS NOT NULL
INNER JOIN company_clocks AS k ON k.company = coalesce(n.id, '*')
ORDER BY c.period, starts_at, c.company
