-- jobs_on_clock(company_id VARCHAR, as_of TIMESTAMPTZ, tz VARCHAR)
-- The recent jobs, each with what the clocks in `tz` showed: microseconds since 1970, as if the clocks were in UTC.
--
-- from_utc_timestamp assumes that the session is in UTC, see jobs_with_period.
SELECT
    r.*,
    unix_micros(from_utc_timestamp(r.created_at, :tz)) AS clock_us,
    unix_micros(from_utc_timestamp(r.reference_at, :tz)) AS reference_us
FROM recent_jobs AS r
