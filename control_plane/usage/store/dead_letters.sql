-- One page of lines set aside, newest first, or those of the given ids. A line that came twice is one.
SELECT
    id, shipper_id, segment, start_offset, number, reason, line,
    toUnixTimestamp64Milli(received_at) AS received_at_ms
FROM usage_dead_letters FINAL
WHERE (empty({ids:Array(String)}) OR id IN {ids:Array(String)})
    AND (received_at, id) < (fromUnixTimestamp64Milli({before_ms:Int64}, 'UTC'), {before_id:String})
    AND (empty({reason:String}) OR positionCaseInsensitiveUTF8(reason, {reason:String}) > 0)
    AND (empty({shipper_id:String}) OR shipper_id = {shipper_id:String})
ORDER BY received_at DESC, id DESC
LIMIT {page_size:UInt32}
-- a line that came again in another month is in two partitions
SETTINGS do_not_merge_across_partitions_select_final = 0, use_skip_indexes_if_final = 1
