-- dated(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR)
-- The jobs asked for, each with the period it was created in: the period's first instant on the clocks of `tz`.
--
-- UTC has a way of its own because it costs half of a conversion between zones. DuckDB 1 makes a date of a period of days
-- and more, hence the cast.
SELECT
    a.*,
    CASE
        WHEN :grain = 'all' THEN NULL
        ELSE
            CAST(
                date_trunc(
                    CASE WHEN :grain = 'all' THEN 'hour' ELSE :grain END,
                    CASE
                        WHEN :tz = 'UTC' THEN make_timestamp(epoch_us(a.created_at))
                        ELSE timezone(:tz, a.created_at)
                    END
                ) AS TIMESTAMP
            )
    END AS period
FROM asked AS a
