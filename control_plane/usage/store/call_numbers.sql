-- Calls of whole hours by the numbers that the gateway gave them, in buckets of 65,536 numbers (1 to 65536 is bucket
-- 0); bucket -1 holds served calls without a number. `part` is that of hour_figures.sql. As many numbers as calls: each
-- once.
SELECT
    account_id,
    toUnixTimestamp(hour) AS hour_seconds,
    product,
    mode,
    arrayCount(
        boundary -> boundary <= toUnixTimestamp64Milli(occurred_at),
        {boundaries:Array(Array(Int64))}[indexOf({split_accounts:Array(String)}, account_id)]
    ) AS part,
    if(call_number = 0, -1, toInt64(intDiv(call_number - 1, 65536))) AS bucket,
    count() AS calls,
    groupBitmap(call_number) AS numbers,
    sum(call_number) AS sum_of_numbers
FROM usage_events FINAL
WHERE (account_id, hour) IN (
        SELECT arrayJoin(
            arrayZip({accounts:Array(String)}, arrayMap(seconds -> toDateTime(seconds, 'UTC'), {hours:Array(UInt32)}))
        )
    )
    AND hour BETWEEN toDateTime({first_hour:UInt32}, 'UTC') AND toDateTime({last_hour:UInt32}, 'UTC')
    AND (call_number > 0 OR outcome = 'served')
GROUP BY account_id, hour, product, mode, part, bucket
