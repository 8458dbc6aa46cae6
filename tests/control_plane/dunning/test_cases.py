"""A subscription from its first failed payment until it is paid or over, as customers and the gateway see it."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from control_plane.catalog.tables import PlanVersion
from control_plane.dunning import cases as dunning_cases
from control_plane.dunning import worker as dunning_worker
from control_plane.dunning.confirmations import tell_of_confirmations
from control_plane.dunning.notices import notices_of
from control_plane.dunning.operations import DunningCaseClosedError, grant_time
from control_plane.foundation.errors import ValidationFailedError
from control_plane.notifications.model import Branding
from control_plane.notifications.rendering import render_mail
from control_plane.stripe_sync.subscriptions.tables import StripeSubscription
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.tables import PaymentHold, Subscription, SubscriptionPhase
from tests.control_plane.builders import ACTOR, a_published_plan, audit_of
from tests.control_plane.dunning.conftest import PER_MINUTE, PER_SECOND

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
GRACE = ["payment_failed", "payment_reminder", "payment_last_day"]


async def holds(shop):
    async with shop.sessions() as session:
        return await session.scalar(select(func.count()).select_from(PaymentHold))


async def phases(shop):
    """What is billed."""
    async with shop.sessions() as session:
        rows = await session.execute(
            select(SubscriptionPhase.plan_version_id, SubscriptionPhase.starts_at, SubscriptionPhase.ends_at)
        )
        return sorted(map(str, rows.all()))


async def notices(shop):
    async with shop.sessions() as session:
        return await notices_of(session, shop.account_id, trial_notice=3 * DAY, now=shop.now)


async def fall(shop, after, *, at_stripe=True):
    shop.config = replace(shop.config, after=after)
    if at_stripe:
        await shop.bill_at_stripe()
    await shop.set_status("past_due")
    await shop.look_often(14.5)


class TestGrace:
    async def test_serves_and_tells_at_the_start_half_way_and_on_the_last_day(self, shop):
        served = await shop.grant()
        await shop.bill_at_stripe()
        await shop.set_status("past_due")
        await shop.look_often(13.5)
        assert await shop.kinds() == GRACE
        assert await shop.grant() == served
        assert (await shop.case()).state == "grace"

    async def test_mails_lead_to_the_invoice_and_name_the_end(self, shop):
        await shop.bill_at_stripe()
        await shop.set_status("past_due")
        await shop.look()
        await shop.look()
        (mail,) = await shop.mails()
        shown = render_mail(mail.kind, mail.values, branding=Branding())
        assert "https://invoice.stripe.test/in_1" in shown.html
        assert "$49.00" in shown.subject
        assert "31 Mar 2026, 10:37 (UTC)" in " ".join(shown.text.split())

    async def test_waits_a_little_for_an_invoice_that_can_be_named(self, shop):
        await shop.set_status("past_due")
        await shop.look()
        await shop.look(after=timedelta(minutes=1))
        assert not await shop.mails()
        await shop.bill_at_stripe()
        await shop.look(after=timedelta(minutes=1))
        assert (await shop.mails())[0].values["pay_url"].endswith("in_1")

    async def test_tells_of_it_without_one_in_the_end(self, shop):
        await shop.set_status("past_due")
        await shop.look()
        await shop.look(after=timedelta(minutes=11))
        assert await shop.kinds() == ["payment_failed"]

    async def test_several_failed_invoices_are_one_case_with_one_sum(self, shop):
        await shop.bill_at_stripe(1)
        await shop.set_status("past_due")
        await shop.look_often(2)
        await shop.bill_at_stripe(2)
        await shop.look_often(6)
        assert await shop.kinds() == GRACE[:2]
        reminder = (await shop.mails())[1].values
        assert reminder["total"] == {"amount_minor": 9800, "currency": "USD"}
        assert [bill["number"] for bill in reminder["invoices"]] == ["A-1", "A-2"]
        (notice,) = await notices(shop)
        assert notice.text == "The payment of $98.00 for Growth failed."

    async def test_paid_before_anything_was_told_is_told_to_nobody(self, shop):
        await shop.set_status("past_due")
        await shop.look()
        await shop.set_status("active", after=timedelta(seconds=2))
        await shop.look()
        assert (await shop.case()).state == "recovered"
        assert not await shop.mails()


class TestBlock:
    async def test_refuses_calls_after_the_grace_until_it_is_paid(self, shop):
        billed = await phases(shop)
        await fall(shop, "block")
        assert (await shop.grant()).payment_due
        assert (await shop.kinds()) == [*GRACE, "access_blocked"]
        assert [notice.code for notice in await notices(shop)] == ["access_blocked"]
        assert await phases(shop) == billed

    async def test_recovery_holds_in_the_transaction_that_sees_the_payment(self, shop):
        before = await shop.grant()
        await fall(shop, "block")
        version = await shop.gateway_version()
        await shop.set_status("active", after=HOUR)
        # nothing of dunning ran since
        assert replace(await shop.grant(), periods=before.periods) == before
        assert await shop.gateway_version() > version
        assert not await holds(shop)
        assert not await notices(shop)
        await shop.look()
        assert (await shop.kinds())[-1] == "payment_recovered"
        assert (await shop.mails())[-1].values["was"] == "blocked"
        assert (await shop.case()).state == "recovered"

    async def test_a_next_failure_begins_with_a_grace_of_its_own(self, shop):
        await fall(shop, "block")
        await shop.set_status("active", after=HOUR)
        await shop.set_status("past_due", after=HOUR)
        assert not (await shop.grant()).payment_due
        # nothing ran while it was paid: the old case is closed, the next one opened
        await shop.look()
        await shop.look(after=timedelta(seconds=1))
        assert ((await shop.case()).state, (await shop.case()).told) == ("grace", [])
        assert (await shop.kinds())[-1] == "payment_recovered"
        await shop.look_often(15)
        assert (await shop.kinds())[-4:] == [*GRACE, "access_blocked"]

    async def test_a_plan_that_refuses_at_once_has_no_grace(self, shop):
        async with shop.sessions() as session, session.begin():
            await session.execute(text("ALTER TABLE plan_versions DISABLE TRIGGER ALL"))
            for version in await session.scalars(select(PlanVersion)):
                version.on_past_due = "refuse"
        await shop.bill_at_stripe()
        await shop.set_status("past_due")
        assert (await shop.grant()).payment_due
        for _ in range(3):
            await shop.look()
        assert await shop.kinds() == ["access_blocked"]


class TestFree:
    async def test_the_free_plans_limits_hold_and_nothing_else_changes(self, shop):
        billed, before = await phases(shop), await shop.grant()
        await fall(shop, "free")
        held = await shop.grant()
        assert held.windows == (PER_SECOND,)
        assert (held.quota.units, held.quota.hard) == (1000, True)
        assert held.entitlements == ("forecast",)
        assert not held.payment_due
        assert held.subscription_id == before.subscription_id
        assert (await shop.kinds())[-1] == "access_reduced"
        assert await phases(shop) == billed
        await shop.set_status("active", after=HOUR)
        after = await shop.grant()
        assert (after.windows, after.quota, after.entitlements) == (
            before.windows,
            before.quota,
            before.entitlements,
        )

    async def test_counts_in_the_same_billing_period(self, shop):
        await fall(shop, "free")
        held = await shop.grant()
        await shop.set_status("active")
        assert held.periods == (await shop.grant()).periods

    async def test_without_a_free_plan_it_blocks(self, shop):
        shop.config = replace(shop.config, free_plans=("none",))
        await fall(shop, "free")
        assert (await shop.case()).after == "block"
        assert (await shop.grant()).payment_due

    async def test_plans_may_have_a_policy_of_their_own(self, shop):
        shop.config = replace(shop.config, by_plan={"growth": "serve"})
        await fall(shop, "block")
        assert await shop.kinds() == GRACE[:2]
        assert not (await shop.grant()).payment_due
        assert (await notices(shop))[0].until is None


class TestRaces:
    async def test_paid_while_it_falls_back(self, shop, monkeypatch):
        await shop.bill_at_stripe()
        await shop.set_status("past_due")
        await shop.look_often(13.5)
        shop.now += DAY
        hold_back = dunning_cases.hold_back
        paying = []

        async def pay_meanwhile(session, **values):
            # the payment waits for the account's lock, that the falling back holds
            paying.append(asyncio.create_task(shop.set_status("active")))
            await asyncio.sleep(0.1)
            return await hold_back(session, **values)

        monkeypatch.setattr(dunning_cases, "hold_back", pay_meanwhile)
        await shop.look()
        await asyncio.gather(*paying)
        assert not (await shop.grant()).payment_due
        assert not await holds(shop)
        await shop.look()
        assert (await shop.case()).state == "recovered"

    async def test_paid_just_before_it_would_fall_back(self, shop):
        await shop.bill_at_stripe()
        await shop.set_status("past_due")
        await shop.look_often(13.5)
        await shop.set_status("active", after=DAY)
        await shop.look()
        assert not (await shop.grant()).payment_due
        assert "access_blocked" not in await shop.kinds()

    async def test_cancelled_while_past_due(self, shop):
        await fall(shop, "free", at_stripe=False)
        async with shop.sessions() as session, session.begin():
            await cancel(session, subscription_id=shop.subscription_id, at="now", actor=ACTOR, now=shop.now)
        known = await shop.kinds()
        await shop.look()
        assert (await shop.case()).state == "over"
        assert await shop.kinds() == known
        await shop.look_often(1)
        assert await shop.kinds() == known

    async def test_upgraded_while_past_due_stays_held_back_until_it_is_paid(self, shop):
        await fall(shop, "free", at_stripe=False)
        async with shop.sessions() as session, session.begin():
            await a_published_plan(session, now=shop.now, code="scale", quota_units=500_000, windows=(PER_MINUTE,))
            await change_plan(
                session, subscription_id=shop.subscription_id, plan_code="scale", actor=ACTOR, now=shop.now
            )
        shop.now += HOUR
        held = await shop.grant()
        assert (held.quota.units, held.windows) == (1000, (PER_SECOND,))
        await shop.set_status("active", after=HOUR)
        assert (await shop.grant()).quota.units == 500_000

    async def test_paused_while_past_due_is_paused_and_not_held(self, shop):
        await fall(shop, "block")
        await shop.set_status("paused")
        assert (await shop.grant()).paused
        assert not await holds(shop)
        await shop.look()
        assert (await shop.case()).state == "over"

    async def test_many_workers_take_each_step_once(self, shop):
        await shop.bill_at_stripe()
        await shop.set_status("past_due")
        for days in (0, 0, 7, 6, 1.2):
            shop.now += days * DAY
            await asyncio.gather(*(shop.look() for _ in range(4)))
        assert await shop.kinds() == [*GRACE, "access_blocked"]
        async with shop.sessions() as session:
            done = [row.action for row in await audit_of(session, shop.subscription_id)]
        assert [action for action in done if action.startswith("dunning.")] == [
            "dunning.opened",
            "dunning.failed",
            "dunning.reminder",
            "dunning.last_day",
            "dunning.fall",
        ]

    @pytest.mark.parametrize("dies_in", ["record_case", "tell", "hold_back"])
    async def test_a_worker_killed_within_any_step_leaves_it_to_the_next(self, shop, monkeypatch, dies_in):
        await shop.bill_at_stripe()
        await shop.set_status("past_due")
        whole = getattr(dunning_cases, dies_in)
        deaths = 0

        async def die(*args, **values):
            nonlocal deaths
            await whole(*args, **values)
            deaths += 1
            if deaths % 2:
                raise ConnectionResetError

        monkeypatch.setattr(dunning_cases, dies_in, die)
        for _ in range(16 * 3):
            await shop.look(after=8 * HOUR)
        assert deaths > 1
        assert await shop.kinds() == [*GRACE, "access_blocked"]
        assert (await shop.grant()).payment_due

    async def test_a_case_that_fails_is_left_alone_for_a_while_and_keeps_no_other_waiting(self, shop, monkeypatch):
        await shop.set_status("past_due")
        tried = []

        async def fail(_session, **values):
            tried.append(values)
            raise LookupError

        monkeypatch.setattr(dunning_worker, "open_case", fail)
        failing = {}
        for _ in range(3):
            await dunning_worker.look_after(
                config=shop.config, sessions=shop.sessions, now=shop.now, failing=failing
            )
        assert len(tried) == 1
        monkeypatch.undo()
        failing[shop.subscription_id] = 0.0
        await dunning_worker.look_after(config=shop.config, sessions=shop.sessions, now=shop.now, failing=failing)
        assert (await shop.case()).state == "grace"
        assert not failing

    async def test_a_worker_that_was_away_leaves_a_day_to_pay(self, shop):
        await shop.bill_at_stripe()
        await shop.set_status("past_due")
        await shop.look()
        for _ in range(3):
            await shop.look(after=30 * DAY if await shop.mails() == [] else timedelta())
        assert await shop.kinds() == ["payment_failed", "payment_last_day"]
        assert not (await shop.grant()).payment_due
        await shop.look(after=DAY)
        assert (await shop.grant()).payment_due

    async def test_a_clock_that_goes_back_takes_no_step_twice(self, shop):
        await shop.bill_at_stripe()
        await shop.set_status("past_due")
        await shop.look_often(13.5)
        for jump in (-10 * DAY, 5 * DAY, -3 * DAY, 8 * DAY):
            await shop.look(after=jump)
        assert await shop.kinds() == GRACE


class TestEndedUnpaid:
    async def end_at_stripe(self, shop, **changed):
        async with shop.sessions() as session, session.begin():
            version = (await session.scalars(select(SubscriptionPhase.plan_version_id))).first()
            session.add(
                StripeSubscription(
                    **{
                        "subscription_id": shop.subscription_id,
                        "stripe_id": "sub_stripe",
                        "account_id": shop.account_id,
                        "customer_id": "cus_1",
                        "status": "canceled",
                        "currency": "USD",
                        "plan_version_id": version,
                        "started_at": shop.now,
                        "billing_cycle_anchor": shop.now,
                        "current_period_start": shop.now,
                        "current_period_end": shop.now + 30 * DAY,
                        "cancel_at_period_end": False,
                        "read_at": shop.now,
                        "created_at": shop.now,
                        **changed,
                    }
                )
            )
        await shop.set_status("canceled")

    async def test_goes_on_with_the_free_plan_by_policy(self, shop):
        await fall(shop, "free")
        await self.end_at_stripe(shop)
        await shop.look()
        assert (await shop.kinds())[-1] == "subscription_ended"
        assert (await shop.mails())[-1].values["free_plan"] == "Free"
        grant = await shop.grant()
        assert (grant.plan, grant.quota.units) == ("free", 1000)
        async with shop.sessions() as session:
            (status, billed_by) = (
                await session.execute(
                    select(Subscription.status, Subscription.billed_by).where(Subscription.status == "active")
                )
            ).one()
        assert (status, billed_by) == ("active", "own")

    async def test_ends_where_the_policy_is_to_block(self, shop):
        await fall(shop, "block")
        await self.end_at_stripe(shop)
        await shop.look()
        assert (await shop.mails())[-1].values["free_plan"] is None

    async def test_what_was_cancelled_at_its_end_just_ends(self, shop):
        await fall(shop, "free")
        known = await shop.kinds()
        await self.end_at_stripe(shop, cancel_at_period_end=True)
        await shop.look()
        assert await shop.kinds() == known


class TestGrantTime:
    async def grant_until(self, shop, until):
        async with shop.sessions() as session, session.begin():
            case = await shop.case()
            return await grant_time(session, case_id=case.id, until=until, actor=ACTOR, now=shop.now)

    async def test_lifts_what_holds_and_tells_of_the_new_last_day(self, shop):
        await fall(shop, "block")
        await self.grant_until(shop, shop.now + 5 * DAY)
        assert not (await shop.grant()).payment_due
        await shop.look_often(5.5)
        assert (await shop.grant()).payment_due
        assert (await shop.kinds())[4:] == ["payment_last_day", "access_blocked"]

    async def test_refuses_the_past_and_what_is_paid(self, shop):
        await fall(shop, "block")
        with pytest.raises(ValidationFailedError):
            await self.grant_until(shop, shop.now - HOUR)
        await shop.set_status("active")
        await shop.look()
        with pytest.raises(DunningCaseClosedError):
            await self.grant_until(shop, shop.now + DAY)


class TestConfirmations:
    async def test_asks_to_confirm_instead_of_telling_of_a_failure(self, shop):
        await shop.bill_at_stripe(asks=True)
        await shop.set_status("past_due")
        await shop.look()
        await shop.look()
        await shop.look_seldom()
        assert await shop.kinds() == ["payment_action_required"]
        assert [notice.code for notice in await notices(shop)] == ["payment_action_required"]

    async def test_asks_before_anything_is_past_due_once_for_each_invoice(self, shop):
        await shop.bill_at_stripe(1, asks=True)
        await shop.look_seldom()
        await shop.look_seldom()
        await shop.bill_at_stripe(2, asks=True)
        await shop.look_seldom()
        mails = await shop.mails()
        assert [mail.values["pay_url"][-4:] for mail in mails] == ["in_1", "in_2"]
        assert all("until" not in render_mail(mail.kind, mail.values, branding=Branding()).text for mail in mails)

    async def test_asks_the_next_though_as_many_wait_as_are_told_at_once(self, shop):
        for number in (1, 2):
            await shop.bill_at_stripe(number, asks=True)
        for told in (1, 1, 0):
            async with shop.sessions() as session, session.begin():
                before = shop.now - timedelta(days=1)
                assert await tell_of_confirmations(session, received_after=before, now=shop.now, limit=1) == told

    async def test_asks_for_nothing_that_was_paid_meanwhile(self, shop):
        await shop.bill_at_stripe(asks=True, status="paid")
        await shop.look_seldom()
        assert not await shop.mails()
