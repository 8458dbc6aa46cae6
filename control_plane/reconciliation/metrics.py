"""What reconciliations say of themselves to Prometheus."""

from prometheus_client import Counter, Gauge

DIFFERENCES = Gauge(
    "km_reconciliation_differences",
    "Differences that the last reconciliation of all accounts found, by link and severity.",
    ["link", "severity"],
)
LAST_RUN = Gauge(
    "km_reconciliation_last_run_seconds", "When all accounts were last reconciled (seconds since 1970)."
)
FAILURES = Counter("km_reconciliation_failures_total", "Reconciliations that failed and are tried again.")
