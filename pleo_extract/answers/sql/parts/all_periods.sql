-- all_periods(grain VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR, company_id VARCHAR)
-- The periods from the first job up to now, or up to until, with those in which no job was created: one row per period.
--
-- ordinal is the order of periods, begins_us the instant at which one begins.
SELECT
    p.period,
    p.hour_us,
    coalesce(p.hour_us, epoch_us(p.period)) AS ordinal,
    coalesce(p.hour_us, epoch_us(timezone(:tz, p.period))) AS begins_us
FROM clock_periods AS p
