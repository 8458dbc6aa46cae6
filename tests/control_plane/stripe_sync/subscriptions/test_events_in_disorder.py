"""A purchase and a renewal, told by events in any order: what we hold in the end is what Stripe says."""

import json
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from control_plane.stripe_sync.events.inbox import store_delivered
from control_plane.stripe_sync.events.model import Form, parse_event
from control_plane.stripe_sync.events.operations import resync
from control_plane.stripe_sync.events.processing import process_due
from control_plane.stripe_sync.events.registry import APPLIERS
from control_plane.stripe_sync.events.tables import StripeEvent
from control_plane.stripe_sync.invoices.tables import StripeInvoice
from control_plane.stripe_sync.model import StripeContext
from control_plane.subscriptions.tables import Subscription
from tests.control_plane.stripe_sync.subscriptions.conftest import Shop

Event = dict[str, Any]
ORDERS: dict[str, Callable[[list[Event]], list[Event]]] = {
    "as made": lambda events: events,
    "reversed": lambda events: events[::-1],
    "shuffled, all twice": lambda events: random.Random(7).sample(events * 2, 2 * len(events)),
}


def with_twins(events: list[Event]) -> list[Event]:
    """Now and then Stripe makes two Event objects for one fact."""
    return [one for event in events for one in (event, {**event, "id": f"{event['id']}_twin"})]


async def settle(ctx: StripeContext, *, days: int = 1) -> None:
    """Let time pass until nothing waits."""
    end = ctx.now + timedelta(days=days)
    while ctx.now < end:
        await process_due(ctx, APPLIERS)
        async with ctx.sessions() as session:
            waiting = select(func.min(StripeEvent.next_attempt_at)).where(StripeEvent.state == "waiting")
            next_at = await session.scalar(waiting)
        if next_at is None:
            return
        ctx = ctx.at(max(next_at, ctx.now))


class TestAnyOrder:
    @pytest.mark.parametrize("order", ORDERS)
    async def test_ends_with_what_stripe_says_last(self, shop: Shop, order: str) -> None:
        started = await shop.start()
        assert (await shop.pay(started))["completed"]
        shop.later(days=31)
        events = sorted(shop.at_stripe("event"), key=lambda one: one["created"])
        assert len(events) > 10
        for number, event in enumerate(ORDERS[order](with_twins(events))):
            told = parse_event(json.dumps(event, default=str).encode(), Form.SNAPSHOT)
            async with shop.sessions() as session, session.begin():
                await store_delivered(session, told, body=b"{}", now=shop.ctx.now)
            if number % 9 == 0:
                await process_due(shop.ctx, APPLIERS)
        await settle(shop.ctx)
        async with shop.sessions() as session:
            states = dict((await session.execute(select(StripeEvent.id, StripeEvent.state))).all())
            held = dict((await session.execute(select(StripeInvoice.id, StripeInvoice.status))).all())
            ours = await session.scalar(select(func.count()).select_from(Subscription))
        assert set(states.values()) <= {"done", "ignored"}
        assert held == {one["id"]: one["status"] for one in shop.at_stripe("invoice")}
        assert len(held) == 2
        (there,) = shop.at_stripe()
        row = await shop.row()
        assert (row.stripe_id, row.status) == (there["id"], there["status"])
        (period,) = {item["current_period_end"] for item in there["items"]["data"]}
        assert int(row.current_period_end.timestamp()) == period
        assert ours == 1
        assert [code for code, _, _ in await shop.plans()] == ["starter"]


async def test_a_resync_takes_our_own_id_of_a_subscription_too(shop: Shop) -> None:
    subscription = await shop.buy()
    async with shop.sessions() as session, session.begin():
        row_id = await resync(session, object_id=subscription.id, actor="ada", now=shop.ctx.now)
    await process_due(shop.ctx, APPLIERS)
    async with shop.sessions() as session:
        event = await session.get_one(StripeEvent, row_id)
    assert (event.object_id, event.state) == ((await shop.row()).stripe_id, "done")
