-- jobs_with_period(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR)
-- The filtered jobs, each with the period in which it was created: the start of the period, as a wall clock in `tz`.
-- For the grain hour, hour_us is the same instant in microseconds since 1970 in UTC: when clocks are set back, two hours
-- have the same period. clock_us is what the clocks showed: microseconds since 1970, as if they were in UTC.
--
-- UTC has its own branch because a conversion between time zones costs twice as much. The outer cast is needed because
-- date_trunc of DuckDB 1 returns a DATE for a day or more.
SELECT
    f.*,
    CASE
        WHEN :grain = 'all' THEN NULL
        ELSE
            CAST(
                date_trunc(
                    CASE WHEN :grain = 'all' THEN 'hour' ELSE :grain END,
                    CASE
                        WHEN :tz = 'UTC' THEN make_timestamp(epoch_us(f.created_at))
                        ELSE timezone(:tz, f.created_at)
                    END
                ) AS TIMESTAMP
            )
    END AS period,
    CASE
        WHEN :grain = 'hour' AND :tz <> 'UTC'
            THEN
                epoch_us(f.created_at) - epoch_us(timezone(:tz, f.created_at))
                + epoch_us(date_trunc('hour', timezone(:tz, f.created_at)))
        WHEN :grain = 'hour' THEN epoch_us(date_trunc('hour', make_timestamp(epoch_us(f.created_at))))
    END AS hour_us,
    CASE
        WHEN :tz = 'UTC' THEN epoch_us(f.created_at)
        ELSE epoch_us(timezone(:tz, f.created_at))
    END AS clock_us
FROM filtered_jobs AS f
