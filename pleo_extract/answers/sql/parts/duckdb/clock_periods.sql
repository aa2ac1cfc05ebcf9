-- clock_periods(grain VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR, company_id VARCHAR)
-- The periods that the instants of period_bounds and the last microsecond meet, as in jobs_with_period: one row per period.
WITH instants AS (
    SELECT
        unnest(list_append(generate_series(b.first_us - b.first_us % b.step_us, b.last_us - 1, b.step_us), b.last_us - 1))
            AS instant_us
    FROM period_bounds AS b
),

clocks AS (
    SELECT
        i.instant_us,
        timezone(:tz, make_timestamptz(i.instant_us)) AS clock
    FROM instants AS i
)

SELECT DISTINCT
    CAST(date_trunc(CASE WHEN :grain = 'all' THEN 'hour' ELSE :grain END, c.clock) AS TIMESTAMP) AS period,
    CASE
        WHEN :grain = 'hour' THEN c.instant_us - epoch_us(c.clock) + epoch_us(date_trunc('hour', c.clock))
    END AS hour_us
FROM clocks AS c
