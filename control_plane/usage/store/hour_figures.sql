-- Figures of whole hours, each event once, by everything that a rollup row is keyed by. `part` numbers the pieces
-- of an hour between the moments given for its account (0 is before the first): a plan change inside the hour.
-- `is_replay` is has(flags, 'replayed') where replays are to be told apart: most hours hold none.
-- Voided events count nothing.
SELECT
    account_id,
    toUnixTimestamp(hour) AS hour_seconds,
    product,
    mode,
    key_id,
    endpoint,
    status,
    outcome,
    arrayCount(
        boundary -> boundary <= toUnixTimestamp64Milli(occurred_at),
        {boundaries:Array(Array(Int64))}[indexOf({split_accounts:Array(String)}, account_id)]
    ) AS part,
    0 AS is_replay,
    count() AS calls,
    sum(units) AS units,
    sum(bytes_in) AS bytes_in,
    sum(bytes_out) AS bytes_out,
    sum(latency_ms) AS latency_ms,
    sum(gateway_ms) AS gateway_ms,
    sum(greatest(upstream_ms, 0)) AS upstream_ms_sum,
    sumMap(dimensions) AS dimensions
FROM usage_events FINAL
WHERE (account_id, hour) IN (
        SELECT arrayJoin(
            arrayZip({accounts:Array(String)}, arrayMap(seconds -> toDateTime(seconds, 'UTC'), {hours:Array(UInt32)}))
        )
    )
    AND hour BETWEEN toDateTime({first_hour:UInt32}, 'UTC') AND toDateTime({last_hour:UInt32}, 'UTC')
    AND (
        empty({voided_events:Array(String)})
        OR (account_id, hour, event_id) NOT IN (
            SELECT arrayJoin(
                arrayZip(
                    {voided_accounts:Array(String)},
                    arrayMap(seconds -> toDateTime(seconds, 'UTC'), {voided_hours:Array(UInt32)}),
                    {voided_events:Array(String)}
                )
            )
        )
    )
GROUP BY account_id, hour, product, mode, key_id, endpoint, status, outcome, part, is_replay
