-- Inserts are refused below 64 MB of free disk. The embedded store (chDB 26.9) answers "inserted" where the disk
-- turns out to be full in the middle of writing a part, and leaves a part that nobody can read: that must not happen.
ALTER TABLE {local:usage_events}{on_cluster} MODIFY SETTING min_free_disk_bytes_to_perform_insert = 67108864
