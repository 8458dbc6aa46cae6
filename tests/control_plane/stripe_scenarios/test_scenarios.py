"""Stories of customers, from the first click to the last invoice: each of Stripe's says what our preview said."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

from sqlalchemy import select

from control_plane.billing.discounts.founding import FoundingTerms, open_founding_offer
from control_plane.billing.discounts.referrals import assign_referrer, referral_code, set_reward
from control_plane.dunning.tables import DunningCase
from control_plane.stripe_sync.invoices.adjustments import Cause
from control_plane.stripe_sync.invoices.crediting import put_credit_notes, want_credit
from control_plane.stripe_sync.invoices.expected import InvoiceEvent
from control_plane.stripe_sync.invoices.standing import Expectation
from control_plane.stripe_sync.invoices.tables import StripeCreditNote, StripeInvoice
from tests.control_plane.billing.invoices.billing_kit import commitment, setup_fee
from tests.control_plane.builders import ACTOR
from tests.control_plane.stripe_scenarios.world import DAY, GROWTH, HOUR, STARTER, World

PAID = "paid"


def amounts(invoice: StripeInvoice) -> list[int]:
    return sorted(line.amount_minor for line in invoice.lines)


def assert_says(invoice: StripeInvoice, expected: Expectation) -> None:
    """To the cent, line by line, and what is left to pay."""
    assert amounts(invoice) == sorted(line.amount_minor for line in expected.invoice.lines)
    assert invoice.total_minor == expected.invoice.total_minor
    assert invoice.balance_minor == expected.invoice.balance_minor


def totals(invoices: Sequence[StripeInvoice]) -> list[tuple[str, int]]:
    return [(one.status, one.total_minor) for one in invoices]


class TestSignUp:
    async def test_a_customer_buys_uses_and_pays(self, world: World) -> None:
        await world.sell("starter", *STARTER, setup_fee("25.00"), quota_units=50_000)
        await world.sign_up()
        assert await world.buy("starter")
        assert ((await world.subscription()).status, await world.plan()) == ("active", "starter")
        await world.use(30_000)
        expected = await world.expected()
        await world.pass_period_end()
        first, second = await world.invoices()
        assert (first.status, amounts(first)) == (PAID, [2_500, 4_900])
        assert (second.status, second.total_minor) == (PAID, 4_900)
        assert_says(second, expected)

    async def test_a_free_plan_of_before_ends_with_the_purchase(self, world: World) -> None:
        await world.sell("free", billed_by="own", quota_units=1_000)
        await world.sell("starter", *STARTER, quota_units=50_000)
        await world.sign_up()
        await world.subscribe_here("free")
        assert await world.plan() == "free"
        assert not await world.buy("starter", card="pm_card_chargeCustomerFail")
        assert await world.plan() == "free"
        assert await world.buy("starter")
        assert await world.plan() == "starter"


class TestTrial:
    async def test_costs_nothing_and_turns_into_a_paid_plan(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000, trial_days=14)
        await world.sign_up()
        assert await world.buy("starter")
        assert (await world.subscription()).status == "trialing"
        await world.use(70_000)
        expected = await world.expected()
        assert expected.invoice.total_minor == 4_900
        await world.pass_period_end()
        assert (await world.subscription()).status == "active"
        first, second = await world.invoices()
        assert totals([first, second]) == [(PAID, 0), (PAID, 4_900)]
        assert_says(second, expected)
        await world.use(50_002)
        await world.pass_period_end()
        # what was used in the trial is on no invoice
        assert (await world.invoices())[-1].total_minor == 4_900


class TestUpgrade:
    async def test_in_mid_period_is_paid_at_once_and_access_follows(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000)
        await world.sell("growth", *GROWTH, position=1, quota_units=500_000)
        await world.sign_up()
        await world.buy("starter")
        await world.use(60_000)
        await world.later(11 * DAY + timedelta(minutes=7, seconds=13))
        expected = await world.expected(InvoiceEvent.CHANGE, to="growth")
        await world.change_plan("growth")
        assert await world.plan() == "growth"
        changed = (await world.invoices())[-1]
        assert changed.status == PAID
        assert_says(changed, expected)
        await world.use(500_100)
        expected = await world.expected()
        await world.pass_period_end()
        last = (await world.invoices())[-1]
        assert_says(last, expected)
        assert last.total_minor == 19_900 + 6

    async def test_that_cannot_be_paid_changes_nothing(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000)
        await world.sell("growth", *GROWTH, position=1, quota_units=500_000)
        await world.sign_up()
        await world.buy("starter")
        await world.later(5 * DAY)
        await world.set_card("pm_card_chargeCustomerFail")
        await world.change_plan("growth")
        assert await world.plan() == "starter"
        await world.later(2 * DAY)
        assert await world.plan() == "starter"
        assert (await world.subscription()).status == "active"


class TestOverage:
    async def test_is_billed_with_what_arrives_late_and_what_stripe_cannot_rate(self, world: World) -> None:
        await world.sell("starter", *STARTER, commitment("30.00"), quota_units=50_000)
        await world.sign_up()
        await world.buy("starter")
        await world.use(51_000)
        expected = await world.expected()
        # 1.50 of overage, and what 30.00 of commitment are short of
        assert expected.invoice.total_minor == 4_900 + 150 + 2_850
        await world.pass_period_end()
        assert_says((await world.invoices())[-1], expected)
        await world.use(70_000)
        expected = await world.expected()
        await world.pass_period_end()
        assert_says((await world.invoices())[-1], expected)
        assert expected.invoice.total_minor == 4_900 + 3_000


class TestDowngrade:
    async def test_waits_for_the_periods_end(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000)
        await world.sell("growth", *GROWTH, position=1, quota_units=500_000)
        await world.sign_up()
        await world.buy("growth")
        await world.use(510_000)
        await world.change_plan("starter")
        assert await world.plan() == "growth"
        expected = await world.expected()
        assert expected.invoice.total_minor == 4_900 + 600
        await world.pass_period_end()
        assert await world.plan() == "starter"
        assert_says((await world.invoices())[-1], expected)


class TestFailedCard:
    async def test_is_served_in_grace_and_restored_when_it_pays(self, world: World) -> None:
        await world.side.retry_after(5, 7, 7)
        await world.sell("starter", *STARTER, quota_units=50_000)
        await world.sign_up()
        await world.buy("starter")
        await world.set_card("pm_card_chargeCustomerFail")
        await world.pass_period_end()
        assert (await world.subscription()).status == "past_due"
        assert await self.case(world) == "grace"
        await world.later(13 * DAY)  # the last day is told of
        await world.later(2 * DAY)
        assert await self.case(world) == "blocked"
        unpaid = (await world.invoices())[-1]
        assert (unpaid.status, unpaid.total_minor) == ("open", 4_900)
        await world.set_card("pm_card_visa")
        await world.pay(unpaid.id)
        assert (await world.subscription()).status == "active"
        assert await self.case(world) == "recovered"
        assert totals(await world.invoices()) == [(PAID, 4_900), (PAID, 4_900)]

    async def test_that_never_pays_ends(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000)
        await world.sign_up()
        await world.buy("starter")
        await world.set_card("pm_card_chargeCustomerFail")
        await world.pass_period_end()
        for _ in range(4):
            await world.later(7 * DAY)
        assert (await world.subscription()).status in {"canceled", "ended"}
        assert (await world.row()).status == "canceled"

    @staticmethod
    async def case(world: World) -> str:
        async with world.plain() as session:
            return (await session.scalars(select(DunningCase.state))).one()


class TestCancel:
    async def test_at_period_end_bills_the_usage_and_no_more(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000)
        await world.sign_up()
        await world.buy("starter")
        await world.use(52_000)
        await world.cancel()
        assert (await world.subscription()).status == "active"
        expected = await world.expected()
        assert expected.invoice.total_minor == 300
        await world.pass_period_end()
        last = (await world.invoices())[-1]
        assert (await world.subscription()).status in {"canceled", "ended"}
        assert_says(last, expected)
        assert last.status == PAID

    async def test_now_bills_what_was_used_until_now(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000)
        await world.sign_up()
        await world.buy("starter")
        await world.use(53_000)
        await world.later(DAY)
        expected = await world.expected(InvoiceEvent.CANCEL_NOW)
        await world.cancel("now")
        await world.later(2 * HOUR)
        last = (await world.invoices())[-1]
        assert (last.status, last.total_minor) == (PAID, 450)
        assert_says(last, expected)
        assert (await world.subscription()).status in {"canceled", "ended"}


class TestDispute:
    async def test_is_seen_and_settled_with_a_credit_note(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000)
        await world.sign_up()
        await world.buy("starter")
        await world.use(60_000)
        await world.set_card("pm_card_createDispute")
        await world.pass_period_end()
        paid = (await world.invoices())[-1]
        dispute = await world.dispute()
        assert (dispute.invoice_id, dispute.amount_minor) == (paid.id, 4_900 + 1_500)
        await world.win(dispute)
        assert (await world.dispute()).status == "won"
        await world.set_card("pm_card_visa")
        async with world.plain() as session, session.begin():
            await want_credit(
                session,
                invoice_id=paid.id,
                amount_minor=1_500,
                cause=Cause.CORRECTION,
                note="Calls of the 3rd failed",
                actor=ACTOR,
                now=world.now,
            )
        assert await put_credit_notes(world.ctx) == 1
        assert await put_credit_notes(world.ctx) == 0
        await world.settle()
        async with world.plain() as session:
            note = (await session.scalars(select(StripeCreditNote))).one()
        assert (note.invoice_id, note.amount_minor) == (paid.id, 1_500)
        expected = await world.expected()
        await world.pass_period_end()
        assert_says((await world.invoices())[-1], expected)


class TestFoundingMember:
    async def test_has_the_discount_for_the_first_year(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000)
        async with world.plain() as session, session.begin():
            terms = FoundingTerms(percent=Decimal(25), months=12, max_accounts=10)
            await open_founding_offer(session, terms=terms, actor=ACTOR, now=world.now)
        await world.sign_up()
        await world.buy("starter")
        await world.use(52_345)
        expected = await world.expected()
        await world.pass_period_end()
        first, second = await world.invoices()
        assert totals([first]) == [(PAID, 4_900 - 1_225)]
        assert_says(second, expected)
        # 49.00 and 3.52 of overage, less a quarter
        assert second.total_minor == 5_252 - 1_313


class TestReferral:
    async def test_pays_the_referrers_next_invoice(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000)
        referrer = await world.sign_up("Referrer")
        await world.buy("starter")
        async with world.plain() as session, session.begin():
            await set_reward(session, currency="USD", amount_minor=2_000, actor=ACTOR, now=world.now)
            code = await referral_code(session, account_id=referrer, now=world.now)
        friend = await world.sign_up("Friend")
        async with world.plain() as session, session.begin():
            await assign_referrer(session, account_id=friend, code=code, actor=ACTOR, now=world.now)
        await world.buy("starter")
        world.account_id = referrer
        expected = await world.expected()
        assert expected.invoice.balance_minor == 2_000
        await world.pass_period_end()
        last = (await world.invoices())[-1]
        assert_says(last, expected)
        assert (last.status, last.amount_paid_minor) == (PAID, 2_900)
