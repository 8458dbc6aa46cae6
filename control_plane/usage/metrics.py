"""What usage says of itself to Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("km_usage_events_total", "Usage lines stored as events, redeliveries included.")
ENTRIES = Counter("km_usage_entries_total", "Stream entries worked off.")
FLAGGED = Counter("km_usage_flagged_total", "Events stored with a remark.", ["flag"])
REPEATED_RECEIPTS = Counter(
    "km_usage_repeated_receipts_total", "Receipts seen under more than one request id in one batch."
)
DEAD_LETTERS = Counter("km_usage_dead_letters_total", "Lines and entries that could not become events.", ["kind"])
LETTERS_HANDLED = Counter(
    "km_usage_dead_letters_handled_total", "Dead letters replayed, replayed in vain or dismissed.", ["outcome"]
)
DROPPED = Counter("km_usage_dropped_lines_total", "Lines that shippers said they could not read.")
BATCH_SECONDS = Histogram(
    "km_usage_batch_seconds",
    "Time from reading a batch to its acknowledgement.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ENRICHED = Counter(
    "km_usage_accounts_looked_up_total",
    "Accounts of a batch looked up for plan and subscription: cached, read, missing, unreadable or failed.",
    ["result"],
)
FAILURES = Counter("km_usage_failures_total", "Failed attempts that are tried again.", ["worker", "step"])
CLAIMED = Counter("km_usage_claimed_entries_total", "Entries taken over from collectors that went away.")
GROUPS_MADE = Counter(
    "km_usage_consumer_groups_total", "Consumer groups made: at the first start, or after Redis lost its data."
)
KAFKA_GAPS = Counter(
    "km_usage_kafka_gaps_total",
    "Times that messages of a shipper were missing, so that it was told to ship again.",
)
KAFKA_HANDOVERS = Counter(
    "km_usage_kafka_handovers_total", "Batches whose partitions went to another collector before it was done."
)
STREAM_LENGTH = Gauge("km_usage_stream_entries", "Entries in the stream that are not worked off.", ["shard"])
PENDING = Gauge("km_usage_pending_entries", "Entries given to a collector and not acknowledged yet.", ["shard"])
OLDEST_AGE = Gauge("km_usage_oldest_entry_seconds", "Age of the oldest entry that is not worked off.", ["shard"])
BATCH_LINES = Histogram(
    "km_usage_batch_lines", "Lines in a batch.", buckets=(1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000)
)
BATCH_BYTES = Histogram(
    "km_usage_batch_bytes", "Bytes of lines in a batch.", buckets=tuple(4**power for power in range(5, 14))
)
HOURS_RECOMPUTED = Counter("km_usage_hours_recomputed_total", "Hours recomputed whole.", ["changed"])
HOURS_PAST = Counter(
    "km_usage_hours_past_total", "Touched hours left as they stand, since events of them may have expired."
)
HOURS_TOUCHED = Gauge("km_usage_hours_touched", "Hours with events that are not in the rollup yet.")
HOURS_SEALED = Counter("km_usage_hours_sealed_total", "Hours sealed, revisions included.")
DAYS_ROLLED_UP = Counter("km_usage_days_rolled_up_total", "Days rolled up whole from their hours.")
DAYS_DROPPED = Counter("km_usage_days_dropped_total", "Days whose hours were dropped: their daily figures stay.")
SILENT_SHIPPERS = Gauge("km_usage_silent_shippers", "Live shippers not heard of for too long; they hold the seal.")


def flag_label(flag: str) -> str:
    """Return the flag without its detail: a metric needs few labels."""
    return flag.partition(":")[0]
