"""A draft of Stripe's from the period's end to what the customer pays."""

import contextlib
from datetime import timedelta

from sqlalchemy import select

from control_plane.catalog.model import PriceTerms
from control_plane.stripe_sync.client import StripeUnavailable
from control_plane.stripe_sync.invoices.checking import check_invoices
from control_plane.stripe_sync.invoices.corrections import correct_billed
from control_plane.stripe_sync.invoices.standing import expected_invoice
from control_plane.stripe_sync.invoices.tables import (
    StripeAdjustment,
    StripeCreditNote,
    StripeInvoiceCheck,
    StripeInvoiceTask,
)
from control_plane.stripe_sync.invoices.tasks import work_task
from tests.control_plane.builders import FLAT_49
from tests.control_plane.stripe_sync.invoices.conftest import BOUGHT_AT, ENDS_AT, HOUR, OVERAGE, Bought

FIRST_HOUR = BOUGHT_AT.replace(minute=0, second=0)
MINIMUM = PriceTerms(model="commitment", meter=None, params={"amount": "60.00", "counts": "usage"})
HALF_FREE = PriceTerms(
    model="graduated",
    meter="requests",
    params={"tiers": [{"up_to": 500, "flat_amount": "10.00"}, {"up_to": None, "unit_amount": "0"}]},
)
MINUTE = timedelta(minutes=1)


async def task_of(bought: Bought) -> StripeInvoiceTask:
    async with bought.sessions() as session:
        return (await session.scalars(select(StripeInvoiceTask))).one()


async def adjustments(bought: Bought) -> list[tuple[str, str, str, int]]:
    async with bought.sessions() as session:
        rows = await session.scalars(select(StripeAdjustment).order_by(StripeAdjustment.id))
        return [(row.cause, row.way, row.state, row.amount_minor) for row in rows]


async def expected_minor(bought: Bought) -> int:
    async with bought.sessions() as session:
        found = await expected_invoice(session, bought.subscription_id, now=bought.ctx.now)
        return found.invoice.total_minor


async def checked(bought: Bought) -> list[StripeInvoiceCheck]:
    await check_invoices(bought.ctx)
    async with bought.sessions() as session:
        return list(await session.scalars(select(StripeInvoiceCheck).order_by(StripeInvoiceCheck.checked_at)))


async def final(bought: Bought) -> int:
    """Let Stripe make the draft final, hear of it and check it; returns what the customer pays."""
    bought.at(ENDS_AT + 2 * HOUR)
    invoice = await bought.hear()
    assert invoice.status == "paid"
    assert [one.differences for one in await checked(bought)] == [[], []]
    return invoice.total_minor


class TestDraft:
    async def test_is_to_the_cent_what_was_expected(self, bought: Bought) -> None:
        await bought.plan("pro", FLAT_49, OVERAGE, MINIMUM)
        await bought.buy("pro")
        bought.at(BOUGHT_AT + 30 * HOUR)
        await bought.use(1_234, hour=FIRST_HOUR + 5 * HOUR)
        expected = await expected_minor(bought)
        assert expected == 4_900 + 351 + (6_000 - 351)
        bought.at(ENDS_AT + 10 * MINUTE)
        assert (await bought.hear()).status == "draft"
        await bought.work()
        assert (await task_of(bought)).state == "done"
        assert await adjustments(bought) == [("not_native", "item", "done", 6_000 - 351)]
        assert await final(bought) == expected

    async def test_waits_for_hours_that_are_not_sealed_is_held_and_then_released(self, bought: Bought) -> None:
        await bought.plan("pro")
        await bought.buy("pro")
        bought.at(ENDS_AT - 3 * HOUR)
        await bought.use(1_100, hour=FIRST_HOUR + 5 * HOUR, sealed=False)
        bought.at(ENDS_AT + 51 * MINUTE)
        await bought.hear()
        await bought.work()
        task = await task_of(bought)
        assert (task.state, task.reason) == ("waiting", "usage of the period is not sealed yet")
        assert task.held_at == bought.ctx.now
        bought.at(ENDS_AT + 80 * HOUR)
        await bought.work()
        assert bought.latest()["status"] == "draft"
        assert (await task_of(bought)).alarmed_at is not None
        await bought.seal_open()
        bought.at(ENDS_AT + 81 * HOUR)
        await bought.work()
        assert (await task_of(bought)).state == "done"
        assert bought.latest()["total"] == 4_900 + 150

    async def test_is_made_final_though_the_answer_to_holding_it_was_lost(self, bought: Bought) -> None:
        await bought.plan("pro")
        await bought.buy("pro")
        bought.at(ENDS_AT - 3 * HOUR)
        await bought.use(1_100, hour=FIRST_HOUR + 5 * HOUR, sealed=False)
        bought.at(ENDS_AT + 51 * MINUTE)
        await bought.hear()
        bought.sim.control.fault("reset_after", method="POST", path="/v1/invoices/*")
        await bought.work()
        assert bought.latest()["auto_advance"] is False
        await bought.seal_open()
        bought.at(ENDS_AT + 54 * MINUTE)
        await bought.work()
        assert (await task_of(bought)).state == "done"
        assert (bought.latest()["status"] != "draft", bought.latest()["total"]) == (True, 4_900 + 150)

    async def test_gets_each_item_once_whatever_is_cut_off(self, bought: Bought) -> None:
        """Calls are lost before and after they are carried out, and Stripe keeps failures as a key's answer."""
        await bought.plan("pro", FLAT_49, OVERAGE, MINIMUM, HALF_FREE)
        await bought.buy("pro")
        await bought.use(1_000, hour=FIRST_HOUR + 5 * HOUR)
        bought.at(ENDS_AT + 10 * MINUTE)
        invoice = await bought.hear()
        states = []
        for fault in ("reset_before", "error_after", "rate_limited", "reset_after", "error_before"):
            bought.sim.control.fault(fault, method="POST", path="/v1/invoiceitems", count=2)
            with contextlib.suppress(StripeUnavailable):
                states.append(await work_task(bought.ctx, invoice.id))
            bought.sim.control.clear_faults()
        assert states == ["done"]
        assert await adjustments(bought) == [
            ("not_native", "item", "done", 1_000),
            ("not_native", "item", "done", 5_000),
        ]
        items = bought.sim.control.dump("invoiceitem")["invoiceitem"]
        assert sorted(item["amount"] for item in items) == [1_000, 5_000]

    async def test_takes_no_items_once_it_is_final_and_the_next_one_does(self, bought: Bought) -> None:
        await bought.plan("pro", FLAT_49, OVERAGE, MINIMUM)
        await bought.buy("pro")
        bought.at(ENDS_AT + 2 * HOUR)
        await bought.hear()
        await bought.work()
        assert (await task_of(bought)).state == "late"
        assert await adjustments(bought) == []
        bought.at(ENDS_AT.replace(month=5) + 10 * MINUTE)
        await bought.hear()
        await bought.work()
        assert await adjustments(bought) == [("not_native", "item", "done", 6_000)] * 2
        assert bought.latest()["total"] == 4_900 + 12_000


class TestCorrections:
    async def test_what_was_billed_too_much_comes_back_by_a_credit_note(self, bought: Bought) -> None:
        await bought.plan("pro")
        await bought.buy("pro")
        bought.at(ENDS_AT - 3 * HOUR)
        await bought.use(1_400, hour=FIRST_HOUR + 5 * HOUR)
        bought.at(ENDS_AT + 10 * MINUTE)
        await bought.hear()
        await bought.work()
        assert await final(bought) == 4_900 + 600
        bought.at(ENDS_AT + 50 * HOUR)
        await bought.use(-300, hour=FIRST_HOUR + 5 * HOUR)
        assert await correct_billed(bought.ctx) == 1
        assert await correct_billed(bought.ctx) == 0
        assert await adjustments(bought) == [("correction", "credit_note", "done", -450)]
        async with bought.sessions() as session:
            note = (await session.scalars(select(StripeCreditNote))).one()
        assert note.amount_minor == 450
        assert (await bought.mirrored(note.invoice_id)).credited_minor == 450
        await bought.use(-70, hour=FIRST_HOUR + 5 * HOUR)
        assert await correct_billed(bought.ctx) == 1
        assert (await bought.mirrored(note.invoice_id)).credited_minor == 450 + 105

    async def test_what_was_used_more_is_on_the_next_invoice(self, bought: Bought) -> None:
        await bought.plan("pro")
        await bought.buy("pro")
        bought.at(ENDS_AT + 10 * MINUTE)
        await bought.hear()
        await bought.work()
        assert await final(bought) == 4_900
        await bought.use(1_100, hour=FIRST_HOUR + 5 * HOUR)
        assert await correct_billed(bought.ctx) == 0
        bought.at(ENDS_AT.replace(month=5) + 10 * MINUTE)
        await bought.hear()
        await bought.work()
        assert await adjustments(bought) == [("late_usage", "item", "done", 150)]
        assert bought.latest()["total"] == 4_900 + 150
