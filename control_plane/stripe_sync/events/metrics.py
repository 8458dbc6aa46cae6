"""What the inbox of Stripe's events says of itself to Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

WEBHOOKS = Counter(
    "km_stripe_webhooks_total",
    "Webhooks answered: stored, repeated, or refused and why.",
    ["endpoint", "result"],
)
EVENTS = Counter(
    "km_stripe_events_total",
    "Events acted on: done, ignored, again (to be tried again), dead.",
    ["kind", "result"],
)
FOUND = Counter("km_stripe_events_found_total", "Events that Stripe lists and no webhook brought.")
SECONDS = Histogram(
    "km_stripe_event_seconds",
    "Time from the storing of an event to its effect.",
    buckets=(0.1, 0.5, 1, 2.5, 5, 15, 60, 300, 3_600, 86_400),
)
WAITING = Gauge("km_stripe_events_waiting", "Events that are not acted on yet.")
OLDEST = Gauge("km_stripe_events_oldest_seconds", "Age of the oldest event that is not acted on yet.")
DEAD = Gauge("km_stripe_events_dead", "Events that were given up; somebody has to look.")
FAILURES = Counter("km_stripe_event_failures_total", "Failed rounds that are tried again.", ["worker"])
