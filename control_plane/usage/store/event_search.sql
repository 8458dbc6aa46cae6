-- One page of events, each once. What is in braces without a type is put in by event_reads.py.
SELECT
    event_id, request_id, toUnixTimestamp64Milli(occurred_at) AS occurred_at_ms, account_id, key_id, mode, product,
    service, route, endpoint, method, path, status, outcome, units, dimensions, bytes_in, bytes_out, latency_ms,
    gateway_ms, upstream_ms, client_ip, emitter, call_number, flags, shipper,
    subscription_id, plan, source, event_type, properties
FROM usage_events AS event FINAL
WHERE {conditions}
-- by hour first, which says the same: an account's events are stored by hour, so a page reads the hours that fill it
ORDER BY hour {direction}, occurred_at {direction}, event_id {direction}, account_id {direction}
LIMIT {page_size:UInt32}
