-- Lines that cannot become events, with the place they came from (which names them) and why.
CREATE TABLE IF NOT EXISTS {local:usage_dead_letters}{on_cluster}
(
    shipper_id String,
    segment String,
    start_offset UInt64,
    number UInt32,
    reason String,
    line String CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC')
)
ENGINE = {replicated}ReplacingMergeTree(received_at)
PARTITION BY toYYYYMM(received_at)
ORDER BY (shipper_id, segment, start_offset, number)
