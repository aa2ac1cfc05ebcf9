-- company_clocks(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR)
-- The period that is not over: one row per company with a now of its own, one for the others ('*'), and one for all
-- companies together (''), whose now is the latest.
--
-- now_period, since_period and until_period are the periods that contain these instants, the latter two only if the
-- instant is not where the period begins. end_us is now, or until if that is before. The other …_us columns are the same for hours: microseconds since 1970 in UTC.
-- from_utc_timestamp assumes that the session is in UTC, see jobs_with_period.
WITH bounds AS (
    SELECT
        l.company,
        l.now,
        from_utc_timestamp(l.now, :tz) AS now_clock,
        from_utc_timestamp(:since, :tz) AS since_clock,
        from_utc_timestamp(:until, :tz) AS until_clock
    FROM latest_reads AS l
)

SELECT
    b.company,
    coalesce(:until > b.now, TRUE) AS is_open,
    unix_micros(least(b.now, coalesce(:until, b.now))) AS end_us,
    CAST(date_trunc(:grain, b.now_clock) AS TIMESTAMP_NTZ) AS now_period,
    CASE
        WHEN date_trunc(:grain, b.since_clock) < b.since_clock
            THEN CAST(date_trunc(:grain, b.since_clock) AS TIMESTAMP_NTZ)
    END AS since_period,
    CASE
        WHEN date_trunc(:grain, b.until_clock) < b.until_clock
            THEN CAST(date_trunc(:grain, b.until_clock) AS TIMESTAMP_NTZ)
    END AS until_period,
    unix_micros(b.now) - unix_micros(b.now_clock) + unix_micros(date_trunc('hour', b.now_clock)) AS now_us,
    CASE
        WHEN date_trunc('hour', b.since_clock) < b.since_clock
            THEN unix_micros(:since) - unix_micros(b.since_clock) + unix_micros(date_trunc('hour', b.since_clock))
    END AS since_us,
    CASE
        WHEN date_trunc('hour', b.until_clock) < b.until_clock
            THEN unix_micros(:until) - unix_micros(b.until_clock) + unix_micros(date_trunc('hour', b.until_clock))
    END AS until_us
FROM bounds AS b
