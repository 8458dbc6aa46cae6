"""Proofs that events are in the digests of their hours."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.corrections.queries import voids_of_hours
from control_plane.usage.digests.making import PAGE_SIZE
from control_plane.usage.digests.merkle import path_of, root_of
from control_plane.usage.digests.queries import latest_digests
from control_plane.usage.digests.tables import UsageDigest
from control_plane.usage.hours import is_one_of
from control_plane.usage.model import EARLIEST_MS, LATEST_MS, HourKey
from control_plane.usage.store import EventStore
from control_plane.usage.store.digest_leaves import leaf_pages, leaves_of_events
from control_plane.usage.tables import TouchedHour, UsageHour
from gateway_contract.counters import HOUR_MS
from gateway_contract.receipts import read_receipt

MAX_EVENTS = 500
# every leaf of an hour is read for the paths in it
MAX_HOURS = 48


class Absence(StrEnum):
    """Why there is no proof.

    `not_sealed`: the hour can still change, or was opened again. `not_stored`: it was sealed without it.
    """

    NOT_SEALED = "not_sealed"
    NOT_STORED = "not_stored"


@dataclass(frozen=True, slots=True, order=True)
class WantedEvent:
    """An event, and when its call was decided: that names its hour."""

    event_id: str
    decided_at_ms: int

    @property
    def hour_ms(self) -> int:
        return self.decided_at_ms - self.decided_at_ms % HOUR_MS


@dataclass(frozen=True, slots=True)
class EventProof:
    """That an event is in its hour's tree: leaf, place, and the hashes beside its way up, as hex."""

    event_id: str
    digest: UsageDigest
    leaf: str
    index: int
    size: int
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EventAbsence:
    """That there is no proof of an event."""

    event_id: str
    hour: datetime
    reason: Absence


@dataclass(frozen=True, slots=True)
class Proofs:
    """Proofs, and what cannot be proved; both in the order of event ids."""

    found: tuple[EventProof, ...]
    absent: tuple[EventAbsence, ...]


def wanted_events(account_id: str, receipts: Iterable[str]) -> list[WantedEvent]:
    """Return what receipts name. Their signatures are not looked at: a proof says nothing of what is not stored.

    Raises:
        ValidationFailedError: field `receipts`: one of them is no receipt, or another account's.
    """
    found = set()
    for number, text in enumerate(receipts):
        receipt = read_receipt(text)
        if receipt is None or not EARLIEST_MS <= receipt.decided_at_ms < LATEST_MS:
            raise ValidationFailedError(f"receipts[{number}]", "is not a receipt")
        if receipt.account_id != account_id:
            raise ValidationFailedError(f"receipts[{number}]", "is of another account")
        found.add(WantedEvent(receipt.event_id, receipt.decided_at_ms))
    return sorted(found)


async def prove_events(
    session: AsyncSession, store: EventStore, *, account_id: str, wanted: Sequence[WantedEvent]
) -> Proofs:
    """Return proofs of these events from the last digests of their hours, made of what is stored now.

    Should the store have changed since the digest was made, the paths lead elsewhere than to its root: whoever
    checks them sees it.

    Raises:
        ValidationFailedError: more than 500 events, or events of more than 48 hours.
    """
    if len(wanted) > MAX_EVENTS:
        raise ValidationFailedError("", f"asks for more than {MAX_EVENTS} events: ask in parts")
    by_hour: dict[int, list[WantedEvent]] = defaultdict(list)
    for event in wanted:
        by_hour[event.hour_ms].append(event)
    if len(by_hour) > MAX_HOURS:
        raise ValidationFailedError("", f"asks for events of more than {MAX_HOURS} hours: ask in parts")
    hours = {hour_ms: from_ms(hour_ms) for hour_ms in by_hour}
    keys = [HourKey(account_id, hour_ms) for hour_ms in by_hour]
    made = await _standing_digests(session, account_id=account_id, keys=keys)
    voids = await voids_of_hours(session, keys) if keys else {}
    found: list[EventProof] = []
    absent: list[EventAbsence] = []
    for key in keys:
        hour, events = hours[key.hour_ms], by_hour[key.hour_ms]
        digest = made.get(hour)
        if digest is None:
            absent += [EventAbsence(event.event_id, hour, Absence.NOT_SEALED) for event in events]
            continue
        ids = {event.event_id for event in events}
        proofs = await asyncio.to_thread(
            prove_in_hour, store, key, digest=digest, event_ids=ids, voided=voids.get(key, ())
        )
        found += proofs
        missing = ids.difference(proof.event_id for proof in proofs)
        absent += [EventAbsence(event_id, hour, Absence.NOT_STORED) for event_id in missing]
    return Proofs(
        tuple(sorted(found, key=lambda proof: proof.event_id)),
        tuple(sorted(absent, key=lambda event: event.event_id)),
    )


async def _standing_digests(
    session: AsyncSession, *, account_id: str, keys: Sequence[HourKey]
) -> dict[datetime, UsageDigest]:
    """Return the last digests of hours, without those of hours that were opened since and have none anew yet."""
    made = await latest_digests(session, account_id=account_id, hours=[from_ms(key.hour_ms) for key in keys])
    opened = set(await session.scalars(select(TouchedHour.hour).where(is_one_of(TouchedHour, keys))))
    rows = await session.execute(
        select(UsageHour.hour, UsageHour.revision, UsageHour.sealed_at).where(is_one_of(UsageHour, keys))
    )
    for hour, revision, sealed_at in rows:
        if hour in made and (sealed_at is None or revision != made[hour].revision):
            opened.add(hour)
    return {hour: digest for hour, digest in made.items() if hour not in opened}


def prove_in_hour(
    store: EventStore,
    hour: HourKey,
    *,
    digest: UsageDigest,
    event_ids: Collection[str],
    voided: Collection[str],
    page_size: int = PAGE_SIZE,
) -> list[EventProof]:
    """Return proofs of those of the events that are stored in the hour. Blocking; reads all of the hour's leaves.

    `page_size` is a power of two.
    """
    texts = {
        leaf.event_id: leaf.text for leaf in leaves_of_events(store, hour, voided=voided, event_ids=event_ids)
    }
    if not texts:
        return []
    runs: list[bytes] = []
    places: dict[str, tuple[int, int]] = {}
    inside: dict[str, list[bytes]] = {}
    size = 0
    for page in leaf_pages(store, hour, voided=voided, page_size=page_size):
        hashes = [leaf.leaf_hash for leaf in page]
        for number, leaf in enumerate(page):
            if leaf.event_id in texts:
                places[leaf.event_id] = (size + number, len(runs))
                inside[leaf.event_id] = path_of(hashes, number)
        runs.append(root_of(hashes))
        size += len(page)
    return [
        EventProof(
            event_id=event_id,
            digest=digest,
            leaf=texts[event_id],
            index=index,
            size=size,
            path=tuple(part.hex() for part in [*inside[event_id], *path_of(runs, run)]),
        )
        for event_id, (index, run) in places.items()
    ]
