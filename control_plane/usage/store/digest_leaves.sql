-- One page of the leaves of an account's hour, by event id, each event once: the leaf's text is what is hashed, behind
-- a zero byte. docs/verify.md has the form; `control_plane.usage.digests.leaf` writes the same.
WITH
    text -> replaceAll(replaceAll(replaceAll(text, '\\', '\\\\'), '\n', '\\n'), '\r', '\\r') AS escaped,
    concat(
        'km-usage-leaf-1',
        '\nevent_id=', escaped(event_id),
        '\ndecided_at_ms=', toString(toUnixTimestamp64Milli(occurred_at)),
        '\naccount=', escaped(account_id),
        '\nkey=', escaped(key_id),
        '\nmode=', mode,
        '\nproduct=', escaped(product),
        '\nendpoint=', escaped(endpoint),
        '\nstatus=', toString(status),
        '\noutcome=', outcome,
        '\nunits=', toString(units),
        '\ndimensions=', arrayStringConcat(
            arrayMap(name -> concat(escaped(name), ':', toString(dimensions[name])), arraySort(mapKeys(dimensions))),
            ','
        ),
        '\ncall_number=', toString(call_number),
        '\nflags=', arrayStringConcat(
            arrayFilter(
                flag -> flag != '',
                [
                    if(has(flags, 'replayed'), 'replayed', ''),
                    if(has({voided:Array(String)}, event_id), 'voided', '')
                ]
            ),
            ','
        ),
        '\n'
    ) AS leaf
SELECT event_id, SHA256(concat(unhex('00'), leaf)) AS leaf_hash, if({with_text:UInt8}, leaf, '') AS leaf_text
FROM usage_events FINAL
WHERE account_id = {account_id:String}
    AND hour = toDateTime({hour:UInt32}, 'UTC')
    AND event_id > {after_id:String}
    AND (empty({event_ids:Array(String)}) OR has({event_ids:Array(String)}, event_id))
ORDER BY event_id
LIMIT {page_size:UInt32}
