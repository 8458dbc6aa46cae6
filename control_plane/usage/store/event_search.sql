-- One page of an account's events, newest first, each once.
SELECT
    event_id, request_id, toUnixTimestamp64Milli(occurred_at) AS occurred_at_ms, account_id, key_id, mode, product,
    service, route, endpoint, method, path, status, outcome, units, dimensions, bytes_in, bytes_out, latency_ms,
    gateway_ms, upstream_ms, client_ip, emitter, call_number, flags, shipper,
    subscription_id, plan, source, event_type, properties
FROM usage_events FINAL
WHERE account_id = {account_id:String}
    AND hour BETWEEN toStartOfHour(fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC'))
        AND toStartOfHour(fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC'))
    AND occurred_at >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC')
    AND occurred_at < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')
    AND (occurred_at, event_id) < (fromUnixTimestamp64Milli({before_ms:Int64}, 'UTC'), {before_id:String})
    AND ({mode:String} = '' OR mode = {mode:String})
    AND ({product:String} = '' OR product = {product:String})
    AND ({key_id:String} = '' OR key_id = {key_id:String})
    AND ({endpoint:String} = '' OR endpoint = {endpoint:String})
    AND ({outcome:String} = '' OR outcome = {outcome:String})
    AND ({request_id:String} = '' OR request_id = {request_id:String})
    AND status BETWEEN {lowest_status:UInt16} AND {highest_status:UInt16}
ORDER BY occurred_at DESC, event_id DESC
LIMIT {page_size:UInt32}
