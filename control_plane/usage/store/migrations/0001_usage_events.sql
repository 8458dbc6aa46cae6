-- One row for each event id within its account and hour. Of several rows for one event the one with the greatest
-- `precedence` stays, so that the answer does not depend on the order in which they came. A row whose receipt the
-- answer did not confirm gives way to any other.
CREATE TABLE IF NOT EXISTS {local:usage_events}{on_cluster}
(
    event_id String CODEC(ZSTD(1)),
    request_id String CODEC(ZSTD(1)),
    account_id LowCardinality(String),
    key_id LowCardinality(String),
    occurred_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    hour DateTime('UTC') DEFAULT toStartOfHour(occurred_at, 'UTC') CODEC(Delta(4), ZSTD(1)),
    mode LowCardinality(String),
    product LowCardinality(String),
    service LowCardinality(String),
    route LowCardinality(String),
    endpoint LowCardinality(String),
    method LowCardinality(String),
    path String CODEC(ZSTD(1)),
    status UInt16,
    outcome LowCardinality(String),
    units UInt64 CODEC(T64, ZSTD(1)),
    dimensions Map(LowCardinality(String), UInt64),
    bytes_in UInt64 CODEC(T64, ZSTD(1)),
    bytes_out UInt64 CODEC(T64, ZSTD(1)),
    latency_ms UInt32 CODEC(T64, ZSTD(1)),
    gateway_ms UInt32 CODEC(T64, ZSTD(1)),
    upstream_ms Int32 CODEC(T64, ZSTD(1)),
    client_ip String CODEC(ZSTD(1)),
    emitter LowCardinality(String),
    call_number UInt64 CODEC(Delta(8), ZSTD(1)),
    flags Array(LowCardinality(String)),
    ingested_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    precedence UInt64 DEFAULT bitShiftRight(cityHash64(request_id), 1)
        + if(has(flags, 'lone_receipt'), 0, bitShiftLeft(toUInt64(1), 63)) CODEC(ZSTD(1)),
    INDEX request_id_index request_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = {replicated}ReplacingMergeTree(precedence)
PARTITION BY toYYYYMMDD(hour)
ORDER BY (account_id, hour, event_id)
