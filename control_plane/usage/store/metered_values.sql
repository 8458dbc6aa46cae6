-- What one meter comes to in groups of spans: one row for each group that anything counted for. A span is a part of one
-- account's usage of one API product, [start_ms, end_ms), with the first status that is not billed in it; the lists
-- that describe spans (s_...) are of equal length.
-- Every event once; live ones only, calls that were served with a billed status, and reported events. What the
-- upstream repeated (flag `replayed`) is left out unless it is among `billed_replays`; so is all of `left_out`. Both
-- name events as 'account event_id'.
-- What stands behind a dollar sign is one of the parts in metered_values.py, by what the meter looks at; the rest is
-- neither read nor planned. All that somebody typed is a parameter.
WITH spans AS (
    SELECT
        span.1 AS span_group, span.2 AS span_account, span.3 AS span_product, span.4 AS start_ms,
        span.5 AS end_ms, span.6 AS below_status,
        toDateTime(
            arrayJoin(range(intDiv(span.4, 3600000) * 3600, intDiv(span.5 + 3599999, 3600000) * 3600, 3600)), 'UTC'
        ) AS span_hour
    FROM (
        SELECT arrayJoin(arrayZip(
            {s_groups:Array(UInt32)}, {s_accounts:Array(String)}, {s_products:Array(String)},
            {s_starts_ms:Array(UInt64)}, {s_ends_ms:Array(UInt64)}, {s_below:Array(UInt16)}
        )) AS span
    )
)
SELECT span_group, count() AS events, $result AS value, $latest AS latest
FROM (
    SELECT
        account_id, product, hour, event_id, toUnixTimestamp64Milli(occurred_at) AS at_ms, outcome, status,
        $value AS value, $weight AS weight
    FROM usage_events FINAL
    WHERE (account_id, hour) IN (SELECT span_account, span_hour FROM spans)
        AND hour BETWEEN toDateTime({first_hour:UInt32}, 'UTC') AND toDateTime({last_hour:UInt32}, 'UTC')
        AND mode = 'live'
        AND outcome IN {outcomes:Array(String)}
        AND $is_counted
) AS events
INNER JOIN spans ON account_id = span_account AND product = span_product AND hour = span_hour
WHERE at_ms >= start_ms AND at_ms < end_ms AND (outcome != 'served' OR status < below_status)
GROUP BY span_group
