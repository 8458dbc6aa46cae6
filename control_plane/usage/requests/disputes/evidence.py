"""The requests of a case: copies of events, bounded, never changed."""

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.usage.requests.disputes.model import MAX_REQUESTS, TooManyDisputedRequestsError
from control_plane.usage.requests.disputes.tables import Dispute, DisputedRequest
from gateway_contract.usage_events import UsageEvent

INSERTED_AT_ONCE = 1_000


async def copy_events(session: AsyncSession, dispute: Dispute, events: Sequence[UsageEvent], *, step: int) -> int:
    """Keep copies of events and return how many are new to the case.

    Raises:
        NotFoundError: an event is of another account.
        TooManyDisputedRequestsError: the case would have more than 10,000.
    """
    wrong = next((event for event in events if event.account_id != dispute.account_id), None)
    if wrong is not None:
        raise NotFoundError("request", wrong.event_id)
    added = 0
    for start in range(0, len(events), INSERTED_AT_ONCE):
        rows = [
            {
                "dispute_id": dispute.id,
                "event_id": event.event_id,
                "occurred_at": from_ms(event.occurred_at_ms),
                "event": event.as_dict(),
                "added_in_step": step,
            }
            for event in events[start : start + INSERTED_AT_ONCE]
        ]
        statement = insert(DisputedRequest).on_conflict_do_nothing().returning(DisputedRequest.event_id)
        added += len((await session.scalars(statement, rows)).all())
    if dispute.request_count + added > MAX_REQUESTS:
        raise TooManyDisputedRequestsError
    dispute.request_count += added
    return added


async def chosen_requests(
    session: AsyncSession, dispute: Dispute, wanted: Collection[str]
) -> list[DisputedRequest]:
    statement = (
        select(DisputedRequest)
        .where(DisputedRequest.dispute_id == dispute.id)
        .order_by(DisputedRequest.occurred_at, DisputedRequest.event_id)
    )
    requests = {row.event_id: row for row in await session.scalars(statement)}
    if unknown := sorted(set(wanted) - requests.keys()):
        raise ValidationFailedError("void_only", f"{unknown[0]} is not in the dispute")
    return [row for event_id, row in requests.items() if not wanted or event_id in wanted]
