"""From stream entries to stored events. Blocking; the collector runs it in a thread."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import structlog

from control_plane.usage import metrics
from control_plane.usage.collect.batch_attribution import Attribution
from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.collect.enrichment import Grants, KeptDays, enrichment_columns
from control_plane.usage.collect.entries import EntryBatch
from control_plane.usage.collect.lines import DeadLetter, UsageLine, dead_letter, decode_lines, encode_line
from control_plane.usage.model import HourKey
from control_plane.usage.retention import MINIMUM_DAYS
from control_plane.usage.store import EventStore
from control_plane.usage.store.event_block import EventBlock, UnstorableRowError

IMPLAUSIBLE = "no receipt, and a time that cannot be"
UNPROVEN = "a receipt of no secret known here: counted as a call of nobody"
TOO_LATE = "too late: its hour is past retention, and is not counted again"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredHours:
    """Hours with new events, and those of them whose new events hold replays."""

    every: frozenset[HourKey] = frozenset()
    with_replays: frozenset[HourKey] = frozenset()


@dataclass(slots=True)
class Noted:
    """What is asked of a batch's events once they are bytes, and no more: their texts take four times the room.

    `accounts` and `products` are by row; of the ids there are hashes, enough to tell them apart.
    """

    accounts: list[str] = field(default_factory=list)
    products: list[str] = field(default_factory=list)
    event_ids: "array[int]" = field(default_factory=lambda: array("q"))
    request_ids: "array[int]" = field(default_factory=lambda: array("q"))
    hours: set[HourKey] = field(default_factory=set)
    replay_hours: set[HourKey] = field(default_factory=set)
    flags: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.accounts)

    def add(self, events: EventColumns) -> None:
        """Note events that were added to the block."""
        if len(events):
            columns = events.columns
            self.accounts += columns["account_id"]
            self.products += columns["product"]
            self.event_ids.extend(map(hash, columns["event_id"]))
            self.request_ids.extend(map(hash, columns["request_id"]))
        self.hours |= events.hours
        self.replay_hours |= events.replay_hours
        self.flags.update(events.flags)

    def repeated_receipts(self) -> int:
        """Count receipts that came under more than one request id."""
        distinct = len(set(self.event_ids))
        if distinct == len(self.event_ids):
            return 0
        return len(set(zip(self.event_ids, self.request_ids, strict=True))) - distinct


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """What a batch comes to: its events as they will be stored, and the lines that cannot become any."""

    batch: EntryBatch
    block: EventBlock
    noted: Noted
    letters: list[DeadLetter]

    @property
    def accounts(self) -> set[str]:
        return {hour.account_id for hour in self.noted.hours} - {""}


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
        block, noted, attribution = EventBlock(), Noted(), self._attribution()
        letters = list(_letters_of_entries(batch))
        for entry in batch.entries:
            lines, bad = decode_lines(
                entry.lines, shipper_id=entry.shipper_id, segment=entry.segment, start_offset=entry.range.start
            )
            found = attribution.events(lines, ingested_at_ms=now_ms, shipper=entry.shipper_id)
            letters += bad
            letters += letters_of_lines(found, entry.shipper_id)
            if len(found):
                found, unstorable = add_what_fits(block, found)
                letters += _letters_of_rows(unstorable, lines, entry.shipper_id)
            noted.add(found)
        return ReadBatch(batch, block, noted, letters)

    def write(self, found: ReadBatch, grants: Mapping[str, Grants], now_ms: int) -> StoredHours:
        """Store events and dead letters and return the hours they are in. Idempotent.

        Raises:
            clickhouse_connect.driver.exceptions.Error: the store failed; to be called again.
        """
        noted = found.noted
        if len(noted):
            added = enrichment_columns(noted.accounts, noted.products, grants, self._kept())
            self._store.insert_block(found.block, added)
        self._store.insert_dead_letters(found.letters, received_at_ms=now_ms)
        _count(found.batch, noted, found.letters)
        return StoredHours(frozenset(noted.hours), frozenset(noted.replay_hours))


def add_what_fits(block: EventBlock, events: EventColumns) -> tuple[EventColumns, dict[str, str]]:
    """Add events to a block and return those added, and why others were not, by request id.

    A row that fits no column must not hold up the others.
    """
    try:
        block.add(events.columns)
    except UnstorableRowError:
        pass  # one of them: find out which
    else:
        return events, {}
    reasons: dict[int, str] = {}
    for row in range(len(events)):
        try:
            EventBlock().add(events.slice(row, row + 1).columns)
        except UnstorableRowError as error:
            reasons[row] = str(error)
    kept = events.without(reasons)
    if len(kept):
        block.add(kept.columns)
    request_ids = events.columns["request_id"]
    return kept, {request_ids[row]: reason for row, reason in reasons.items()}


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


def _letters_of_entries(batch: EntryBatch) -> Iterator[DeadLetter]:
    """Return the lines of entries that cannot be read, one by one: they may be sound."""
    for entry_id, (reason, raw) in batch.unreadable.items():
        for number, line in enumerate(raw.split(b"\n")):
            yield dead_letter(
                reason=f"unreadable entry: {reason}", raw=line, segment=f"entry {entry_id!r}", number=number
            )


def _letters_of_rows(
    reasons: Mapping[str, str], lines: Sequence[UsageLine], shipper_id: str
) -> Iterator[DeadLetter]:
    for line in lines:
        if line.id in reasons:
            yield _letter_of_line(line, f"unstorable: {reasons[line.id]}", shipper_id)


def _count(batch: EntryBatch, events: Noted, letters: list[DeadLetter]) -> None:
    metrics.EVENTS.inc(len(events))
    metrics.DROPPED.inc(batch.dropped)
    for flag, number in events.flags.items():
        metrics.FLAGGED.labels(metrics.flag_label(flag)).inc(number)
    if repeated := events.repeated_receipts():
        metrics.REPEATED_RECEIPTS.inc(repeated)
        log.warning("one receipt under several request ids", receipts=repeated)
    if letters:
        metrics.DEAD_LETTERS.labels("line").inc(len(letters) - len(batch.unreadable))
        metrics.DEAD_LETTERS.labels("entry").inc(len(batch.unreadable))
        log.error("lines that cannot become events were set aside", lines=len(letters), reason=letters[0].reason)
