-- jobs_with_period(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR)
-- The filtered jobs, each with the period in which it was created: the start of the period, as a wall clock in `tz`.
--
-- from_utc_timestamp assumes that the session is in UTC. A function keeps the settings of the session in which it was
-- created, and session.py creates it in UTC.
SELECT
    f.*,
    CASE
        WHEN :grain = 'all' THEN NULL
        ELSE CAST(date_trunc(:grain, from_utc_timestamp(f.created_at, :tz)) AS TIMESTAMP_NTZ)
    END AS period
FROM filtered_jobs AS f
