-- Plugin processes that decided calls of anybody in a span, and how many of their decisions between the first and the
-- last of these are not stored: each process numbers its decisions itself, from 1.
SELECT
    emitter,
    argMax(shipper, occurred_at) AS node,
    min(toUnixTimestamp64Milli(occurred_at)) AS first_ms,
    max(toUnixTimestamp64Milli(occurred_at)) AS last_ms,
    toInt64(max(sequence)) - toInt64(min(sequence)) + 1 - toInt64(uniqExact(sequence)) AS holes
FROM (
    SELECT emitter, shipper, occurred_at, toUInt64OrZero(substring(event_id, length(emitter) + 2)) AS sequence
    FROM usage_events
    WHERE hour BETWEEN toStartOfHour(fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC'))
            AND toStartOfHour(fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC'))
        AND occurred_at >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC')
        AND occurred_at < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')
        AND emitter != ''
)
GROUP BY emitter
