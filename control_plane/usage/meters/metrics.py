"""What meters say of themselves to Prometheus."""

from prometheus_client import Counter, Gauge

PERIODS_COUNTED = Counter("km_usage_meter_periods_counted_total", "Billing periods of unique meters counted.")
PERIODS_PENDING = Gauge(
    "km_usage_meter_periods_pending", "Billing periods whose unique values are not up to date yet."
)
PERIODS_STANDING = Counter(
    "km_usage_meter_periods_standing_total",
    "Billing periods of unique meters that were touched after their events may have expired: not counted again.",
)
BACKFILLED_HOURS = Counter(
    "km_usage_meter_backfilled_hours_total", "Hours counted anew for a meter, and those left out.", ["counted"]
)
REPLACED_FORGOTTEN = Counter(
    "km_usage_meter_values_forgotten_total", "Rows of meters that were replaced before anything used them."
)
