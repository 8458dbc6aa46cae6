"""A change that waits for its payment and is given up: its invoice is void, and bills nothing."""

from datetime import timedelta

from control_plane.stripe_sync.client import options
from control_plane.stripe_sync.invoices.corrections import correct_billed
from control_plane.stripe_sync.invoices.mirror import apply_invoice
from control_plane.stripe_sync.subscriptions.requests import change_plan
from tests.control_plane.builders import ACTOR
from tests.control_plane.stripe_sync.invoices.conftest import BOUGHT_AT, ENDS_AT, HOUR, Bought
from tests.control_plane.stripe_sync.invoices.test_changes import FLAT_99, MORE
from tests.control_plane.stripe_sync.invoices.test_drafts import FIRST_HOUR, adjustments


async def pay_by(bought: Bought, card: str) -> None:
    [customer] = bought.sim.control.dump("customer")["customer"]
    call = bought.ctx.stripe.call
    method = await call(lambda c: c.v1.payment_methods.attach_async(card, {"customer": customer["id"]}))
    await call(
        lambda c: c.v1.subscriptions.update_async(
            bought.stripe_id, {"default_payment_method": method.id}, options(f"km:test:{card}")
        )
    )


class TestChangeThatIsNotPaid:
    async def test_leaves_usage_to_be_billed_at_the_periods_end(self, bought: Bought) -> None:
        await bought.plan("pro")
        await bought.plan("bigger", FLAT_99, MORE, position=1)
        await bought.buy("pro")
        await apply_invoice(bought.ctx, bought.latest()["id"])
        bought.at(BOUGHT_AT + timedelta(days=9, hours=5, minutes=11, seconds=7))
        await bought.use(1_100, hour=FIRST_HOUR + 5 * HOUR)
        await pay_by(bought, "pm_card_chargeCustomerFail")
        await change_plan(
            bought.ctx, subscription_id=bought.subscription_id, plan_code="bigger", at="now", actor=ACTOR
        )
        waiting = bought.sim.control.dump("invoice")["invoice"][-1]
        await apply_invoice(bought.ctx, waiting["id"])
        bought.at(bought.ctx.now + timedelta(days=2))
        await bought.hear()
        await apply_invoice(bought.ctx, waiting["id"])
        assert (await bought.mirrored(waiting["id"])).status == "void"
        await pay_by(bought, "pm_card_visa")
        await bought.use(100, hour=FIRST_HOUR + 6 * HOUR)
        bought.at(ENDS_AT + timedelta(minutes=10))
        await bought.hear()
        await bought.work()
        await correct_billed(bought.ctx)
        assert await adjustments(bought) == []
        bought.at(ENDS_AT + 2 * HOUR)
        assert (await bought.hear()).total_minor == 4_900 + 300
        await correct_billed(bought.ctx)
        assert await adjustments(bought) == []
