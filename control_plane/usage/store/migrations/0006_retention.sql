-- A day's events go `retention_days` after it has ended, those of the same retention all at once: then a part is dropped
-- whole, and one that holds several retentions is written anew once for each. What is stored when this step comes gets
-- its times noted without being written anew.
ALTER TABLE {local:usage_events}{on_cluster}
    (MODIFY SETTING materialize_ttl_recalculate_only = 1),
    (MODIFY TTL toStartOfDay(hour) + toIntervalDay(retention_days + 1))
