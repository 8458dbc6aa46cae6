"""What customers are told of bills at Stripe that are not paid: with the page to pay at, and in time."""

from datetime import timedelta

from sqlalchemy import select

from control_plane.dunning.worker import look_seldom
from control_plane.notifications.tables import Mail
from tests.control_plane.stripe_scenarios.world import STARTER, World

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


async def mails(world: World) -> list[Mail]:
    async with world.sessions() as session:
        return list(await session.scalars(select(Mail).order_by(Mail.created_at, Mail.id)))


async def fail_with(world: World, card: str) -> None:
    await world.order("billing_settings", retry_days=[3, 5, 30])
    await world.sell("starter", *STARTER, quota_units=50_000)
    await world.sign_up()
    await world.buy("starter")
    await world.order("set_card", customer=(await world.row()).customer_id, card=card)
    await world.pass_period_end()
    await world.later(MINUTE)
    await look_seldom(config=world.dunning, sessions=world.sessions, now=world.now)


class TestUnpaidAtStripe:
    async def test_a_failed_card_is_told_of_with_the_invoices_page(self, world: World) -> None:
        await fail_with(world, "pm_card_chargeCustomerFail")
        unpaid = (await world.invoices())[-1]
        (mail,) = await mails(world)
        assert mail.kind == "payment_failed"
        assert mail.values["pay_url"] == unpaid.hosted_url
        assert mail.values["total"] == {"amount_minor": 4_900, "currency": "USD"}
        assert mail.values["invoices"][0]["number"] == unpaid.number
        assert mail.values["next_attempt"]

    async def test_a_card_that_needs_its_owner_is_asked_for_once(self, world: World) -> None:
        await fail_with(world, "pm_card_authenticationRequired")
        unpaid = (await world.invoices())[-1]
        assert [mail.kind for mail in await mails(world)] == ["payment_action_required"]
        await world.order("set_card", customer=(await world.row()).customer_id, card="pm_card_visa")
        await world.pay(unpaid.id)
        await world.later(MINUTE)
        assert [mail.kind for mail in await mails(world)] == ["payment_action_required", "payment_recovered"]
        assert (await mails(world))[0].values["pay_url"] == unpaid.hosted_url
