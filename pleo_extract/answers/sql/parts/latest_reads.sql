-- latest_reads(company_id VARCHAR)
-- Now: one row per company with a now of its own, one for the others ('*'), and one for all together (''), the latest.
SELECT c.id AS company, c.now
FROM companies AS c
WHERE c.now IS NOT NULL
UNION ALL
SELECT '*' AS company, s.now
FROM snapshot AS s
UNION ALL
SELECT
    '' AS company,
    CASE WHEN :company_id IS NULL THEN greatest(s.now, l.now) ELSE coalesce(o.now, s.now) END AS now
FROM snapshot AS s
CROSS JOIN (SELECT max(c.now) AS now FROM companies AS c) AS l
LEFT JOIN (
    SELECT c.now
    FROM companies AS c
    WHERE c.id = lower(:company_id) AND c.now IS NOT NULL
) AS o ON TRUE
