"""The disk side of the loop: live files become segments, segments are watched, finished ones are deleted."""

import structlog

from kong_plugins.shipper.claims import Claims
from kong_plugins.shipper.faults import Faults
from kong_plugins.shipper.metrics import ShipperMetrics
from kong_plugins.shipper.segments import Segment, SegmentBook
from kong_plugins.shipper.settings import ShipperSettings
from kong_plugins.shipper.spool import Spool

# Up to so many segments a scan is made every `scan_seconds`; with more of them (nothing is being committed) scans
# become rarer in proportion, so that the number grows with the square root of the time.
SEGMENTS_AT_FULL_PACE = 300

log = structlog.get_logger()


class SpoolKeeper:
    """Scans when it is due; `segments` is shared with whoever ships, `claims` learns of each scan."""

    def __init__(
        self, *, settings: ShipperSettings, spool: Spool, claims: Claims, metrics: ShipperMetrics, faults: Faults
    ) -> None:
        self.segments = SegmentBook()
        self.live_bytes = 0
        self._settings = settings
        self._spool = spool
        self._claims = claims
        self._metrics = metrics
        self._faults = faults
        self._scan_due = 0.0
        self.loaded = False

    def scan_if_due(self, *, now: float, now_ms: int) -> None:
        """Rename live files and look at all segments that may still grow; a disk that fails is tried again.

        Args:
            now: monotonic seconds.
            now_ms: wall clock read before this call: what the scan stands for (`claims`).
        """
        if now < self._scan_due:
            return
        pace = max(1.0, len(self.segments) / SEGMENTS_AT_FULL_PACE)
        self._scan_due = now + self._settings.scan_seconds * pace
        try:
            self._scan(now=now, now_ms=now_ms)
        except OSError as error:
            self._metrics.spool_errors.inc()
            self._faults.note(f"spool: {error}", now=now)

    def delete_finished(self, *, now: float) -> None:
        """Delete segments that are committed whole and can have no writer any more."""
        for segment in self.segments.finished(now=now, final_after_seconds=self._settings.final_after_seconds):
            try:
                segment.grew(size=segment.path.stat().st_size, now=now)
                if segment.size != segment.committed:
                    log.warning("a final segment grew: is file-log's `reopen` off?", segment=segment.name)
                    continue
                segment.path.unlink()
            except FileNotFoundError:
                self._lost(segment, now=now)
                continue
            except OSError as error:
                self._failed(f"cannot delete {segment.name}", error, now=now)
                continue
            self.segments.remove(segment)
            self._metrics.deleted.inc()

    def _scan(self, *, now: float, now_ms: int) -> None:
        if not self.loaded:
            for path in self._spool.segment_files():
                if path.name not in self.segments:
                    self.segments.add(path, now=now)
            self.loaded = True
        # One more segment while others wait would only cost: in the live file the lines wait as safely.
        backlog = self.segments.has_backlog()
        left_bytes = 0
        for live_file, size in self._spool.live_files():
            if backlog and size < self._settings.rotate_bytes:
                left_bytes += size
                continue
            try:
                taken = self._spool.take(live_file, now_ms=now_ms)
            except OSError as error:
                # One file that cannot be taken holds up the claim, never the other files.
                self._failed(f"cannot rename {live_file.name}", error, now=now)
                left_bytes += size
                continue
            self.segments.add(taken, now=now)
        self.live_bytes = left_bytes
        for segment in self.segments.observe(now=now, final_after_seconds=self._settings.final_after_seconds):
            self._lost(segment, now=now)
        if not left_bytes:
            self._claims.scanned(at_ms=now_ms, targets=self.segments.targets())

    def _failed(self, what: str, error: OSError, *, now: float) -> None:
        self._metrics.spool_errors.inc()
        self._faults.note(f"spool: {what}: {error.strerror}", now=now)

    def _lost(self, segment: Segment, *, now: float) -> None:
        self._metrics.segments_lost.inc()
        self._faults.note(
            f"segment {segment.name} was removed by someone else",
            now=now,
            unshipped_bytes=segment.waiting_bytes,
            uncommitted_bytes=segment.size - segment.committed,
        )
        self.segments.remove(segment)
