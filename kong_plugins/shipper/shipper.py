"""The shipper's loop: scan, ship, learn what is committed, delete, give a sign of life.

Each part may be cut off at any instruction. On disk there are only live files and segments; everything else is
found again from them and from the committed positions.
"""

from typing import Any

import structlog

from gateway_contract.usage_lines import MAX_BYTES_PER_ENTRY
from kong_plugins.shipper.backoff import Backoff
from kong_plugins.shipper.batches import Batch, read_batch, read_torn_tail
from kong_plugins.shipper.claims import Claims
from kong_plugins.shipper.faults import Faults
from kong_plugins.shipper.in_flight import InFlight
from kong_plugins.shipper.keeper import SpoolKeeper
from kong_plugins.shipper.metrics import ShipperMetrics
from kong_plugins.shipper.quarantine import Quarantine
from kong_plugins.shipper.segments import Segment
from kong_plugins.shipper.settings import ShipperSettings
from kong_plugins.shipper.sink import (
    Entry,
    Fate,
    PositionsAwayError,
    Refusal,
    SinkAwayError,
    SinkChangedError,
    UsageSink,
)
from kong_plugins.shipper.spool import Spool

# Batches shipped before the loop looks at scans and positions again.
BATCHES_PER_STEP = 40
FULL_WAIT_SECONDS = 0.25

log = structlog.get_logger()


class Shipper:
    """Ships one spool directory. `step` does a bounded piece of work; call it for ever, from one thread."""

    def __init__(
        self, *, settings: ShipperSettings, spool: Spool, sink: UsageSink, metrics: ShipperMetrics
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._sink = sink
        self._metrics = metrics
        self.faults = Faults()
        self.claims = Claims(margin_ms=settings.claim_margin_ms)
        self._keeper = SpoolKeeper(
            settings=settings, spool=spool, claims=self.claims, metrics=metrics, faults=self.faults
        )
        self.segments = self._keeper.segments
        self._quarantine = Quarantine(spool.rejected_directory, max_bytes=settings.quarantine_bytes)
        self._in_flight = InFlight(resend_after_seconds=settings.resend_after_seconds)
        self._backoff = Backoff()
        self._connected = False
        self._begin_because: str | None = "start"
        self._poll_due = self._heartbeat_due = self._full_until = 0.0
        self._started_ms = 0
        self._entry_bytes = MAX_BYTES_PER_ENTRY

    def step(self, *, now: float, now_ms: int) -> bool:
        """Do what is due. Returns whether more is waiting, so that the next step should follow at once.

        Failures of the sink and of the disk are counted, logged and tried again later; none comes out of here.

        Args:
            now: monotonic seconds.
            now_ms: wall clock, ms since 1970, read before the call.
        """
        self._started_ms = self._started_ms or now_ms
        self._keeper.scan_if_due(now=now, now_ms=now_ms)
        if not self._backoff.is_over(now=now):
            return False
        try:
            more = self._talk(now=now, now_ms=now_ms)
        except SinkChangedError:
            self._begin_because = "server_changed"
            return False
        except SinkAwayError as error:
            self._connected = False
            self._note_away(error, now=now)
            self._backoff.fail(now=now)
            return False
        except OSError as error:
            self._metrics.spool_errors.inc()
            self.faults.note(f"spool: {error}", now=now)
            self._backoff.fail(now=now)
            return False
        if not self._connected:
            log.info("connected", sink=self._sink.kind, stream=self._sink.name)
        self._connected = True
        self._backoff.succeed()
        return more

    def show(self, *, now_ms: int) -> dict[str, Any]:
        """Set the gauges, and return what the health page says."""
        metrics, since_ms = self._metrics, self.claims.settled_at_ms or self._started_ms
        behind_seconds = max(now_ms - since_ms, 0) / 1000
        waiting_bytes = self._keeper.live_bytes + sum(segment.waiting_bytes for segment in self.segments)
        metrics.segments.set(len(self.segments))
        metrics.waiting_bytes.set(waiting_bytes)
        metrics.uncommitted_entries.set(len(self._in_flight))
        metrics.behind_seconds.set(behind_seconds)
        metrics.claimed_ms.set(self.claims.claimed_ms)
        return {
            "ready": self._connected,
            "shipper": self._spool.shipper_id,
            "sink": self._sink.kind,
            "stream": self._sink.name,
            "segments": len(self.segments),
            "waiting_bytes": waiting_bytes,
            "uncommitted_entries": len(self._in_flight),
            "behind_seconds": behind_seconds,
            "shipped_up_to_ms": self.claims.claimed_ms,
            "last_error": self.faults.last,
        }

    def _talk(self, *, now: float, now_ms: int) -> bool:
        self._begin_if_needed()
        more = self._ship(now=now, now_ms=now_ms)
        self.claims.settle(self.segments.is_shipped)
        if self._begin_because is not None:
            return True
        if now >= self._poll_due:
            self._poll_due = now + self._settings.poll_seconds
            self._learn_positions(now=now)
            self._keeper.delete_finished(now=now)
        if now >= self._heartbeat_due and not more:
            self._heartbeat(now=now)
        return more

    def _begin_if_needed(self) -> None:
        if self._begin_because is not None:
            self.segments.commit(self._sink.begin())
            self._fall_back(self._begin_because)
            self._begin_because = None

    def _ship(self, *, now: float, now_ms: int) -> bool:
        """Ship up to `BATCHES_PER_STEP` batches; True where more is waiting and can be shipped."""
        left = BATCHES_PER_STEP
        if now < self._full_until:
            return False
        for segment in self.segments.waiting():
            while batch := self._read_next(segment, now=now):
                if not left:
                    return True
                if not self._ship_batch(segment, batch, now=now, now_ms=now_ms):
                    return False
                left -= 1
        return False

    def _read_next(self, segment: Segment, *, now: float) -> Batch | None:
        """Return the next batch. A segment that cannot be read holds up the claim, never the other segments."""
        try:
            batch = self._next_batch(segment, now=now)
        except OSError as error:
            segment.unreadable = True
            self._metrics.spool_errors.inc()
            self.faults.note(f"spool: cannot read {segment.name}: {error.strerror}", now=now)
            return None
        segment.unreadable = False
        return batch

    def _next_batch(self, segment: Segment, *, now: float) -> Batch | None:
        if segment.shipped >= segment.size:
            return None
        if segment.torn_at_size != segment.size:
            if batch := read_batch(segment.path, start=segment.shipped, max_bytes=self._entry_bytes):
                return batch
            segment.torn_at_size = segment.size
        if now - segment.grown_at < self._settings.final_after_seconds:
            return None
        # Nobody writes here any more: what has no end by now never gets one.
        return read_torn_tail(segment.path, start=segment.shipped, end=segment.size)

    def _ship_batch(self, segment: Segment, batch: Batch, *, now: float, now_ms: int) -> bool:
        if len(self._in_flight) >= self._settings.max_stream_entries:
            self._wait_for_room(now=now)
            return False
        self.claims.settle(self.segments.is_shipped)
        # Kept before they are passed: after a kill in between they are kept twice, never not at all.
        self._keep_rejected(segment, batch, now=now, now_ms=now_ms)
        entry = Entry(
            segment=segment.name,
            start=batch.start,
            end=batch.end,
            shipped_up_to_ms=self.claims.claimed_ms,
            lines=batch.lines,
            dropped=len(batch.rejected),
        )
        added = self._add(entry, now=now, most_entries=self._settings.max_stream_entries)
        if added is None:
            return False
        segment.shipped = batch.end
        # What was read may reach beyond the size last seen: the file grew meanwhile.
        segment.grew(size=max(segment.size, batch.end), now=now)
        self._in_flight.add(segment.name, batch.end, added, now=now)
        self._metrics.lines.inc(batch.count)
        self._metrics.entries.inc()
        return True

    def _heartbeat(self, *, now: float) -> None:
        """Say that this shipper lives, and what is shipped; into the emptier half of the stream only."""
        self._heartbeat_due = now + self._settings.heartbeat_seconds
        if self.claims.clock_went_back:
            self.faults.note(
                "the clock went back: nothing is claimed as shipped until it passes the last claim", now=now
            )
        entry = Entry(shipped_up_to_ms=self.claims.claimed_ms)
        if self._add(entry, now=now, most_entries=self._settings.max_stream_entries // 2) is not None:
            self._metrics.heartbeats.inc()

    def _add(self, entry: Entry, *, now: float, most_entries: int) -> str | None:
        added = self._sink.add(entry, most_entries=most_entries)
        if isinstance(added, str):
            self._heartbeat_due = now + self._settings.heartbeat_seconds
            return added
        if added is Refusal.FULL:
            if entry.segment:
                self._wait_for_room(now=now)
            return None
        if added is Refusal.TOO_LARGE:
            self._cut_smaller(entry, now=now)
            return None
        self._begin_because = added.value
        if added is Refusal.EPOCH_TAKEN:
            # Two runs that take the epoch from each other would ship everything again and again.
            self.faults.note("another shipper uses this identity: was the spool directory copied?", now=now)
            self._backoff.pause(now=now, seconds=self._settings.resend_after_seconds)
        return None

    def _cut_smaller(self, entry: Entry, *, now: float) -> None:
        """Make entries half as large from now on, until the sink takes them."""
        self._entry_bytes = max(min(self._entry_bytes, len(entry.lines)) // 2, 1)
        log.warning("the sink takes no entry so large", bytes=len(entry.lines), from_now_on=self._entry_bytes)
        if b"\n" not in entry.lines:
            self.faults.note(f"{self._sink.kind}: it takes no single line of {len(entry.lines)} bytes", now=now)
            self._wait_for_room(now=now)

    def _wait_for_room(self, *, now: float) -> None:
        self._metrics.stream_full.inc()
        self._full_until = now + FULL_WAIT_SECONDS

    def _learn_positions(self, *, now: float) -> None:
        try:
            positions = self._sink.positions()
        except PositionsAwayError as error:
            self._note_away(error, now=now)
            return
        moved = self.segments.commit(positions)
        deleted = [name for name in positions if name not in self.segments]
        if deleted and self._keeper.loaded:
            self._sink.forget(deleted)
        self._in_flight.settle(self.segments.is_committed, moved=moved, now=now)
        overdue = self._in_flight.overdue(now=now)
        if overdue is None:
            return
        fate = self._sink.fate(overdue)
        if fate is Fate.WAITING:
            self._in_flight.wait_on(now=now)
            return
        if self.segments.commit(self._sink.positions()):
            return  # committed between the two looks: next time it is settled
        self._in_flight.wait_longer()
        self._fall_back("stream_lost" if fate is Fate.LOST else "no_progress")

    def _note_away(self, error: SinkAwayError, *, now: float) -> None:
        self._metrics.sink_errors[error.store].inc()
        self.faults.note(f"{error.store}: {error}", now=now)

    def _fall_back(self, reason: str) -> None:
        again_bytes = self.segments.fall_back()
        self._in_flight.clear()
        self.claims.withdraw()
        if reason != "start":
            self._metrics.resends.labels(reason).inc()
            self._metrics.resent_bytes.inc(again_bytes)
            log.warning("shipping again from the committed positions", reason=reason, bytes=again_bytes)

    def _keep_rejected(self, segment: Segment, batch: Batch, *, now: float, now_ms: int) -> None:
        fresh = [line for line in batch.rejected if line.offset >= segment.rejected_to]
        for line in fresh:
            self._metrics.dropped.labels(
                line.reason if line.reason in {"torn", "too long"} else "unreadable"
            ).inc()
            try:
                self._quarantine.keep(
                    segment=segment.name, offset=line.offset, reason=line.reason, raw=line.raw, now_ms=now_ms
                )
            except OSError as error:
                self._metrics.quarantine_errors.inc()
                self.faults.note(f"quarantine: {error}", now=now)
        if fresh:
            segment.rejected_to = batch.end
            log.warning("dropped unreadable lines", segment=segment.name, lines=len(fresh))
