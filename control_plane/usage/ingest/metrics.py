"""What ingest says of itself to Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("km_ingest_events_total", "Events that applications sent, by what became of them.", ["result"])
STORED = Counter(
    "km_ingest_stored_events_total", "Accepted events brought into the event store, repeats included."
)
GROUP_SECONDS = Histogram(
    "km_ingest_group_seconds",
    "Time from taking up a group of events to its answer.",
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
WAITING = Gauge("km_ingest_waiting_events", "Events that wait to be written.")
REFUSED = Counter("km_ingest_refused_requests_total", "Requests answered 503 or 429.", ["reason"])
FAILURES = Counter("km_ingest_failures_total", "Failed attempts that are tried again.", ["step"])
UNSTORABLE = Counter("km_ingest_unstorable_events_total", "Accepted events that the store cannot hold.")
SPOILED = Gauge("km_ingest_spoiled_batches", "Batches kept because the store cannot hold some of their events.")
LOCAL_LIMITS = Counter("km_ingest_local_limits_total", "Requests judged by this process alone: Redis was away.")
