"""km-shipper: the durable way of usage lines from the spool directory to Redis Streams or a Kafka topic.

Owns: the spool directory (its identity, its lock, segments, the quarantine of unreadable lines), batches, stream
entries, what this shipper may say about the past (`shipped_up_to_ms`), and when a segment may be deleted.
Does not own: how a line is built (`kong_plugins.parts.usage_lines`), whom a line belongs to, or what is committed:
that is the collector's word, found in Redis.
"""
