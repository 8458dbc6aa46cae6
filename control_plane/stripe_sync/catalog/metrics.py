"""What the push counts."""

from prometheus_client import Counter, Gauge

PUSHED = Counter("km_stripe_catalog_steps_total", "Objects laid or mended at Stripe.", ["thing", "action"])
PUSH_FAILURES = Counter("km_stripe_catalog_failures_total", "Plan versions whose push failed and is tried again.")
ROUND_FAILURES = Counter("km_stripe_catalog_round_failures_total", "Rounds of the push that failed as a whole.")
REFUSED = Gauge("km_stripe_catalog_refused", "Plan versions on sale that cannot be laid at Stripe.")
