-- Writes the figures of days anew from their hours. `accounts` and `days` are arrays of equal length.
WITH rows AS (
    SELECT date_trunc('day', hour, 'UTC') AS day, usage_hourly.*
    FROM usage_hourly
    JOIN unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[])) AS wanted (account, begins_at)
        ON usage_hourly.account_id = wanted.account
        AND usage_hourly.hour >= wanted.begins_at AND usage_hourly.hour < wanted.begins_at + interval '24 hours'
), sums AS (
    SELECT
        account_id, day, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, amendment_id,
        sum(calls) AS calls, sum(units) AS units,
        sum(billable_calls) AS billable_calls, sum(billable_units) AS billable_units,
        sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out, sum(latency_ms_sum) AS latency_ms_sum,
        sum(gateway_ms_sum) AS gateway_ms_sum, sum(upstream_ms_sum) AS upstream_ms_sum
    FROM rows
    GROUP BY account_id, day, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, amendment_id
), named AS (
    SELECT
        account_id, day, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, amendment_id,
        kind, name, sum(amount) AS amount
    FROM rows,
        LATERAL (
            SELECT 'all' AS kind, key AS name, CAST(value AS bigint) AS amount FROM jsonb_each_text(dimensions)
            UNION ALL
            SELECT 'billable', key, CAST(value AS bigint) FROM jsonb_each_text(billable_dimensions)
        ) AS each
    GROUP BY
        account_id, day, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, amendment_id, kind, name
), dimensions AS (
    SELECT
        account_id, day, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, amendment_id,
        jsonb_object_agg(name, amount) FILTER (WHERE kind = 'all') AS dimensions,
        jsonb_object_agg(name, amount) FILTER (WHERE kind = 'billable') AS billable_dimensions
    FROM named
    GROUP BY account_id, day, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, amendment_id
)
INSERT INTO usage_daily (
    account_id, day, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, amendment_id,
    calls, units, billable_calls, billable_units, bytes_in, bytes_out, latency_ms_sum, gateway_ms_sum,
    upstream_ms_sum, dimensions, billable_dimensions
)
SELECT
    account_id, day, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, amendment_id,
    calls, units, billable_calls, billable_units, bytes_in, bytes_out, latency_ms_sum, gateway_ms_sum,
    upstream_ms_sum, coalesce(dimensions, '{}'), coalesce(billable_dimensions, '{}')
FROM sums
LEFT JOIN dimensions USING (
    account_id, day, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, amendment_id
)
