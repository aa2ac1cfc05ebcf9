-- jobs_with_period(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR)
-- The filtered jobs, each with the period in which it was created: the start of the period, as a wall clock in `tz`.
-- For the grain hour, hour_us is the same instant in microseconds since 1970 in UTC: when clocks are set back, two hours
-- have the same period. clock_us is what the clocks showed: microseconds since 1970, as if they were in UTC.
--
-- from_utc_timestamp assumes that the session is in UTC. A function keeps the settings of the session in which it was
-- created, and session.py creates it in UTC.
SELECT
    f.*,
    CASE
        WHEN :grain = 'all' THEN NULL
        ELSE CAST(date_trunc(:grain, from_utc_timestamp(f.created_at, :tz)) AS TIMESTAMP_NTZ)
    END AS period,
    CASE
        WHEN :grain = 'hour'
            THEN
                unix_micros(f.created_at) - unix_micros(from_utc_timestamp(f.created_at, :tz))
                + unix_micros(date_trunc('hour', from_utc_timestamp(f.created_at, :tz)))
    END AS hour_us,
    unix_micros(from_utc_timestamp(f.created_at, :tz)) AS clock_us
FROM filtered_jobs AS f
