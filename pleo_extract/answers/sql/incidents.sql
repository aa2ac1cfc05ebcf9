-- incidents(grain VARCHAR := 'day', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE, at_least BIGINT := 10,
--     every_period BOOLEAN := FALSE)
-- Periods in which more exports failed than a company's own past explains: one row per period and company, the clearest of a
-- period first.
--
-- This is a p-chart, a control chart of proportions. It compares the failure rate of each period with the rate of the
-- 60 periods before it, the baseline. Periods with fewer than at_least finished jobs are skipped, and a baseline needs
-- at least 8 periods. A period is an incident if its rate is more than 3.2 standard deviations above the baseline;
-- the uncertainty of the baseline itself is included. If jobs fail independently of each other, chance alone makes
-- an incident or a shift (see shifts) of at most one period in 740. docs/answers.md says how often it does.
--
-- Real failures often come in clusters, so that rates differ more between periods than independent failures would.
-- The spread of the past periods widens the limit accordingly (Laney 2002, Quality Engineering 14:531). A quiet past
-- gives no hint of a first cluster. Unusually low rates are not reported.
--
-- Incidents must not become part of the baseline, so there are two passes. The first pass compares each period with
-- all periods before it. If a period is above its limit, it is excluded from the baseline, and so is each of the
-- following 29 periods that is above the same limit. The second pass uses the remaining periods and gives the answer.
-- An incident that lasts more than 30 periods therefore becomes the new normal.
--
-- period        start of the period, in time zone tz. A job belongs to the period of its created_at
-- company_id    the company; null if per_company is false, because the row is about all companies
-- finished      jobs with status failed, completed or completed_with_errors
-- failed        of these, jobs with status failed, expired ones included
-- rate          failed / finished
-- usual_rate    failed / finished in the baseline
-- limit_rate    the upper control limit: an incident has a rate above it
-- sigmas        by how many standard deviations rate is above usual_rate, on Anscombe's arcsine scale (Biometrika
--               1948, 35:246); reduced for short baselines, as Student's t requires
-- q             how much of it is chance, given how many companies are judged in this period: of those whose q is at most 0.05,
--               5 % are expected to be there by chance (Benjamini and Hochberg 1995, J. R. Statist. Soc. B 57:289). With
--               a single company, the chance of as many sigmas
-- is_incident   true if sigmas is above 3.2. Rows without an incident appear only with every_period, for a chart
-- reasons       the three reasons with the largest increase: reason (jobs, usually expected number)
-- past          periods in the baseline
-- still_open    open jobs of the period, which can still fail
-- vanished      of the finished jobs, those that the server no longer lists; they count as last seen
-- starts_at     the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial    true if the period was not over when the company was last read, or if since or until cuts it. It is
--               judged by the jobs so far, and can still become an incident or stop being one
--
-- since and until also limit the baseline, so choose a range that begins well before the periods of interest.
WITH counts_by_reason AS (
    SELECT
        j.period,
        j.hour_us,
        coalesce(j.hour_us, epoch_us(j.period)) AS ordinal,
        CASE WHEN :per_company THEN j.company_id ELSE '' END AS company,
        CASE
            WHEN j.outcome = 'expired' THEN 'job_expired'
            WHEN j.outcome = 'failed' THEN coalesce(j.failure_reason_type, 'not_given')
        END AS reason,
        count(*) FILTER (WHERE NOT j.is_censored) AS finished,
        count(*) FILTER (WHERE j.is_censored) AS still_open,
        count(*) FILTER (WHERE j.is_vanished AND NOT j.is_censored) AS vanished
    FROM jobs_with_period AS j
    GROUP BY period, hour_us, company, reason
),

counts_by_period AS (
    SELECT
        c.period,
        c.hour_us,
        c.ordinal,
        c.company,
        CAST(sum(c.finished) AS DOUBLE) AS n,
        CAST(sum(CASE WHEN c.reason IS NULL THEN 0 ELSE c.finished END) AS DOUBLE) AS k,
        CAST(sum(c.still_open) AS BIGINT) AS still_open,
        CAST(sum(c.vanished) AS BIGINT) AS vanished
    FROM counts_by_reason AS c
    GROUP BY c.period, c.hour_us, c.ordinal, c.company
),

points AS (
    SELECT
        c.*,
        asin(sqrt((c.k + 0.375e0) / (c.n + 0.75e0))) AS angle,
        row_number() OVER (PARTITION BY c.company ORDER BY c.ordinal) AS row_no
    FROM counts_by_period AS c
    WHERE c.n >= :at_least
),

-- First pass: the baseline is all periods before.
first_pass_baselines AS (
    SELECT
        p.*,
        count(*) OVER before AS past,
        sum(p.n) OVER before AS past_n,
        sum(p.k) OVER before AS past_k
    FROM points AS p
    WINDOW before AS (
        PARTITION BY p.company
        ORDER BY p.ordinal
        ROWS BETWEEN 60 PRECEDING AND 1 PRECEDING
    )
),

first_pass_scores AS (
    SELECT
        f.*,
        asin(sqrt((f.past_k + 0.375e0) / (f.past_n + 0.75e0))) AS usual_angle,
        (f.angle - asin(sqrt((f.past_k + 0.375e0) / (f.past_n + 0.75e0))))
        / sqrt(1 / (4 * f.n + 2) + 1 / (4 * f.past_n + 2)) AS score
    FROM first_pass_baselines AS f
),

first_pass_ranges AS (
    SELECT
        f.*,
        abs(f.score - lag(f.score) OVER (PARTITION BY f.company ORDER BY f.ordinal)) AS moving_range
    FROM first_pass_scores AS f
),

first_pass_spreads AS (
    SELECT
        f.*,
        avg(f.moving_range) OVER before AS mean_range,
        CAST(greatest(1, count(f.moving_range) OVER before) AS DOUBLE) AS range_count
    FROM first_pass_ranges AS f
    WINDOW before AS (
        PARTITION BY f.company
        ORDER BY f.ordinal
        ROWS BETWEEN 60 PRECEDING AND 1 PRECEDING
    )
),

-- 1.1283791670955126 is 2/√π, the mean moving range of a standard normal distribution. The factor 1 + 2.81/m + 7.2/m²
-- widens 3.2 standard deviations of the normal distribution to those of Student's t with m moving ranges: the first
-- terms of the expansion of Cornish and Fisher. The result is at least 1: a past that varies less than independent
-- failures would is luck.
first_pass_sigmas AS (
    SELECT
        f.*,
        greatest(
            1e0,
            coalesce(f.mean_range, 1e0) / 1.1283791670955126e0
            * (1 + 2.81e0 / f.range_count + 7.2e0 / (f.range_count * f.range_count))
        ) AS sigma
    FROM first_pass_spreads AS f
),

-- 3.2 standard deviations, not the 3 of a textbook: incidents and shifts share one promise, one alarm by chance in 740
-- judged periods. At 3, incidents spends a third of it on single days; at 3.2, an eighth. What is left lets shifts have
-- a lower limit: of rates that double from 4 % at 40 exports a day, 90 % instead of 88 % are noticed within 14 days.
-- `python tests/benchmarks/alarms.py shifts` measures both, and docs/answers.md states the figures.
first_pass_signals AS (
    SELECT
        f.company,
        f.row_no,
        f.past_n,
        f.usual_angle,
        3.2e0 * f.sigma AS score_limit
    FROM first_pass_sigmas AS f
    WHERE f.past >= 8 AND f.score > 3.2e0 * f.sigma
),

excluded_periods AS (
    SELECT DISTINCT p.company, p.ordinal
    FROM points AS p
    INNER JOIN first_pass_signals AS f ON p.company = f.company AND p.row_no >= f.row_no AND p.row_no < f.row_no + 30
    WHERE (p.angle - f.usual_angle) / sqrt(1 / (4 * p.n + 2) + 1 / (4 * f.past_n + 2)) > f.score_limit
),

-- Second pass: the baseline is the periods before that are not excluded.
flagged_points AS (
    SELECT p.*, e.ordinal IS NOT NULL AS is_excluded
    FROM points AS p
    LEFT JOIN excluded_periods AS e ON p.company = e.company AND p.ordinal = e.ordinal
),

baselines AS (
    SELECT
        f.*,
        sum(CASE WHEN f.is_excluded THEN 0 ELSE 1 END) OVER before AS past,
        first_value(f.ordinal) OVER before AS first_ordinal,
        sum(CASE WHEN f.is_excluded THEN 0e0 ELSE f.n END) OVER before AS past_n,
        sum(CASE WHEN f.is_excluded THEN 0e0 ELSE f.k END) OVER before AS past_k
    FROM flagged_points AS f
    WINDOW before AS (
        PARTITION BY f.company
        ORDER BY f.ordinal
        ROWS BETWEEN 60 PRECEDING AND 1 PRECEDING
    )
),

scores AS (
    SELECT
        b.*,
        asin(sqrt((b.past_k + 0.375e0) / (b.past_n + 0.75e0))) AS usual_angle,
        sqrt(1 / (4 * b.n + 2) + 1 / (4 * b.past_n + 2)) AS deviation,
        (b.angle - asin(sqrt((b.past_k + 0.375e0) / (b.past_n + 0.75e0))))
        / sqrt(1 / (4 * b.n + 2) + 1 / (4 * b.past_n + 2)) AS score
    FROM baselines AS b
),

moving_ranges AS (
    SELECT
        s.*,
        CASE
            WHEN NOT s.is_excluded
                THEN abs(s.score - lag(s.score) OVER (PARTITION BY s.company, s.is_excluded ORDER BY s.ordinal))
        END AS moving_range
    FROM scores AS s
),

spreads AS (
    SELECT
        m.*,
        avg(m.moving_range) OVER before AS mean_range,
        CAST(greatest(1, count(m.moving_range) OVER before) AS DOUBLE) AS range_count
    FROM moving_ranges AS m
    WINDOW before AS (
        PARTITION BY m.company
        ORDER BY m.ordinal
        ROWS BETWEEN 60 PRECEDING AND 1 PRECEDING
    )
),

second_pass_sigmas AS (
    SELECT
        s.*,
        greatest(
            1e0,
            coalesce(s.mean_range, 1e0) / 1.1283791670955126e0
            * (1 + 2.81e0 / s.range_count + 7.2e0 / (s.range_count * s.range_count))
        ) AS sigma
    FROM spreads AS s
),

chart AS (
    SELECT
        s.*,
        s.score / s.sigma AS sigmas,
        least(1.5707963267948966e0, s.usual_angle + 3.2e0 * s.deviation * s.sigma) AS limit_angle
    FROM second_pass_sigmas AS s
    WHERE s.past >= 8
),

-- The chance of as many standard deviations or more: half of erfc(z / √2), by the fit of Press et al. (Numerical Recipes in
-- C, section 6.2), with a relative error of at most 1.2e-7.
scaled_sigmas AS (
    SELECT
        c.*,
        abs(c.sigmas) AS z,
        1 / (1 + abs(c.sigmas) * 0.35355339059327376e0) AS t
    FROM chart AS c
),

chances AS (
    SELECT
        s.*,
        s.t / 2 * exp(
            -s.z * s.z / 2 - 1.26551223e0
            + s.t * (1.00002368e0 + s.t * (0.37409196e0 + s.t * (0.09678418e0 + s.t * (-0.18628806e0 + s.t * (
                0.27886807e0 + s.t * (-1.13520398e0 + s.t * (1.48851587e0 + s.t * (-0.82215223e0 + s.t * 0.17087277e0)))
            )))))
        ) AS tail
    FROM scaled_sigmas AS s
),

ranked_periods AS (
    SELECT
        c.*,
        CASE WHEN c.sigmas < 0 THEN 1 - c.tail ELSE c.tail END AS p,
        row_number() OVER (PARTITION BY c.ordinal ORDER BY c.sigmas DESC, c.company) AS rank_no,
        count(*) OVER (PARTITION BY c.ordinal) AS judged
    FROM chances AS c
),

discoveries AS (
    SELECT
        r.*,
        least(
            1e0,
            min(r.p * r.judged / r.rank_no) OVER (
                PARTITION BY r.ordinal
                ORDER BY r.rank_no DESC
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            )
        ) AS q
    FROM ranked_periods AS r
),

reason_counts AS (
    SELECT
        c.company,
        c.ordinal,
        r.reason,
        sum(CASE WHEN r.ordinal = c.ordinal THEN r.finished ELSE 0 END) AS jobs,
        sum(CASE WHEN r.ordinal < c.ordinal THEN r.finished ELSE 0 END) * c.n / c.past_n AS usual
    FROM chart AS c
    INNER JOIN counts_by_reason AS r
        ON c.company = r.company AND r.ordinal >= c.first_ordinal AND r.ordinal <= c.ordinal AND r.reason IS NOT NULL
    INNER JOIN flagged_points AS f ON r.company = f.company AND r.ordinal = f.ordinal
    WHERE c.sigmas > 3.2e0 AND (r.ordinal = c.ordinal OR NOT f.is_excluded)
    GROUP BY c.company, c.ordinal, r.reason, c.n, c.past_n
),

ranked_reasons AS (
    SELECT
        r.company,
        r.ordinal,
        concat(r.reason, ' (', r.jobs, ', usually ', round(r.usual, 1), ')') AS text,
        row_number() OVER (PARTITION BY r.company, r.ordinal ORDER BY r.jobs - r.usual DESC, r.reason) AS row_no
    FROM reason_counts AS r
    WHERE r.jobs > r.usual
),

reason_texts AS (
    SELECT
        r.company,
        r.ordinal,
        concat_ws(
            ', ',
            max(CASE WHEN r.row_no = 1 THEN r.text END),
            max(CASE WHEN r.row_no = 2 THEN r.text END),
            max(CASE WHEN r.row_no = 3 THEN r.text END)
        ) AS reasons
    FROM ranked_reasons AS r
    GROUP BY r.company, r.ordinal
)

SELECT
    c.period,
    nullif(c.company, '') AS company_id,
    CAST(c.n AS BIGINT) AS finished,
    CAST(c.k AS BIGINT) AS failed,
    c.k / c.n AS rate,
    c.past_k / c.past_n AS usual_rate,
    least(1e0, ((c.n + 0.75e0) * sin(c.limit_angle) * sin(c.limit_angle) - 0.375e0) / c.n) AS limit_rate,
    c.sigmas,
    c.q,
    c.sigmas > 3.2e0 AS is_incident,
    r.reasons,
    CAST(c.past AS BIGINT) AS past,
    c.still_open,
    c.vanished,
    CASE WHEN :grain = 'hour' THEN make_timestamptz(c.hour_us) ELSE timezone(:tz, c.period) END AS starts_at,
    coalesce(
        k.is_open
        OR coalesce(c.hour_us, epoch_us(c.period)) >= k.now_ordinal
        OR coalesce(c.hour_us, epoch_us(c.period)) IN (k.since_ordinal, k.until_ordinal),
        FALSE
    ) AS is_partial
FROM discoveries AS c
LEFT JOIN companies AS n ON c.company = n.id AND n.now IS NOT NULL
INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
LEFT JOIN reason_texts AS r ON c.company = r.company AND c.ordinal = r.ordinal
WHERE :every_period OR c.sigmas > 3.2e0
ORDER BY c.period, starts_at, c.sigmas DESC, c.company
