"""Takes requests of a decided dispute out of the count."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import floor_hour
from control_plane.usage.corrections.voiding import void_event
from control_plane.usage.requests.disputes.model import MAX_VOIDS, TooManyVoidsError
from control_plane.usage.requests.disputes.tables import Dispute, DisputedRequest
from control_plane.usage.store import EventStore

REASON_LENGTH = 1_000


@dataclass(frozen=True, slots=True)
class Voided:
    """The voids of requests, by event id; one that was voided before keeps its void."""

    voids: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {"requests": len(self.voids), "voids": self.voids}


async def void_requests(
    session: AsyncSession,
    store: EventStore,
    *,
    dispute: Dispute,
    requests: Sequence[DisputedRequest],
    actor: str,
    now: datetime,
) -> Voided:
    """Void requests, all or none; the reason names the dispute. Idempotent.

    Raises:
        TooManyVoidsError: there are more than can be voided one by one.
        KmError: one of them cannot be voided, as its hour is too old.
    """
    if len(requests) > MAX_VOIDS:
        raise TooManyVoidsError
    reason = f"dispute {dispute.id}: {dispute.explanation}"[:REASON_LENGTH]
    voids: dict[str, str] = {}
    # hours in order: whoever else locks several takes them so, too
    for request in requests:
        void = await void_event(
            session,
            store,
            account_id=dispute.account_id,
            hour=floor_hour(request.occurred_at),
            event_id=request.event_id,
            reason=reason,
            actor=actor,
            now=now,
        )
        voids[request.event_id] = void.id
    return Voided(voids)
