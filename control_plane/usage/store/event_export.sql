-- Events as they are exported, oldest first, each once. What is in braces without a type is put in by
-- event_reads.py: `text` and `json` make cells of columns for files that people open.
SELECT
    {text:event_id}, {text:request_id}, occurred_at, {text:account_id}, {text:key_id}, {text:mode}, {text:product},
    {text:service}, {text:route}, {text:endpoint}, {text:method}, {text:path}, status, {text:outcome}, units,
    {json:dimensions}, bytes_in, bytes_out, latency_ms, gateway_ms, upstream_ms, {text:client_ip}, {text:emitter},
    call_number, {json:flags}, {text:shipper}, {text:subscription_id}, {text:plan}, {text:source},
    {text:event_type}, {json:properties}
FROM usage_events AS event FINAL
WHERE {conditions}
ORDER BY event.occurred_at, event.event_id, event.account_id
