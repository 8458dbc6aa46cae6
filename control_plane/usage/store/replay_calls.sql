-- Served calls that decide which replays are billed: all calls, in the given hours, of the same account, product,
-- mode, method and path as some replay in the wanted hours. One row for each such call, hour, part of it (see
-- hour_figures.sql), status, and whether the upstream said that it replayed; with the first of these events whole.
-- With `call_hashes` given: replays of these calls only, each after the moment given for it.
WITH lower(hex(MD5(concat(product, '\0', mode, '\0', method, '\0', path)))) AS hashed
SELECT
    account_id,
    toUnixTimestamp(hour) AS hour_seconds,
    hashed AS call_hash,
    has(flags, 'replayed') AS is_replay,
    product,
    mode,
    status,
    arrayCount(
        boundary -> boundary <= toUnixTimestamp64Milli(occurred_at),
        {boundaries:Array(Array(Int64))}[indexOf({split_accounts:Array(String)}, account_id)]
    ) AS part,
    toUnixTimestamp64Milli(max(occurred_at)) AS last_ms,
    toUnixTimestamp64Milli(min(occurred_at)) AS first_ms,
    argMin(
        (
            event_id, key_id, endpoint, units, bytes_in, bytes_out, latency_ms, gateway_ms,
            greatest(upstream_ms, 0), dimensions
        ),
        (occurred_at, event_id)
    ) AS first_event
FROM usage_events FINAL
WHERE (account_id, hour) IN (
        SELECT arrayJoin(
            arrayZip({accounts:Array(String)}, arrayMap(seconds -> toDateTime(seconds, 'UTC'), {hours:Array(UInt32)}))
        )
    )
    AND hour BETWEEN toDateTime({first_hour:UInt32}, 'UTC') AND toDateTime({last_hour:UInt32}, 'UTC')
    AND outcome = 'served'
    AND (account_id, product, mode, method, path) IN (
        SELECT account_id, product, mode, method, path
        FROM usage_events FINAL
        WHERE (account_id, hour) IN (
                SELECT arrayJoin(
                    arrayZip(
                        {replay_accounts:Array(String)},
                        arrayMap(seconds -> toDateTime(seconds, 'UTC'), {replay_hours:Array(UInt32)})
                    )
                )
            )
            AND hour BETWEEN toDateTime({first_hour:UInt32}, 'UTC') AND toDateTime({last_hour:UInt32}, 'UTC')
            AND outcome = 'served'
            AND has(flags, 'replayed')
    )
    AND (
        empty({call_hashes:Array(String)})
        OR (
            has(flags, 'replayed')
            AND toUnixTimestamp64Milli(occurred_at)
                > {after_ms:Array(Int64)}[indexOf({call_hashes:Array(String)}, concat(account_id, ' ', hashed))]
            AND has({call_hashes:Array(String)}, concat(account_id, ' ', hashed))
        )
    )
GROUP BY account_id, hour, call_hash, is_replay, product, mode, status, part
