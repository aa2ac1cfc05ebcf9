-- all_periods(grain VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR, company_id VARCHAR)
-- The periods from the first job up to now, or up to until, with those in which no job was created: one row per period.
--
-- ordinal is the order of periods, begins_us the instant at which one begins.
-- The periods are those of instants half an hour or half a day apart, and of the last microsecond: so each is met, whatever
-- the clocks do. from_utc_timestamp assumes that the session is in UTC, see jobs_with_period.
WITH first_jobs AS (
    SELECT min(unix_micros(j.created_at)) AS first_us
    FROM export_jobs AS j
    WHERE :grain <> 'all'
),

last_instants AS (
    SELECT max(k.end_us) AS last_us
    FROM company_clocks AS k
),

bounds AS (
    SELECT
        CASE WHEN :grain = 'hour' THEN 1800000000 ELSE 43200000000 END AS step_us,
        greatest(f.first_us, unix_micros(:since)) AS first_us,
        l.last_us
    FROM first_jobs AS f
    CROSS JOIN last_instants AS l
    WHERE f.first_us IS NOT NULL AND greatest(f.first_us, unix_micros(:since)) < l.last_us
),

instants AS (
    SELECT explode(sequence(b.first_us - b.first_us % b.step_us, b.last_us - 1, b.step_us)) AS instant_us
    FROM bounds AS b
    UNION ALL
    SELECT b.last_us - 1 AS instant_us
    FROM bounds AS b
),

clocks AS (
    SELECT
        i.instant_us,
        from_utc_timestamp(timestamp_micros(i.instant_us), :tz) AS clock
    FROM instants AS i
),

periods AS (
    SELECT DISTINCT
        CAST(date_trunc(:grain, c.clock) AS TIMESTAMP_NTZ) AS period,
        CASE
            WHEN :grain = 'hour' THEN c.instant_us - unix_micros(c.clock) + unix_micros(date_trunc('hour', c.clock))
        END AS hour_us
    FROM clocks AS c
)

SELECT
    p.period,
    p.hour_us,
    coalesce(p.hour_us, epoch_us(p.period)) AS ordinal,
    coalesce(p.hour_us, epoch_us(timezone(:tz, p.period))) AS begins_us
FROM periods AS p
