"""Counts with metrics of its own."""

from kong_plugins.server import metrics

Schema = []
version = "1"
priority = 1

_events = metrics.counter("km_test_seen_total", {"kind": "a"}, help_text="seen")
_sizes = metrics.histogram("km_test_sizes", buckets=(1, 10))


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        _events.inc()
        metrics.counter("km_test_seen_total", {"kind": kong.request.get_method()}).inc(2)
        _sizes.observe(5)
