"""Prometheus figures of the projector and of the Kong configuration."""

from prometheus_client import Counter, Gauge, Histogram

PROJECTED = Counter("km_projected_records_total", "Changes projected into Redis.", ["kind"])
MISSING = Counter(
    "km_projection_missing_total", "Outbox rows that named a key or account that does not exist.", ["kind"]
)
UNUSABLE = Counter("km_projection_unusable_total", "Rows whose values no record can be made of.", ["kind"])
WAITING = Gauge("km_projection_waiting", "Outbox rows that wait for projection or settlement.")
LAG = Gauge("km_projection_lag_seconds", "Age of the oldest change that is not yet in Redis.")
FAILURES = Counter(
    "km_gateway_sync_failures_total", "Failed rounds of a loop; it backs off and goes on.", ["loop"]
)
SWEEPS = Counter("km_projection_sweeps_total", "Full sweeps by reason and result.", ["reason", "result"])
SWEEP_SECONDS = Histogram(
    "km_projection_sweep_seconds", "Time of a full sweep.", buckets=(0.1, 0.5, 1, 5, 15, 30, 60, 120, 300)
)
SETTLED = Counter("km_settled_hours_total", "Sealed hours settled in the gateway's counters.")
UPGRADE_HINTS = Counter(
    "km_upgrade_hints_total", "Upgrade hints worked out, by whether another plan is named.", ["result"]
)
HINT_ROUND_SECONDS = Gauge("km_upgrade_hint_round_seconds", "Time of the last round through all subscriptions.")
PUSHES = Counter("km_config_pushes_total", "Configuration pushes to nodes by result.", ["result"])
NODES = Gauge("km_gateway_nodes", "Gateway nodes by status at the last check.", ["status"])
