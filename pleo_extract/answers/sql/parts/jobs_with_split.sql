-- jobs_with_split(grain VARCHAR, company_id VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ, tz VARCHAR, split_by VARCHAR)
-- The filtered jobs with their period, each with the value by which the answer is split, as text that sorts rightly.
--
-- Day 0 is 1970-01-01, a Thursday; weekday 0 is Monday. STRING is a type of both engines.
WITH clocks AS (
    SELECT
        p.*,
        CAST(floor(p.clock_us / 86400000000e0) + 3 AS BIGINT) % 7 AS weekday,
        lpad(CAST(CAST(floor(p.clock_us / 3600000000e0) AS BIGINT) % 24 AS STRING), 2, '0') AS hour_of_day
    FROM jobs_with_period AS p
),

named_days AS (
    SELECT
        c.*,
        CASE c.weekday
            WHEN 0 THEN '1 Monday'
            WHEN 1 THEN '2 Tuesday'
            WHEN 2 THEN '3 Wednesday'
            WHEN 3 THEN '4 Thursday'
            WHEN 4 THEN '5 Friday'
            WHEN 5 THEN '6 Saturday'
            ELSE '7 Sunday'
        END AS day_name
    FROM clocks AS c
)

SELECT
    d.*,
    CASE
        WHEN :split_by = 'is_interactive' THEN CAST(d.is_interactive AS STRING)
        WHEN :split_by = 'created_by' THEN d.created_by
        WHEN :split_by = 'vendor_based_bookkeeping' THEN CAST(d.vendor_based_bookkeeping AS STRING)
        WHEN :split_by = 'weekday' THEN d.day_name
        WHEN :split_by = 'hour' THEN d.hour_of_day
        WHEN :split_by = 'weekday_hour' THEN concat(d.day_name, ' ', d.hour_of_day)
        WHEN coalesce(:split_by, '') <> 'number_of_items' THEN NULL
        WHEN d.number_of_items < 1 THEN '0'
        WHEN d.number_of_items < 10 THEN '1-9'
        WHEN d.number_of_items < 100 THEN '10-99'
        WHEN d.number_of_items < 1000 THEN '100-999'
        WHEN d.number_of_items < 10000 THEN '1000-9999'
        ELSE '10000+'
    END AS split
FROM named_days AS d
