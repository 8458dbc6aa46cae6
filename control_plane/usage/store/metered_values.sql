-- What meters come to in groups of spans: one row for each group and meter that anything counted for. A span is a
-- part of one account's usage of one API product, [start_ms, end_ms), with the first status that is not billed in it.
-- Every event once; live ones only, calls that were served with a billed status, and reported events. What the
-- upstream repeated (flag `replayed`) is left out unless it is among `billed_replays`; so is all of `left_out`. Both
-- name events as 'account event_id'.
-- The lists of meters (m_...) and of spans (s_...) are of equal length each; meters are numbered from 0.
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
    meters AS (
        SELECT
            meter.1 AS meter_number, meter.2 AS meter_product, meter.3 AS meter_events, meter.4 AS value_kind,
            meter.5 AS value_name, meter.6 AS endpoints, meter.7 AS methods, meter.8 AS lowest_status,
            meter.9 AS highest_status, meter.10 AS event_types, meter.11 AS sources, meter.12 AS property_names,
            meter.13 AS property_values, meter.14 AS weight_endpoints, meter.15 AS weights, meter.16 AS is_unique
        FROM (
            SELECT arrayJoin(arrayZip(
                range(length({m_products:Array(String)})), {m_products:Array(String)}, {m_events:Array(String)},
                {m_value_kinds:Array(String)}, {m_value_names:Array(String)}, {m_endpoints:Array(Array(String))},
                {m_methods:Array(Array(String))}, {m_lowest:Array(UInt16)}, {m_highest:Array(UInt16)},
                {m_event_types:Array(Array(String))}, {m_sources:Array(Array(String))},
                {m_property_names:Array(Array(String))}, {m_property_values:Array(Array(String))},
                {m_weight_endpoints:Array(Array(String))}, {m_weights:Array(Array(UInt32))},
                {m_is_unique:Array(UInt8)}
            )) AS meter
        )
    ),
    wanted AS (SELECT * FROM spans INNER JOIN meters ON span_product = meter_product),
    events AS (
        SELECT
            account_id, hour, product, event_id, toUnixTimestamp64Milli(occurred_at) AS at_ms, outcome, status, endpoint,
            method, path, key_id, client_ip, event_type, source, properties, dimensions, units, bytes_in, bytes_out,
            latency_ms, gateway_ms, upstream_ms
        FROM usage_events FINAL
        WHERE (account_id, hour) IN (SELECT span_account, span_hour FROM spans)
            AND hour BETWEEN toDateTime(intDiv(arrayMin({s_starts_ms:Array(UInt64)}), 3600000) * 3600, 'UTC')
                AND toDateTime(intDiv(arrayMax({s_ends_ms:Array(UInt64)}), 3600000) * 3600, 'UTC')
            AND mode = 'live'
            AND outcome IN ('served', 'reported')
            AND (
                NOT has(flags, 'replayed')
                OR has({billed_replays:Array(String)}, concat(account_id, ' ', event_id))
            )
            AND NOT has({left_out:Array(String)}, concat(account_id, ' ', event_id))
    ),
    counted AS (
        SELECT
            span_group, meter_number, is_unique, value_kind, at_ms, event_id,
            outcome = 'served' AS is_call,
            multiIf(
                value_kind = 'dimension', dimensions[value_name],
                value_kind = 'bytes_in', bytes_in,
                value_kind = 'bytes_out', bytes_out,
                value_kind = 'gateway_ms', toUInt64(gateway_ms),
                value_kind = 'latency_ms', toUInt64(latency_ms),
                value_kind = 'units', units,
                value_kind = 'upstream_ms', toUInt64(greatest(upstream_ms, 0)),
                toUInt64(1)
            ) AS number,
            multiIf(
                value_kind = 'property', properties[value_name],
                value_kind = 'key_id', toString(key_id),
                value_kind = 'client_ip', client_ip,
                value_kind = 'endpoint', toString(endpoint),
                value_kind = 'path', path,
                ''
            ) AS text,
            if(
                is_call AND has(weight_endpoints, endpoint), weights[indexOf(weight_endpoints, endpoint)], toUInt32(1)
            ) AS weight
        FROM events INNER JOIN wanted
            ON account_id = span_account AND product = span_product AND hour = span_hour
        WHERE at_ms >= start_ms
            AND at_ms < end_ms
            AND if(
                outcome = 'served',
                meter_events != 'reported' AND status < below_status
                    AND status BETWEEN lowest_status AND highest_status
                    AND (empty(endpoints) OR has(endpoints, endpoint))
                    AND (empty(methods) OR has(methods, method)),
                meter_events != 'calls'
                    AND (empty(event_types) OR has(event_types, event_type))
                    AND (empty(sources) OR has(sources, source))
                    AND arrayAll((name, text) -> properties[name] = text, property_names, property_values)
            )
            -- what has no such value does not count: a call that never reached the upstream took it no time
            AND multiIf(
                value_kind = '', 1,
                value_kind = 'dimension', mapContains(dimensions, value_name),
                value_kind = 'upstream_ms', is_call AND upstream_ms >= 0,
                is_unique = 1, text != '',
                is_call
            )
    )
SELECT
    span_group,
    meter_number,
    count() AS events,
    sum(toUInt128(number) * weight) AS total,
    max(number) AS greatest_number,
    argMax((number, at_ms, event_id), (at_ms, event_id)) AS latest,
    uniqExactIf(text, is_unique = 1) AS different
FROM counted
GROUP BY span_group, meter_number
