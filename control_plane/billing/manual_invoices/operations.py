"""Drafts by hand. Nothing here commits; every change is audited, and a draft always adds up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import AccountDeletedError
from control_plane.accounts.queries import account as account_by_id
from control_plane.billing.invoices.amounts import Amounts, amounts_of
from control_plane.billing.invoices.finalising import InvoiceTerms, ReadyInvoice, finalise
from control_plane.billing.invoices.tables import Invoice, InvoiceLine
from control_plane.billing.payments.model import InvoiceStepRefusedError
from control_plane.billing.payments.records import facts, lock_invoice, record
from control_plane.billing.taxes.applying import tax_terms
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.money import round_minor
from control_plane.rating.words import TIMES, format_amount
from gateway_contract.records import AccountStatus

MAX_LINES = 200
MAX_TEXT = 1_000
MAX_QUANTITY = 10**9
MAX_UNIT_AMOUNT = Decimal(10) ** 12
MAX_DIGITS = 12


class NotManualError(ConflictError):
    """The draft bills a subscription: it is made, kept up to date and made final by itself."""

    def __init__(self, invoice_id: str, finalise_at: datetime | None) -> None:
        when = "" if finalise_at is None else f", at {finalise_at:%Y-%m-%d %H:%M} UTC at the earliest"
        super().__init__(
            "invoice_not_manual",
            f"Invoice {invoice_id} bills a subscription: it becomes final by itself when its usage is{when}.",
        )


class EmptyInvoiceError(ConflictError):
    """There is nothing to bill."""

    def __init__(self) -> None:
        super().__init__("invoice_empty", "The invoice has no line that comes to something: add one first.")


class TooManyLinesError(ConflictError):
    """A draft by hand has so many lines at most."""

    def __init__(self) -> None:
        super().__init__("too_many_invoice_lines", f"An invoice made by hand has at most {MAX_LINES} lines.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualLine:
    """`quantity` times `unit_amount` (major unit; below 0 gives something back), rounded once, half up."""

    description: str
    unit_amount: Decimal
    quantity: int = 1


@dataclass(frozen=True, slots=True)
class _Charged:
    """A line as discounts and taxes look at it."""

    kind: str
    amount_minor: int
    charge_key: str
    period_start: datetime
    plan_code: str | None = None


async def create_draft(
    session: AsyncSession,
    *,
    account_id: str,
    lines: Sequence[ManualLine] = (),
    note: str = "",
    seller_country: str = "",
    actor: str,
    now: datetime,
) -> Invoice:
    """Make a draft in the account's currency. `note` stands on it. Nobody owes it until it is made final.

    Raises:
        NotFoundError, AccountDeletedError. ValidationFailedError: a line or the note. TooManyLinesError.
    """
    payer = await account_by_id(session, account_id)
    if payer.status == AccountStatus.DELETED:
        raise AccountDeletedError(account_id)
    if len(note) > MAX_TEXT:
        raise ValidationFailedError("note", f"must be at most {MAX_TEXT} characters")
    invoice = Invoice(
        id=new_id("inv", now),
        account_id=account_id,
        reason="manual",
        status="draft",
        currency=payer.currency,
        period_start=now,
        period_end=now,
        note=note,
        created_at=now,
        lines=[],
    )
    session.add(invoice)
    _append(invoice, lines, now=now)
    await _add_up(session, invoice, seller_country=seller_country, now=now)
    await record_change(
        session,
        actor=actor,
        action="invoice.drafted",
        entity_type="invoice",
        entity_id=invoice.id,
        before=None,
        after={**facts(invoice), "account_id": account_id, "total_minor": invoice.total_minor},
        now=now,
    )
    return invoice


async def add_lines(
    session: AsyncSession,
    *,
    invoice_id: str,
    lines: Sequence[ManualLine],
    seller_country: str = "",
    actor: str,
    now: datetime,
) -> Invoice:
    """Add lines to a draft, after those that it has.

    Raises:
        NotFoundError, ValidationFailedError, TooManyLinesError. NotManualError, InvoiceStepRefusedError: it is not
        a draft by hand.
    """
    invoice = await _draft(session, invoice_id, "changed")
    before = facts(invoice)
    _append(invoice, lines, now=now)
    await _add_up(session, invoice, seller_country=seller_country, now=now)
    await _changed(session, invoice, "invoice.lines_added", before, actor=actor, now=now)
    return invoice


async def remove_line(
    session: AsyncSession, *, invoice_id: str, position: int, seller_country: str = "", actor: str, now: datetime
) -> Invoice:
    """Take a line off a draft; the others keep their positions.

    Raises:
        NotFoundError: no such invoice or line. NotManualError, InvoiceStepRefusedError: it is not a draft by hand.
    """
    invoice = await _draft(session, invoice_id, "changed")
    line = next((line for line in invoice.lines if line.position == position), None)
    if line is None:
        raise NotFoundError("invoice_line", f"{position} of invoice {invoice_id}")
    before = facts(invoice)
    await session.delete(line)
    await session.flush()
    invoice = await lock_invoice(session, invoice_id)
    await _add_up(session, invoice, seller_country=seller_country, now=now)
    await _changed(session, invoice, "invoice.line_removed", before, actor=actor, now=now)
    return invoice


async def discard_draft(session: AsyncSession, *, invoice_id: str, actor: str, now: datetime) -> None:
    """Delete a draft by hand; its audit rows stay.

    Raises:
        NotFoundError. NotManualError, InvoiceStepRefusedError: it is not a draft by hand.
    """
    invoice = await _draft(session, invoice_id, "discarded")
    await record_change(
        session,
        actor=actor,
        action="invoice.discarded",
        entity_type="invoice",
        entity_id=invoice.id,
        before={**facts(invoice), "account_id": invoice.account_id, "total_minor": invoice.total_minor},
        after=None,
        now=now,
    )
    for line in invoice.lines:
        await session.delete(line)
    await session.flush()
    await session.delete(invoice)
    await session.flush()


async def finalise_draft(
    session: AsyncSession, *, invoice_id: str, terms: InvoiceTerms, actor: str, now: datetime
) -> Invoice:
    """Make a draft by hand final: with the taxes in force now, paid from credits and balance as far as they go.

    Raises:
        NotFoundError. NotManualError, InvoiceStepRefusedError: it is not a draft by hand. EmptyInvoiceError.
    """
    invoice = await _draft(session, invoice_id, "made final")
    if not any(line.amount_minor for line in invoice.lines):
        raise EmptyInvoiceError
    await _add_up(session, invoice, seller_country=terms.seller.country, now=now)
    ready = ReadyInvoice(
        invoice_id=invoice.id,
        account_id=invoice.account_id,
        subscription_id=None,
        period_start=invoice.period_start,
        currency=invoice.currency,
        total_minor=invoice.total_minor,
    )
    await finalise(session, [ready], terms=terms, actor=actor, now=now)
    session.expire(invoice)
    return await lock_invoice(session, invoice_id)


async def _draft(session: AsyncSession, invoice_id: str, wanted: str) -> Invoice:
    invoice = await lock_invoice(session, invoice_id)
    if invoice.status != "draft":
        raise InvoiceStepRefusedError(invoice_id, invoice.status, wanted)
    if invoice.reason != "manual":
        raise NotManualError(invoice_id, invoice.finalise_at)
    return invoice


def _append(invoice: Invoice, lines: Iterable[ManualLine], *, now: datetime) -> None:
    position = max((line.position for line in invoice.lines), default=0)
    for number, line in enumerate(lines):
        position += 1
        _check(number, line)
        exact = line.unit_amount * line.quantity
        formula = f"{line.quantity:,} {TIMES} {format_amount(line.unit_amount, invoice.currency)}"
        invoice.lines.append(
            InvoiceLine(
                id=new_id("line", now),
                position=position,
                kind="manual",
                period_start=now,
                period_end=now,
                description=line.description,
                formula=formula if line.quantity != 1 else "",
                quantity=line.quantity,
                unit_amount=line.unit_amount,
                exact_amount=exact,
                amount_minor=round_minor(exact, invoice.currency),
            )
        )
    if len(invoice.lines) > MAX_LINES:
        raise TooManyLinesError


def _check(number: int, line: ManualLine) -> None:
    if not line.description.strip() or len(line.description) > MAX_TEXT:
        raise ValidationFailedError(f"lines[{number}].description", f"must be 1 to {MAX_TEXT} characters")
    if not 1 <= line.quantity <= MAX_QUANTITY:
        raise ValidationFailedError(f"lines[{number}].quantity", f"must be 1 to {MAX_QUANTITY:,}")
    exponent = line.unit_amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -MAX_DIGITS or abs(line.unit_amount) > MAX_UNIT_AMOUNT:
        raise ValidationFailedError(
            f"lines[{number}].unit_amount", f"must be a decimal with at most {MAX_DIGITS} digits after the point"
        )


async def _add_up(session: AsyncSession, invoice: Invoice, *, seller_country: str, now: datetime) -> None:
    await session.flush()
    taxes = await tax_terms(session, {invoice.account_id}, at=now, seller_country=seller_country)
    charged = [
        _Charged(line.kind, line.amount_minor, str(line.position), line.period_start) for line in invoice.lines
    ]
    amounts: Amounts = amounts_of(
        charged, discounts=(), taxes=taxes.get(invoice.account_id, ()), currency=invoice.currency
    )
    invoice.subtotal_minor = amounts.subtotal_minor
    invoice.tax_minor = amounts.tax_minor
    invoice.total_minor = invoice.amount_due_minor = amounts.total_minor
    invoice.taxes = amounts.taxes_as_json()
    await session.flush()


async def _changed(
    session: AsyncSession, invoice: Invoice, action: str, before: dict[str, object], *, actor: str, now: datetime
) -> None:
    details = {"total_minor": invoice.total_minor, "lines": len(invoice.lines)}
    await record(session, invoice, action=action, before=before, details=details, actor=actor, now=now)
