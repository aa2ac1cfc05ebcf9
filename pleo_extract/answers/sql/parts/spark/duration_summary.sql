-- duration_summary(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR,
--     per_company BOOLEAN, split_by VARCHAR)
-- Count, mean, exact percentiles and maximum of the three durations: one row per period, company and split.
--
-- One aggregate per percentile: list literals and list indexes differ between Spark and DuckDB.
SELECT
    j.period,
    j.hour_us,
    CASE WHEN :per_company THEN j.company_id END AS company,
    j.split,
    count(*) AS jobs,
    count(*) FILTER (WHERE j.is_censored) AS still_open,
    count(*) FILTER (WHERE j.is_censored AND j.started_at IS NULL) AS not_started,
    count(j.queue_seconds) AS queue_n,
    count(j.queue_seconds) FILTER (WHERE j.is_vanished) AS queue_vanished,
    avg(j.queue_seconds) AS queue_mean,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY j.queue_seconds) AS queue_p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY j.queue_seconds) AS queue_p90,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY j.queue_seconds) AS queue_p95,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY j.queue_seconds) AS queue_p99,
    max(j.queue_seconds) AS queue_max,
    count(j.run_seconds) AS run_n,
    count(j.run_seconds) FILTER (WHERE j.is_vanished) AS run_vanished,
    avg(j.run_seconds) AS run_mean,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY j.run_seconds) AS run_p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY j.run_seconds) AS run_p90,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY j.run_seconds) AS run_p95,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY j.run_seconds) AS run_p99,
    max(j.run_seconds) AS run_max,
    count(j.total_seconds) AS total_n,
    count(j.total_seconds) FILTER (WHERE j.is_vanished) AS total_vanished,
    avg(j.total_seconds) AS total_mean,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY j.total_seconds) AS total_p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY j.total_seconds) AS total_p90,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY j.total_seconds) AS total_p95,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY j.total_seconds) AS total_p99,
    max(j.total_seconds) AS total_max
FROM jobs_with_split AS j
GROUP BY period, hour_us, company, split
