-- clock_periods(grain VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR, company_id VARCHAR)
-- The periods that the instants of period_bounds and the last microsecond meet, as in jobs_with_period: one row per period.
--
-- from_utc_timestamp assumes that the session is in UTC, see jobs_with_period.
WITH instants AS (
    SELECT
        explode(array_append(sequence(b.first_us - b.first_us % b.step_us, b.last_us - 1, b.step_us), b.last_us - 1))
            AS instant_us
    FROM period_bounds AS b
),

clocks AS (
    SELECT
        i.instant_us,
        from_utc_timestamp(timestamp_micros(i.instant_us), :tz) AS clock
    FROM instants AS i
)

SELECT DISTINCT
    CAST(date_trunc(:grain, c.clock) AS TIMESTAMP_NTZ) AS period,
    CASE
        WHEN :grain = 'hour' THEN c.instant_us - unix_micros(c.clock) + unix_micros(date_trunc('hour', c.clock))
    END AS hour_us
FROM clocks AS c
