"""What rollups say of themselves to Prometheus, beside `usage.metrics`."""

from prometheus_client import Counter, Histogram

SEALS_OPENED = Counter("km_usage_seals_opened_total", "Sealed hours whose figures changed, so that they opened.")
LEDGER_ENTRIES = Counter(
    "km_usage_ledger_entries_total", "Changes of billable units written to the ledger of sealed usage.", ["sign"]
)
AMENDMENTS_CLAMPED = Counter(
    "km_usage_amendments_clamped_total",
    "Recomputes in which an amendment took less than it says, since there was no more.",
)
RECOMPUTE_SECONDS = Histogram(
    "km_usage_recompute_seconds",
    "Time that one pass of the aggregator took.",
    ["lane"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
