"""Stripe's invoices in our tables, as they were read last: `apply_invoice`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.db import is_any_of
from control_plane.stripe_sync.catalog.tables import StripePrice
from control_plane.stripe_sync.effects import Effect, NotYetError, mark_handled
from control_plane.stripe_sync.invoices.reading import PAGE, InvoiceState, LineSeen, Named, read_invoice
from control_plane.stripe_sync.invoices.tables import (
    StripeInvoice,
    StripeInvoiceLine,
    StripeInvoiceTask,
    StripePayment,
)
from control_plane.stripe_sync.invoices.totals import LineKind
from control_plane.stripe_sync.model import InvoiceSeen, StripeContext
from control_plane.stripe_sync.subscriptions.reading import seconds
from control_plane.stripe_sync.subscriptions.tables import StripeCustomer, StripeSubscription

DELETED: Final = "deleted"
GONE: Final = "gone"
# what becomes of a price's line; a carrier only holds a subscription together
_KINDS: Final[Mapping[str, LineKind]] = {
    "flat": LineKind.FLAT,
    "metered": LineKind.METERED,
    "setup_fee": LineKind.SETUP_FEE,
    "carrier": LineKind.OTHER,
}


async def apply_invoice(ctx: StripeContext, invoice_id: str) -> Effect:
    """Read an invoice with its lines and payments and write down what it says, in one transaction.

    An invoice of nobody we know is not ours. A draft of a period's end gets its task.

    Raises:
        NotYetError: it belongs to a purchase that is not taken in yet. StripeRefused, StripeUnavailable.
    """
    return await refresh_invoice(ctx, invoice_id, is_last_effect=True)


async def refresh_invoice(ctx: StripeContext, invoice_id: str, *, is_last_effect: bool = False) -> Effect:
    """Do as `apply_invoice`, on the way to something else: the events in hand are not marked as handled by it."""
    seen = await read_invoice(ctx.stripe, invoice_id)
    if seen is None:
        return await _forget(ctx, invoice_id)
    async with ctx.sessions() as session, session.begin():
        account_id = await account_of_customer(session, seen.customer_id)
        if account_id is None:
            if seen.installation != ctx.config.installation:
                return Effect.NOT_OURS
            raise NotYetError(f"customer {seen.customer_id} is not in our tables yet")
        await keep_invoice(ctx, session, seen, account_id=account_id)
        if is_last_effect:
            await mark_handled(session)
    return Effect.APPLIED


async def refresh_invoices(ctx: StripeContext, stripe_subscription_id: str, *, since: datetime) -> int:
    """Read those invoices of a subscription, made since a moment, that are not here as Stripe has them."""
    pages = ctx.stripe.every(
        lambda c: c.v1.invoices.list_async(
            {"subscription": stripe_subscription_id, "created": {"gte": seconds(since)}, "limit": PAGE}
        )
    )
    found = {one.id: (one.status, one.total) async for one in pages}
    async with ctx.sessions() as session:
        columns = StripeInvoice.id, StripeInvoice.status, StripeInvoice.total_minor
        rows = await session.execute(select(*columns).where(is_any_of(StripeInvoice.id, found)))
        known = {row.id: (row.status, row.total_minor) for row in rows}
    changed = [invoice_id for invoice_id, facts in found.items() if known.get(invoice_id) != facts]
    for invoice_id in changed:
        await refresh_invoice(ctx, invoice_id)
    return len(changed)


async def account_of_customer(session: AsyncSession, customer_id: str) -> str | None:
    """Return the account that a customer of Stripe's is, None for somebody else's."""
    return await session.scalar(select(StripeCustomer.account_id).where(StripeCustomer.customer_id == customer_id))


async def keep_invoice(ctx: StripeContext, session: AsyncSession, seen: InvoiceState, *, account_id: str) -> bool:
    """Write an invoice down; False where a later reading stands there already."""
    before = await session.execute(
        select(StripeInvoice.status, StripeInvoice.read_at).where(StripeInvoice.id == seen.id).with_for_update()
    )
    known = before.one_or_none()
    if known is not None and known.read_at > ctx.now:
        return False
    subscription_id = await _subscription_id(session, seen.stripe_subscription_id)
    values = _row(seen, account_id=account_id, subscription_id=subscription_id, now=ctx.now)
    written = await session.execute(
        upsert(StripeInvoice)
        .values(values)
        .on_conflict_do_update(
            index_elements=[StripeInvoice.id], set_=values, where=StripeInvoice.read_at <= ctx.now
        )
        .returning(StripeInvoice.id)
    )
    if written.one_or_none() is None:  # another has just written a later reading
        return False
    await _replace_lines(session, seen)
    await _replace_payments(session, seen)
    await _keep_task(session, seen, subscription_id=subscription_id, now=ctx.now)
    await ctx.invoice_seen(
        session,
        InvoiceSeen(
            account_id=account_id,
            subscription_id=subscription_id,
            stripe_id=seen.id,
            status_before=None if known is None else known.status,
            status=seen.status,
            currency=seen.currency,
            amount_due_minor=seen.amount_due_minor,
            attempts=seen.attempt_count,
            next_attempt_at=seen.next_attempt_at,
            hosted_url=seen.hosted_url,
        ),
    )
    return True


async def name_subscriptions(session: AsyncSession) -> int:
    """Name our subscription on invoices that came before its purchase was taken in; returns on how many."""
    named = await session.scalars(
        update(StripeInvoice)
        .where(
            StripeInvoice.subscription_id.is_(None),
            StripeInvoice.stripe_subscription_id == StripeSubscription.stripe_id,
        )
        .values(subscription_id=StripeSubscription.subscription_id)
        .returning(StripeInvoice.id)
        .execution_options(synchronize_session=False)
    )
    return len(named.all())


async def _forget(ctx: StripeContext, invoice_id: str) -> Effect:
    """Note that a draft was deleted at Stripe."""
    async with ctx.sessions() as session, session.begin():
        known = await session.scalars(
            update(StripeInvoice)
            .where(StripeInvoice.id == invoice_id, StripeInvoice.read_at <= ctx.now)
            .values(status=DELETED, finalizes_at=None, read_at=ctx.now)
            .returning(StripeInvoice.id)
        )
        if known.one_or_none() is None:
            return Effect.NOT_OURS
        await session.execute(
            update(StripeInvoiceTask)
            .where(StripeInvoiceTask.invoice_id == invoice_id, StripeInvoiceTask.state.not_in(("done", "late")))
            .values(state=GONE, look_at=None, done_at=ctx.now, reason="the draft was deleted at Stripe")
        )
    return Effect.APPLIED


async def _subscription_id(session: AsyncSession, stripe_id: str | None) -> str | None:
    if stripe_id is None:
        return None
    return await session.scalar(
        select(StripeSubscription.subscription_id).where(StripeSubscription.stripe_id == stripe_id)
    )


def _row(seen: InvoiceState, *, account_id: str, subscription_id: str | None, now: datetime) -> dict[str, object]:
    same = (
        "id stripe_subscription_id customer_id number status billing_reason collection currency period_start"
        " period_end subtotal_minor discount_minor total_minor balance_minor amount_due_minor amount_paid_minor"
        " amount_remaining_minor credited_minor automatic_tax auto_advance attempt_count next_attempt_at"
        " created_at finalizes_at finalised_at due_at paid_at voided_at hosted_url pdf_url finalization_error"
    )
    return {
        **{name: getattr(seen, name) for name in same.split()},
        "account_id": account_id,
        "subscription_id": subscription_id,
        "tax_minor": seen.added_tax_minor,
        "discounts": _named(seen.discounts),
        "taxes": _named(seen.taxes),
        "read_at": now,
    }


def _named(amounts: Named) -> list[dict[str, object]]:
    return [{"name": name, "amount_minor": amount} for name, amount in amounts]


async def _replace_lines(session: AsyncSession, seen: InvoiceState) -> None:
    prices = await _prices(session, {line.price_id for line in seen.lines if line.price_id})
    await session.execute(delete(StripeInvoiceLine).where(StripeInvoiceLine.invoice_id == seen.id))
    rows = [
        _line_row(seen.id, position, line, prices.get(line.price_id or ""))
        for position, line in enumerate(seen.lines)
    ]
    if rows:
        await session.execute(insert(StripeInvoiceLine), rows)


async def _prices(session: AsyncSession, price_ids: set[str]) -> dict[str, tuple[LineKind, str]]:
    """Return what lines of prices of ours are for, and their charges."""
    if not price_ids:
        return {}
    columns = StripePrice.price_id, StripePrice.kind, StripePrice.plan_version_id, StripePrice.position
    rows = await session.execute(select(*columns).where(is_any_of(StripePrice.price_id, price_ids)))
    return {row.price_id: (_KINDS[row.kind], f"{row.plan_version_id}/{row.position}") for row in rows}


def _line_row(
    invoice_id: str, position: int, line: LineSeen, price: tuple[LineKind, str] | None
) -> dict[str, object]:
    kind, charge_key = price or (LineKind.OTHER, "")
    if line.adjustment_id is not None:
        kind = LineKind.ADJUSTMENT
    elif line.proration and kind is LineKind.FLAT:
        kind = LineKind.PRORATION
    return {
        "invoice_id": invoice_id,
        "id": line.id,
        "position": position,
        "kind": kind.value,
        "charge_key": charge_key,
        "description": line.description,
        "amount_minor": line.amount_minor,
        "discount_minor": line.discount_minor,
        "quantity": line.quantity,
        "price_id": line.price_id,
        "item_id": line.item_id,
        "invoice_item_id": line.invoice_item_id,
        "adjustment_id": line.adjustment_id,
        "proration": line.proration,
        "period_start": line.starts_at,
        "period_end": line.ends_at,
    }


async def _replace_payments(session: AsyncSession, seen: InvoiceState) -> None:
    await session.execute(delete(StripePayment).where(StripePayment.invoice_id == seen.id))
    rows = [
        {
            "id": one.id,
            "invoice_id": seen.id,
            "status": one.status,
            "reference": one.reference,
            "amount_minor": one.amount_minor,
            "created_at": one.created_at,
            "paid_at": one.paid_at,
        }
        for one in seen.payments
    ]
    if rows:
        await session.execute(insert(StripePayment), rows)


async def _keep_task(
    session: AsyncSession, seen: InvoiceState, *, subscription_id: str | None, now: datetime
) -> None:
    """Give an invoice of a period's end its task, once; also one that was final before we saw it."""
    if subscription_id is None or not seen.ends_period:
        return
    await session.execute(
        upsert(StripeInvoiceTask)
        .values(
            invoice_id=seen.id,
            subscription_id=subscription_id,
            period_start=seen.period_start,
            period_end=seen.period_end,
            look_at=now,
            created_at=now,
        )
        .on_conflict_do_nothing()
    )
