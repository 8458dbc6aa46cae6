"""A draft of Stripe's from the period's end to what the customer pays."""

from sqlalchemy import select

from control_plane.stripe_sync.invoices.standing import expected_invoice
from control_plane.stripe_sync.invoices.tables import StripeAdjustment, StripeInvoiceTask
from tests.control_plane.stripe_sync.invoices.conftest import BOUGHT_AT, ENDS_AT, HOUR, Bought


async def task_of(bought: Bought) -> StripeInvoiceTask:
    async with bought.sessions() as session:
        return (await session.scalars(select(StripeInvoiceTask))).one()


async def adjustments(bought: Bought) -> list[StripeAdjustment]:
    async with bought.sessions() as session:
        return list(await session.scalars(select(StripeAdjustment).order_by(StripeAdjustment.id)))


class TestDraft:
    async def test_the_periods_usage_is_on_it_as_expected(self, bought: Bought) -> None:
        await bought.plan("pro")
        await bought.buy("pro")
        bought.at(BOUGHT_AT + 30 * HOUR)
        await bought.use(1_234, hour=BOUGHT_AT.replace(minute=0, second=0) + 5 * HOUR)
        async with bought.sessions() as session:
            expected = await expected_invoice(session, bought.subscription_id, now=bought.ctx.now)
        assert expected.invoice.total_minor == 4_900 + 351
        bought.at(ENDS_AT + HOUR / 6)
        draft = await bought.hear()
        assert draft.status == "draft"
        await bought.work()
        assert ((await task_of(bought)).state, (await task_of(bought)).reason) == ("done", "")
        bought.at(ENDS_AT + 2 * HOUR)
        final = await bought.hear()
        assert (final.status, final.total_minor) == ("paid", expected.invoice.total_minor)
