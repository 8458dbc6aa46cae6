"""Forms and answers of prepaid credits."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.admin_api.forms import (
    Code,
    Moment,
    MoneyAnswer,
    Name,
    PageQuery,
    PrintableText,
    StrictBody,
)
from control_plane.billing.credits import queries
from control_plane.billing.credits.model import (
    DEFAULT_PRIORITY,
    MAX_HOLD,
    MAX_PRIORITY,
    MAX_REASON_LENGTH,
    MAX_REFERENCE_LENGTH,
    CreditSum,
    GrantKind,
    ReservationStatus,
)
from control_plane.billing.credits.tables import CreditEntry, CreditGrant, CreditReservation
from control_plane.billing.invoices.tables import Invoice
from control_plane.billing.prepaid.purchases import DESCRIPTION

_ID = r"_[0-9a-hjkmnp-tv-z]{26}$"
GrantId = Annotated[str, Path(pattern="^crg" + _ID, description="The credit grant's id.")]
ReservationId = Annotated[str, Path(pattern="^crs" + _ID, description="The reservation's id.")]
Amount = Annotated[
    str, Field(max_length=32, description="Decimal, in the account's currency.", examples=["250.00"])
]
Reference = Annotated[str, StringConstraints(min_length=1, max_length=MAX_REFERENCE_LENGTH), PrintableText]
Priority = Annotated[int, Field(strict=True, ge=0, le=MAX_PRIORITY, description="Lower ones are used first.")]
Expires = Annotated[Moment | None, Field(description="From then on it cannot be used; never if left out.")]
ProductCode = Annotated[
    Code | None, Field(description="Only for this API product; whatever the product if left out.")
]


class GrantCredits(StrictBody):
    amount: Amount
    kind: Annotated[GrantKind, Field(description="`paid`, or `promotional`: given.")] = GrantKind.PROMOTIONAL
    priority: Priority = DEFAULT_PRIORITY
    starts_at: Annotated[Moment | None, Field(description="From then on it can be used; now if left out.")] = None
    expires_at: Expires = None
    api_product: ProductCode = None
    reason: Annotated[str, StringConstraints(max_length=MAX_REASON_LENGTH), PrintableText] = ""
    reference: Annotated[
        Reference | None, Field(description="Asked again with the same reference, nothing is granted twice.")
    ] = None


class SellCredits(StrictBody):
    amount: Annotated[Amount, Field(description="What they cost; as many credits are granted.")]
    priority: Priority = DEFAULT_PRIORITY
    expires_at: Expires = None
    api_product: ProductCode = None
    description: Annotated[Name, Field(description="What the invoice says.")] = DESCRIPTION


class SaleAnswer(BaseModel):
    """The invoice by which credits were sold."""

    invoice_id: str
    number: str
    status: str = Field(description="`paid` where the account's balance paid all of it, else `open`.")
    total: MoneyAnswer
    due: MoneyAnswer
    due_at: Moment | None


class ReserveCredits(StrictBody):
    amount: Amount
    reference: Annotated[
        Reference, Field(description="What it is for. Asked again with the same one, nothing is held twice.")
    ]
    ttl_seconds: Annotated[
        int,
        Field(
            strict=True, ge=1, le=int(MAX_HOLD.total_seconds()), description="After that it is released by itself."
        ),
    ] = 3600
    api_product: ProductCode = None


class SettleReservation(StrictBody):
    amount: Annotated[Amount, Field(description="What it came to; more than was held where more is left.")]


class BalanceAnswer(BaseModel):
    """Credits of one currency."""

    currency: str
    available: MoneyAnswer = Field(description="Can be used now.")
    undrawn: MoneyAnswer = Field(
        description="Of it, or beyond it: known usage of prepaid plans in hours that are not sealed, drawn soon. "
        "Reservations cannot hold it."
    )
    reserved: MoneyAnswer = Field(description="Held by reservations.")
    later: MoneyAnswer = Field(description="Of grants that begin later.")


class BalancesAnswer(BaseModel):
    items: list[BalanceAnswer]


class GrantAnswer(BaseModel):
    id: str
    account_id: str
    kind: GrantKind
    amount: MoneyAnswer
    remaining: MoneyAnswer
    priority: int
    starts_at: Moment
    expires_at: Moment | None
    api_product: str | None
    reason: str
    author: str
    reference: str | None
    created_at: Moment
    revoked_at: Moment | None


class EntryAnswer(BaseModel):
    """One change of what is left of a grant."""

    id: str
    grant_id: str
    kind: str = Field(description="`grant`, `reserve`, `release`, `draw`, `return`, `expire` or `revoke`.")
    amount: MoneyAnswer = Field(description="Below 0 where it was taken.")
    remaining: MoneyAnswer = Field(description="Of the grant, after it.")
    invoice_id: str | None
    reservation_id: str | None
    subscription_id: str | None = Field(description="Usage of this prepaid subscription was paid.")
    period_start: Moment | None
    author: str
    at: Moment


class ReservationAnswer(BaseModel):
    id: str
    account_id: str
    reference: str
    status: ReservationStatus
    held: MoneyAnswer
    settled: MoneyAnswer | None
    api_product: str | None
    author: str
    created_at: Moment
    expires_at: Moment
    ended_at: Moment | None


class EntriesQuery(PageQuery):
    grant_id: Annotated[str | None, Field(pattern="^crg" + _ID, description="Only entries of this grant.")] = None


def balance_answer(one: CreditSum, undrawn_minor: int) -> BalanceAnswer:
    return BalanceAnswer(
        currency=one.currency,
        available=MoneyAnswer.of(one.available_minor, one.currency),
        undrawn=MoneyAnswer.of(undrawn_minor, one.currency),
        reserved=MoneyAnswer.of(one.reserved_minor, one.currency),
        later=MoneyAnswer.of(one.later_minor, one.currency),
    )


def sale_answer(invoice: Invoice) -> SaleAnswer:
    return SaleAnswer(
        invoice_id=invoice.id,
        number=invoice.number or "",
        status=invoice.status,
        total=MoneyAnswer.of(invoice.total_minor, invoice.currency),
        due=MoneyAnswer.of(invoice.amount_due_minor, invoice.currency),
        due_at=invoice.due_at,
    )


async def grant_answers(session: AsyncSession, rows: Sequence[CreditGrant]) -> list[GrantAnswer]:
    codes = await queries.product_codes(session, {row.api_product_id for row in rows if row.api_product_id})
    return [
        GrantAnswer(
            id=row.id,
            account_id=row.account_id,
            kind=GrantKind(row.kind),
            amount=MoneyAnswer.of(row.amount_minor, row.currency),
            remaining=MoneyAnswer.of(row.remaining_minor, row.currency),
            priority=row.priority,
            starts_at=row.starts_at,
            expires_at=row.expires_at,
            api_product=codes.get(row.api_product_id or ""),
            reason=row.reason,
            author=row.author,
            reference=row.reference,
            created_at=row.created_at,
            revoked_at=row.revoked_at,
        )
        for row in rows
    ]


def entry_answer(row: CreditEntry, currency: str) -> EntryAnswer:
    return EntryAnswer(
        id=row.id,
        grant_id=row.grant_id,
        kind=row.kind,
        amount=MoneyAnswer.of(row.amount_minor, currency),
        remaining=MoneyAnswer.of(row.remaining_minor, currency),
        invoice_id=row.invoice_id,
        reservation_id=row.reservation_id,
        subscription_id=row.subscription_id,
        period_start=row.period_start,
        author=row.author,
        at=row.at,
    )


async def reservation_answers(session: AsyncSession, rows: Sequence[CreditReservation]) -> list[ReservationAnswer]:
    codes = await queries.product_codes(session, {row.api_product_id for row in rows if row.api_product_id})
    return [
        ReservationAnswer(
            id=row.id,
            account_id=row.account_id,
            reference=row.reference,
            status=ReservationStatus(row.status),
            held=MoneyAnswer.of(row.held_minor, row.currency),
            settled=None if row.settled_minor is None else MoneyAnswer.of(row.settled_minor, row.currency),
            api_product=codes.get(row.api_product_id or ""),
            author=row.author,
            created_at=row.created_at,
            expires_at=row.expires_at,
            ended_at=row.ended_at,
        )
        for row in rows
    ]
