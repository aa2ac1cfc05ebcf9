-- first_pass(grain VARCHAR := 'month', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE, split_by VARCHAR := NULL,
--     fill BOOLEAN := TRUE)
-- How often exports go through at the first try: one row per period and company.
--
-- An export is what the view `attempts` links: a job, and the jobs that try the same again after a failure. An export that
-- fails five times counts once here, and five times in failure_rates.
--
-- period        start of the period, in time zone tz. An export belongs to the period in which its first attempt was
--               created. null where the grain is 'all': one period holds all exports
-- company_id    the company; null if per_company is false, because the row is about all companies
-- split         the value of split_by; null without split_by
-- exports       all exports
-- finished      exports whose first attempt has the status failed, completed or completed_with_errors
-- passed        of these, exports whose first attempt was completed, with errors or without
-- rate          passed / finished, from 0 to 1; null if no first attempt has finished
-- low, high     95 % interval of the rate: Wilson's for a sample that is smaller by the design effect (Rao and Scott 1992,
--               Biometrics 48:577), with Student's t for the number of clusters; null for fewer than 3 clusters
-- still_open    exports whose first attempt is open
-- passed_later  exports whose first attempt failed and a later one was completed
-- attempts      all attempts of these exports so far, also those after until
-- vanished      of all attempts, those that the server no longer lists; they count as last seen
-- clusters      the clusters with finished first attempts: a company's exports of one day (UTC). For the grains hour and
--               day they are exports of a company with the same created_by and number_of_items
-- design_effect the variance of the rate between clusters, as a multiple of that of independent exports; at least 1, null
--               for fewer than 3 clusters. Outages make it larger
-- starts_at     the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial    true if the period was not over when the company was last read, or if since or until cuts it: its numbers
--               are not those of a whole period
--
-- With split_by, each period and company has a row for each value, as in failure_rates. An export has the value of its first
-- attempt: by the clock, it counts where it was first tried, with all its attempts.
--
-- Unless fill is false, periods without jobs have rows too, from each company's first job between since and until up to its
-- now or until: a chart would draw a line over them, or leave them out. Periods before 2000 have rows only if they have jobs.
WITH retries AS (
    SELECT
        a.company_id,
        a.id,
        a.export_id,
        a.is_vanished,
        a.status
    FROM attempts AS a
    WHERE NOT a.is_first
),

retried_exports AS (
    SELECT
        r.company_id,
        r.export_id,
        count(*) AS retries,
        count(*) FILTER (WHERE r.is_vanished) AS vanished,
        max(CASE WHEN r.status IN ('completed', 'completed_with_errors') THEN 1 ELSE 0 END) AS passed_later
    FROM retries AS r
    GROUP BY r.company_id, r.export_id
),

clusters AS (
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
        count(*) AS exports,
        count(*) FILTER (WHERE NOT j.is_censored) AS finished,
        count(*) FILTER (WHERE j.status IN ('completed', 'completed_with_errors')) AS passed,
        count(*) FILTER (WHERE j.status = 'failed' AND e.passed_later = 1) AS passed_later,
        sum(1 + coalesce(e.retries, 0)) AS attempts,
        sum(CASE WHEN j.is_vanished THEN 1 ELSE 0 END + coalesce(e.vanished, 0)) AS vanished
    FROM jobs_with_split AS j
    LEFT JOIN retries AS r ON j.company_id = r.company_id AND j.id = r.id
    LEFT JOIN retried_exports AS e ON j.company_id = e.company_id AND j.id = e.export_id
    WHERE r.id IS NULL
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

-- Rows of zeros add nothing to a period that has exports.
filled_clusters AS (
    SELECT
        c.period,
        c.hour_us,
        c.company,
        c.split,
        c.exports,
        c.finished,
        c.passed,
        c.passed_later,
        c.attempts,
        c.vanished
    FROM clusters AS c
    UNION ALL
    SELECT
        p.period,
        p.hour_us,
        p.company,
        p.split,
        0 AS exports,
        0 AS finished,
        0 AS passed,
        0 AS passed_later,
        0 AS attempts,
        0 AS vanished
    FROM later_periods AS p
),

counts AS (
    SELECT
        c.period,
        c.hour_us,
        c.company,
        c.split,
        CAST(sum(c.exports) AS BIGINT) AS exports,
        CAST(sum(c.finished) AS BIGINT) AS finished,
        CAST(sum(c.passed) AS BIGINT) AS passed,
        CAST(sum(c.passed_later) AS BIGINT) AS passed_later,
        CAST(sum(c.attempts) AS BIGINT) AS attempts,
        CAST(sum(c.vanished) AS BIGINT) AS vanished,
        count(*) FILTER (WHERE c.finished > 0) AS clusters,
        CAST(sum(c.finished * c.finished) AS DOUBLE) AS finished_squared,
        CAST(sum(c.finished * c.passed) AS DOUBLE) AS finished_by_passed,
        CAST(sum(c.passed * c.passed) AS DOUBLE) AS passed_squared
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
            WHEN c.passed = 0 OR c.passed = c.finished THEN 1e0
            ELSE
                greatest(
                    1e0,
                    c.clusters / (c.clusters - 1e0)
                    * (
                        c.passed_squared
                        - 2 * c.finished_by_passed * c.passed / c.finished
                        + c.finished_squared * c.passed / c.finished * c.passed / c.finished
                    )
                    / (CAST(c.passed AS DOUBLE) * (c.finished - c.passed) / c.finished)
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
        CAST(s.passed AS DOUBLE) / nullif(s.finished, 0) AS rate,
        1.959963984540054e0
        + (
            2.372271230298562e0
            + (
                2.8224986157396112e0
                + (2.555849679507722e0 + 1.5895340533938225e0 / s.freedom) / s.freedom
            ) / s.freedom
        ) / s.freedom AS t
    FROM spreads AS s
)

SELECT
    w.period,
    w.company AS company_id,
    w.split,
    w.exports,
    w.finished,
    w.passed,
    w.rate,
    CASE
        WHEN w.design_effect IS NULL THEN NULL
        WHEN w.passed = 0 THEN 0e0
        ELSE
            (
                w.rate * w.effective + w.t * w.t / 2
                - w.t * sqrt(w.rate * (1 - w.rate) * w.effective + w.t * w.t / 4)
            )
            / (w.effective + w.t * w.t)
    END AS low,
    CASE
        WHEN w.design_effect IS NULL THEN NULL
        WHEN w.passed = w.finished THEN 1e0
        ELSE
            (
                w.rate * w.effective + w.t * w.t / 2
                + w.t * sqrt(w.rate * (1 - w.rate) * w.effective + w.t * w.t / 4)
            )
            / (w.effective + w.t * w.t)
    END AS high,
    w.exports - w.finished AS still_open,
    w.passed_later,
    w.attempts,
    w.vanished,
    w.clusters,
    w.design_effect,
    CASE WHEN :grain = 'hour' THEN make_timestamptz(w.hour_us) ELSE timezone(:tz, w.period) END AS starts_at,
    coalesce(
        k.is_open
        OR coalesce(w.hour_us, epoch_us(w.period)) >= k.now_ordinal
        OR coalesce(w.hour_us, epoch_us(w.period)) IN (k.since_ordinal, k.until_ordinal),
        FALSE
    ) AS is_partial
FROM student AS w
LEFT JOIN companies AS n ON w.company = n.id AND n.now IS NOT NULL
INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
ORDER BY w.period, starts_at, w.company NULLS FIRST, w.split NULLS FIRST
