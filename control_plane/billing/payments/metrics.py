"""What payments say of themselves to Prometheus."""

from prometheus_client import Counter

FAILURES = Counter(
    "km_overdue_failures_total", "Failed attempts to make subscriptions past due; they are tried again.", ["step"]
)
PAST_DUE = Counter("km_subscriptions_past_due_total", "Subscriptions that became past due for an unpaid invoice.")
