"""What completeness says of itself to Prometheus."""

from prometheus_client import Counter, Gauge

MISSING_CALLS = Gauge(
    "km_usage_missing_calls", "Calls of the last 35 days that the gateway admitted and that nobody has logged."
)
INCOMPLETE_HOURS = Gauge(
    "km_usage_incomplete_hours", "Counters' hours of the last 35 days that are not complete, by state.", ["state"]
)
DIFFERING_HOURS = Gauge(
    "km_usage_differing_hours", "Hours of the last 35 days whose rollup differs from their stored events."
)
UNSETTLED_HOURS = Gauge(
    "km_usage_wrongly_settled_hours", "Hours of the last 35 days whose counter does not hold what was billed."
)
CHECKED_HOURS = Counter("km_usage_checked_hours_total", "Hours checked, second looks included.")
COUNTED_HOURS = Counter("km_usage_counted_hours_total", "Hours of counters kept after they ended.")
ALERTS = Counter("km_usage_incomplete_alerts_total", "Alerts about hours that are not complete.", ["reason"])
LAST_RUN = Gauge("km_usage_completeness_last_run_seconds", "When hours were last looked at (seconds since 1970).")
