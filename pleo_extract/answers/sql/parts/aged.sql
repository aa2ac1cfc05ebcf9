-- aged(company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)
-- The jobs asked for, each with the instant until which it is known to last, if it is open: its company's now; or the
-- last action on it, where the server no longer lists it.
SELECT
    a.*,
    CASE
        WHEN a.is_vanished THEN coalesce(a.last_updated_at, a.started_at, a.created_at)
        ELSE coalesce(c.now, s.now)
    END AS known_until
FROM asked AS a
CROSS JOIN snapshot AS s
LEFT JOIN companies AS c ON a.company_id = c.id
