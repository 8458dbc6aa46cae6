"""From stream entries to stored events. Blocking; the collector runs it in a thread."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from zlib import crc32

import structlog

from control_plane.usage import metrics
from control_plane.usage.collect.batch_attribution import Attribution
from control_plane.usage.collect.columns import EventColumns, repeated_receipts
from control_plane.usage.collect.enrichment import Grants, KeptDays, enrichment_columns
from control_plane.usage.collect.entries import EntryBatch
from control_plane.usage.collect.lines import DeadLetter, UsageLine, dead_letter, decode_lines, encode_line
from control_plane.usage.model import HourKey
from control_plane.usage.retention import MINIMUM_DAYS
from control_plane.usage.store import EventStore, UnstorableRowError

IMPLAUSIBLE = "no receipt, and a time that cannot be"
UNPROVEN = "a receipt of no secret known here: counted as a call of nobody"
TOO_LATE = "too late: its hour is past retention, and is not counted again"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredHours:
    """Hours with new events, and those of them whose new events hold replays."""

    every: frozenset[HourKey] = frozenset()
    with_replays: frozenset[HourKey] = frozenset()


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """What a batch comes to: its events, and the lines that cannot become any."""

    batch: EntryBatch
    events: EventColumns
    letters: list[DeadLetter]

    @property
    def accounts(self) -> set[str]:
        return {hour.account_id for hour in self.events.hours} - {""}


class EventWriter:
    """Attributes and stores batches. `attribution` and `kept` are asked for anew for each: the catalog changes."""

    def __init__(
        self,
        *,
        store: EventStore,
        attribution: Callable[[], Attribution],
        kept: Callable[[], KeptDays] = lambda: KeptDays(default_days=MINIMUM_DAYS),
    ) -> None:
        self._store = store
        self._attribution = attribution
        self._kept = kept

    def read(self, batch: EntryBatch, now_ms: int) -> ReadBatch:
        """Decode and attribute entry by entry: a whole batch of lines would never fit a processor's cache.

        Whatever a line holds, it ends as an event or as a dead letter.
        """
        events, attribution = EventColumns(), self._attribution()
        letters = [
            dead_letter(
                reason=f"unreadable entry: {reason}", raw=line, segment=f"entry {entry_id!r}", number=number
            )
            for entry_id, (reason, raw) in batch.unreadable.items()
            for number, line in enumerate(raw.split(b"\n"))
        ]
        for entry in batch.entries:
            lines, bad = decode_lines(
                entry.lines, shipper_id=entry.shipper_id, segment=entry.segment, start_offset=entry.range.start
            )
            found = attribution.events(lines, ingested_at_ms=now_ms, shipper=entry.shipper_id)
            letters += bad
            letters += letters_of_lines(found, entry.shipper_id)
            events.extend(found)
        return ReadBatch(batch, events, letters)

    def write(self, found: ReadBatch, grants: Mapping[str, Grants], now_ms: int) -> StoredHours:
        """Store events and dead letters and return the hours they are in. Idempotent.

        Raises:
            clickhouse_connect.driver.exceptions.Error: the store failed; to be called again.
        """
        events = found.events
        if len(events):
            columns = events.columns
            columns |= enrichment_columns(columns["account_id"], columns["product"], grants, self._kept())
        letters = [*found.letters, *self._insert(found.batch, events)]
        self._store.insert_dead_letters(letters, received_at_ms=now_ms)
        _count(found.batch, events, letters)
        return StoredHours(frozenset(events.hours), frozenset(events.replay_hours))

    def _insert(self, batch: EntryBatch, events: EventColumns) -> Iterator[DeadLetter]:
        """Insert what can be inserted: a row that fits no column must not hold up the others."""
        try:
            self._store.insert(events)
        except UnstorableRowError as error:
            if len(events) > 1:
                middle = len(events) // 2
                yield from self._insert(batch, events.slice(0, middle))
                yield from self._insert(batch, events.slice(middle, len(events)))
                return
            yield _letter_of_row(batch, events, reason=f"unstorable: {error}")


def letters_of_lines(found: EventColumns, shipper_id: str) -> Iterator[DeadLetter]:
    """Return what cannot become an event of somebody, with its reason."""
    for reason, lines in (
        (IMPLAUSIBLE, found.implausible),
        (TOO_LATE, found.expired),
        (UNPROVEN, found.unproven),
    ):
        for line in lines:
            yield _letter_of_line(line, reason, shipper_id)


def _letter_of_line(line: UsageLine, reason: str, shipper_id: str) -> DeadLetter:
    """Name the letter after the line itself: its place is not known any more, and it may come from another one."""
    raw = encode_line(line)
    return dead_letter(
        reason=reason, raw=raw, shipper_id=shipper_id, segment=f"request {line.id}", number=crc32(raw)
    )


def _letter_of_row(batch: EntryBatch, events: EventColumns, *, reason: str) -> DeadLetter:
    """Return the letter of the one event here, with its line: looked for anew, since this hardly ever happens."""
    request_id, shipper_id = events.columns["request_id"][0], events.columns["shipper"][0]
    for entry in batch.entries:
        lines, _ = decode_lines(entry.lines, shipper_id="", segment="", start_offset=0)
        for line in lines:
            if line.id == request_id and entry.shipper_id == shipper_id:
                return _letter_of_line(line, reason, shipper_id)
    raise LookupError(f"the line of {request_id!r} is not in its batch")


def _count(batch: EntryBatch, events: EventColumns, letters: list[DeadLetter]) -> None:
    metrics.EVENTS.inc(len(events))
    metrics.DROPPED.inc(batch.dropped)
    for flag, number in events.flags.items():
        metrics.FLAGGED.labels(metrics.flag_label(flag)).inc(number)
    if repeated := repeated_receipts(events):
        metrics.REPEATED_RECEIPTS.inc(repeated)
        log.warning("one receipt under several request ids", receipts=repeated)
    if letters:
        metrics.DEAD_LETTERS.labels("line").inc(len(letters) - len(batch.unreadable))
        metrics.DEAD_LETTERS.labels("entry").inc(len(batch.unreadable))
        log.error("lines that cannot become events were set aside", lines=len(letters), reason=letters[0].reason)
