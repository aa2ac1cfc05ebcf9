-- shifts(grain VARCHAR := 'day', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE,
--     every_period BOOLEAN := FALSE)
-- Failure rates that have crept up for good: one row per period and company in which the evidence for it is enough.
--
-- incidents compares one period at a time with its past, so it finds what is sudden. A rate that goes from 4 % to 8 % is
-- never that sudden. This is a CUSUM chart (Page 1954, Biometrika 41:100): it adds up, period by period, the evidence that
-- the failure rate is 1.8 times the usual one, and starts again from 0 whenever the evidence is against it. Larger and
-- somewhat smaller changes add up too.
--
-- It counts exports by their first attempt (see `attempts`), so that one export that fails five times is one failure. The
-- usual rate is that of the 180 periods that end 30 periods before, so that a shift does not become usual before it is
-- found; at least 8 periods are needed. It is taken 0.4 of its standard error higher, because a past that was lucky
-- would make every future look worse. If the past periods differ by more than chance, the evidence is reduced by that
-- factor. No period adds as much as half of the limit, so that an incident of one or two periods is no shift.
--
-- period        start of the period, in time zone tz. An export belongs to the period of its first attempt's created_at
-- company_id    the company; null if per_company is false, because the row is about all companies
-- finished      exports whose first attempt has the status failed, completed or completed_with_errors
-- failed        of these, exports whose first attempt failed
-- usual_rate    the usual rate
-- evidence      the sum of the logarithms of the likelihood ratio of 1.8 times the usual rate to the usual rate; where it
--               is negative, the next period starts again from 0
-- is_shift      true if evidence is above 4.4, and the last 14 periods add to it: a shift that has ended is none. Other rows
--               appear only with every_period, for a chart
-- began         the period in which the evidence began to grow: the likeliest begin of the shift
-- rate_since    failed / finished since then
-- past          periods from which the usual rate is known
-- vanished      of the finished first attempts, those that the server no longer lists; they count as last seen
-- starts_at     the instant at which the period begins: when clocks are set back, two hours have the same period
-- is_partial    true if the period was not over when the company was last read, or if since or until cuts it
--
-- since and until also limit the past, so choose a range that begins well before the periods of interest. After 30 to 210
-- periods a shift becomes the usual rate. docs/answers.md says how often chance alone makes a shift, and how soon real
-- ones are found.
WITH retries AS (
    SELECT a.company_id, a.id
    FROM attempts AS a
    WHERE NOT a.is_first
),

points AS (
    SELECT
        j.period,
        j.hour_us,
        coalesce(j.hour_us, epoch_us(j.period)) AS ordinal,
        CASE WHEN :per_company THEN j.company_id ELSE '' END AS company,
        CAST(count(*) AS DOUBLE) AS n,
        CAST(count(*) FILTER (WHERE j.status = 'failed') AS DOUBLE) AS k,
        count(*) FILTER (WHERE j.is_vanished) AS vanished
    FROM jobs_with_period AS j
    LEFT JOIN retries AS a ON j.company_id = a.company_id AND j.id = a.id
    WHERE a.id IS NULL AND NOT j.is_censored
    GROUP BY period, hour_us, company
),

baselines AS (
    SELECT
        p.*,
        count(*) OVER before AS past,
        sum(p.n) OVER before AS past_n,
        sum(p.k) OVER before AS past_k,
        sum(p.k * p.k / p.n) OVER before AS past_squares
    FROM points AS p
    WINDOW before AS (
        PARTITION BY p.company
        ORDER BY p.ordinal
        ROWS BETWEEN 210 PRECEDING AND 31 PRECEDING
    )
),

past_rates AS (
    SELECT
        b.*,
        (b.past_k + 0.5e0) / (b.past_n + 1) AS past_rate
    FROM baselines AS b
    WHERE b.past >= 8
),

-- How much more the past periods differ than independent failures would: Pearson's chi-squared by its degrees of freedom.
pearson_ratios AS (
    SELECT
        r.*,
        (r.past_squares - r.past_k * r.past_k / r.past_n) / (r.past_rate * (1 - r.past_rate)) / (r.past - 1) AS pearson
    FROM past_rates AS r
),

-- Independent failures give a ratio of 1 with a standard deviation of about √(2 / past). What is within 1.6 of them
-- is taken as chance: to reduce the evidence by it would only delay what is found.
dispersions AS (
    SELECT
        p.*,
        CASE WHEN p.pearson > 1 + 1.6e0 * sqrt(2e0 / p.past) THEN p.pearson ELSE 1e0 END AS dispersion
    FROM pearson_ratios AS p
),

usual_rates AS (
    SELECT
        d.*,
        least(
            0.45e0,
            d.past_rate + 0.4e0 * sqrt(d.past_rate * (1 - d.past_rate) * d.dispersion / d.past_n)
        ) AS usual_rate
    FROM dispersions AS d
),

-- 0.5877866649021191 is ln 1.8. The figures of this chart, 1.8, 0.4, 1.6 and the limit 4.4, were chosen in simulated
-- companies: with them, 90 % of rates that double from 4 % at 40 exports a day are noticed within 14 days, and chance
-- makes a shift or an incident on at most one day in 740. `python tests/benchmarks/alarms.py shifts` measures both in
-- other companies.
scores AS (
    SELECT
        u.*,
        least(
            2.15e0,
            (
                u.k * 0.5877866649021191e0
                + (u.n - u.k) * ln((1 - 1.8e0 * u.usual_rate) / (1 - u.usual_rate))
            ) / u.dispersion
        ) AS score
    FROM usual_rates AS u
),

sums AS (
    SELECT
        s.*,
        sum(s.score) OVER so_far AS score_sum,
        sum(s.score) OVER lately AS recent
    FROM scores AS s
    WINDOW so_far AS (
        PARTITION BY s.company
        ORDER BY s.ordinal
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ),
    lately AS (
        PARTITION BY s.company
        ORDER BY s.ordinal
        ROWS BETWEEN 13 PRECEDING AND CURRENT ROW
    )
),

chart AS (
    SELECT
        s.*,
        s.score_sum - least(
            0e0,
            coalesce(
                min(s.score_sum) OVER (
                    PARTITION BY s.company
                    ORDER BY s.ordinal
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ),
                0e0
            )
        ) AS evidence
    FROM sums AS s
),

-- A run begins where the evidence begins to grow.
runs AS (
    SELECT
        c.*,
        sum(CASE WHEN c.evidence <= 0 THEN 1 ELSE 0 END) OVER (
            PARTITION BY c.company
            ORDER BY c.ordinal
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS run_no
    FROM chart AS c
),

shifts_so_far AS (
    SELECT
        r.*,
        min(r.period) OVER in_run AS began,
        sum(r.k) OVER in_run / sum(r.n) OVER in_run AS rate_since
    FROM runs AS r
    WHERE r.evidence > 0
    WINDOW in_run AS (
        PARTITION BY r.company, r.run_no
        ORDER BY r.ordinal
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
)

SELECT
    c.period,
    nullif(c.company, '') AS company_id,
    CAST(c.n AS BIGINT) AS finished,
    CAST(c.k AS BIGINT) AS failed,
    c.usual_rate,
    c.evidence,
    c.evidence > 4.4e0 AND c.recent > 0 AS is_shift,
    s.began,
    s.rate_since,
    CAST(c.past AS BIGINT) AS past,
    c.vanished,
    CASE WHEN :grain = 'hour' THEN make_timestamptz(c.hour_us) ELSE timezone(:tz, c.period) END AS starts_at,
    coalesce(
        k.is_open
        OR coalesce(c.hour_us, epoch_us(c.period)) >= k.now_ordinal
        OR coalesce(c.hour_us, epoch_us(c.period)) IN (k.since_ordinal, k.until_ordinal),
        FALSE
    ) AS is_partial
FROM chart AS c
LEFT JOIN companies AS n ON c.company = n.id AND n.now IS NOT NULL
INNER JOIN company_clocks AS k ON k.company = CASE WHEN :per_company THEN coalesce(n.id, '*') ELSE '' END
LEFT JOIN shifts_so_far AS s ON c.company = s.company AND c.ordinal = s.ordinal
WHERE :every_period OR (c.evidence > 4.4e0 AND c.recent > 0)
ORDER BY c.period, starts_at, c.company
