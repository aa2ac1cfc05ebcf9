-- durations_by_range(since_a TIMESTAMPTZ, until_a TIMESTAMPTZ, since_b TIMESTAMPTZ, until_b TIMESTAMPTZ,
--     company_id VARCHAR, per_company BOOLEAN)
-- The known durations that compare takes from each of its two ranges, numbered by the figure that they belong to.
--
-- A bin holds durations that are close to each other, and a later bin longer ones. Square roots, unlike logarithms, are
-- rounded exactly, so that no two durations can be in the wrong order. At a minute, a bin is 5 seconds wide.
WITH durations AS (
    SELECT
        j.company,
        j.time_range,
        f.figure_no,
        CASE f.figure_no WHEN 2 THEN j.queue_seconds WHEN 3 THEN j.run_seconds ELSE j.total_seconds END AS seconds
    FROM jobs_by_range AS j
    CROSS JOIN (VALUES (2), (3), (4)) AS f (figure_no)
)

SELECT
    d.*,
    CAST(floor(16 * sqrt(sqrt(greatest(d.seconds, 0e0)))) AS BIGINT) AS bin
FROM durations AS d
WHERE d.seconds IS NOT NULL
