-- A name for each line set aside, made of the place that names it, so that it can be looked up and talked about.
ALTER TABLE {local:usage_dead_letters}{on_cluster}
    (ADD COLUMN IF NOT EXISTS id String MATERIALIZED concat('dl_', lower(hex(substring(SHA256(concat(
        shipper_id, '\0', segment, '\0', toString(start_offset), '\0', toString(number))), 1, 16))))),
    (ADD INDEX IF NOT EXISTS id_index id TYPE bloom_filter(0.01) GRANULARITY 1)
