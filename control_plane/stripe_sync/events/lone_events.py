"""Events known by their id alone: asked to be replayed, and never brought by a webhook."""

from typing import TYPE_CHECKING

from sqlalchemy import update

from control_plane.stripe_sync.effects import Effect
from control_plane.stripe_sync.events.allowlist import Kind
from control_plane.stripe_sync.events.listing import told_snapshot, told_thin
from control_plane.stripe_sync.events.model import NOT_READ, State, Told
from control_plane.stripe_sync.events.tables import StripeEvent
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.outcomes import StripeRefused

if TYPE_CHECKING:
    from stripe import Event, StripeClient
    from stripe.v2.core import Event as ThinEvent


async def apply_event(context: StripeContext, event_id: str) -> Effect:
    """Learn what the event is about; its row then waits for that object like any other.

    Raises:
        StripeRefused: Stripe does not know it (any more): it keeps events for 30 days.
    """
    told = await _read(context, event_id)
    values = (
        {"state": State.IGNORED, "reason": NOT_READ, "kind": None, "object_id": None, "handled_at": context.now}
        if told.kind is None
        else {"kind": told.kind, "object_id": told.object_id, "attempts": 0, "next_attempt_at": context.now}
    )
    async with context.sessions() as session, session.begin():
        await session.execute(
            update(StripeEvent)
            .where(StripeEvent.id == event_id, StripeEvent.kind == Kind.EVENT)
            .values(type=told.type, created_at=told.created_at, **values)
            .execution_options(synchronize_session=False)
        )
    return Effect.APPLIED


async def _read(context: StripeContext, event_id: str) -> Told:
    async def snapshot(client: "StripeClient") -> "Event":
        return await client.v1.events.retrieve_async(event_id)

    async def thin(client: "StripeClient") -> "ThinEvent":
        return await client.v2.core.events.retrieve_async(event_id)

    try:
        return told_snapshot(await context.stripe.call(snapshot))
    except StripeRefused as error:
        if not error.is_missing:
            raise
    return told_thin(await context.stripe.call(thin))
