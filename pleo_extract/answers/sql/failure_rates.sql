-- failure_rates(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE, split_by VARCHAR := NULL,
--     fill BOOLEAN := TRUE)
-- How often exports fail: one row per period and company, or per value of split_by.
--
-- period        start of the period, in time zone tz. A job belongs to the period of its created_at.
--               null where the grain is 'all': one period holds all jobs
-- company_id    the company; null if per_company is false, because the row is about all companies
-- split         the value of split_by; null without split_by
-- jobs          all jobs, open ones included
-- finished      jobs with status failed, completed or completed_with_errors: the denominator of rate
-- failed        of these, jobs with status failed, expired ones included: the numerator of rate
-- expired       of these, jobs that failed because they expired
-- with_errors   jobs with status completed_with_errors: some items failed, the job did not, so it is not in failed
-- rate          failed / finished, from 0 to 1; null if no job has finished
-- low, high     95 % confidence interval of the rate, after Wilson (1927, JASA 22:209)
-- items         accounting entries selected for the finished jobs, the sum of number_of_items; null above 2^63 - 1, see
--               throughput
-- failures_per_1000_items  1000 * failed / items: how many jobs fail for each 1,000 entries; null if items is 0
-- per_1000_low, per_1000_high  95 % confidence interval of it: the score interval of a Poisson rate, for failures that are
--               independent of each other
-- still_open    jobs with any other status: they have not failed and not succeeded, so the rate can still change
-- vanished      of all jobs, those that the server no longer lists; they count as last seen
-- starts_at     the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial    true if the period was not over when the company was last read, or if since or until cuts it: its numbers
--               are not those of a whole period
-- clusters      the clusters with finished jobs: a company's jobs of one day (UTC). For the grains hour and day they are
--               jobs of a company with the same created_by and number_of_items, such as attempts of one export
-- design_effect the variance of the rate between clusters, as a multiple of that of independent jobs; at least 1, null
--               for fewer than 3 clusters. Retries of failed exports, and outages, make it larger
-- clustered_low, clustered_high  95 % interval that does not take the jobs of a cluster as independent
--
-- With split_by, each period and company has a row for each value: of is_interactive, created_by, vendor_based_bookkeeping
-- or number_of_items (0, 1-9, 10-99 and so on), or of the clock in tz when the job was created: weekday, hour or
-- weekday_hour.
--
-- low and high are right if jobs fail independently of each other. If failed exports are tried again, they do not: a
-- single export that fails five times is five failures. Then the true rate is outside of low and high more often than
-- one time in 20, and clustered_low and clustered_high are the ones to use.
--
-- Unless fill is false, periods without jobs have rows too, from each company's first job between since and until up to its
-- now or until: a chart would draw a line over them, or leave them out. Periods before 2000 have rows only if they have jobs.
WITH clusters AS (
    SELECT
        j.period,
        j.hour_us,
        CASE WHEN :per_company THEN j.company_id END AS company,
        j.split,
        j.company_id AS cluster_company,
        CASE
            WHEN :grain NOT IN ('hour', 'day') THEN CAST(floor(epoch_us(j.created_at) / 86400000000e0) AS BIGINT)
            ELSE j.number_of_items
        END AS cluster_no,
        CASE WHEN :grain IN ('hour', 'day') THEN j.created_by END AS cluster_user,
        count(*) AS jobs,
        count(*) FILTER (WHERE NOT j.is_censored) AS finished,
        count(*) FILTER (WHERE j.status = 'failed') AS failed,
        count(*) FILTER (WHERE j.outcome = 'expired') AS expired,
        count(*) FILTER (WHERE j.status = 'completed_with_errors') AS with_errors,
        count(*) FILTER (WHERE j.is_vanished) AS vanished,
        sum(CASE WHEN j.is_censored THEN 0 ELSE CAST(j.number_of_items AS DECIMAL(38, 0)) END) AS items
    FROM jobs_with_split AS j
    GROUP BY period, hour_us, company, split, cluster_company, cluster_no, cluster_user
),

spans AS (
    SELECT
        c.company,
        c.split,
        min(coalesce(c.hour_us, epoch_us(c.period))) AS first_ordinal
    FROM clusters AS c
    GROUP BY c.company, c.split
),

later_periods AS (
    SELECT
        p.period,
        p.hour_us,
        s.company,
        s.split
    FROM spans AS s
    LEFT JOIN companies AS n ON s.company = n.id AND n.now IS NOT NULL
    INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
    INNER JOIN all_periods AS p ON p.ordinal > s.first_ordinal AND p.begins_us < k.end_us
    WHERE :fill
),

-- Rows of zeros add nothing to a period that has jobs.
filled_clusters AS (
    SELECT
        c.period,
        c.hour_us,
        c.company,
        c.split,
        c.jobs,
        c.finished,
        c.failed,
        c.expired,
        c.with_errors,
        c.vanished,
        c.items
    FROM clusters AS c
    UNION ALL
    SELECT
        p.period,
        p.hour_us,
        p.company,
        p.split,
        0 AS jobs,
        0 AS finished,
        0 AS failed,
        0 AS expired,
        0 AS with_errors,
        0 AS vanished,
        0 AS items
    FROM later_periods AS p
),

counts AS (
    SELECT
        c.period,
        c.hour_us,
        c.company,
        c.split,
        CAST(sum(c.jobs) AS BIGINT) AS jobs,
        CAST(sum(c.finished) AS BIGINT) AS finished,
        CAST(sum(c.failed) AS BIGINT) AS failed,
        CAST(sum(c.expired) AS BIGINT) AS expired,
        CAST(sum(c.with_errors) AS BIGINT) AS with_errors,
        CAST(sum(c.vanished) AS BIGINT) AS vanished,
        CAST(sum(c.items) AS DECIMAL(38, 0)) AS items,
        count(*) FILTER (WHERE c.finished > 0) AS clusters,
        CAST(sum(c.finished * c.finished) AS DOUBLE) AS finished_squared,
        CAST(sum(c.finished * c.failed) AS DOUBLE) AS finished_by_failed,
        CAST(sum(c.failed * c.failed) AS DOUBLE) AS failed_squared
    FROM filled_clusters AS c
    GROUP BY c.period, c.hour_us, c.company, c.split
),

-- The design effect: the variance of the rate between clusters, as a ratio (Cochran 1977, Sampling Techniques, section
-- 3.12), by that of independent jobs. It is at least 1: clusters that differ less than chance are luck.
spreads AS (
    SELECT
        c.*,
        CASE
            WHEN c.clusters < 3 THEN NULL
            WHEN c.failed = 0 OR c.failed = c.finished THEN 1e0
            ELSE
                greatest(
                    1e0,
                    c.clusters / (c.clusters - 1e0)
                    * (
                        c.failed_squared
                        - 2 * c.finished_by_failed * c.failed / c.finished
                        + c.finished_squared * c.failed / c.finished * c.failed / c.finished
                    )
                    / (CAST(c.failed AS DOUBLE) * (c.finished - c.failed) / c.finished)
                )
        END AS design_effect,
        nullif(c.clusters - 1e0, 0) AS freedom
    FROM counts AS c
),

-- t is the 97.5 % quantile of Student's distribution with clusters - 1 degrees of freedom: four terms after z of the
-- expansion of Cornish and Fisher, at most 0.8 % too small. The interval is Wilson's for a sample that is smaller by the
-- design effect (Rao and Scott 1992, Biometrics 48:577), with t in place of z.
student AS (
    SELECT
        s.*,
        s.finished / s.design_effect AS effective,
        1.959963984540054e0
        + (
            2.372271230298562e0
            + (
                2.8224986157396112e0
                + (2.555849679507722e0 + 1.5895340533938225e0 / s.freedom) / s.freedom
            ) / s.freedom
        ) / s.freedom AS t
    FROM spreads AS s
),

-- 1.959963984540054 is z, the 97.5 % quantile of the normal distribution; 1.92 is z²/2, 3.84 is z² and 0.96 is z²/4.
wilson AS (
    SELECT
        c.*,
        c.failed + 1.920729410347062e0 AS center,
        1.959963984540054e0
        * sqrt(
            CAST(c.failed AS DOUBLE) * (c.finished - c.failed) / nullif(c.finished, 0) + 0.960364705173531e0
        ) AS half_width,
        c.finished + 3.841458820694124e0 AS denominator,
        CAST(c.failed AS DOUBLE) / nullif(c.finished, 0) AS rate,
        CAST(nullif(c.items, 0) AS DOUBLE) / 1000 AS thousands
    FROM student AS c
)

SELECT
    w.period,
    w.company AS company_id,
    w.split,
    w.jobs,
    w.finished,
    w.failed,
    w.expired,
    w.with_errors,
    w.rate,
    CASE
        WHEN w.finished = 0 THEN NULL
        WHEN w.failed = 0 THEN 0e0 -- exactly 0, without a rounding error
        ELSE (w.center - w.half_width) / w.denominator
    END AS low,
    CASE
        WHEN w.finished = 0 THEN NULL
        WHEN w.failed = w.finished THEN 1e0
        ELSE (w.center + w.half_width) / w.denominator
    END AS high,
    TRY_CAST(w.items AS BIGINT) AS items,
    w.failed / w.thousands AS failures_per_1000_items,
    CASE
        WHEN w.failed = 0 THEN 0 / w.thousands
        ELSE (w.failed + 1.920729410347062e0 - 1.959963984540054e0 * sqrt(w.failed + 0.960364705173531e0)) / w.thousands
    END AS per_1000_low,
    (w.failed + 1.920729410347062e0 + 1.959963984540054e0 * sqrt(w.failed + 0.960364705173531e0)) / w.thousands
        AS per_1000_high,
    w.jobs - w.finished AS still_open,
    w.vanished,
    CASE WHEN :grain = 'hour' THEN make_timestamptz(w.hour_us) ELSE timezone(:tz, w.period) END AS starts_at,
    coalesce(
        k.is_open
        OR coalesce(w.hour_us, epoch_us(w.period)) >= k.now_ordinal
        OR coalesce(w.hour_us, epoch_us(w.period)) IN (k.since_ordinal, k.until_ordinal),
        FALSE
    ) AS is_partial,
    w.clusters,
    w.design_effect,
    CASE
        WHEN w.design_effect IS NULL THEN NULL
        WHEN w.failed = 0 THEN 0e0
        ELSE
            (
                w.rate * w.effective + w.t * w.t / 2
                - w.t * sqrt(w.rate * (1 - w.rate) * w.effective + w.t * w.t / 4)
            )
            / (w.effective + w.t * w.t)
    END AS clustered_low,
    CASE
        WHEN w.design_effect IS NULL THEN NULL
        WHEN w.failed = w.finished THEN 1e0
        ELSE
            (
                w.rate * w.effective + w.t * w.t / 2
                + w.t * sqrt(w.rate * (1 - w.rate) * w.effective + w.t * w.t / 4)
            )
            / (w.effective + w.t * w.t)
    END AS clustered_high
FROM wilson AS w
LEFT JOIN companies AS n ON w.company = n.id AND n.now IS NOT NULL
INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
ORDER BY w.period, starts_at, w.company NULLS FIRST, w.split NULLS FIRST
