"""Credit notes and disputes of Stripe's in our tables, as they were read last."""

from typing import Final

import stripe as sdk
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.stripe_sync.effects import Effect, NotYetError, mark_handled
from control_plane.stripe_sync.invoices.mirror import account_of_customer, refresh_invoice
from control_plane.stripe_sync.invoices.reading import ADJUSTMENT_KEY
from control_plane.stripe_sync.invoices.tables import StripeCreditNote, StripeDispute, StripeInvoice, StripePayment
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.outcomes import StripeRefused
from control_plane.stripe_sync.subscriptions.reading import id_of, moment

_INTENT: Final = "payment_intent"


async def apply_credit_note(ctx: StripeContext, credit_note_id: str) -> Effect:
    """Read a credit note and its invoice again and write down what they say.

    Raises:
        NotYetError, StripeRefused, StripeUnavailable.
    """
    return await refresh_credit_note(ctx, credit_note_id, is_last_effect=True)


async def refresh_credit_note(ctx: StripeContext, credit_note_id: str, *, is_last_effect: bool = False) -> Effect:
    """Do as `apply_credit_note`, on the way to something else."""
    found = await ctx.stripe.call(lambda c: c.v1.credit_notes.retrieve_async(credit_note_id))
    invoice_id = id_of(found.invoice)
    if await refresh_invoice(ctx, invoice_id) is Effect.NOT_OURS:
        return Effect.NOT_OURS
    async with ctx.sessions() as session, session.begin():
        account_id = await account_of_customer(session, id_of(found.customer) or "")
        if account_id is None:
            raise NotYetError(f"the customer of {credit_note_id} is not in our tables yet")
        await _keep(ctx, session, StripeCreditNote, _note_row(found, invoice_id, account_id))
        if is_last_effect:
            await mark_handled(session)
    return Effect.APPLIED


async def apply_dispute(ctx: StripeContext, dispute_id: str) -> Effect:
    """Read a dispute again, find the invoice that the payment was for, and write both down.

    Raises:
        StripeRefused, StripeUnavailable.
    """
    found = await ctx.stripe.call(
        lambda c: c.v1.disputes.retrieve_async(dispute_id, {"expand": ["charge", _INTENT]})
    )
    customer = _customer(found)
    invoice_id = await _invoice_paid(ctx, found)
    if invoice_id is not None and await refresh_invoice(ctx, invoice_id) is Effect.NOT_OURS:
        return Effect.NOT_OURS
    async with ctx.sessions() as session, session.begin():
        account_id = await _account(session, invoice_id=invoice_id, customer_id=customer)
        if account_id is None:
            return Effect.NOT_OURS
        await _keep(ctx, session, StripeDispute, _dispute_row(found, invoice_id, account_id))
        await mark_handled(session)
    return Effect.APPLIED


async def _account(session: AsyncSession, *, invoice_id: str | None, customer_id: str | None) -> str | None:
    if customer_id is not None:
        return await account_of_customer(session, customer_id)
    return await session.scalar(select(StripeInvoice.account_id).where(StripeInvoice.id == invoice_id))


async def _invoice_paid(ctx: StripeContext, found: sdk.Dispute) -> str | None:
    """Return the invoice that a payment was for: as we know, or as Stripe says."""
    intent, charge = id_of(found.payment_intent), id_of(found.charge)
    async with ctx.sessions() as session:
        known = await session.scalar(
            select(StripePayment.invoice_id).where(StripePayment.reference.in_([intent or charge, charge]))
        )
    if known is not None or intent is None:
        return known
    try:
        page = await ctx.stripe.call(
            lambda c: c.v1.invoice_payments.list_async({"payment": {"type": "payment_intent", _INTENT: intent}})
        )
    except StripeRefused:
        return None  # not every payment is for an invoice
    return next((id_of(one.invoice) for one in page.data), None)


def _customer(found: sdk.Dispute) -> str | None:
    for paid in (found.payment_intent, found.charge):
        if paid is not None and not isinstance(paid, str) and paid.customer is not None:
            return id_of(paid.customer)
    return None


async def _keep(
    ctx: StripeContext,
    session: AsyncSession,
    table: type[StripeCreditNote] | type[StripeDispute],
    row: dict[str, object],
) -> None:
    """Write a row down, unless a later reading stands there."""
    values = {**row, "read_at": ctx.now}
    statement = upsert(table).values(values)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["id"], set_=values, where=table.read_at <= ctx.now)
    )


def _note_row(found: sdk.CreditNote, invoice_id: str, account_id: str) -> dict[str, object]:
    metadata = {} if found.metadata is None else found.metadata.to_dict()
    return {
        "id": found.id,
        "invoice_id": invoice_id,
        "account_id": account_id,
        "number": found.number,
        "status": found.status,
        "reason": found.reason,
        "memo": found.memo or "",
        "currency": found.currency.upper(),
        "amount_minor": found.total,
        "adjustment_id": metadata.get(ADJUSTMENT_KEY),
        "pdf_url": getattr(found, "pdf", None),
        "created_at": moment(found.created),
    }


def _dispute_row(found: sdk.Dispute, invoice_id: str | None, account_id: str) -> dict[str, object]:
    return {
        "id": found.id,
        "account_id": account_id,
        "invoice_id": invoice_id,
        "charge_id": id_of(found.charge),
        "payment_intent_id": id_of(found.payment_intent),
        "status": found.status,
        "reason": found.reason,
        "currency": found.currency.upper(),
        "amount_minor": found.amount,
        "evidence_due_at": moment(found.evidence_details.due_by),
        "created_at": moment(found.created),
    }
