-- incidents(grain VARCHAR := 'day', company_id VARCHAR := NULL, since TIMESTAMPTZ := NULL,
--     until TIMESTAMPTZ := NULL, tz VARCHAR := 'UTC', per_company BOOLEAN := TRUE, at_least BIGINT := 10,
--     every_period BOOLEAN := FALSE)
-- Periods in which more exports failed than a company's own past explains: one row a period and company.
--
-- A p-chart: a period is judged against the failure rate of the 60 periods before it, if at least 8 of them and
-- the period itself have at_least finished jobs each; fewer are passed over. It is an incident when the rate is
-- more than three standard deviations above, counting the uncertainty of the past itself. By chance alone, with
-- jobs that fail independently, that happens to at most one judged period in 740. Where failures come in
-- clusters, periods differ more than that; how much is estimated from the past and widens the limit (Laney 2002,
-- Quality Engineering 14:531), but a past that was quiet cannot warn of the first cluster. Falls are not reported.
--
-- An incident is no past to judge by. So there are two passes: the first judges each period by all before it; what
-- is beyond the limit, and of the 29 periods that follow what is beyond the same limit, is left out of the past in
-- the second, which is the answer. An incident that lasts longer than these 30 periods becomes what is usual.
--
-- period        when the period began, on the clocks of tz; a job counts in the period of its created_at
-- company_id    the company; null where per_company is false and all companies are one
-- finished      jobs with status failed, completed or completed_with_errors
-- failed        of these, status failed, expired ones included
-- rate          failed / finished
-- usual_rate    the same for the periods before, without incidents
-- limit_rate    the upper control limit: an incident's rate is above it
-- sigmas        how many standard deviations rate is above usual_rate (Anscombe's arcsine scale, Biometrika
--               1948, 35:246; less for few periods, as Student's t asks)
-- is_incident   sigmas is above 3. With every_period, periods that are none have a row too: the chart
-- reasons       the three there was most more of than usual: reason (jobs, usually so many)
-- past          judged periods that the limit is made of
-- still_open    the period's jobs that may still fail
-- vanished      of the finished ones, those that the server no longer lists; counted as last seen
--
-- since and until cut the past off, too: give them room.
WITH tallied AS (
    SELECT
        d.period,
        CASE WHEN :per_company THEN d.company_id ELSE '' END AS company,
        CASE
            WHEN d.outcome = 'expired' THEN 'job_expired'
            WHEN d.outcome = 'failed' THEN coalesce(d.failure_reason_type, 'not_given')
        END AS reason,
        count(*) FILTER (WHERE NOT d.is_censored) AS finished,
        count(*) FILTER (WHERE d.is_censored) AS still_open,
        count(*) FILTER (WHERE d.is_vanished AND NOT d.is_censored) AS vanished
    FROM dated AS d
    GROUP BY period, company, reason
),

summed AS (
    SELECT
        t.period,
        t.company,
        CAST(sum(t.finished) AS DOUBLE) AS n,
        CAST(sum(CASE WHEN t.reason IS NULL THEN 0 ELSE t.finished END) AS DOUBLE) AS k,
        CAST(sum(t.still_open) AS BIGINT) AS still_open,
        CAST(sum(t.vanished) AS BIGINT) AS vanished
    FROM tallied AS t
    GROUP BY t.period, t.company
),

counted AS (
    SELECT
        u.*,
        asin(sqrt((u.k + 0.375e0) / (u.n + 0.75e0))) AS angle,
        row_number() OVER (PARTITION BY u.company ORDER BY u.period) AS place
    FROM summed AS u
    WHERE u.n >= :at_least
),

-- The first pass, by all periods before.
seen AS (
    SELECT
        c.*,
        count(*) OVER before AS past,
        sum(c.n) OVER before AS past_n,
        sum(c.k) OVER before AS past_k
    FROM counted AS c
    WINDOW before AS (
        PARTITION BY c.company
        ORDER BY c.period
        ROWS BETWEEN 60 PRECEDING AND 1 PRECEDING
    )
),

weighed AS (
    SELECT
        s.*,
        asin(sqrt((s.past_k + 0.375e0) / (s.past_n + 0.75e0))) AS usual_angle,
        (s.angle - asin(sqrt((s.past_k + 0.375e0) / (s.past_n + 0.75e0))))
        / sqrt(1 / (4 * s.n + 2) + 1 / (4 * s.past_n + 2)) AS score
    FROM seen AS s
),

swung AS (
    SELECT
        w.*,
        abs(w.score - lag(w.score) OVER (PARTITION BY w.company ORDER BY w.period)) AS moving_range
    FROM weighed AS w
),

bounded AS (
    SELECT
        s.*,
        greatest(1e0, coalesce(avg(s.moving_range) OVER before, 1e0) / 1.1283791670955126e0) AS sigma,
        CAST(greatest(1, count(s.moving_range) OVER before) AS DOUBLE) AS moves
    FROM swung AS s
    WINDOW before AS (
        PARTITION BY s.company
        ORDER BY s.period
        ROWS BETWEEN 60 PRECEDING AND 1 PRECEDING
    )
),

begun AS (
    SELECT
        b.company,
        b.place,
        b.past_n,
        b.usual_angle,
        3 * b.sigma * (1 + 2.5e0 / b.moves + 5.75e0 / (b.moves * b.moves)) AS bound
    FROM bounded AS b
    WHERE b.past >= 8 AND b.score > 3 * b.sigma * (1 + 2.5e0 / b.moves + 5.75e0 / (b.moves * b.moves))
),

apart AS (
    SELECT DISTINCT c.company, c.period
    FROM counted AS c
    INNER JOIN begun AS b ON c.company = b.company AND c.place >= b.place AND c.place < b.place + 30
    WHERE (c.angle - b.usual_angle) / sqrt(1 / (4 * c.n + 2) + 1 / (4 * b.past_n + 2)) > b.bound
),

-- The second pass, by the periods before that are not apart.
sorted AS (
    SELECT c.*, a.period IS NOT NULL AS is_apart
    FROM counted AS c
    LEFT JOIN apart AS a ON c.company = a.company AND c.period = a.period
),

compared AS (
    SELECT
        s.*,
        sum(CASE WHEN s.is_apart THEN 0 ELSE 1 END) OVER before AS past,
        first_value(s.period) OVER before AS past_from,
        sum(CASE WHEN s.is_apart THEN 0e0 ELSE s.n END) OVER before AS past_n,
        sum(CASE WHEN s.is_apart THEN 0e0 ELSE s.k END) OVER before AS past_k
    FROM sorted AS s
    WINDOW before AS (
        PARTITION BY s.company
        ORDER BY s.period
        ROWS BETWEEN 60 PRECEDING AND 1 PRECEDING
    )
),

scored AS (
    SELECT
        c.*,
        asin(sqrt((c.past_k + 0.375e0) / (c.past_n + 0.75e0))) AS usual_angle,
        sqrt(1 / (4 * c.n + 2) + 1 / (4 * c.past_n + 2)) AS deviation,
        (c.angle - asin(sqrt((c.past_k + 0.375e0) / (c.past_n + 0.75e0))))
        / sqrt(1 / (4 * c.n + 2) + 1 / (4 * c.past_n + 2)) AS score
    FROM compared AS c
),

moved AS (
    SELECT
        s.*,
        CASE
            WHEN NOT s.is_apart
                THEN abs(s.score - lag(s.score) OVER (PARTITION BY s.company, s.is_apart ORDER BY s.period))
        END AS moving_range
    FROM scored AS s
),

spread AS (
    SELECT
        m.*,
        greatest(1e0, coalesce(avg(m.moving_range) OVER before, 1e0) / 1.1283791670955126e0) AS sigma,
        CAST(greatest(1, count(m.moving_range) OVER before) AS DOUBLE) AS moves
    FROM moved AS m
    WINDOW before AS (
        PARTITION BY m.company
        ORDER BY m.period
        ROWS BETWEEN 60 PRECEDING AND 1 PRECEDING
    )
),

-- Three deviations of Student's t, by the first terms of Cornish and Fisher, as a multiple of the normal's three.
judged AS (
    SELECT
        s.*,
        s.score / (s.sigma * (1 + 2.5e0 / s.moves + 5.75e0 / (s.moves * s.moves))) AS sigmas,
        least(
            1.5707963267948966e0,
            s.usual_angle + 3 * s.deviation * s.sigma * (1 + 2.5e0 / s.moves + 5.75e0 / (s.moves * s.moves))
        ) AS limit_angle
    FROM spread AS s
    WHERE s.past >= 8
),

explained AS (
    SELECT
        j.company,
        j.period,
        t.reason,
        sum(CASE WHEN t.period = j.period THEN t.finished ELSE 0 END) AS jobs,
        sum(CASE WHEN t.period < j.period THEN t.finished ELSE 0 END) * j.n / j.past_n AS usual
    FROM judged AS j
    INNER JOIN tallied AS t
        ON j.company = t.company AND t.period >= j.past_from AND t.period <= j.period AND t.reason IS NOT NULL
    INNER JOIN sorted AS s ON t.company = s.company AND t.period = s.period
    WHERE j.sigmas > 3 AND (t.period = j.period OR NOT s.is_apart)
    GROUP BY j.company, j.period, t.reason, j.n, j.past_n
),

ranked AS (
    SELECT
        e.company,
        e.period,
        concat(e.reason, ' (', e.jobs, ', usually ', round(e.usual, 1), ')') AS words,
        row_number() OVER (PARTITION BY e.company, e.period ORDER BY e.jobs - e.usual DESC, e.reason) AS place
    FROM explained AS e
    WHERE e.jobs > e.usual
),

worded AS (
    SELECT
        r.company,
        r.period,
        concat_ws(
            ', ',
            max(CASE WHEN r.place = 1 THEN r.words END),
            max(CASE WHEN r.place = 2 THEN r.words END),
            max(CASE WHEN r.place = 3 THEN r.words END)
        ) AS reasons
    FROM ranked AS r
    GROUP BY r.company, r.period
)

SELECT
    j.period,
    nullif(j.company, '') AS company_id,
    CAST(j.n AS BIGINT) AS finished,
    CAST(j.k AS BIGINT) AS failed,
    j.k / j.n AS rate,
    j.past_k / j.past_n AS usual_rate,
    least(1e0, ((j.n + 0.75e0) * sin(j.limit_angle) * sin(j.limit_angle) - 0.375e0) / j.n) AS limit_rate,
    j.sigmas,
    j.sigmas > 3 AS is_incident,
    w.reasons,
    CAST(j.past AS BIGINT) AS past,
    j.still_open,
    j.vanished
FROM judged AS j
LEFT JOIN worded AS w ON j.company = w.company AND j.period = w.period
WHERE :every_period OR j.sigmas > 3
ORDER BY j.period, j.company
