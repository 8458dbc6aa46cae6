"""Top-ups: credits that an account buys by invoice, granted once it has paid. Nothing here commits."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.credits.ledger import lock_account
from control_plane.billing.credits.model import DEFAULT_PRIORITY, MAX_PRIORITY, GrantKind, check_amount, check_term
from control_plane.billing.credits.operations import NewGrant, grant_credits
from control_plane.billing.credits.tables import CreditGrant
from control_plane.billing.invoices.finalising import InvoiceTerms, ReadyInvoice, finalise
from control_plane.billing.invoices.queries import locked_invoice
from control_plane.billing.invoices.tables import Invoice, InvoiceLine
from control_plane.catalog.queries import api_product
from control_plane.foundation.clock import as_utc, floor_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.money import Money

CREDIT_PURCHASE = "credit_purchase"
DESCRIPTION = "Prepaid credits"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPurchase:
    """What is sold: as many credits as they cost. The rest says what the grant will be (see `NewGrant`)."""

    amount_minor: int
    priority: int = DEFAULT_PRIORITY
    expires_at: datetime | None = None
    api_product: str | None = None
    description: str = DESCRIPTION


async def sell_credits(
    session: AsyncSession,
    *,
    account_id: str,
    purchase: NewPurchase,
    terms: InvoiceTerms,
    actor: str,
    now: datetime,
) -> Invoice:
    """Make a final invoice for credits; they are granted when it is paid, here where the balance pays all of it.

    Credits pay no part of it, and no tax is on it: what credits pay later is taxed then.

    Raises:
        NotFoundError, AccountDeletedError, ValidationFailedError.
    """
    now = floor_ms(now)
    check_amount(purchase.amount_minor)
    check_term(now, purchase.expires_at, now)
    if not 0 <= purchase.priority <= MAX_PRIORITY:
        raise ValidationFailedError("priority", f"must be from 0 to {MAX_PRIORITY}")
    if purchase.api_product is not None:
        await api_product(session, purchase.api_product)
    account = await lock_account(session, account_id)
    invoice = _draft(account_id, account.currency, purchase, now)
    session.add(invoice)
    await session.flush()
    ready = ReadyInvoice(
        invoice_id=invoice.id,
        account_id=account_id,
        subscription_id=None,
        period_start=now,
        currency=account.currency,
        total_minor=purchase.amount_minor,
        buys_credits_minor=purchase.amount_minor,
    )
    await finalise(session, [ready], terms=terms, actor=actor, now=now)
    # final in the database; this row was read before
    invoice = await locked_invoice(session, invoice.id)
    if invoice.status == "paid":
        await grant_paid_credits(session, invoice=invoice, now=now)
    return invoice


async def grant_paid_credits(session: AsyncSession, *, invoice: Invoice, now: datetime) -> list[CreditGrant]:
    """Grant the credits that a paid invoice, loaded with its lines, has sold; idempotent.

    What credit notes took off a line is not granted. Credits that expired before they were paid for are granted
    all the same, without expiry: the money came in.
    """
    grants = []
    for line in invoice.lines:
        amount_minor = line.amount_minor - line.corrected_minor
        if line.kind != CREDIT_PURCHASE or amount_minor <= 0:
            continue
        expires = line.details.get("expires_at")
        expires_at = None if expires is None else as_utc(datetime.fromisoformat(expires))
        grant = NewGrant(
            amount_minor=amount_minor,
            kind=GrantKind.PAID,
            priority=line.details.get("priority", DEFAULT_PRIORITY),
            expires_at=expires_at if expires_at is None or expires_at > now else None,
            api_product=line.details.get("api_product"),
            reason=f"Invoice {invoice.number}: {line.description}"[:500],
            reference=f"invoice_line:{line.id}",
        )
        account_id = invoice.account_id
        grants.append(
            await grant_credits(session, account_id=account_id, grant=grant, actor="system:billing", now=now)
        )
    return grants


def _draft(account_id: str, currency: str, purchase: NewPurchase, now: datetime) -> Invoice:
    details = {
        "priority": purchase.priority,
        "expires_at": None if purchase.expires_at is None else purchase.expires_at.isoformat(),
        "api_product": purchase.api_product,
    }
    amount = Money(purchase.amount_minor, currency).as_decimal()
    line = InvoiceLine(
        id=new_id("line", now),
        position=1,
        kind=CREDIT_PURCHASE,
        period_start=now,
        period_end=now,
        description=purchase.description,
        unit_amount=amount,
        exact_amount=amount,
        amount_minor=purchase.amount_minor,
        details=details,
    )
    return Invoice(
        id=new_id("inv", now),
        account_id=account_id,
        reason="manual",
        currency=currency,
        period_start=now,
        period_end=now,
        subtotal_minor=purchase.amount_minor,
        total_minor=purchase.amount_minor,
        amount_due_minor=purchase.amount_minor,
        created_at=now,
        lines=[line],
    )
