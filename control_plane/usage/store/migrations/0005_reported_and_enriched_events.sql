-- Events that applications report, and what the collector adds for those who read events. `retention_days`: how long
-- the event is kept at least, by its account's plan.
ALTER TABLE {local:usage_events}{on_cluster}
    ADD COLUMN IF NOT EXISTS shipper LowCardinality(String),
    ADD COLUMN IF NOT EXISTS subscription_id LowCardinality(String),
    ADD COLUMN IF NOT EXISTS plan LowCardinality(String),
    ADD COLUMN IF NOT EXISTS retention_days UInt16 DEFAULT 90,
    ADD COLUMN IF NOT EXISTS source LowCardinality(String),
    ADD COLUMN IF NOT EXISTS event_type LowCardinality(String),
    ADD COLUMN IF NOT EXISTS properties Map(LowCardinality(String), String)
