-- compare(since_a TIMESTAMPTZ := NULL, until_a TIMESTAMPTZ := NULL, since_b TIMESTAMPTZ := NULL,
--     until_b TIMESTAMPTZ := NULL, company_id VARCHAR := NULL, per_company BOOLEAN := TRUE, grain VARCHAR := 'month',
--     tz VARCHAR := 'UTC')
-- What changed between two time ranges, a and b: four rows per company, each with a confidence interval. The clearest change of
-- a figure comes first.
--
-- Without bounds, b is the last whole period of the grain that was over when the data was read, on the clocks of tz,
-- and a is the one before. A grain may stand in the place of since_a: compare('quarter') is short for compare(grain := 'quarter'), except in Spark.
--
-- With bounds, the grain does not count: a job belongs to a range if its created_at is at or after since and before
-- until. Null means no bound: compare(until_a := '2026-09-01', since_b := '2026-09-01') compares the time before an
-- instant with the time since then. Bounds of one range alone are an error, because the other would be all time.
--
-- company_id  the company; null if per_company is false, because the row is about all companies
-- figure      failure_rate (failed / finished), median_queue_seconds, median_run_seconds or median_total_seconds
-- n_a, n_b    sample sizes: finished jobs for the rate, jobs with a known duration for a median
-- value_a, value_b  the figure in a and in b; null if n is 0
-- change      value_b - value_a
-- low, high   95 % confidence interval of the change. Rates: Newcombe's hybrid score interval (1998, Statistics
--             in Medicine 17:873, method 10) of the clustered intervals of failure_rates, which do not take the jobs of one
--             day as independent; where a range has jobs of fewer than three days, of Wilson's. Medians: the intervals of
--             the two medians, from order statistics (at least 95 % for independent jobs of any distribution), combined the
--             same way (Zou and Donner 2008, 27:1693); null if an n is below 6
-- differs     true if the interval excludes 0. If nothing has changed, about one comparison in twenty differs by chance
-- q           how much of it is chance, given how many companies are compared: of the companies whose q for a figure is at
--             most 0.05, 5 % are expected to be there by chance (Benjamini and Hochberg 1995, J. R. Statist. Soc. B
--             57:289). With a single company, differs is true if q is below 0.05; null where there is no interval
-- still_open_a, still_open_b  open jobs: they count neither as failed nor as successful, and are not in the medians
-- a_begins, a_ends, b_begins, b_ends  the two ranges, each with its end left out; null for no bound
-- vanished_a, vanished_b  of all jobs in the range, those that the server no longer lists; they count as last seen
-- The jobs of a company and day (UTC) are a cluster, as in failure_rates with a grain above a day.
WITH clusters AS (
    SELECT
        j.company,
        j.time_range,
        count(*) FILTER (WHERE NOT j.is_censored) AS finished,
        count(*) FILTER (WHERE j.status = 'failed') AS failed,
        count(*) FILTER (WHERE j.is_censored) AS still_open,
        count(*) FILTER (WHERE j.is_vanished) AS vanished
    FROM jobs_by_range AS j
    GROUP BY j.company, j.time_range, j.cluster_company, j.day_no
),

counts AS (
    SELECT
        c.company,
        c.time_range,
        CAST(sum(c.finished) AS DOUBLE) AS n,
        CAST(sum(c.failed) AS DOUBLE) AS k,
        CAST(sum(c.still_open) AS BIGINT) AS still_open,
        CAST(sum(c.vanished) AS BIGINT) AS vanished,
        CAST(count(*) FILTER (WHERE c.finished > 0) AS DOUBLE) AS clusters,
        CAST(sum(c.finished * c.finished) AS DOUBLE) AS finished_squared,
        CAST(sum(c.finished * c.failed) AS DOUBLE) AS finished_by_failed,
        CAST(sum(c.failed * c.failed) AS DOUBLE) AS failed_squared
    FROM clusters AS c
    GROUP BY c.company, c.time_range
),

-- The design effect, and t, Student's quantile, are those of failure_rates. Fewer than three clusters say nothing about it:
-- then it is 1, and z takes the place of t.
effects AS (
    SELECT
        c.*,
        CASE
            WHEN c.clusters < 3 OR c.k = 0 OR c.k = c.n THEN 1e0
            ELSE
                greatest(
                    1e0,
                    c.clusters / (c.clusters - 1)
                    * (c.failed_squared - 2 * c.finished_by_failed * c.k / c.n + c.finished_squared * c.k / c.n * c.k / c.n)
                    / (c.k * (c.n - c.k) / c.n)
                )
        END AS design_effect,
        CASE WHEN c.clusters >= 3 THEN 1 / (c.clusters - 1) ELSE 0e0 END AS inverse_freedom
    FROM counts AS c
),

students AS (
    SELECT
        e.*,
        e.n / e.design_effect AS effective,
        1.959963984540054e0
        + (
            2.372271230298562e0
            + (2.8224986157396112e0 + (2.555849679507722e0 + 1.5895340533938225e0 * e.inverse_freedom) * e.inverse_freedom) * e.inverse_freedom
        ) * e.inverse_freedom AS t
    FROM effects AS e
),

-- Only the bins that hold a wanted duration are sorted. Of ten million jobs, sorting all durations takes three times the
-- processor time and four gigabytes.
bins AS (
    SELECT
        d.company,
        d.time_range,
        d.figure_no,
        d.bin,
        count(*) AS in_bin
    FROM durations_by_range AS d
    GROUP BY d.company, d.time_range, d.figure_no, d.bin
),

numbered_bins AS (
    SELECT
        b.*,
        sum(b.in_bin) OVER (
            PARTITION BY b.company, b.time_range, b.figure_no
            ORDER BY b.bin
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS last_nth,
        sum(b.in_bin) OVER (PARTITION BY b.company, b.time_range, b.figure_no) AS n
    FROM bins AS b
),

-- The interval of a median reaches from the low_nth of the sorted durations to the low_nth from the end.
wanted_ranks AS (
    SELECT
        b.*,
        b.last_nth - b.in_bin AS before_bin,
        floor((b.n + 1 - 1.959963984540054e0 * sqrt(b.n)) / 2) AS low_nth,
        floor((b.n + 1) / 2e0) AS middle_nth
    FROM numbered_bins AS b
),

wanted_bins AS (
    SELECT w.*
    FROM wanted_ranks AS w
    WHERE
        w.low_nth BETWEEN w.before_bin + 1 AND w.last_nth
        OR w.middle_nth BETWEEN w.before_bin + 1 AND w.last_nth
        OR w.n + 1 - w.middle_nth BETWEEN w.before_bin + 1 AND w.last_nth
        OR w.n + 1 - w.low_nth BETWEEN w.before_bin + 1 AND w.last_nth
),

duration_counts AS (
    SELECT
        d.company,
        d.time_range,
        d.figure_no,
        d.seconds,
        count(*) AS jobs,
        max(w.before_bin) AS before_bin,
        max(w.n) AS n,
        max(w.low_nth) AS low_nth,
        max(w.middle_nth) AS middle_nth
    FROM durations_by_range AS d
    INNER JOIN wanted_bins AS w
        ON d.company = w.company AND d.time_range = w.time_range AND d.figure_no = w.figure_no AND d.bin = w.bin
    GROUP BY d.company, d.time_range, d.figure_no, d.bin, d.seconds
),

ranked_durations AS (
    SELECT
        c.*,
        c.before_bin + sum(c.jobs) OVER (
            PARTITION BY c.company, c.time_range, c.figure_no, c.before_bin
            ORDER BY c.seconds
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS last_nth
    FROM duration_counts AS c
),

-- The rate with Wilson's interval for a sample that is smaller by the design effect, and the medians.
estimates AS (
    SELECT
        s.company,
        s.time_range,
        1 AS figure_no,
        s.n,
        s.k / nullif(s.n, 0) AS estimate,
        (s.k / s.design_effect + s.t * s.t / 2
            - s.t * sqrt(s.k * (s.n - s.k) / nullif(s.n, 0) / s.design_effect + s.t * s.t / 4))
        / (s.effective + s.t * s.t) AS low,
        (s.k / s.design_effect + s.t * s.t / 2
            + s.t * sqrt(s.k * (s.n - s.k) / nullif(s.n, 0) / s.design_effect + s.t * s.t / 4))
        / (s.effective + s.t * s.t) AS high
    FROM students AS s
    UNION ALL
    SELECT
        d.company,
        d.time_range,
        d.figure_no,
        CAST(max(d.n) AS DOUBLE) AS n,
        (
            max(CASE WHEN d.last_nth >= d.middle_nth AND d.last_nth - d.jobs < d.middle_nth THEN d.seconds END)
            + max(CASE WHEN d.last_nth > d.n - d.middle_nth AND d.last_nth - d.jobs <= d.n - d.middle_nth THEN d.seconds END)
        ) / 2 AS estimate,
        max(CASE WHEN d.last_nth >= d.low_nth AND d.last_nth - d.jobs < d.low_nth THEN d.seconds END) AS low,
        max(CASE WHEN d.last_nth > d.n - d.low_nth AND d.last_nth - d.jobs <= d.n - d.low_nth THEN d.seconds END) AS high
    FROM ranked_durations AS d
    GROUP BY d.company, d.time_range, d.figure_no
),

figure_rows AS (
    SELECT
        c.company,
        p.figure_no,
        max(CASE WHEN c.time_range = 'a' THEN c.still_open ELSE 0 END) AS still_open_a,
        max(CASE WHEN c.time_range = 'b' THEN c.still_open ELSE 0 END) AS still_open_b,
        max(CASE WHEN c.time_range = 'a' THEN c.vanished ELSE 0 END) AS vanished_a,
        max(CASE WHEN c.time_range = 'b' THEN c.vanished ELSE 0 END) AS vanished_b
    FROM counts AS c
    CROSS JOIN (VALUES (1), (2), (3), (4)) AS p (figure_no)
    GROUP BY c.company, p.figure_no
),

estimates_of_ranges AS (
    SELECT
        e.company,
        e.figure_no,
        max(CASE WHEN e.time_range = 'a' THEN e.n END) AS n_a,
        max(CASE WHEN e.time_range = 'a' THEN e.estimate END) AS value_a,
        max(CASE WHEN e.time_range = 'a' THEN e.low END) AS low_a,
        max(CASE WHEN e.time_range = 'a' THEN e.high END) AS high_a,
        max(CASE WHEN e.time_range = 'b' THEN e.n END) AS n_b,
        max(CASE WHEN e.time_range = 'b' THEN e.estimate END) AS value_b,
        max(CASE WHEN e.time_range = 'b' THEN e.low END) AS low_b,
        max(CASE WHEN e.time_range = 'b' THEN e.high END) AS high_b
    FROM estimates AS e
    GROUP BY e.company, e.figure_no
),

comparisons AS (
    SELECT
        f.*,
        coalesce(e.n_a, 0) AS n_a,
        coalesce(e.n_b, 0) AS n_b,
        e.value_a,
        e.value_b,
        e.value_b - e.value_a AS change,
        sqrt((e.value_b - e.low_b) * (e.value_b - e.low_b) + (e.high_a - e.value_a) * (e.high_a - e.value_a))
            AS margin_below,
        sqrt((e.high_b - e.value_b) * (e.high_b - e.value_b) + (e.value_a - e.low_a) * (e.value_a - e.low_a))
            AS margin_above
    FROM figure_rows AS f
    LEFT JOIN estimates_of_ranges AS e ON f.company = e.company AND f.figure_no = e.figure_no
),

-- The change as a multiple of its standard deviation, from the side of the interval that faces 0 (Altman and Bland 2011, BMJ
-- 343:d2304): it is above 1.96 where the interval excludes 0. 38 stands for infinity: its chance is less than 1e-300.
evidence AS (
    SELECT
        c.*,
        CASE
            WHEN c.change - c.margin_below + c.margin_above IS NULL THEN NULL
            WHEN c.change = 0 THEN 0e0
            WHEN c.change > 0
                THEN least(38e0, coalesce(1.959963984540054e0 * c.change / nullif(c.margin_below, 0), 38e0))
            ELSE least(38e0, coalesce(-1.959963984540054e0 * c.change / nullif(c.margin_above, 0), 38e0))
        END AS z
    FROM comparisons AS c
),

scaled_evidence AS (
    SELECT
        e.*,
        1 / (1 + e.z * 0.35355339059327376e0) AS t
    FROM evidence AS e
),

-- erfc(z / √2) by the fit of Press et al., as in incidents: the chance of a change at least this large in either direction.
chances AS (
    SELECT
        s.*,
        s.t * exp(
            -s.z * s.z / 2 - 1.26551223e0
            + s.t * (1.00002368e0 + s.t * (0.37409196e0 + s.t * (0.09678418e0 + s.t * (-0.18628806e0 + s.t * (
                0.27886807e0 + s.t * (-1.13520398e0 + s.t * (1.48851587e0 + s.t * (-0.82215223e0 + s.t * 0.17087277e0)))
            )))))
        ) AS p
    FROM scaled_evidence AS s
),

ranked_chances AS (
    SELECT
        c.*,
        row_number() OVER (PARTITION BY c.figure_no ORDER BY c.p NULLS LAST, c.company) AS rank_no,
        count(c.p) OVER (PARTITION BY c.figure_no) AS compared
    FROM chances AS c
),

discoveries AS (
    SELECT
        r.*,
        CASE
            WHEN r.p IS NOT NULL
                THEN
                    least(
                        1e0,
                        min(r.p * r.compared / r.rank_no) OVER (
                            PARTITION BY r.figure_no
                            ORDER BY r.rank_no DESC
                            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                        )
                    )
        END AS q
    FROM ranked_chances AS r
)

SELECT
    nullif(c.company, '') AS company_id,
    CASE c.figure_no
        WHEN 1 THEN 'failure_rate'
        WHEN 2 THEN 'median_queue_seconds'
        WHEN 3 THEN 'median_run_seconds'
        ELSE 'median_total_seconds'
    END AS figure,
    CAST(c.n_a AS BIGINT) AS n_a,
    CAST(c.n_b AS BIGINT) AS n_b,
    c.value_a,
    c.value_b,
    c.change,
    c.change - c.margin_below AS low,
    c.change + c.margin_above AS high,
    c.change - c.margin_below > 0 OR c.change + c.margin_above < 0 AS differs,
    c.q,
    c.still_open_a,
    c.still_open_b,
    c.vanished_a,
    c.vanished_b,
    r.a_begins,
    r.a_ends,
    r.b_begins,
    r.b_ends
FROM discoveries AS c
CROSS JOIN compared_ranges AS r
ORDER BY c.figure_no, c.p NULLS LAST, c.company
