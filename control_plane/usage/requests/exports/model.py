"""What an export is, and how far it may go. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from control_plane.foundation.clock import floor_hour, from_ms
from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.usage.requests.model import NO_FILTERS, EventFilters, EventSpan
from control_plane.usage.store.event_reads import FileFormat


class ExportKind(StrEnum):
    """`events`: one row a request. `rollups`: the rows of the hourly rollup."""

    EVENTS = "events"
    ROLLUPS = "rollups"


class ExportStatus(StrEnum):
    """Where a job stands. `expired`: its file was there, and was deleted after its time."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


NEXT: Mapping[ExportStatus, frozenset[ExportStatus]] = {
    ExportStatus.QUEUED: frozenset({ExportStatus.RUNNING, ExportStatus.CANCELLED}),
    ExportStatus.RUNNING: frozenset(
        {ExportStatus.QUEUED, ExportStatus.DONE, ExportStatus.FAILED, ExportStatus.CANCELLED}
    ),
    ExportStatus.DONE: frozenset({ExportStatus.EXPIRED}),
    ExportStatus.FAILED: frozenset(),
    ExportStatus.CANCELLED: frozenset(),
    ExportStatus.EXPIRED: frozenset(),
}
UNFINISHED = frozenset({ExportStatus.QUEUED, ExportStatus.RUNNING})
MEDIA_TYPES = {FileFormat.CSV: "text/csv; charset=utf-8", FileFormat.PARQUET: "application/vnd.apache.parquet"}
DEFAULT_DIRECTORY = Path("/var/lib/kong-monetize/exports")
_OF_EVENTS_ONLY = ("request_id", "event_id", "event_ids", "request_ids")


class ExportStatusError(ConflictError):
    """The job is not where it would have to be for this."""

    def __init__(self, status: str, wish: str) -> None:
        super().__init__(f"export_{status}", f"The export is {status}: it cannot be {wish}.")


class TooManyExportsError(ConflictError):
    """As many jobs wait or run as may."""

    def __init__(self, most: int, whose: str) -> None:
        super().__init__("too_many_exports", f"{whose} may have at most {most} exports that wait or run.")


class ExportRefusedError(Exception):
    """The job can never be done; the message is for whoever asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Where files go, and what one export may take.

    `keep`: how long a file stays. A worker that does not renew its lease for `lease` has lost its job. One query
    reads about `piece_rows` events and may take `query_seconds` and `query_memory_mb`. A file is not written on
    while the disk has less than `min_free_mb`: the event store may share it.
    """

    directory: Path = DEFAULT_DIRECTORY
    keep: timedelta = timedelta(hours=24)
    max_rows: int = 20_000_000
    max_bytes: int = 4 * 1024**3
    max_waiting: int = 20
    max_waiting_each: int = 5
    lease: timedelta = timedelta(seconds=120)
    attempts: int = 10
    piece_rows: int = 100_000
    query_seconds: int = 50
    query_memory_mb: int = 512
    min_free_mb: int = 512
    pause_seconds: float = 1.0
    retry_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportWish:
    """What is to be exported: rows of `span`, whose account None is all and '' nobody's."""

    kind: ExportKind
    file_format: FileFormat
    span: EventSpan
    filters: EventFilters = field(default=NO_FILTERS)

    def __post_init__(self) -> None:
        """Raises ValidationFailedError where rollups are asked for what they do not hold."""
        if self.kind is not ExportKind.ROLLUPS:
            return
        for name, moment in (("start", self.span.start), ("end", self.span.end)):
            if floor_hour(moment) != moment:
                raise ValidationFailedError(name, "must be a full hour (UTC) for rollups")
        for name in _OF_EVENTS_ONLY:
            if getattr(self.filters, name):
                raise ValidationFailedError(name, "cannot be asked of rollups")


def check_step(before: str, after: ExportStatus, *, wish: str) -> None:
    """Raises ExportStatusError where a job cannot go from the one status to the other."""
    if after not in NEXT[ExportStatus(before)]:
        raise ExportStatusError(before, wish)


def tiles(span: EventSpan, slices: Sequence[tuple[int, int]], *, most: int) -> Iterator[EventSpan]:
    """Cut a span where `slices` (start in ms, rows) say, into parts of about `most` rows; together all of it.

    A part has more only where a single slice has. Without slices the span is one part.
    """
    starts = [span.start]
    rows = 0
    for start_ms, count in slices:
        start = from_ms(start_ms)
        if rows and rows + count > most and start > starts[-1]:
            starts.append(start)
            rows = 0
        rows += count
    for start, end in zip(starts, [*starts[1:], span.end], strict=True):
        yield EventSpan(account_id=span.account_id, start=start, end=end)
