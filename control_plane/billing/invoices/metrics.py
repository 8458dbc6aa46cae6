"""What closing says of itself to Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

INVOICES_FINALISED = Counter("km_billing_invoices_finalised_total", "Invoices made final by closing.")
PERIODS_BILLED = Counter(
    "km_billing_periods_billed_total", "Billing periods whose usage was billed, also those without an invoice."
)
PERIODS_CHANGED = Counter(
    "km_billing_periods_changed_total", "Billed periods of which usage was sealed after they were billed."
)
WAITING = Gauge(
    "km_billing_waiting_subscriptions",
    "Subscriptions of the latest round whose invoice is due, and waits for usage to be sealed.",
)
ROUND_SECONDS = Histogram(
    "km_billing_round_seconds",
    "Time that one round of closing took, at most a batch of subscriptions.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
FAILURES = Counter("km_billing_failures_total", "Rounds of billing that failed and are tried again.", ["step"])
