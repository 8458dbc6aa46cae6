"""What what-if jobs say of themselves to Prometheus."""

from prometheus_client import Counter

FAILURES = Counter("km_what_if_failures_total", "Failed batches of what-if jobs; they are tried again.")
