"""What the workers of customers and subscriptions at Stripe count."""

from prometheus_client import Counter

ROUND_FAILURES = Counter(
    "km_stripe_subscriptions_round_failures_total", "Rounds of the worker for subscriptions at Stripe that failed"
)
TAKEN_UP = Counter(
    "km_stripe_subscriptions_taken_up_total", "What the worker took up for subscriptions at Stripe", ["what"]
)
