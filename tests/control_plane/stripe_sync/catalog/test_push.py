"""Laying plan versions at Stripe, whatever happens between two calls."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.sole_worker import sole_worker
from control_plane.stripe_sync.catalog import push
from control_plane.stripe_sync.catalog.pushing import (
    PUSH_LOCK,
    PushRunningError,
    look_only,
    push_now,
    push_what_waits,
)
from control_plane.stripe_sync.catalog.queries import NotAtStripeError, prices_of, read_items, version_of_items
from control_plane.stripe_sync.catalog.tables import StripeMeter, StripePrice, StripeProduct, StripePush
from control_plane.stripe_sync.catalog.worker import PushConfig, run_catalog_push
from control_plane.stripe_sync.client import Stripe, StripeConfig
from control_plane.stripe_sync.model import StripeContext
from devstack.stripe.embedded import EmbeddedStripe
from tests.control_plane.builders import ACTOR, a_new_version, a_published_plan, audit_of
from tests.control_plane.stripe_sync.catalog.builders import FLAT, OVERAGE, a_price

Sessions = async_sessionmaker[AsyncSession]
EURO = (
    a_price("flat", currency="EUR", other=True, amount="45"),
    a_price("overage", "requests", currency="EUR", other=True, included=50_000, unit_amount="0.0014"),
)


async def a_stripe_plan(sessions: Sessions, now: datetime, **terms: Any) -> PlanVersion:
    async with sessions() as session, session.begin():
        return await a_published_plan(
            session, now=now, **{"billed_by": "stripe", "prices": (FLAT, OVERAGE, *EURO), **terms}
        )


async def state_of(sessions: Sessions, version: PlanVersion) -> tuple[str, str | None]:
    async with sessions() as session:
        row = await session.get_one(StripePush, version.id)
        return row.state, row.problem


async def is_pushed(sessions: Sessions, version: PlanVersion) -> bool:
    async with sessions() as session:
        row = await session.get(StripePush, version.id)
        return row is not None and row.state == "pushed"


def made(sim: EmbeddedStripe) -> dict[str, int]:
    """How many objects of the catalogue there are at Stripe."""
    return {kind: len(sim.control.dump(kind).get(kind, [])) for kind in ("product", "price", "billing.meter")}


class TestPush:
    async def test_what_is_on_sale_comes_to_stripe(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        version = await a_stripe_plan(sessions, now)
        [pushed] = await push_what_waits(context)
        assert (pushed.name, pushed.state) == ("starter v1", "pushed")
        assert made(sim) == {"product": 1, "price": 4, "billing.meter": 1}
        async with sessions() as session:
            prices = await prices_of(session, version.id, "EUR")
        assert [(item.kind, item.position, item.quantity) for item in prices.items] == [
            ("flat", 0, 1),
            ("metered", 1, None),
        ]
        assert prices.items[1].event_name == "km_main_weather_requests"
        assert await push_what_waits(context) == []

    async def test_plans_with_own_invoices_stay_here(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        await a_stripe_plan(sessions, now, billed_by="own")
        assert await push_what_waits(context) == []
        assert sim.control.requests() == []

    async def test_a_new_version_has_prices_of_its_own_and_the_same_product_and_meter(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        first = await a_stripe_plan(sessions, now)
        await push_what_waits(context)
        async with sessions() as session, session.begin():
            second = await a_new_version(session, now=now, billed_by="stripe", prices=(FLAT, OVERAGE))
        await push_what_waits(context)
        assert made(sim) == {"product": 1, "price": 6, "billing.meter": 1}
        async with sessions() as session:
            of_both = [await prices_of(session, version.id, "USD") for version in (first, second)]
            ids = [[item.price_id for item in prices.items] for prices in of_both]
            assert await version_of_items(session, ids[0]) == first.id
            assert await version_of_items(session, ids[1]) == second.id
            assert await version_of_items(session, ids[0] + ids[1]) is None

    async def test_what_stripe_cannot_have_is_refused_and_says_why(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        tiers = [{"up_to": None, "unit_amount": "0.01", "flat_amount": "1"}]
        ours = a_price("graduated", "requests", currency="KWD", tiers=tiers)
        version = await a_stripe_plan(sessions, now, currency="KWD", prices=(ours,))
        await push_what_waits(context)
        state, problem = await state_of(sessions, version)
        assert state == "refused"
        assert "steps of 0.010" in (problem or "")
        assert made(sim)["product"] == 0
        async with sessions() as session:
            with pytest.raises(NotAtStripeError, match="KWD"):
                await prices_of(session, version.id, "KWD")

    async def test_what_can_be_known_is_refused_at_publishing(self, sessions: Sessions, now: datetime) -> None:
        flat = a_price("flat", currency="ISK", amount="4900")
        with pytest.raises(ValidationFailedError, match="Stripe counts ISK in other minor units"):
            await a_stripe_plan(sessions, now, currency="ISK", prices=(flat,))
        await a_stripe_plan(sessions, now, currency="ISK", prices=(flat,), billed_by="own")

    async def test_add_ons_are_told_from_plans(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        plan = await a_stripe_plan(sessions, now)
        async with sessions() as session, session.begin():
            add_on = await a_published_plan(
                session,
                now=now,
                code="more",
                kind="add_on",
                billed_by="stripe",
                prices=(FLAT,),
            )
        await push_what_waits(context)
        async with sessions() as session:
            items = [*(await prices_of(session, plan.id, "USD")).items]
            [more] = (await prices_of(session, add_on.id, "USD")).items
            read = await read_items(session, {items[0].price_id: 1, more.price_id: 3, "price_foreign": 1})
        assert (read.plan_version_id, read.add_ons) == (plan.id, {add_on.id: 3})
        assert (read.missing, read.unknown) == ((items[1].price_id,), ("price_foreign",))

    @pytest.mark.parametrize(
        ("currency", "amount", "unit_amount", "minor", "unit_minor"),
        [
            ("USD", "49", "0.0004", "4900", "0.04"),
            ("JPY", "4900", "0.4", "4900", "0.4"),
            ("KWD", "4.900", "0.01", "4900", "10"),
            ("USD", "0", "0.00000000009", "0", "0.000000009"),
        ],
    )
    async def test_amounts_arrive_exactly(
        self,
        context: StripeContext,
        sessions: Sessions,
        now: datetime,
        *,
        currency: str,
        amount: str,
        unit_amount: str,
        minor: str,
        unit_minor: str,
    ) -> None:
        flat = a_price("flat", currency=currency, amount=amount)
        metered = a_price("per_unit", "requests", currency=currency, unit_amount=unit_amount)
        version = await a_stripe_plan(sessions, now, currency=currency, prices=(flat, metered))
        await push_what_waits(context)
        async with sessions() as session:
            items = (await prices_of(session, version.id, currency)).items
        there = [
            await context.stripe.call(lambda c, price=item.price_id: c.v1.prices.retrieve_async(price))
            for item in items
        ]
        assert [price.unit_amount_decimal for price in there] == [Decimal(minor), Decimal(unit_minor)]
        assert {price.currency for price in there} == {currency.lower()}

    async def test_taxes_that_are_turned_on_reach_what_is_there(
        self, context: StripeContext, stripe_config: StripeConfig, sessions: Sessions, now: datetime
    ) -> None:
        version = await a_stripe_plan(sessions, now)
        await push_what_waits(context)
        async with Stripe.open(replace(stripe_config, automatic_tax=True)) as stripe:
            taxed = replace(context, stripe=stripe).at(now + timedelta(minutes=1))
            await push_what_waits(taxed)
            assert await push_what_waits(taxed) == []
        async with sessions() as session:
            [flat, _] = (await prices_of(session, version.id, "USD")).items
        product = await context.stripe.call(lambda c: c.v1.products.retrieve_async(flat.product_id))
        price = await context.stripe.call(lambda c: c.v1.prices.retrieve_async(flat.price_id))
        assert (product.tax_code, price.tax_behavior) == ("txcd_10103001", "exclusive")


class TestWorkers:
    async def test_two_at_once_make_one_of_everything_until_they_are_stopped(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        stop = asyncio.Event()
        config = PushConfig(pause_seconds=0.01)
        workers = [
            asyncio.create_task(run_catalog_push(config=config, context=context, clock=lambda: now, stop=stop))
            for _ in range(2)
        ]
        version = await a_stripe_plan(sessions, now)
        async with asyncio.timeout(30):
            while not await is_pushed(sessions, version):  # noqa: ASYNC110 - the database tells nobody
                await asyncio.sleep(0.02)
            stop.set()
            await asyncio.gather(*workers)
        assert made(sim) == {"product": 1, "price": 4, "billing.meter": 1}

    async def test_by_hand_waits_for_whoever_pushes_and_then_gives_up(
        self, context: StripeContext, sessions: Sessions
    ) -> None:
        async with sole_worker(sessions, PUSH_LOCK):
            with pytest.raises(PushRunningError):
                await push_now(context, actor=ACTOR, wait_seconds=0.1)
        assert await push_now(context, actor=ACTOR, wait_seconds=10) == []

    async def test_what_fails_is_tried_again_later_each_time(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        await a_stripe_plan(sessions, now)
        sim.control.fault("error_before", method="POST", path="/v1/products", count=2)
        assert [one.state for one in await push_what_waits(context)] == ["waiting"]
        assert await push_what_waits(context.at(now + timedelta(seconds=9))) == []
        assert [one.state for one in await push_what_waits(context.at(now + timedelta(seconds=11)))] == ["waiting"]
        assert await push_what_waits(context.at(now + timedelta(seconds=25))) == []
        assert [one.state for one in await push_what_waits(context.at(now + timedelta(seconds=60)))] == ["pushed"]


class TestWhateverHappens:
    @pytest.mark.parametrize("fault", ["reset_after", "error_after", "error_before", "rate_limited"])
    async def test_a_fault_at_any_call_leaves_one_of_everything(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime, fault: str
    ) -> None:
        version = await a_stripe_plan(sessions, now)
        for path in ("/v1/products", "/v1/billing/meters", "/v1/prices"):
            sim.control.fault(fault, method="POST", path=path, count=2)
        at = now
        for _ in range(10):
            await push_what_waits(context.at(at))
            at += timedelta(minutes=10)
        assert await state_of(sessions, version) == ("pushed", None)
        assert made(sim) == {"product": 1, "price": 4, "billing.meter": 1}

    @pytest.mark.parametrize(("fault", "keys"), [("error_before", 2), ("reset_before", 1)])
    async def test_a_key_that_stripe_failed_under_is_not_used_again(
        self,
        sim: EmbeddedStripe,
        context: StripeContext,
        sessions: Sessions,
        now: datetime,
        *,
        fault: str,
        keys: int,
    ) -> None:
        # Stripe repeats a failure for a day to whoever comes with its key; without an answer the key still counts
        await a_stripe_plan(sessions, now)
        sim.control.fault(fault, method="POST", path="/v1/products", count=1)
        await push_what_waits(context)
        await push_what_waits(context.at(now + timedelta(minutes=1)))
        asked = [one for one in sim.control.requests("/v1/products") if one["method"] == "POST"]
        assert len(asked) == 2
        assert len({one["idempotency_key"] for one in asked}) == keys

    async def test_killed_between_any_two_steps_it_goes_on(
        self,
        sim: EmbeddedStripe,
        context: StripeContext,
        sessions: Sessions,
        now: datetime,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        version = await a_stripe_plan(sessions, now)
        upsert: Callable[..., Awaitable[None]] = push._upsert
        for survives in range(6):
            left = survives

            async def dying(*args: Any, **options: Any) -> None:
                nonlocal left
                if not left:
                    raise KilledError
                left -= 1
                await upsert(*args, **options)

            monkeypatch.setattr(push, "_upsert", dying)
            with pytest.raises(KilledError):
                await push_what_waits(context)
        monkeypatch.setattr(push, "_upsert", upsert)
        await push_what_waits(context)
        assert await state_of(sessions, version) == ("pushed", None)
        assert made(sim) == {"product": 1, "price": 4, "billing.meter": 1}
        async with sessions() as session:
            for table, rows in ((StripeProduct, 1), (StripeMeter, 1), (StripePrice, 4)):
                assert len((await session.scalars(select(table))).all()) == rows

    async def test_an_empty_database_finds_what_it_once_made(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        await a_stripe_plan(sessions, now)
        await push_what_waits(context)
        async with sessions() as session, session.begin():
            for table in (StripePush, StripePrice, StripeMeter, StripeProduct):
                for row in await session.scalars(select(table)):
                    await session.delete(row)
                await session.flush()
        [pushed] = await push_what_waits(context)
        assert [step.action for step in pushed.steps] == ["none"] * 6
        assert made(sim) == {"product": 1, "price": 4, "billing.meter": 1}


class KilledError(BaseException):
    """The process ended here."""


class TestDrift:
    async def test_what_was_changed_at_stripe_is_seen_and_mended(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        version = await a_stripe_plan(sessions, now)
        await push_what_waits(context)
        async with sessions() as session:
            [flat, metered] = (await prices_of(session, version.id, "USD")).items
        ask = context.stripe.call
        await ask(lambda c: c.v1.prices.update_async(flat.price_id, {"active": False}))
        await ask(lambda c: c.v1.products.update_async(flat.product_id, {"name": "Renamed there"}))
        await ask(lambda c: c.v1.billing.meters.deactivate_async(str(metered.meter_id)))
        [seen] = await look_only(context)
        assert [step.thing for step in seen.to_do] == ["product", "meter", "price"]
        [pushed] = await push_now(context.at(now + timedelta(minutes=1)), actor=ACTOR)
        assert pushed.state == "pushed"
        [seen] = await look_only(context)
        assert seen.to_do == []
        product = await ask(lambda c: c.v1.products.retrieve_async(flat.product_id))
        assert product.name == "Starter"
        async with sessions() as session:
            [row] = await audit_of(session, "main")
        assert (row.action, row.actor, len((row.after or {})["starter v1"])) == ("stripe.plans_synced", ACTOR, 3)

    async def test_the_same_is_mended_as_often_as_it_is_needed(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        version = await a_stripe_plan(sessions, now)
        await push_what_waits(context)
        async with sessions() as session:
            [flat, _] = (await prices_of(session, version.id, "USD")).items
        for minute in (1, 3, 5):
            await context.stripe.call(lambda c: c.v1.prices.update_async(flat.price_id, {"active": False}))
            if minute == 1:  # done, and nobody knows it: its key must not stand for the next time as well
                sim.control.fault("reset_after", method="POST", path="/v1/prices/*", count=1)
                await push_now(context.at(now + timedelta(seconds=30)), actor=ACTOR)
            await push_now(context.at(now + timedelta(minutes=minute)), actor=ACTOR)
            there = await context.stripe.call(lambda c: c.v1.prices.retrieve_async(flat.price_id))
            assert there.active

    async def test_a_lookup_key_that_was_taken_away_comes_back_to_its_price(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        version = await a_stripe_plan(sessions, now)
        await push_what_waits(context)
        async with sessions() as session:
            [flat, _] = (await prices_of(session, version.id, "USD")).items
        await context.stripe.call(lambda c: c.v1.prices.update_async(flat.price_id, {"lookup_key": "x"}))
        await push_now(context.at(now + timedelta(minutes=1)), actor=ACTOR)
        there = await context.stripe.call(lambda c: c.v1.prices.retrieve_async(flat.price_id))
        assert there.lookup_key == "km:main:starter:1:0:USD"
        assert made(sim)["price"] == 4

    async def test_what_is_on_sale_stays_so_while_a_mending_fails(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        version = await a_stripe_plan(sessions, now)
        await push_what_waits(context)
        async with sessions() as session, session.begin():
            (await session.get_one(Plan, version.plan_id)).name = "Beginner"
        sim.control.fault("error_before", method="POST", path="/v1/products/*", count=1)
        later = context.at(now + timedelta(minutes=1))
        [pushed] = await push_what_waits(later)
        assert pushed.state == "waiting"
        assert await push_what_waits(later) == []
        state, problem = await state_of(sessions, version)
        assert (state, bool(problem)) == ("pushed", True)
        async with sessions() as session:
            assert (await prices_of(session, version.id, "USD")).items
        [pushed] = await push_what_waits(context.at(now + timedelta(minutes=2)))
        assert await state_of(sessions, version) == ("pushed", None)

    async def test_what_another_made_is_never_touched(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        version = await a_stripe_plan(sessions, now)
        name = f"km_main_{version.plan_id}"
        await context.stripe.call(lambda c: c.v1.products.create_async({"id": name, "name": "Somebody's"}))
        [pushed] = await push_what_waits(context)
        assert pushed.state == "refused"
        assert "belongs to something else" in pushed.problems[0]
        there = await context.stripe.call(lambda c: c.v1.products.retrieve_async(name))
        assert there.name == "Somebody's"
        assert made(sim)["price"] == 0

    async def test_a_plan_renamed_here_is_renamed_there(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        version = await a_stripe_plan(sessions, now)
        await push_what_waits(context)
        async with sessions() as session, session.begin():
            plan = await session.get_one(Plan, version.plan_id)
            plan.name = "Beginner"
        [pushed] = await push_what_waits(context.at(now + timedelta(minutes=1)))
        assert [(step.thing, step.action) for step in pushed.steps if step.action != "none"] == [
            ("product", "update")
        ]
        assert [product["name"] for product in sim.control.dump("product")["product"]] == ["Beginner"]
        assert await push_what_waits(context.at(now + timedelta(minutes=2))) == []
