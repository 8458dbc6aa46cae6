"""Counters and gauges of one shipper, in a registry of their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ShipperMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.lines = self._counter("lines_shipped", "Usage lines added to the stream or topic, repeats included.")
        self.entries = self._counter("entries_shipped", "Stream entries with lines, repeats included.")
        self.heartbeats = self._counter("heartbeats", "Stream entries without lines.")
        self.dropped = Counter(
            "km_shipper_lines_dropped",
            "Lines nobody could read; they are in rejected/.",
            ["reason"],
            registry=self.registry,
        )
        self.quarantine_errors = self._counter("quarantine_errors", "Dropped lines that could not be kept.")
        self.resends = Counter(
            "km_shipper_resends",
            "Times that everything after the committed positions was shipped again.",
            ["reason"],
            registry=self.registry,
        )
        self.resent_bytes = self._counter("resent_bytes", "Spool bytes that were shipped again.")
        self.redis_errors = self._counter(
            "redis_errors", "Calls that Redis did not answer, or answered with an error."
        )
        self.kafka_errors = self._counter(
            "kafka_errors", "Calls that Kafka did not answer, or answered with an error."
        )
        self.sink_errors = {"redis": self.redis_errors, "kafka": self.kafka_errors}
        self.spool_errors = self._counter("spool_errors", "Failed operations on the spool directory.")
        self.stream_full = self._counter("stream_full", "Entries put off because the stream has no room.")
        self.deleted = self._counter("segments_deleted", "Segments that were committed and deleted.")
        self.segments_lost = self._counter("segments_lost", "Segments that someone else removed.")
        self.segments = self._gauge("segments", "Segments on disk.")
        self.waiting_bytes = self._gauge(
            "waiting_bytes", "Bytes on disk that were not shipped yet, live files included."
        )
        self.uncommitted_entries = self._gauge("uncommitted_entries", "Entries shipped and not committed yet.")
        self.behind_seconds = self._gauge(
            "behind_seconds", "Age of the oldest moment whose lines are not all shipped."
        )
        self.claimed_ms = self._gauge(
            "shipped_up_to_ms", "What the next entry says is shipped; 0 while catching up."
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"km_shipper_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"km_shipper_{name}", text, registry=self.registry)
