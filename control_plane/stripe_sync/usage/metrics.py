"""What usage on its way to Stripe says of itself to Prometheus."""

from prometheus_client import Counter, Gauge

SETTLED = Counter(
    "km_stripe_usage_rows_total", "Rows of usage that were settled, by what became of them.", ["state", "reason"]
)
UNAVAILABLE = Counter(
    "km_stripe_usage_unavailable_total", "Times that Stripe did not take usage and nobody knows whether it has it."
)
WAITING = Gauge("km_stripe_usage_waiting_rows", "Rows that Stripe does not have yet.", ["meter"])
UNKNOWN = Gauge("km_stripe_usage_unknown_rows", "Rows of which nobody knows whether Stripe has them.", ["meter"])
REFUSED = Gauge("km_stripe_usage_refused_rows", "Rows that Stripe would not count.", ["meter"])
OLDEST_SECONDS = Gauge(
    "km_stripe_usage_oldest_seconds", "How long ago the oldest row was sealed that Stripe does not have yet."
)
DRIFT = Gauge(
    "km_stripe_usage_drift_units",
    "Units that Stripe's summary had more (below zero: less) than was delivered when they were compared last.",
    ["meter"],
)
DIFFERENCES = Counter(
    "km_stripe_usage_differences_total", "Comparisons in which Stripe's summary was another.", ["meter"]
)
METER_ERRORS = Counter("km_stripe_usage_meter_errors_total", "Meter events that Stripe did not count.", ["code"])
FAILURES = Counter("km_stripe_usage_failures_total", "Failed attempts that are tried again.", ["step"])
