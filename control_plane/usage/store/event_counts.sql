-- How many events there are in each slice of time. What is in braces without a type is put in by event_reads.py.
SELECT intDiv(toUnixTimestamp64Milli(occurred_at), {slice_ms:UInt32}) * {slice_ms:UInt32} AS slice_start_ms, count()
FROM usage_events AS event FINAL
WHERE {conditions}
GROUP BY slice_start_ms
ORDER BY slice_start_ms
