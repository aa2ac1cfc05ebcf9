-- dated(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR)
-- The jobs asked for, each with the period it was created in: the period's first instant on the clocks of `tz`.
--
-- Spark's date_trunc makes null of a text that is no unit, so an unknown grain is an error of its own; it shows when
-- the first job is read. The function keeps the zone of the session it was made in, which is UTC.
SELECT
    a.*,
    CASE
        WHEN :grain = 'all' THEN NULL
        WHEN :grain IN ('hour', 'day', 'week', 'month', 'quarter', 'year')
            THEN CAST(date_trunc(:grain, from_utc_timestamp(a.created_at, :tz)) AS TIMESTAMP_NTZ)
        ELSE CAST(
            error(concat('grain ''', coalesce(:grain, ''), ''': take hour, day, week, month, quarter, year or all'))
            AS TIMESTAMP_NTZ
        )
    END AS period
FROM asked AS a
