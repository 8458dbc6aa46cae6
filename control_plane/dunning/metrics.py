"""What dunning says of itself to Prometheus."""

from prometheus_client import Counter, Gauge

OPENED = Counter("km_dunning_opened_total", "Subscriptions that became unpaid.")
CLOSED = Counter("km_dunning_closed_total", "Cases that ended, by how.", ["state"])
FELL = Counter("km_dunning_fell_total", "Graces that were over unpaid, by what holds since.", ["state"])
OPEN = Gauge("km_dunning_open", "Open cases, by state.", ["state"])
FAILURES = Counter("km_dunning_failures_total", "Rounds and single steps of dunning that failed.", ["step"])
