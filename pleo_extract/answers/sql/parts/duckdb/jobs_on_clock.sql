-- jobs_on_clock(company_id VARCHAR, as_of TIMESTAMPTZ, tz VARCHAR)
-- The recent jobs, each with what the clocks in `tz` showed: microseconds since 1970, as if the clocks were in UTC.
SELECT
    r.*,
    epoch_us(timezone(:tz, r.created_at)) AS clock_us,
    epoch_us(timezone(:tz, r.reference_at)) AS reference_us
FROM recent_jobs AS r
