-- compare(since_a TIMESTAMPTZ, until_a TIMESTAMPTZ, since_b TIMESTAMPTZ, until_b TIMESTAMPTZ,
--     company_id VARCHAR := NULL, per_company BOOLEAN := TRUE)
-- What changed between two stretches of time: four rows a company, b against a, with intervals.
--
-- A job belongs to a stretch by its created_at, from since up to, but not at, until; null is unbounded.
--
-- company_id  the company; null where per_company is false and all companies are one
-- figure      failure_rate (failed of finished), or median_queue_seconds, median_run_seconds or
--             median_total_seconds
-- n_a, n_b    finished jobs for the rate; for a median the jobs whose duration is known
-- value_a, value_b  the figure in a and in b; null where n is 0
-- change      value_b - value_a
-- low, high   95 % interval of the change. Rates: Newcombe's hybrid score interval (1998, Statistics in
--             Medicine 17:873, method 10). Medians: the two medians' own intervals, from order statistics
--             (of at least 95 % whatever the distribution), joined in the same way (Zou and Donner 2008,
--             27:1693); null where an n is below 6
-- differs     whether the interval leaves out 0. Of twenty comparisons without any change, one differs
-- still_open_a, still_open_b  jobs that have not ended: neither failed nor not, and not in the medians
-- vanished_a, vanished_b  of all jobs of the stretch, those that the server no longer lists; counted as last seen
WITH sided AS (
    SELECT
        'a' AS side,
        CASE WHEN :per_company THEN j.company_id ELSE '' END AS company,
        j.status,
        j.is_censored,
        j.is_vanished,
        j.queue_seconds,
        j.run_seconds,
        j.total_seconds
    FROM job_durations AS j
    WHERE
        (:company_id IS NULL OR j.company_id = lower(:company_id))
        AND (:since_a IS NULL OR j.created_at >= :since_a)
        AND (:until_a IS NULL OR j.created_at < :until_a)
    UNION ALL
    SELECT
        'b' AS side,
        CASE WHEN :per_company THEN j.company_id ELSE '' END AS company,
        j.status,
        j.is_censored,
        j.is_vanished,
        j.queue_seconds,
        j.run_seconds,
        j.total_seconds
    FROM job_durations AS j
    WHERE
        (:company_id IS NULL OR j.company_id = lower(:company_id))
        AND (:since_b IS NULL OR j.created_at >= :since_b)
        AND (:until_b IS NULL OR j.created_at < :until_b)
),

counted AS (
    SELECT
        s.company,
        s.side,
        CAST(count(*) FILTER (WHERE NOT s.is_censored) AS DOUBLE) AS n,
        CAST(count(*) FILTER (WHERE s.status = 'failed') AS DOUBLE) AS k,
        count(*) FILTER (WHERE s.is_censored) AS still_open,
        count(*) FILTER (WHERE s.is_vanished) AS vanished
    FROM sided AS s
    GROUP BY s.company, s.side
),

timed AS (
    SELECT s.company, s.side, 2 AS place, s.queue_seconds AS seconds FROM sided AS s WHERE s.queue_seconds IS NOT NULL
    UNION ALL
    SELECT s.company, s.side, 3 AS place, s.run_seconds AS seconds FROM sided AS s WHERE s.run_seconds IS NOT NULL
    UNION ALL
    SELECT s.company, s.side, 4 AS place, s.total_seconds AS seconds FROM sided AS s WHERE s.total_seconds IS NOT NULL
),

ordered AS (
    SELECT
        t.*,
        row_number() OVER (PARTITION BY t.company, t.side, t.place ORDER BY t.seconds) AS nth,
        count(*) OVER (PARTITION BY t.company, t.side, t.place) AS n
    FROM timed AS t
),

ranked AS (
    SELECT
        o.*,
        floor((o.n + 1 - 1.959963984540054e0 * sqrt(o.n)) / 2) AS low_nth
    FROM ordered AS o
),

figures AS (
    SELECT
        c.company,
        c.side,
        1 AS place,
        c.n,
        c.k / nullif(c.n, 0) AS middle,
        (c.k + 1.920729410347062e0 - 1.959963984540054e0 * sqrt(c.k * (c.n - c.k) / nullif(c.n, 0) + 0.960364705173531e0))
        / (c.n + 3.841458820694124e0) AS low,
        (c.k + 1.920729410347062e0 + 1.959963984540054e0 * sqrt(c.k * (c.n - c.k) / nullif(c.n, 0) + 0.960364705173531e0))
        / (c.n + 3.841458820694124e0) AS high
    FROM counted AS c
    UNION ALL
    SELECT
        r.company,
        r.side,
        r.place,
        CAST(max(r.n) AS DOUBLE) AS n,
        avg(CASE WHEN r.nth = floor((r.n + 1) / 2) OR r.nth = ceil((r.n + 1) / 2) THEN r.seconds END) AS middle,
        max(CASE WHEN r.nth = r.low_nth THEN r.seconds END) AS low,
        max(CASE WHEN r.nth = r.n + 1 - r.low_nth THEN r.seconds END) AS high
    FROM ranked AS r
    GROUP BY r.company, r.side, r.place
),

wanted AS (
    SELECT
        c.company,
        p.place,
        max(CASE WHEN c.side = 'a' THEN c.still_open ELSE 0 END) AS still_open_a,
        max(CASE WHEN c.side = 'b' THEN c.still_open ELSE 0 END) AS still_open_b,
        max(CASE WHEN c.side = 'a' THEN c.vanished ELSE 0 END) AS vanished_a,
        max(CASE WHEN c.side = 'b' THEN c.vanished ELSE 0 END) AS vanished_b
    FROM counted AS c
    CROSS JOIN (VALUES (1), (2), (3), (4)) AS p (place)
    GROUP BY c.company, p.place
),

paired AS (
    SELECT
        w.*,
        coalesce(a.n, 0) AS n_a,
        coalesce(b.n, 0) AS n_b,
        a.middle AS value_a,
        b.middle AS value_b,
        b.middle - a.middle AS change,
        sqrt((b.middle - b.low) * (b.middle - b.low) + (a.high - a.middle) * (a.high - a.middle)) AS below,
        sqrt((b.high - b.middle) * (b.high - b.middle) + (a.middle - a.low) * (a.middle - a.low)) AS above
    FROM wanted AS w
    LEFT JOIN figures AS a ON w.company = a.company AND w.place = a.place AND a.side = 'a'
    LEFT JOIN figures AS b ON w.company = b.company AND w.place = b.place AND b.side = 'b'
)

SELECT
    nullif(p.company, '') AS company_id,
    CASE p.place
        WHEN 1 THEN 'failure_rate'
        WHEN 2 THEN 'median_queue_seconds'
        WHEN 3 THEN 'median_run_seconds'
        ELSE 'median_total_seconds'
    END AS figure,
    CAST(p.n_a AS BIGINT) AS n_a,
    CAST(p.n_b AS BIGINT) AS n_b,
    p.value_a,
    p.value_b,
    p.change,
    p.change - p.below AS low,
    p.change + p.above AS high,
    p.change - p.below > 0 OR p.change + p.above < 0 AS differs,
    p.still_open_a,
    p.still_open_b,
    p.vanished_a,
    p.vanished_b
FROM paired AS p
ORDER BY p.company, p.place
