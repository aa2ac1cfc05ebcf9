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
    max(CASE WHEN :company_id IS NULL THEN greatest(c.now, s.now) ELSE coalesce(c.now, s.now) END) AS now
FROM snapshot AS s
LEFT JOIN companies AS c ON :company_id IS NULL OR c.id = lower(:company_id)
