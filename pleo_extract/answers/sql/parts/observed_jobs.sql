-- observed_jobs(company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- The filtered jobs, each with the instant up to which it was observed: its company's now. For a job that the server
-- no longer lists, that is the last action on it.
SELECT
    f.*,
    CASE
        WHEN f.is_vanished THEN coalesce(f.last_updated_at, f.started_at, f.created_at)
        ELSE coalesce(c.now, s.now)
    END AS observed_until
FROM filtered_jobs AS f
CROSS JOIN snapshot AS s
LEFT JOIN companies AS c ON f.company_id = c.id
