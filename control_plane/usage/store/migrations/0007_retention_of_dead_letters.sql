-- Lines set aside are kept for a year, and go a month at a time.
ALTER TABLE {local:usage_dead_letters}{on_cluster}
    (MODIFY SETTING materialize_ttl_recalculate_only = 1),
    (MODIFY TTL toDateTime(toStartOfMonth(received_at), 'UTC') + toIntervalMonth(13))
