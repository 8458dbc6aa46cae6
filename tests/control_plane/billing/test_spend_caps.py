"""Spend caps from rows in a real database: what the gateway is given, and what is refused."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from control_plane.billing.call_bounds import MaximumMissingError
from control_plane.billing.invoices.due import due_lines
from control_plane.billing.operations import (
    CapBelowFixedChargesError,
    remove_spend_cap,
    require_cap_kept,
    require_cap_kept_by_quota,
    require_caps_kept,
    set_spend_cap,
)
from control_plane.billing.queries import preview_invoice
from control_plane.billing.spend_caps import read_spend_caps
from control_plane.billing.terms import read_terms
from control_plane.catalog.model import PriceTerms, ProductFacts
from control_plane.catalog.operations import create_api_product, update_api_product
from control_plane.catalog.queries import api_product, facts_of_product
from control_plane.foundation.errors import ValidationFailedError
from control_plane.rating.cost_tables import MAX_CAP_MINOR, table_cost_minor
from control_plane.subscriptions.add_ons import add_on
from control_plane.subscriptions.cap_renewal import EDGE
from control_plane.subscriptions.operations import change_plan
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.queries import phase_at
from control_plane.subscriptions.queries import subscription as subscription_by_id
from control_plane.subscriptions.statuses import pause, resume
from control_plane.subscriptions.timelines import timeline
from control_plane.usage.rollups.phase_units import units_of_phases
from control_plane.usage.tables import UsageHour
from tests.control_plane.billing.test_preview_invoice import GROWTH, STARTER, add_usage, flat
from tests.control_plane.builders import ACTOR, a_published_plan, a_subscription, an_account

NOV_1, DEC_1 = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
PER_TOKEN = PriceTerms(model="per_unit", meter="tokens", params={"unit_amount": "0.00002"})


@pytest.fixture
async def product(session):
    facts = ProductFacts(
        code="weather",
        name="Weather",
        service="weather",
        routes=("chat", "status"),
        unit_headers={"tokens": "x-tokens"},
        unit_maximums={"*": {"tokens": 8000}, "status": {"tokens": 0}},
    )
    return await create_api_product(session, product=facts, actor=ACTOR, now=NOV_1)


@pytest.fixture
async def subscription(session, product):
    await a_published_plan(session, now=NOV_1, **STARTER)
    await a_published_plan(session, now=NOV_1, code="growth", position=1, **GROWTH)
    await a_published_plan(session, now=NOV_1, code="free", position=2, prices=())
    tokens = (
        flat("10.00"),
        PER_TOKEN,
        PriceTerms(model="package", meter="requests", params={"size": 100, "amount": "1"}),
    )
    await a_published_plan(session, now=NOV_1, code="tokens", position=3, prices=tokens)
    account = await an_account(session, now=NOV_1)
    return await a_subscription(session, account, now=NOV_1)


async def put(session, subscription, amount="250.00", *, now=NOV_1 + DAY):
    return await set_spend_cap(session, subscription_id=subscription.id, amount=amount, actor=ACTOR, now=now)


async def move(session, subscription, plan, *, now, effective_at=None):
    await change_plan(
        session,
        subscription_id=subscription.id,
        plan_code=plan,
        effective_at=effective_at,
        allow_unlisted=True,
        actor=ACTOR,
        now=now,
    )


async def compiled(session, subscription, *, now=NOV_1 + DAY):
    await session.flush()
    found = await subscription_by_id(session, subscription.id)
    in_force = {subscription.id: phase_at(found, now).id}
    return (await read_spend_caps(session, in_force, now=now)).compiled(subscription.id)


async def preview(session, subscription, *, now):
    return await preview_invoice(session, account_id=subscription.account_id, product_code="weather", now=now)


class TestCompiledCap:
    async def test_ends_at_the_unit_that_would_cost_more(self, session, subscription):
        await put(session, subscription)
        cap = await compiled(session, subscription)
        hour = NOV_1 + 5 * HOUR
        await add_usage(session, subscription, hour=hour, units=cap.ceiling_units)
        at_ceiling = await preview(session, subscription, now=NOV_1 + DAY)
        assert (at_ceiling.total_minor, at_ceiling.spend_cap_left_minor) == (250_00, 0)
        await add_usage(session, subscription, hour=hour + HOUR, units=1)
        assert (await preview(session, subscription, now=NOV_1 + DAY)).total_minor > 250_00

    async def test_knows_a_quota_of_the_subscriptions_own(self, session, subscription):
        await put(session, subscription)
        before = (await compiled(session, subscription)).ceiling_units
        await override_limits(
            session, subscription_id=subscription.id, quota_units=60_000, actor=ACTOR, now=NOV_1 + DAY
        )
        assert (await compiled(session, subscription)).ceiling_units == before + 10_000

    async def test_of_several_prices_adds_up_to_the_invoice(self, session, subscription):
        await move(session, subscription, "tokens", now=NOV_1)
        await put(session, subscription, "60.00")
        cap = await compiled(session, subscription)
        assert (cap.ceiling_units, cap.usage_minor) == (None, 50_00)
        assert cap.reserves == {"chat": {"tokens": 8000}, "status": {"tokens": 0}}
        await add_usage(
            session, subscription, hour=NOV_1 + HOUR, units=1234, billable_dimensions={"tokens": 1_234_567}
        )
        used = {"requests": 1234, "tokens": 1_234_567}
        total = (await preview(session, subscription, now=NOV_1 + DAY)).total_minor
        spent = sum(table_cost_minor(price, used[price.dimension]) for price in cap.prices)
        assert spent + 10_00 == total

    async def test_of_a_plan_that_charges_nothing_by_use_is_none(self, session, subscription):
        await move(session, subscription, "free", now=NOV_1)
        capped = await put(session, subscription, "0")
        assert not capped.effective
        assert await compiled(session, subscription) is None


class TestAllowances:
    """The cap, and the invoice of a customer who calls on until refused, agree on what is included."""

    async def invoiced_at_the_ceiling(self, session, subscription, *, before, now):
        ceiling = (await compiled(session, subscription, now=now)).ceiling_units
        await session.refresh(subscription, ["phases"])
        await add_usage(session, subscription, hour=now, units=ceiling - before)
        at_ceiling = await self.due(session, subscription)
        await add_usage(session, subscription, hour=now + HOUR, units=1)
        return at_ceiling, await self.due(session, subscription)

    async def due(self, session, subscription):
        found = await timeline(session, subscription.id)
        terms = await read_terms(session, {(key, "USD") for key in found.version_ids})
        period = found.period_at(NOV_1)
        counted = await units_of_phases(session, {(phase.id, NOV_1, DEC_1) for phase in found.phases})
        units = {phase.id: counted[phase.id, NOV_1].billable for phase in found.phases}
        by_id = {key: value for (key, _), value in terms.items()}
        return sum(line.amount_minor for line in due_lines(found, period, terms=by_id, units=units))

    @pytest.mark.parametrize("on_change", ["carry", "prorated"])
    async def test_of_a_plan_that_begins_within_a_period(self, session, subscription, on_change):
        terms = {**GROWTH, "quota_on_change": on_change}
        await a_published_plan(session, now=NOV_1, code=on_change, position=7, **terms)
        await add_usage(session, subscription, hour=NOV_1 + DAY, units=30_000)
        noon = NOV_1 + 15 * DAY
        await move(session, subscription, on_change, now=noon)
        await put(session, subscription, "300.00", now=noon)
        at_ceiling, above = await self.invoiced_at_the_ceiling(session, subscription, before=30_000, now=noon)
        assert (at_ceiling, above) == (300_00, 300_01)

    async def test_that_an_add_on_brings_from_its_beginning_on(self, session, subscription):
        more = {"prices": (flat("10.00"),), "quota_units": 5000}
        await a_published_plan(session, now=NOV_1, code="more", position=7, kind="add_on", **more)
        await put(session, subscription)
        before = (await compiled(session, subscription)).ceiling_units
        await add_on(
            session, subscription_id=subscription.id, add_on_code="more", actor=ACTOR, now=NOV_1 + 15 * DAY
        )
        noon = NOV_1 + 15 * DAY
        # half a period of $10.00 is $5.00: of 134,003 calls at $0.0015 130,669 are left
        assert (await compiled(session, subscription, now=noon)).ceiling_units == before + 5000 - 134_003 + 130_669
        at_ceiling, above = await self.invoiced_at_the_ceiling(session, subscription, before=0, now=noon)
        assert (at_ceiling, above) == (250_00, 250_01)


class TestPlanChangeWithinThePeriod:
    async def test_leaves_what_the_plan_before_has_cost(self, session, subscription):
        await put(session, subscription, "300.00")
        noon = NOV_1 + 15 * DAY
        await add_usage(session, subscription, hour=NOV_1 + DAY, units=60_000)
        await move(session, subscription, "growth", now=noon)
        cap = await compiled(session, subscription, now=noon)
        await session.refresh(subscription, ["phases"])
        await add_usage(session, subscription, hour=noon, units=cap.ceiling_units - 60_000)
        # 24.50 and 15.00 for Starter, 99.50 for Growth, 161.00 by use
        assert (await preview(session, subscription, now=noon + DAY)).total_minor == 300_00
        await add_usage(session, subscription, hour=noon + HOUR, units=9)
        assert (await preview(session, subscription, now=noon + DAY)).total_minor > 300_00

    async def test_units_of_the_same_version_before_still_count(self, session, subscription):
        await put(session, subscription)
        before = await compiled(session, subscription)
        await add_usage(session, subscription, hour=NOV_1 + DAY, units=60_000)
        await move(session, subscription, "growth", now=NOV_1 + 2 * DAY)
        await move(session, subscription, "starter", now=NOV_1 + 2 * DAY + timedelta(milliseconds=1))
        # Growth ran for a millisecond and used nothing: Starter's 60,000 are still of Starter's one line
        assert await compiled(session, subscription, now=NOV_1 + 3 * DAY) == before

    async def test_open_hours_count_at_their_worst(self, session, subscription):
        await put(session, subscription, "300.00")
        noon = NOV_1 + 15 * DAY
        await add_usage(session, subscription, hour=noon - HOUR, units=52_000)
        await add_usage(session, subscription, hour=noon - HOUR, units=8_000, status=503, billable_units=0)
        await move(session, subscription, "growth", now=noon)
        opened = await compiled(session, subscription, now=noon)
        session.add(UsageHour(account_id=subscription.account_id, hour=noon - HOUR, revision=1, sealed_at=noon))
        sealed = await compiled(session, subscription, now=noon)
        # eight thousand that failed: $12.00 more to be had by use at $0.0006 each, and never in the count
        assert sealed.ceiling_units - opened.ceiling_units == 12_00 * 10 // 6 * 10

    async def test_next_period_begins_afresh(self, session, subscription):
        await put(session, subscription, "300.00")
        await add_usage(session, subscription, hour=NOV_1 + DAY, units=60_000)
        await move(session, subscription, "growth", now=NOV_1 + 15 * DAY)
        november = await compiled(session, subscription, now=NOV_1 + 20 * DAY)
        december = await compiled(session, subscription, now=DEC_1 + EDGE)
        assert december.ceiling_units == 500_000 + 101_00 * 100 // 6 + 8  # $101.00, and what rounds to it
        assert november.ceiling_units != december.ceiling_units
        for moment in (DEC_1 - EDGE, DEC_1, DEC_1 + EDGE - timedelta(seconds=1)):
            around = await compiled(session, subscription, now=moment)
            assert around.ceiling_units == min(november.ceiling_units, december.ceiling_units)

    async def test_that_made_this_period_dear_holds_until_its_end(self, session, subscription):
        await move(session, subscription, "growth", now=NOV_1)
        await put(session, subscription, "300.00")
        await move(session, subscription, "starter", now=NOV_1 + 15 * DAY)
        november = await compiled(session, subscription, now=NOV_1 + 20 * DAY)
        december = await compiled(session, subscription, now=DEC_1 + EDGE)
        assert november.ceiling_units < december.ceiling_units
        for moment in (DEC_1 - EDGE, DEC_1, DEC_1 + EDGE - timedelta(seconds=1)):
            assert await compiled(session, subscription, now=moment) == november

    async def test_planned_for_the_next_period_leaves_this_one_alone(self, session, subscription):
        await put(session, subscription, "300.00")
        before = await compiled(session, subscription)
        await move(session, subscription, "growth", now=NOV_1 + DAY, effective_at=DEC_1)
        assert await compiled(session, subscription) == before
        assert await compiled(session, subscription, now=DEC_1 - EDGE) == before

    async def test_dimensions_counted_before_are_taken_off_first(self, session, subscription):
        await move(session, subscription, "tokens", now=NOV_1)
        await put(session, subscription, "500.00")
        await session.refresh(subscription, ["phases"])
        await add_usage(
            session, subscription, hour=NOV_1 + HOUR, units=100, billable_dimensions={"tokens": 1_000_000}
        )
        await a_published_plan(
            session, now=NOV_1, code="dear", position=4, prices=(replace(PER_TOKEN, params={"unit_amount": "1"}),)
        )
        await move(session, subscription, "dear", now=NOV_1 + 15 * DAY)
        cap = await compiled(session, subscription, now=NOV_1 + 15 * DAY)
        assert [(price.dimension, price.from_units) for price in cap.prices] == [("tokens", 1_000_000)]
        assert cap.usage_minor == 500_00 - 5_00 - 20_00 - 1_00


class TestRefusals:
    @pytest.mark.parametrize(
        ("amount", "problem"),
        [
            ("48.99", "must be at least $49.00: what Starter costs before any use in the period from 2026-11-01"),
            ("12.345", "USD has 2 digits after the point"),
            ("-1", "must be a number from 0, with at most 12 digits before and 12 after the point"),
            (f"{MAX_CAP_MINOR // 100}.01", "must be at most $10,000,000,000.00"),
        ],
    )
    async def test_name_what_is_wrong_with_the_amount(self, session, subscription, amount, problem):
        with pytest.raises(ValidationFailedError) as refused:
            await put(session, subscription, amount)
        assert (refused.value.field, refused.value.problem) == ("amount", problem)

    async def test_a_cap_that_the_next_period_cannot_keep(self, session, subscription):
        await move(session, subscription, "growth", now=NOV_1 + DAY, effective_at=DEC_1)
        with pytest.raises(ValidationFailedError, match=r"\$199.00: what Growth costs .* from 2026-12-01"):
            await put(session, subscription, "150.00")

    async def test_a_cap_that_the_first_paid_period_after_a_trial_cannot_keep(self, session, subscription):
        await a_published_plan(session, now=NOV_1, code="tried", position=4, trial_days=90, prices=(flat("9.00"),))
        account = await an_account(session, now=NOV_1)
        trialing = await a_subscription(session, account, plan="tried", now=NOV_1)
        with pytest.raises(ValidationFailedError, match=r"\$9.00: what Tried costs .* from 2027-01-30"):
            await put(session, trialing, "8.99")
        await put(session, trialing, "9.00")

    async def test_going_on_from_a_pause_in_which_a_lower_cap_was_set(self, session, subscription):
        of = {"subscription_id": subscription.id, "actor": ACTOR}
        await pause(session, **of, now=NOV_1 + 15 * DAY)
        await put(session, subscription, "30.00", now=NOV_1 + 16 * DAY)
        await resume(session, **of, now=NOV_1 + 17 * DAY)
        with pytest.raises(CapBelowFixedChargesError, match=r"starter costs \$49.00 a billing period"):
            await require_cap_kept(session, subscription, now=NOV_1 + 17 * DAY)

    async def test_a_lower_quota_that_makes_the_use_so_far_dearer_than_the_cap(self, session, subscription):
        of = {"subscription_id": subscription.id, "actor": ACTOR, "now": NOV_1 + 2 * DAY}
        await override_limits(session, quota_units=100_000, **of)
        await put(session, subscription, "60.00")
        await add_usage(session, subscription, hour=NOV_1 + DAY, units=100_000)
        for quota_units in (95_000, 150_000):
            await override_limits(session, quota_units=quota_units, **of)
            await require_cap_kept_by_quota(session, subscription, quota_before=100_000, now=of["now"])
        await override_limits(session, quota_units=None, **of)
        with pytest.raises(CapBelowFixedChargesError, match=r"use so far would cost \$124.00, .* cap of \$60.00"):
            await require_cap_kept_by_quota(session, subscription, quota_before=100_000, now=of["now"])

    async def test_a_cap_that_is_set_while_the_plan_changes(self, session, sessions, subscription):
        await session.commit()
        await move(session, subscription, "growth", now=NOV_1 + DAY)

        async def cap():
            async with sessions() as other, other.begin():
                await put(other, subscription, "100.00", now=NOV_1 + DAY)

        waiting = asyncio.create_task(cap())
        await lock_waited_for(sessions)
        await require_cap_kept(session, subscription, now=NOV_1 + DAY)
        await session.commit()
        with pytest.raises(ValidationFailedError, match=r"what Growth, Starter costs"):
            await waiting

    async def test_a_route_whose_calls_can_cost_anything(self, session, subscription, product):
        facts = replace(facts_of_product(product), unit_maximums={"chat": {"tokens": 8000}})
        await update_api_product(session, product=facts, actor=ACTOR, now=NOV_1)
        await put(session, subscription)  # Starter charges for no tokens
        with pytest.raises(
            MaximumMissingError, match=r"charges for tokens, .* one call to route status can report"
        ):
            await move_and_check(session, subscription, "tokens")

    async def test_a_plan_that_charges_for_what_only_the_gateway_measures(self, session, subscription):
        bytes_out = PriceTerms(model="per_unit", meter="bytes_out", params={"unit_amount": "0.000001"})
        await a_published_plan(session, now=NOV_1, code="bytes", position=4, prices=(bytes_out,))
        await put(session, subscription)
        with pytest.raises(MaximumMissingError, match=r"bytes_out, and how many .* is known only afterwards"):
            await move_and_check(session, subscription, "bytes")

    async def test_a_plan_whose_fixed_charges_are_above_the_cap(self, session, subscription):
        await put(session, subscription, "100.00")
        with pytest.raises(CapBelowFixedChargesError, match=r"growth costs \$199.00 .* cap of \$100.00"):
            await move_and_check(session, subscription, "growth")

    async def test_a_change_whose_two_shares_round_to_more_than_the_cap(self, session, subscription):
        for position, code in enumerate(("one", "other"), start=4):
            await a_published_plan(session, now=NOV_1, code=code, position=position, prices=(flat("10.01"),))
        await move(session, subscription, "one", now=NOV_1)
        await put(session, subscription, "10.01")
        with pytest.raises(CapBelowFixedChargesError, match=r"2026-11-01 would cost \$10.02 .* cap of \$10.01"):
            await move_and_check(session, subscription, "other", now=NOV_1 + 15 * DAY)
        await put(session, subscription, "10.02")
        await require_cap_kept(session, subscription, now=NOV_1 + 15 * DAY)

    async def test_a_dearer_plan_within_a_period_that_has_used_the_cap_up(self, session, subscription):
        await put(session, subscription, "250.00")
        await add_usage(session, subscription, hour=NOV_1 + DAY, units=184_003)
        noon = NOV_1 + 15 * DAY
        with pytest.raises(CapBelowFixedChargesError) as refused:
            await move_and_check(session, subscription, "growth", now=noon)
        assert refused.value.code == "spend_cap_below_fixed_charges"
        assert refused.value.message == (
            "The billing period from 2026-11-01 would cost $325.00 (starter, growth; $124.00 before any use), "
            "more than the spend cap of $250.00: raise the cap or remove it first."
        )

    async def test_no_move_that_leaves_the_period_as_dear_as_it_is(self, session, subscription):
        await put(session, subscription, "250.00")
        await add_usage(session, subscription, hour=NOV_1 + DAY, units=184_003)
        await put(session, subscription, "200.00")  # less than it has cost already: refuses whatever costs more
        await move_and_check(session, subscription, "growth", now=NOV_1 + 15 * DAY, effective_at=DEC_1)
        await move_and_check(session, subscription, "free", now=NOV_1 + 15 * DAY)

    async def test_a_product_without_the_maxima_that_caps_need(self, session, subscription, product):
        await move(session, subscription, "tokens", now=NOV_1)
        await put(session, subscription)
        facts = facts_of_product(await api_product(session, "weather"))
        await update_api_product(session, product=replace(facts, unit_maximums={}), actor=ACTOR, now=NOV_1)
        with pytest.raises(MaximumMissingError, match="route chat"):
            await require_caps_kept(session, product_code="weather", now=NOV_1 + DAY)
        await remove_spend_cap(session, subscription_id=subscription.id, actor=ACTOR, now=NOV_1 + DAY)
        await require_caps_kept(session, product_code="weather", now=NOV_1 + DAY)

    async def test_a_changed_plan_without_a_cap_is_no_matter(self, session, subscription):
        await move_and_check(session, subscription, "growth")


async def lock_waited_for(sessions):
    async with asyncio.timeout(30), sessions() as watching:
        while not await watching.scalar(text(LOCKED)):
            await watching.rollback()  # a transaction sees the same activity until it ends
            await asyncio.sleep(0.02)


async def move_and_check(session, subscription, plan, *, now=NOV_1 + DAY, effective_at=None):
    await move(session, subscription, plan, now=now, effective_at=effective_at)
    await session.refresh(subscription, ["phases"])
    await require_cap_kept(session, subscription, now=now)
