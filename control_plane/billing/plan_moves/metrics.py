"""What moves of subscriptions say of themselves to Prometheus."""

from prometheus_client import Counter

FAILURES = Counter("km_plan_move_failures_total", "Failed steps of plan moves; they are tried again.", ["step"])
SETTLED = Counter("km_plan_move_items_total", "Subscriptions in plan moves, by what was done.", ["status"])
