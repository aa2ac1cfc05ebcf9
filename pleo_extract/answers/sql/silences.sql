-- silences(as_of TIMESTAMPTZ := NULL, company_id VARCHAR := NULL, tz VARCHAR := 'UTC', once_in_days DOUBLE := 365,
--     longest_days DOUBLE := 60, every_company BOOLEAN := FALSE)
-- Companies without a new export for longer than their own rhythm explains: one row per company, the most unusual first.
--
-- A company's rhythm is learned from the 26 weeks before its last job: how many jobs it has on each day of the week, how
-- many more or fewer from the second last day of a month to the third day of the next, and at which hours. That turns
-- each gap between two jobs into a number: the jobs that usually come in such a time. A night or a weekend counts
-- little, an hour in which the company usually exports counts much. The present silence is measured the same way and
-- compared with the past gaps.
--
-- as_of is the instant at which a company is silent or not. By default it is each company's now (see `companies`,
-- `snapshot`): a company that could not be read since is not called silent. Days and hours are those of tz.
--
-- company_id      the company
-- last_job_at     created_at of its last job
-- silent_seconds  last_job_at to as_of
-- expected_jobs   how many jobs the company usually has in such a time
-- usual_jobs      the same for the gap that 99 of 100 of its gaps are shorter than
-- longest_jobs    the same for its longest gap
-- once_in_days    how unusual: by chance, the company has a gap at least this long once in this number of days. Null if at
--                 least a fifth of the past gaps are longer
-- has_left        true if silent_seconds is more than longest_days: the company has probably left, or its integration died long
--                 ago. These come last. `check` does not name them
-- is_silent       true if once_in_days is at least the parameter once_in_days: by default, chance alone names a company
--                 once a year. For many companies use a multiple of it. Other companies appear only with every_company
-- gaps            the past gaps
-- vanished        of the jobs of those weeks, those that the server no longer lists; they count as last seen
--
-- Left out are companies with fewer than 20 gaps or 14 whole days in those 26 weeks, because their rhythm is not known,
-- and companies that are silent for more than ten years.
--
-- The tail of the gaps, the longest fifth, is taken as exponential. P(gap > x) = k/n (1 + (x - t)/(k m))^-k is exact for
-- that, with the k longest of n gaps, t the next shorter one, and m the mean excess over t: the ratio of an excess and m
-- has the distribution F(2, 2k). m is at least 0.25, so that a job that always ran at the same minute is not missed
-- after a few minutes. Holidays are not known: a public holiday looks like a silence.
WITH learned AS (
    SELECT
        j.*,
        CAST(floor(j.clock_us / 86400000000e0) AS INTEGER) AS day_no,
        j.clock_us / 3600000000e0 - 24 * floor(j.clock_us / 86400000000e0) AS hour_of_day
    FROM jobs_on_clock AS j
),

ranges AS (
    SELECT
        l.company,
        min(l.day_no) AS first_day,
        max(l.day_no) AS last_day,
        count(*) FILTER (WHERE l.is_vanished) AS vanished,
        max(l.last_job_at) AS last_job_at,
        max(l.reference_at) AS reference_at,
        max(l.reference_us) AS reference_us,
        CAST(floor(max(l.reference_us) / 86400000000e0) AS INTEGER) AS reference_day
    FROM learned AS l
    GROUP BY l.company
    HAVING max(l.day_no) - min(l.day_no) > 14 AND count(*) > 20
),

digits AS (
    SELECT v.digit
    FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) AS v (digit)
),

-- Day 0 is 1970-01-01, a Thursday; weekday 0 is Monday.
days AS (
    SELECT
        r.company,
        r.first_day,
        r.last_day,
        r.first_day + a.digit + 10 * b.digit + 100 * c.digit + 1000 * d.digit AS day_no,
        DATE '1970-01-01' + (r.first_day + a.digit + 10 * b.digit + 100 * c.digit + 1000 * d.digit) AS day_date,
        (r.first_day + a.digit + 10 * b.digit + 100 * c.digit + 1000 * d.digit + 3) % 7 AS weekday
    FROM ranges AS r
    CROSS JOIN digits AS a
    CROSS JOIN digits AS b
    CROSS JOIN digits AS c
    CROSS JOIN digits AS d
    WHERE r.first_day + a.digit + 10 * b.digit + 100 * c.digit + 1000 * d.digit <= r.reference_day
),

jobs_by_day AS (
    SELECT l.company, l.day_no, count(*) AS jobs
    FROM learned AS l
    GROUP BY l.company, l.day_no
),

calendar AS (
    SELECT
        d.company,
        d.day_no,
        d.weekday,
        CASE WHEN d.weekday >= 5 THEN 1 ELSE 0 END AS is_weekend,
        CASE
            WHEN day(d.day_date) <= 3 OR day(last_day(d.day_date)) - day(d.day_date) <= 1 THEN 1
            ELSE 0
        END AS is_month_end,
        CASE WHEN d.day_no > d.first_day AND d.day_no < d.last_day THEN 1 ELSE 0 END AS is_whole,
        coalesce(j.jobs, 0) AS jobs
    FROM days AS d
    LEFT JOIN jobs_by_day AS j ON d.company = j.company AND d.day_no = j.day_no
),

-- Half a job is added to each count: that nothing has come on 26 Sundays does not prove that nothing ever will.
weekday_rates AS (
    SELECT
        c.*,
        (sum(CASE WHEN c.is_whole = 1 AND c.is_month_end = 0 THEN c.jobs ELSE 0 END) OVER (PARTITION BY c.company, c.weekday) + 0.5e0)
        / greatest(
            1,
            sum(CASE WHEN c.is_whole = 1 AND c.is_month_end = 0 THEN 1 ELSE 0 END) OVER (PARTITION BY c.company, c.weekday)
        ) AS rate
    FROM calendar AS c
),

day_rates AS (
    SELECT
        w.*,
        w.rate * CASE
            WHEN w.is_month_end = 0 THEN 1e0
            ELSE
                (sum(CASE WHEN w.is_whole = 1 AND w.is_month_end = 1 THEN w.jobs ELSE 0 END) OVER (PARTITION BY w.company) + 0.5e0)
                / (sum(CASE WHEN w.is_whole = 1 AND w.is_month_end = 1 THEN w.rate ELSE 0 END) OVER (PARTITION BY w.company) + 0.5e0)
        END AS day_rate
    FROM weekday_rates AS w
),

day_sums AS (
    SELECT
        d.company,
        d.day_no,
        d.is_weekend,
        d.day_rate,
        sum(d.day_rate) OVER (
            PARTITION BY d.company
            ORDER BY d.day_no
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) - d.day_rate AS jobs_before
    FROM day_rates AS d
),

hours AS (
    SELECT
        r.company,
        w.is_weekend,
        a.digit + 10 * b.digit AS hour_no
    FROM ranges AS r
    CROSS JOIN (VALUES (0), (1)) AS w (is_weekend)
    CROSS JOIN digits AS a
    CROSS JOIN digits AS b
    WHERE a.digit + 10 * b.digit < 24
),

jobs_by_hour AS (
    SELECT
        l.company,
        CASE WHEN (l.day_no + 3) % 7 >= 5 THEN 1 ELSE 0 END AS is_weekend,
        CAST(floor(l.hour_of_day) AS INTEGER) AS hour_no,
        count(*) AS jobs
    FROM learned AS l
    GROUP BY l.company, CASE WHEN (l.day_no + 3) % 7 >= 5 THEN 1 ELSE 0 END, CAST(floor(l.hour_of_day) AS INTEGER)
),

hour_counts AS (
    SELECT
        h.*,
        coalesce(j.jobs, 0) AS jobs,
        (sum(coalesce(j.jobs, 0)) OVER (PARTITION BY h.company, h.hour_no) + 0.5e0)
        / (sum(coalesce(j.jobs, 0)) OVER (PARTITION BY h.company) + 12) AS any_day_share
    FROM hours AS h
    LEFT JOIN jobs_by_hour AS j
        ON h.company = j.company AND h.is_weekend = j.is_weekend AND h.hour_no = j.hour_no
),

-- With few jobs on weekends, their hours are mostly those of all days.
hour_shares AS (
    SELECT
        h.*,
        (h.jobs + 12 * h.any_day_share) / (sum(h.jobs) OVER (PARTITION BY h.company, h.is_weekend) + 12) AS share
    FROM hour_counts AS h
),

hour_sums AS (
    SELECT
        h.company,
        h.is_weekend,
        h.hour_no,
        h.share,
        sum(h.share) OVER (
            PARTITION BY h.company, h.is_weekend
            ORDER BY h.hour_no
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) - h.share AS share_before
    FROM hour_shares AS h
),

-- The jobs, and the instant of reference as if it were one.
instants AS (
    SELECT
        l.company,
        l.clock_us,
        l.day_no,
        l.hour_of_day,
        0 AS is_reference
    FROM learned AS l
    UNION ALL
    SELECT
        r.company,
        r.reference_us AS clock_us,
        r.reference_day AS day_no,
        r.reference_us / 3600000000e0 - 24 * floor(r.reference_us / 86400000000e0) AS hour_of_day,
        1 AS is_reference
    FROM ranges AS r
),

expectations AS (
    SELECT
        i.company,
        i.clock_us,
        i.is_reference,
        d.jobs_before + d.day_rate * (h.share_before + h.share * (i.hour_of_day - h.hour_no)) AS expected
    FROM instants AS i
    INNER JOIN day_sums AS d ON i.company = d.company AND i.day_no = d.day_no
    INNER JOIN hour_sums AS h
        ON i.company = h.company AND d.is_weekend = h.is_weekend AND h.hour_no = CAST(floor(i.hour_of_day) AS INTEGER)
),

steps AS (
    SELECT
        e.company,
        e.is_reference,
        e.expected - lag(e.expected) OVER (PARTITION BY e.company ORDER BY e.clock_us, e.is_reference) AS step
    FROM expectations AS e
),

-- Not below 0: where clocks are set back, a later job can have an earlier time.
gaps AS (
    SELECT s.company, s.is_reference, greatest(s.step, 0e0) AS gap
    FROM steps AS s
    WHERE s.step IS NOT NULL
),

ranked_gaps AS (
    SELECT
        g.company,
        g.gap,
        row_number() OVER (PARTITION BY g.company ORDER BY g.gap) AS nth,
        count(*) OVER (PARTITION BY g.company) AS n
    FROM gaps AS g
    WHERE g.is_reference = 0
),

tails AS (
    SELECT
        r.company,
        max(r.n) AS n,
        CAST(floor(max(r.n) / 5e0) AS DOUBLE) AS k,
        max(CASE WHEN r.nth = r.n - floor(r.n / 5e0) THEN r.gap END) AS threshold,
        greatest(
            0.25e0,
            avg(CASE WHEN r.nth > r.n - floor(r.n / 5e0) THEN r.gap END)
            - max(CASE WHEN r.nth = r.n - floor(r.n / 5e0) THEN r.gap END)
        ) AS mean_excess,
        max(CASE WHEN r.nth = ceil(0.99e0 * r.n) THEN r.gap END) AS usual,
        max(r.gap) AS longest
    FROM ranked_gaps AS r
    GROUP BY r.company
),

scores AS (
    SELECT
        r.company,
        r.last_job_at,
        (epoch_us(r.reference_at) - epoch_us(r.last_job_at)) / 1e6 AS silent_seconds,
        g.gap AS expected_jobs,
        t.usual AS usual_jobs,
        t.longest AS longest_jobs,
        CASE
            WHEN g.gap > t.threshold
                THEN
                    (r.last_day - r.first_day) / t.k
                    * power(1 + (g.gap - t.threshold) / (t.k * t.mean_excess), t.k)
        END AS return_days,
        t.n AS gaps,
        r.vanished
    FROM ranges AS r
    INNER JOIN tails AS t ON r.company = t.company
    INNER JOIN gaps AS g ON r.company = g.company AND g.is_reference = 1
)

SELECT
    s.company AS company_id,
    s.last_job_at,
    s.silent_seconds,
    s.expected_jobs,
    s.usual_jobs,
    s.longest_jobs,
    s.return_days AS once_in_days,
    s.silent_seconds > 86400 * :longest_days AS has_left,
    coalesce(s.return_days >= :once_in_days, FALSE) AS is_silent,
    s.gaps,
    s.vanished
FROM scores AS s
WHERE :every_company OR s.return_days >= :once_in_days
ORDER BY has_left, s.return_days DESC NULLS LAST, s.company
