-- Which call numbers of a range are stored, each once, by number; with the moment of the call. Hours beside the wanted
-- one are there, too: a clock that was set back may have put a call there.
SELECT call_number, min(toUnixTimestamp64Milli(occurred_at)) AS at_ms
FROM usage_events FINAL
WHERE account_id = {account_id:String}
    AND hour BETWEEN toDateTime({first_hour:UInt32}, 'UTC') AND toDateTime({last_hour:UInt32}, 'UTC')
    AND product = {product:String}
    AND mode = {mode:String}
    AND call_number BETWEEN {first_number:UInt64} AND {last_number:UInt64}
GROUP BY call_number
ORDER BY call_number
