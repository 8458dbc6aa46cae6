"""Credit notes on Stripe's final invoices: each made once, of the lines that charged what is given back."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError, NotFoundError
from control_plane.foundation.ids import new_id
from control_plane.foundation.sole_worker import sole_worker
from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable, options
from control_plane.stripe_sync.invoices import metrics
from control_plane.stripe_sync.invoices.adjustments import Cause
from control_plane.stripe_sync.invoices.claims import refresh_credit_note
from control_plane.stripe_sync.invoices.putting import MAX_DESCRIPTION, PAGE, idempotency_key, metadata_of
from control_plane.stripe_sync.invoices.reading import ADJUSTMENT_KEY, InvoiceState, LineSeen, read_invoice
from control_plane.stripe_sync.invoices.tables import StripeAdjustment, StripeInvoice, StripeInvoiceLine
from control_plane.stripe_sync.model import StripeContext

if TYPE_CHECKING:
    from stripe.params import CreditNoteCreateParams

CREDITABLE: Final = ("open", "paid")
log = structlog.get_logger(__name__)


class NotCreditableError(ConflictError):
    """The invoice is a draft, void, or given up."""

    def __init__(self, invoice_id: str, status: str) -> None:
        super().__init__(
            "invoice_not_creditable",
            f"Invoice {invoice_id} is {status}: only an open or a paid one can be credited.",
        )


@dataclass(frozen=True, slots=True)
class CreditLine:
    """A part of a line of the invoice."""

    line: LineSeen
    amount_minor: int


async def want_credit(
    session: AsyncSession,
    *,
    invoice_id: str,
    amount_minor: int,
    cause: Cause,
    note: str,
    actor: str,
    now: datetime,
) -> StripeAdjustment:
    """Write down that so much of a final invoice is given back by hand, tax included; nothing commits.

    `put_credit_notes` makes the note. What is billed stays as it was: this is given on top.

    Raises:
        NotFoundError. NotCreditableError.
    """
    invoice = await session.get(StripeInvoice, invoice_id, with_for_update=True)
    if invoice is None or invoice.subscription_id is None:
        raise NotFoundError("stripe_invoice", invoice_id)
    if invoice.status not in CREDITABLE:
        raise NotCreditableError(invoice_id, invoice.status)
    turns = select(func.max(StripeAdjustment.turn)).where(
        StripeAdjustment.subscription_id == invoice.subscription_id,
        StripeAdjustment.period_start == invoice.period_start,
        StripeAdjustment.charge_key == "",
    )
    made = StripeAdjustment(
        id=new_id("adj", now),
        subscription_id=invoice.subscription_id,
        period_start=invoice.period_start,
        charge_key="",
        turn=(await session.scalar(turns) or 0) + 1,
        cause=cause.value,
        way="credit_note",
        state="wanted",
        currency=invoice.currency,
        amount_minor=-amount_minor,
        edition=1,
        description=note,
        invoice_id=invoice_id,
        details={},
        created_at=now,
    )
    session.add(made)
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="stripe_invoice.credited",
        entity_type="stripe_invoice",
        entity_id=invoice_id,
        before=None,
        after={"adjustment_id": made.id, "amount_minor": amount_minor, "cause": cause.value, "note": note},
        now=now,
    )
    return made


async def put_credit_notes(ctx: StripeContext, *, only: str | None = None) -> int:
    """Make the credit notes that are wanted, or `only` one; returns how many were made.

    One on which Stripe fails holds up no others. One that another process has in hand is left to it.

    Raises:
        StripeUnavailable: nobody knows of some; to be called again.
    """
    wanted = StripeAdjustment.way == "credit_note", StripeAdjustment.state == "wanted"
    async with ctx.sessions() as session:
        statement = select(StripeAdjustment.id).where(*wanted).order_by(StripeAdjustment.id)
        if only is not None:
            statement = statement.where(StripeAdjustment.id == only)
        due: Sequence[str] = (await session.scalars(statement)).all()
    made = 0
    failed: StripeUnavailable | None = None
    for adjustment_id in due:
        try:
            made += await _put_alone(ctx, adjustment_id)
        except StripeUnavailable as away:
            if not away.spent_key:  # it takes nothing at the moment
                raise
            failed = away
    if failed is not None:
        raise failed
    return made


async def _put_alone(ctx: StripeContext, adjustment_id: str) -> bool:
    async with sole_worker(ctx.sessions, _lock_key(adjustment_id)) as mine:
        if not mine:
            return False
        async with ctx.sessions() as session:
            adjustment = await session.get_one(StripeAdjustment, adjustment_id)
        return adjustment.state == "wanted" and await _put(ctx, adjustment)


async def _put(ctx: StripeContext, adjustment: StripeAdjustment) -> bool:
    found = await _made_before(ctx, adjustment) if adjustment.first_tried_at is not None else None
    if found is None:
        await _note(ctx, adjustment.id, first_tried_at=adjustment.first_tried_at or ctx.now)
        try:
            found = await _create(ctx, adjustment)
        except StripeRefused as refused:
            await _note(ctx, adjustment.id, state="refused", refusal=refused.sentence)
            metrics.ADJUSTMENTS.labels(adjustment.cause, "refused").inc()
            await log.awarning("stripe_credit_note_refused", adjustment=adjustment.id, reason=refused.sentence)
            return False
        except StripeUnavailable as away:
            if away.spent_key:
                await _note(ctx, adjustment.id, edition=adjustment.edition + 1)
            raise
    await _note(ctx, adjustment.id, state="done", stripe_id=found, done_at=ctx.now)
    metrics.ADJUSTMENTS.labels(adjustment.cause, "done").inc()
    await refresh_credit_note(ctx, found)
    return True


async def _create(ctx: StripeContext, adjustment: StripeAdjustment) -> str:
    invoice = await read_invoice(ctx.stripe, adjustment.invoice_id or "")
    if invoice is None:
        raise StripeRefused("resource_missing", "invoice", "The invoice is gone.")
    lines = credit_lines(invoice, adjustment, charge_of=await _charges(ctx, invoice))
    total = sum(one.line.total_of(one.amount_minor) for one in lines) if lines else -adjustment.amount_minor
    params: CreditNoteCreateParams = {
        "invoice": invoice.id,
        "memo": adjustment.description[:MAX_DESCRIPTION],
        "metadata": metadata_of(ctx, adjustment),
    }
    if invoice.status == "paid":
        params["credit_amount"] = total
    if lines:
        params["lines"] = [
            {"type": "invoice_line_item", "invoice_line_item": one.line.id, "amount": one.amount_minor}
            for one in lines
        ]
    else:
        params["amount"] = total
    key = options(idempotency_key(ctx, adjustment))
    made = await ctx.stripe.call(lambda c: c.v1.credit_notes.create_async(params, key))
    return made.id


def credit_lines(
    invoice: InvoiceState, adjustment: StripeAdjustment, *, charge_of: dict[str, str]
) -> list[CreditLine]:
    """Return the parts of lines that charged what is given back, largest lines first; none for a whole invoice."""
    left = -adjustment.amount_minor
    if not adjustment.charge_key:
        return []
    found = []
    charged = [
        line for line in invoice.lines if line.amount_minor > 0 and charge_of.get(line.id) == adjustment.charge_key
    ]
    for line in sorted(charged, key=lambda line: (-line.amount_minor, line.id)):
        amount = min(left, line.amount_minor)
        if amount:
            found.append(CreditLine(line, amount))
            left -= amount
    # what other invoices charged of it cannot be given back on this one by its lines
    return [] if left else found


async def _charges(ctx: StripeContext, invoice: InvoiceState) -> dict[str, str]:
    async with ctx.sessions() as session:
        rows = await session.execute(
            select(StripeInvoiceLine.id, StripeInvoiceLine.charge_key).where(
                StripeInvoiceLine.invoice_id == invoice.id
            )
        )
        return {row.id: row.charge_key for row in rows}


async def _made_before(ctx: StripeContext, adjustment: StripeAdjustment) -> str | None:
    invoice_id = adjustment.invoice_id or ""
    notes = ctx.stripe.every(lambda c: c.v1.credit_notes.list_async({"invoice": invoice_id, "limit": PAGE}))
    async for note in notes:
        metadata = {} if note.metadata is None else note.metadata.to_dict()
        if metadata.get(ADJUSTMENT_KEY) == adjustment.id:
            return note.id
    return None


def _lock_key(adjustment_id: str) -> int:
    digest = hashlib.sha256(f"stripe credit note {adjustment_id}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


async def _note(ctx: StripeContext, adjustment_id: str, **values: str | int | datetime | None) -> None:
    async with ctx.sessions() as session, session.begin():
        await session.execute(
            update(StripeAdjustment)
            .where(StripeAdjustment.id == adjustment_id, StripeAdjustment.state == "wanted")
            .values(**values)
            .execution_options(synchronize_session=False)
        )
