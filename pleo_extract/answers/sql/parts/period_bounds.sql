-- period_bounds(grain VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR, company_id VARCHAR)
-- Between which instants the periods lie, and how far apart the instants are that meet each of them: at most one row.
--
-- Half an hour or half a day apart, whatever the clocks do. They begin in 2000 at the earliest: for a job that is dated to
-- the year 1, as a server may send it and damage may leave it, there would be 18 million hours without a job.
WITH first_jobs AS (
    SELECT min(epoch_us(j.created_at)) AS first_us
    FROM export_jobs AS j
    WHERE :grain <> 'all'
),

last_instants AS (
    SELECT max(k.end_us) AS last_us
    FROM company_clocks AS k
)

SELECT
    CASE WHEN :grain = 'hour' THEN 1800000000 ELSE 43200000000 END AS step_us,
    greatest(f.first_us, epoch_us(:since), 946684800000000) AS first_us,
    l.last_us
FROM first_jobs AS f
CROSS JOIN last_instants AS l
WHERE f.first_us IS NOT NULL AND greatest(f.first_us, epoch_us(:since), 946684800000000) < l.last_us
