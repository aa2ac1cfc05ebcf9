-- compared_ranges(grain VARCHAR, since_a TIMESTAMPTZ, until_a TIMESTAMPTZ, since_b TIMESTAMPTZ, until_b TIMESTAMPTZ,
--     company_id VARCHAR, tz VARCHAR)
-- The two time ranges of `compare`: one row. Without any bound they are whole periods, and is_period is true.
--
-- A period ends where the next begins, so the period before ends a microsecond before an instant that begins one.
WITH ends AS (
    SELECT
        :since_a IS NULL AND :until_a IS NULL AND :since_b IS NULL AND :until_b IS NULL AS is_period,
        date_trunc(:grain, timezone(:tz, l.now)) AS b_ends
    FROM latest_reads AS l
    WHERE l.company = ''
),

starts AS (
    SELECT e.*, date_trunc(:grain, e.b_ends - INTERVAL 1 MICROSECOND) AS b_begins
    FROM ends AS e
),

clocks AS (
    SELECT s.*, date_trunc(:grain, s.b_begins - INTERVAL 1 MICROSECOND) AS a_begins
    FROM starts AS s
)

SELECT
    c.is_period,
    CASE WHEN c.is_period THEN timezone(:tz, CAST(c.a_begins AS TIMESTAMP)) ELSE :since_a END AS a_begins,
    CASE WHEN c.is_period THEN timezone(:tz, CAST(c.b_begins AS TIMESTAMP)) ELSE :until_a END AS a_ends,
    CASE WHEN c.is_period THEN timezone(:tz, CAST(c.b_begins AS TIMESTAMP)) ELSE :since_b END AS b_begins,
    CASE WHEN c.is_period THEN timezone(:tz, CAST(c.b_ends AS TIMESTAMP)) ELSE :until_b END AS b_ends
FROM clocks AS c
