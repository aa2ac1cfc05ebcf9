-- measured(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR,
--     per_company BOOLEAN)
-- Count, mean, exact percentiles and maximum of the three durations: one row a period and company.
--
-- One aggregate a percentile: Spark writes lists, and counts in them, in other ways than DuckDB.
SELECT
    d.period,
    CASE WHEN :per_company THEN d.company_id END AS company,
    count(*) AS jobs,
    count(*) FILTER (WHERE d.is_censored) AS still_open,
    count(*) FILTER (WHERE d.is_censored AND d.started_at IS NULL) AS not_started,
    count(d.queue_seconds) AS queue_n,
    count(d.queue_seconds) FILTER (WHERE d.is_vanished) AS queue_vanished,
    avg(d.queue_seconds) AS queue_mean,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY d.queue_seconds) AS queue_p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY d.queue_seconds) AS queue_p90,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY d.queue_seconds) AS queue_p95,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY d.queue_seconds) AS queue_p99,
    max(d.queue_seconds) AS queue_max,
    count(d.run_seconds) AS run_n,
    count(d.run_seconds) FILTER (WHERE d.is_vanished) AS run_vanished,
    avg(d.run_seconds) AS run_mean,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY d.run_seconds) AS run_p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY d.run_seconds) AS run_p90,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY d.run_seconds) AS run_p95,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY d.run_seconds) AS run_p99,
    max(d.run_seconds) AS run_max,
    count(d.total_seconds) AS total_n,
    count(d.total_seconds) FILTER (WHERE d.is_vanished) AS total_vanished,
    avg(d.total_seconds) AS total_mean,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY d.total_seconds) AS total_p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY d.total_seconds) AS total_p90,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY d.total_seconds) AS total_p95,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY d.total_seconds) AS total_p99,
    max(d.total_seconds) AS total_max
FROM dated AS d
GROUP BY period, company
