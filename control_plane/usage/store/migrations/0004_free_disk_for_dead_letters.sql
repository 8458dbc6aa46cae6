-- The same for lines set aside: inserts are refused below 64 MB of free disk.
ALTER TABLE {local:usage_dead_letters}{on_cluster} MODIFY SETTING min_free_disk_bytes_to_perform_insert = 67108864
