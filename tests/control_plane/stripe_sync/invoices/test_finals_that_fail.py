"""Credit notes and checks beside others that fail, and in two processes at once."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select

from control_plane.stripe_sync.client import StripeUnavailable
from control_plane.stripe_sync.invoices import checking
from control_plane.stripe_sync.invoices.adjustments import Cause
from control_plane.stripe_sync.invoices.checking import check_invoices
from control_plane.stripe_sync.invoices.crediting import put_credit_notes, want_credit
from control_plane.stripe_sync.invoices.tables import StripeAdjustment, StripeInvoiceCheck
from tests.control_plane.builders import ACTOR
from tests.control_plane.stripe_sync.invoices.conftest import Bought


async def want(bought: Bought, *amounts: int) -> None:
    await bought.plan("pro")
    await bought.buy("pro")
    invoice = await bought.hear()
    for amount in amounts:
        async with bought.sessions() as session, session.begin():
            await want_credit(
                session,
                invoice_id=invoice.id,
                amount_minor=amount,
                cause=Cause.GOODWILL,
                note="Sorry",
                actor=ACTOR,
                now=bought.ctx.now,
            )


async def states(bought: Bought) -> list[tuple[int, str]]:
    async with bought.sessions() as session:
        rows = await session.scalars(select(StripeAdjustment).order_by(StripeAdjustment.id))
        return [(row.amount_minor, row.state) for row in rows]


class TestCreditNotes:
    async def test_one_on_which_stripe_fails_holds_up_no_other(self, bought: Bought) -> None:
        await want(bought, 100, 200)
        bought.sim.control.fault("error_before", method="POST", path="/v1/credit_notes", count=1)
        with pytest.raises(StripeUnavailable):
            await put_credit_notes(bought.ctx)
        assert await states(bought) == [(-100, "wanted"), (-200, "done")]
        assert await put_credit_notes(bought.ctx) == 1
        assert await states(bought) == [(-100, "done"), (-200, "done")]

    async def test_are_made_once_by_two_at_once(self, bought: Bought) -> None:
        await want(bought, 300)
        assert sorted(await asyncio.gather(put_credit_notes(bought.ctx), put_credit_notes(bought.ctx))) == [0, 1]
        assert await states(bought) == [(-300, "done")]
        assert len(bought.sim.control.dump("credit_note")["credit_note"]) == 1


class TestChecks:
    async def test_an_invoice_that_cannot_be_checked_is_put_down_and_not_tried_at_once(
        self, bought: Bought, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await want(bought)

        async def broken(*_args: object, **_more: object) -> None:
            raise LookupError("a price that nobody knows")

        with monkeypatch.context() as broke:
            broke.setattr(checking, "check_invoice", broken)
            assert await check_invoices(bought.ctx) == 0
        async with bought.sessions() as session:
            row = (await session.scalars(select(StripeInvoiceCheck))).one()
        assert not row.agrees
        assert row.differences[0]["cause"] == "not_checked"
        assert await check_invoices(bought.ctx) == 0
        bought.at(bought.ctx.now + timedelta(minutes=1))
        await bought.hear()
        assert await check_invoices(bought.ctx) == 1
        async with bought.sessions() as session:
            assert (await session.scalars(select(StripeInvoiceCheck))).one().agrees
