"""What credits say of themselves to Prometheus."""

from prometheus_client import Counter

WRITTEN_OFF = Counter("km_credits_written_off_total", "Grants of which a rest was written off after they expired.")
RESERVATIONS_EXPIRED = Counter(
    "km_credits_reservations_expired_total", "Reservations that nobody settled or released in time."
)
DRAWS = Counter("km_credits_prepaid_looks_total", "Billing periods of prepaid usage that were looked at to draw.")
FAILURES = Counter(
    "km_credits_failures_total", "Rounds of a credit worker that failed and are tried again.", ["worker"]
)
