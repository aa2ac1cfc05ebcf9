-- latest_reads(company_id VARCHAR)
-- Now: one row per company with a now of its own, one for the others ('*'), and one for all together (''): the latest, or
-- that of the one company that is asked for.
--
-- Each relation is read once, here and in the parts that read this one: Spark copies a part to every place that reads it.
WITH reads AS (
    SELECT
        c.id AS company,
        c.now,
        CASE WHEN c.id = lower(:company_id) THEN c.now END AS asked_now,
        NULL AS other_now
    FROM companies AS c
    WHERE c.now IS NOT NULL
    UNION ALL
    SELECT
        '*' AS company,
        s.now,
        NULL AS asked_now,
        s.now AS other_now
    FROM snapshot AS s
),

latest AS (
    SELECT
        r.company,
        max(r.now) AS now,
        max(r.asked_now) AS asked_now,
        max(r.other_now) AS other_now
    FROM reads AS r
    GROUP BY ROLLUP (r.company)
)

SELECT
    coalesce(l.company, '') AS company,
    CASE
        WHEN l.company IS NULL AND :company_id IS NOT NULL THEN coalesce(l.asked_now, l.other_now)
        ELSE l.now
    END AS now
FROM latest AS l
