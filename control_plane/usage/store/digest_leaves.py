"""Reads the leaves of an hour's digest, page by page in the order of event ids. Blocking."""

from collections.abc import Collection, Iterator, Sequence
from importlib import resources
from typing import NamedTuple

from control_plane.usage.model import HourKey
from control_plane.usage.store.events import EventStore

_STATEMENT = (resources.files("control_plane.usage.store") / "digest_leaves.sql").read_text(encoding="utf-8")


class StoredLeaf(NamedTuple):
    """`leaf_hash`: 32 bytes; `text` is '' unless asked for."""

    event_id: str
    leaf_hash: bytes
    text: str


def leaf_pages(
    store: EventStore, hour: HourKey, *, voided: Collection[str], page_size: int
) -> Iterator[Sequence[StoredLeaf]]:
    """Yield the leaves of every event of the hour, sorted by event id, each page but the last full."""
    after_id = ""
    while True:
        page = _read(store, hour, voided=voided, after_id=after_id, page_size=page_size, event_ids=())
        if page:
            yield page
        if len(page) < page_size:
            return
        after_id = page[-1].event_id


def leaves_of_events(
    store: EventStore, hour: HourKey, *, voided: Collection[str], event_ids: Collection[str]
) -> list[StoredLeaf]:
    """Return the leaves of these events with their texts, as far as they are stored in this hour."""
    if not event_ids:
        return []
    return list(
        _read(store, hour, voided=voided, after_id="", page_size=len(event_ids), event_ids=sorted(event_ids))
    )


def _read(
    store: EventStore,
    hour: HourKey,
    *,
    voided: Collection[str],
    after_id: str,
    page_size: int,
    event_ids: Sequence[str],
) -> Sequence[StoredLeaf]:
    rows = store.query(
        _STATEMENT,
        {
            "account_id": hour.account_id,
            "hour": hour.hour_ms // 1000,
            "voided": sorted(voided),
            "after_id": after_id,
            "page_size": page_size,
            "event_ids": list(event_ids),
            "with_text": 1 if event_ids else 0,
        },
    )
    return [StoredLeaf(*row) for row in rows]
