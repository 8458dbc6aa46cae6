"""Killed between any two steps, and answers that are lost: everything is made, and nothing twice."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.stripe_sync.client import Stripe, StripeUnavailable
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions import requests
from control_plane.stripe_sync.subscriptions.checkout import apply_checkout
from control_plane.stripe_sync.subscriptions.worker import take_up
from tests.control_plane.stripe_sync.subscriptions.conftest import Shop

MOST_STEPS = 80


class Killed(BaseException):
    """The process is gone; nothing catches it."""


class Mortal:
    """Counts steps, a call to Stripe, its answer, a commit and what is after it, and dies at one of them."""

    def __init__(self, dies_at: int) -> None:
        self.left = dies_at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class MortalStripe:
    """Asks Stripe, unless the process dies before, or hears nothing of the answer."""

    def __init__(self, stripe: Stripe, mortal: Mortal) -> None:
        self._stripe, self._mortal, self.config = stripe, mortal, stripe.config

    async def call(self, ask: Callable[[Any], Awaitable[Any]], *, lane: str | None = None) -> Any:
        self._mortal.step()
        answer = await self._stripe.call(ask, lane=lane)
        self._mortal.step()
        return answer

    async def every(self, ask: Callable[[Any], Awaitable[Any]]) -> AsyncIterator[Any]:
        self._mortal.step()
        async for one in self._stripe.every(ask):
            yield one


def mortal_context(ctx: StripeContext, mortal: Mortal) -> StripeContext:
    def sessions() -> Any:
        @asynccontextmanager
        async def opened() -> AsyncIterator[AsyncSession]:
            async with ctx.sessions() as session:
                event.listen(session.sync_session, "before_commit", lambda _: mortal.step())
                yield session

        return opened()

    return replace(
        ctx,
        sessions=cast("async_sessionmaker[AsyncSession]", sessions),
        stripe=cast("Stripe", MortalStripe(ctx.stripe, mortal)),
    )


async def survives(shop: Shop, work: Callable[[StripeContext], Awaitable[Any]], *, dies_at: int) -> bool:
    """Do the work in a process that dies at a step, and then what a worker does later; False: it was through."""
    mortal = Mortal(dies_at)
    try:
        await work(mortal_context(shop.ctx, mortal))
    except Killed:
        killed = True
    else:
        killed = False
    shop.later(minutes=5)
    await take_up(shop.ctx)
    return killed


async def until_through(shop: Shop, work: Callable[[StripeContext], Awaitable[Any]]) -> int:
    """Have the work killed again and again, each time a step later, until it gets through; returns how many."""
    for dies_at in range(1, MOST_STEPS):
        if not await survives(shop, work, dies_at=dies_at):
            return dies_at
    raise AssertionError("it never got through")


class TestKilledAnywhere:
    async def test_a_checkout_is_one_with_one_customer(self, shop: Shop) -> None:
        """The same purchase, begun again after each kill."""
        for dies_at in range(1, MOST_STEPS):
            mortal = Mortal(dies_at)
            try:
                started = await replace_ctx(shop, mortal_context(shop.ctx, mortal)).start()
            except Killed:
                continue
            break
        assert dies_at > 8
        assert len(shop.at_stripe("customer")) == 1
        assert [one["status"] for one in shop.at_stripe("checkout.session")] == ["open"]
        await shop.pay(started)
        for dies_at in range(1, MOST_STEPS):
            mortal = Mortal(dies_at)
            try:
                await apply_checkout(mortal_context(shop.ctx, mortal), started.checkout.session_id)
            except Killed:
                continue
            break
        assert dies_at > 4
        assert (await shop.subscription()).status == "active"
        assert len(await shop.spans()) == 1

    async def test_an_upgrade_is_made_and_charged_once(self, shop: Shop) -> None:
        bought = await shop.buy()
        order: dict[str, Any] = {"subscription_id": bought.id, "actor": "ada"}
        shop.later(days=3)

        plan, made = "starter", 0
        for dies_at in range(1, MOST_STEPS):
            # there and back again: back costs nothing now, so it makes no invoice
            other = "growth" if plan == "starter" else "starter"
            changes, invoices = len(await shop.changes()), len(shop.at_stripe("invoice"))

            async def change(ctx: StripeContext, to: str = other) -> None:
                await requests.change_plan(ctx, plan_code=to, at="now", **order)

            killed = await survives(shop, change, dies_at=dies_at)
            new = [one.state for one in (await shop.changes())[changes:]]
            assert new in ([], ["done"])
            assert len(shop.at_stripe("invoice")) - invoices == (len(new) if other == "growth" else 0)
            plan = other if new else plan
            assert (await shop.plans())[-1][0] == plan
            made += len(new)
            if not killed:
                break
        assert (dies_at > 12, made > 10) == (True, True)

    async def test_plans_cancellations_and_their_undoing_are_made_once(self, shop: Shop) -> None:
        bought = await shop.buy("growth")
        order: dict[str, Any] = {"subscription_id": bought.id, "actor": "ada"}
        assert await until_through(shop, lambda ctx: requests.change_plan(ctx, plan_code="starter", **order)) > 5
        assert await until_through(shop, lambda ctx: requests.discard_change(ctx, **order)) > 5
        await requests.cancel(shop.ctx, at="period_end", **order)
        assert await until_through(shop, lambda ctx: requests.keep(ctx, **order)) > 5
        found = await shop.subscription()
        assert (found.ends_at, [phase[0] for phase in await shop.plans()]) == (None, ["growth"])
        assert all(one.state in {"done", "withdrawn"} for one in await shop.changes())
        assert all(one["status"] == "released" for one in shop.at_stripe("subscription_schedule"))
        assert len(shop.at_stripe("invoice")) == 1


class TestLostAnswers:
    async def test_make_no_second_customer_and_no_second_charge(self, shop: Shop) -> None:
        for kind in ("reset_after", "error_after", "error_before"):
            one = await shop.another()
            customers, invoices = len(shop.at_stripe("customer")), len(shop.at_stripe("invoice"))
            one.sim.control.fault(kind, method="POST", path="/v1/customers")
            with pytest.raises(StripeUnavailable):
                await one.start()
            one.later(minutes=1)
            bought = await one.buy()
            one.later(days=1)
            one.sim.control.fault(kind, method="POST", path="/v1/subscriptions/*")
            change = await requests.change_plan(
                one.ctx, subscription_id=bought.id, plan_code="growth", actor="ada"
            )
            assert change.state == "asked"
            one.later(minutes=5)
            await take_up(one.ctx)
            assert [found.state for found in await one.changes()] == ["done"]
            assert len(shop.at_stripe("customer")) == customers + 1
            assert len(shop.at_stripe("invoice")) == invoices + 2
            shop.ctx = one.ctx


def replace_ctx(shop: Shop, ctx: StripeContext) -> Shop:
    return replace(shop, ctx=ctx)
