-- What one meter comes to in groups of spans: one row for each group that anything counted for. A span is a part of one
-- account's usage of one API product, [start_ms, end_ms), with the first status that is not billed in it; the lists
-- that describe spans (s_...) are of equal length.
-- Every event once; live ones only, calls that were served with a billed status, and reported events. What the
-- upstream repeated (flag `replayed`) is left out unless it is among `billed_replays`; so is all of `left_out`. Both
-- name events as 'account event_id'.
-- `value_kind` is '' to count, else what is looked at; conditions on it are constants, and columns that it does not name
-- are not read. What has no such value does not count.
WITH
    spans AS (
        SELECT
            span.1 AS span_group, span.2 AS span_account, span.3 AS span_product, span.4 AS start_ms,
            span.5 AS end_ms, span.6 AS below_status,
            toDateTime(
                arrayJoin(range(intDiv(span.4, 3600000) * 3600, intDiv(span.5 + 3599999, 3600000) * 3600, 3600)), 'UTC'
            ) AS span_hour
        FROM (
            SELECT arrayJoin(arrayZip(
                {s_groups:Array(UInt32)}, {s_accounts:Array(String)}, {s_products:Array(String)},
                {s_starts_ms:Array(UInt64)}, {s_ends_ms:Array(UInt64)}, {s_below:Array(UInt16)}
            )) AS span
        )
    ),
    events AS (
        SELECT
            account_id,
            product,
            hour,
            event_id,
            toUnixTimestamp64Milli(occurred_at) AS at_ms,
            outcome = 'served' AS is_call,
            status,
            if({value_kind:String} = 'dimension', dimensions[{value_name:String}],
            if({value_kind:String} = 'bytes_in', bytes_in,
            if({value_kind:String} = 'bytes_out', bytes_out,
            if({value_kind:String} = 'gateway_ms', toUInt64(gateway_ms),
            if({value_kind:String} = 'latency_ms', toUInt64(latency_ms),
            if({value_kind:String} = 'units', units,
            if({value_kind:String} = 'upstream_ms', toUInt64(greatest(upstream_ms, 0)),
            toUInt64(1)))))))) AS number,
            if({value_kind:String} = 'property', properties[{value_name:String}],
            if({value_kind:String} = 'key_id', toString(key_id),
            if({value_kind:String} = 'client_ip', client_ip,
            if({value_kind:String} = 'endpoint', toString(endpoint),
            if({value_kind:String} = 'path', path,
            ''))))) AS text,
            if(
                empty({weight_endpoints:Array(String)}) OR outcome != 'served',
                toUInt32(1),
                transform(toString(endpoint), {weight_endpoints:Array(String)}, {weights:Array(UInt32)}, toUInt32(1))
            ) AS weight
        FROM usage_events FINAL
        WHERE (account_id, hour) IN (SELECT span_account, span_hour FROM spans)
            AND hour BETWEEN toDateTime(intDiv(arrayMin({s_starts_ms:Array(UInt64)}), 3600000) * 3600, 'UTC')
                AND toDateTime(intDiv(arrayMax({s_ends_ms:Array(UInt64)}), 3600000) * 3600, 'UTC')
            AND mode = 'live'
            AND outcome IN ('served', 'reported')
            AND ({events:String} = 'all' OR outcome = if({events:String} = 'calls', 'served', 'reported'))
            AND (
                NOT has(flags, 'replayed')
                OR has({billed_replays:Array(String)}, concat(account_id, ' ', event_id))
            )
            AND (empty({left_out:Array(String)}) OR NOT has({left_out:Array(String)}, concat(account_id, ' ', event_id)))
            AND (
                outcome != 'served'
                OR (
                    status BETWEEN {lowest_status:UInt16} AND {highest_status:UInt16}
                    AND (empty({endpoints:Array(String)}) OR has({endpoints:Array(String)}, endpoint))
                    AND (empty({methods:Array(String)}) OR has({methods:Array(String)}, method))
                )
            )
            AND (
                outcome != 'reported'
                OR (
                    (empty({event_types:Array(String)}) OR has({event_types:Array(String)}, event_type))
                    AND (empty({sources:Array(String)}) OR has({sources:Array(String)}, source))
                    AND (
                        empty({property_names:Array(String)})
                        OR arrayAll(
                            (name, wanted) -> properties[name] = wanted,
                            {property_names:Array(String)},
                            {property_values:Array(String)}
                        )
                    )
                )
            )
            AND if({value_kind:String} = '', 1,
                if({value_kind:String} = 'dimension', mapContains(dimensions, {value_name:String}),
                if({aggregation:String} = 'unique', text != '',
                if({value_kind:String} = 'upstream_ms', outcome = 'served' AND upstream_ms >= 0,
                outcome = 'served'))))
    )
SELECT
    span_group,
    count() AS events,
    sumIf(toUInt128(number) * weight, {aggregation:String} IN ('count', 'sum')) AS total,
    maxIf(number, {aggregation:String} = 'max') AS greatest_number,
    argMaxIf((number, at_ms, event_id), (at_ms, event_id), {aggregation:String} = 'latest') AS latest,
    uniqExactIf(text, {aggregation:String} = 'unique') AS different
FROM events INNER JOIN spans ON account_id = span_account AND product = span_product AND hour = span_hour
WHERE at_ms >= start_ms AND at_ms < end_ms AND (NOT is_call OR status < below_status)
GROUP BY span_group
