-- company_clocks(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR)
-- The period that is not over: one row per company with a now of its own, one for the others ('*'), and one for all
-- companies together (''), whose now is the latest.
--
-- now_period, since_period and until_period are the periods that contain these instants, the latter two only if the
-- instant is not where the period begins. end_us is now, or until if that is before. The other …_us columns are the same for hours: microseconds since 1970 in UTC.
WITH bounds AS (
    SELECT
        l.company,
        l.now,
        timezone(:tz, l.now) AS now_clock,
        timezone(:tz, :since) AS since_clock,
        timezone(:tz, :until) AS until_clock,
        CASE WHEN :grain = 'all' THEN 'hour' ELSE :grain END AS unit
    FROM latest_reads AS l
)

SELECT
    b.company,
    coalesce(:until > b.now, TRUE) AS is_open,
    epoch_us(least(b.now, coalesce(:until, b.now))) AS end_us,
    CAST(date_trunc(b.unit, b.now_clock) AS TIMESTAMP) AS now_period,
    CASE
        WHEN date_trunc(b.unit, b.since_clock) < b.since_clock THEN CAST(date_trunc(b.unit, b.since_clock) AS TIMESTAMP)
    END AS since_period,
    CASE
        WHEN date_trunc(b.unit, b.until_clock) < b.until_clock THEN CAST(date_trunc(b.unit, b.until_clock) AS TIMESTAMP)
    END AS until_period,
    epoch_us(b.now) - epoch_us(b.now_clock) + epoch_us(date_trunc('hour', b.now_clock)) AS now_us,
    CASE
        WHEN date_trunc('hour', b.since_clock) < b.since_clock
            THEN epoch_us(:since) - epoch_us(b.since_clock) + epoch_us(date_trunc('hour', b.since_clock))
    END AS since_us,
    CASE
        WHEN date_trunc('hour', b.until_clock) < b.until_clock
            THEN epoch_us(:until) - epoch_us(b.until_clock) + epoch_us(date_trunc('hour', b.until_clock))
    END AS until_us
FROM bounds AS b
