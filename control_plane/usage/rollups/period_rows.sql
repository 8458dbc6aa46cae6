-- Rows of figures of phases in spans, by day where a day lies in a span whole and has not changed since it was
-- rolled up, else by hour. `asked`: JSON, see period_units.py.
WITH asked AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:asked AS json)) AS asked (
        phase_id text, account_id text, span_start timestamptz, span_end timestamptz, first_day timestamptz,
        last_day timestamptz)
), marked AS MATERIALIZED (
    SELECT account_id, day FROM touched_days AS mark
    WHERE account_id IN (SELECT account_id FROM asked)
        AND NOT EXISTS (
            SELECT 1 FROM usage_days AS known
            WHERE known.account_id = mark.account_id AND known.day = mark.day AND known.hours_dropped_at IS NOT NULL)
), figures AS (
    SELECT asked.phase_id, span_start, product, amendment_id, billable_calls, billable_units, bytes_in, bytes_out,
        upstream_ms_sum, billable_dimensions
    FROM asked JOIN usage_daily AS daily
        ON daily.phase_id = asked.phase_id AND daily.day >= first_day AND daily.day < last_day
    WHERE mode = 'live' AND NOT EXISTS (
        SELECT 1 FROM marked WHERE marked.account_id = daily.account_id AND marked.day = daily.day)
    UNION ALL
    SELECT asked.phase_id, span_start, product, amendment_id, billable_calls, billable_units, bytes_in, bytes_out,
        upstream_ms_sum, billable_dimensions
    FROM marked JOIN asked ON asked.account_id = marked.account_id
        AND marked.day >= first_day AND marked.day < last_day
    JOIN usage_hourly AS hourly ON hourly.phase_id = asked.phase_id
        AND hourly.hour >= marked.day AND hourly.hour < marked.day + interval '24 hours'
    WHERE mode = 'live'
    UNION ALL
    SELECT asked.phase_id, span_start, product, amendment_id, billable_calls, billable_units, bytes_in, bytes_out,
        upstream_ms_sum, billable_dimensions
    FROM asked JOIN usage_hourly AS hourly
        ON hourly.phase_id = asked.phase_id AND hourly.hour >= span_start
        AND hourly.hour < least(first_day, span_end)
    WHERE mode = 'live'
    UNION ALL
    SELECT asked.phase_id, span_start, product, amendment_id, billable_calls, billable_units, bytes_in, bytes_out,
        upstream_ms_sum, billable_dimensions
    FROM asked JOIN usage_hourly AS hourly
        ON hourly.phase_id = asked.phase_id AND hourly.hour >= greatest(last_day, least(first_day, span_end))
        AND hourly.hour < span_end
    WHERE mode = 'live'
), rows AS (
    SELECT *, amendment_id <> '' AS amended, billable_calls > 0 OR amendment_id <> '' AS billed FROM figures
)
