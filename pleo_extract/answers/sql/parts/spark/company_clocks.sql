-- company_clocks(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR)
-- The period that is not over: one row per company with a now of its own, one for the others ('*'), and one for all
-- companies together (''), whose now is the latest.
--
-- end_us is now, or until if that is before, in microseconds since 1970. The ordinals are those of all_periods for the
-- periods that contain now, since and until, the latter two only if the instant is not where the period begins. is_open
-- tells for the grain 'all', which has no ordinals, whether its one period is not over.
-- from_utc_timestamp assumes that the session is in UTC, see jobs_with_period.
WITH bounds AS (
    SELECT
        l.company,
        l.now,
        from_utc_timestamp(l.now, :tz) AS now_clock,
        from_utc_timestamp(:since, :tz) AS since_clock,
        from_utc_timestamp(:until, :tz) AS until_clock
    FROM latest_reads AS l
),

offsets AS (
    SELECT
        b.*,
        CASE WHEN :grain = 'hour' THEN unix_micros(b.now) - unix_micros(b.now_clock) ELSE 0 END AS now_offset,
        CASE WHEN :grain = 'hour' THEN unix_micros(:since) - unix_micros(b.since_clock) ELSE 0 END AS since_offset,
        CASE WHEN :grain = 'hour' THEN unix_micros(:until) - unix_micros(b.until_clock) ELSE 0 END AS until_offset
    FROM bounds AS b
)

SELECT
    o.company,
    :grain = 'all' AND coalesce(:until > o.now, TRUE) AS is_open,
    unix_micros(least(o.now, coalesce(:until, o.now))) AS end_us,
    CASE WHEN :grain <> 'all' THEN unix_micros(date_trunc(:grain, o.now_clock)) + o.now_offset END AS now_ordinal,
    CASE
        WHEN :grain <> 'all' AND date_trunc(:grain, o.since_clock) < o.since_clock
            THEN unix_micros(date_trunc(:grain, o.since_clock)) + o.since_offset
    END AS since_ordinal,
    CASE
        WHEN :grain <> 'all' AND date_trunc(:grain, o.until_clock) < o.until_clock
            THEN unix_micros(date_trunc(:grain, o.until_clock)) + o.until_offset
    END AS until_ordinal
FROM offsets AS o
