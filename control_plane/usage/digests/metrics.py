"""What digests say of themselves to Prometheus."""

from prometheus_client import Counter

DIGESTS = Counter("km_usage_digests_total", "Digests made of sealed hours.")
DIGESTED_EVENTS = Counter("km_usage_digested_events_total", "Events in the digests that were made.")
