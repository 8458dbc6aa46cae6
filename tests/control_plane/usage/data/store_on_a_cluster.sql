-- list of steps
CREATE TABLE IF NOT EXISTS usage_store_migrations ON CLUSTER 'usage'
(number UInt32, name String, applied_at DateTime('UTC') DEFAULT now())
ENGINE = ReplicatedReplacingMergeTree('/kong-monetize/events/usage_store_migrations', '{shard}-{replica}') ORDER BY number;

-- 0001_usage_events
-- One row for each event id within its account and hour. Of several rows for one event the one with the greatest
-- `precedence` stays, so that the answer does not depend on the order in which they came. A row whose receipt the
-- answer did not confirm gives way to any other.
CREATE TABLE IF NOT EXISTS usage_events_local ON CLUSTER 'usage'
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
ENGINE = ReplicatedReplacingMergeTree(precedence)
PARTITION BY toYYYYMMDD(hour)
ORDER BY (account_id, hour, event_id);

-- 0002_usage_dead_letters
-- Lines that cannot become events, with the place they came from (which names them) and why.
CREATE TABLE IF NOT EXISTS usage_dead_letters_local ON CLUSTER 'usage'
(
    shipper_id String,
    segment String,
    start_offset UInt64,
    number UInt32,
    reason String,
    line String CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC')
)
ENGINE = ReplicatedReplacingMergeTree(received_at)
PARTITION BY toYYYYMM(received_at)
ORDER BY (shipper_id, segment, start_offset, number);

-- 0003_free_disk
-- Inserts are refused below 64 MB of free disk. The embedded store (chDB 26.9) answers "inserted" where the disk
-- turns out to be full in the middle of writing a part, and leaves a part that nobody can read: that must not happen.
ALTER TABLE usage_events_local ON CLUSTER 'usage' MODIFY SETTING min_free_disk_bytes_to_perform_insert = 67108864;

-- 0004_free_disk_for_dead_letters
-- The same for lines set aside: inserts are refused below 64 MB of free disk.
ALTER TABLE usage_dead_letters_local ON CLUSTER 'usage' MODIFY SETTING min_free_disk_bytes_to_perform_insert = 67108864;

-- 0005_reported_and_enriched_events
-- Events that applications report, and what the collector adds for those who read events. `retention_days`: how long
-- the event is kept at least, by its account's plan.
ALTER TABLE usage_events_local ON CLUSTER 'usage'
    ADD COLUMN IF NOT EXISTS shipper LowCardinality(String),
    ADD COLUMN IF NOT EXISTS subscription_id LowCardinality(String),
    ADD COLUMN IF NOT EXISTS plan LowCardinality(String),
    ADD COLUMN IF NOT EXISTS retention_days UInt16 DEFAULT 90,
    ADD COLUMN IF NOT EXISTS source LowCardinality(String),
    ADD COLUMN IF NOT EXISTS event_type LowCardinality(String),
    ADD COLUMN IF NOT EXISTS properties Map(LowCardinality(String), String);

-- 0006_retention
-- A day's events go `retention_days` after it has ended, those of the same retention all at once: then a part is dropped
-- whole, and one that holds several retentions is written anew once for each. What is stored when this step comes gets
-- its times noted without being written anew.
ALTER TABLE usage_events_local ON CLUSTER 'usage'
    (MODIFY SETTING materialize_ttl_recalculate_only = 1),
    (MODIFY TTL toStartOfDay(hour) + toIntervalDay(retention_days + 1));

-- 0007_retention_of_dead_letters
-- Lines set aside are kept for a year, and go a month at a time.
ALTER TABLE usage_dead_letters_local ON CLUSTER 'usage'
    (MODIFY SETTING materialize_ttl_recalculate_only = 1),
    (MODIFY TTL toDateTime(toStartOfMonth(received_at), 'UTC') + toIntervalMonth(13));

-- 0008_history_indexes
-- What people search requests by. The index of request ids is finer than it was. `precedence` has 32 bits of the hash
-- instead of 63, which is half as many bytes on disk: it decides between two request ids of one receipt only.
ALTER TABLE usage_events_local ON CLUSTER 'usage'
    (DROP INDEX IF EXISTS request_id_index),
    (ADD INDEX IF NOT EXISTS by_request request_id TYPE bloom_filter(0.001) GRANULARITY 1),
    (ADD INDEX IF NOT EXISTS by_key key_id TYPE bloom_filter(0.01) GRANULARITY 1),
    (ADD INDEX IF NOT EXISTS by_endpoint endpoint TYPE bloom_filter(0.01) GRANULARITY 1),
    (ADD INDEX IF NOT EXISTS by_status status TYPE set(100) GRANULARITY 1),
    (MODIFY COLUMN precedence UInt64 DEFAULT bitShiftRight(cityHash64(request_id), 32)
        + if(has(flags, 'lone_receipt'), 0, bitShiftLeft(toUInt64(1), 63)) CODEC(T64, ZSTD(1)));

-- 0009_index_what_is_stored
-- The indexes for events that are stored already; in the background.
ALTER TABLE usage_events_local ON CLUSTER 'usage'
    MATERIALIZE INDEX by_request,
    MATERIALIZE INDEX by_key,
    MATERIALIZE INDEX by_endpoint,
    MATERIALIZE INDEX by_status;

-- usage_events
CREATE OR REPLACE TABLE usage_events ON CLUSTER 'usage' AS usage_events_local
ENGINE = Distributed('usage', 'events', 'usage_events_local', cityHash64(account_id));

-- usage_dead_letters
CREATE OR REPLACE TABLE usage_dead_letters ON CLUSTER 'usage' AS usage_dead_letters_local
ENGINE = Distributed('usage', 'events', 'usage_dead_letters_local', cityHash64(shipper_id, segment, start_offset, number));

