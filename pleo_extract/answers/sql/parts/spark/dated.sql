-- dated(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR)
-- The jobs asked for, each with the period it was created in: the period's first instant on the clocks of `tz`.
--
-- The function keeps the zone of the session it was made in, which is UTC.
SELECT
    a.*,
    CASE
        WHEN :grain = 'all' THEN NULL
        ELSE CAST(date_trunc(:grain, from_utc_timestamp(a.created_at, :tz)) AS TIMESTAMP_NTZ)
    END AS period
FROM asked AS a
