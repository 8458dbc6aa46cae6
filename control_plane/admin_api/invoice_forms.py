"""Forms of invoices, payments and credit notes."""

from datetime import date
from typing import Annotated, Literal

from fastapi import Path
from pydantic import Field, StringConstraints

from control_plane.admin_api.forms import Moment, PageQuery, PrintableText, StrictBody
from control_plane.billing.credit_notes.model import MAX_NOTE, Reason
from control_plane.billing.manual_invoices.operations import MAX_LINES, MAX_QUANTITY, MAX_TEXT
from control_plane.billing.payments.model import MAX_METHOD, MAX_REASON, MAX_REFERENCE

_ID = r"_[0-9a-hjkmnp-tv-z]{26}$"
InvoiceId = Annotated[str, Path(pattern="^inv" + _ID, description="The invoice's id.")]
CreditNoteId = Annotated[str, Path(pattern="^cn" + _ID, description="The credit note's id.")]
Amount = Annotated[
    str,
    Field(max_length=32, description="Decimal, in the invoice's currency, tax included.", examples=["49.00"]),
]
SignedAmount = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,12}(\.[0-9]{1,12})?$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_TEXT)]
Words = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REASON), PrintableText
]
Reference = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REFERENCE),
    PrintableText,
    Field(description="Names the payment within the invoice: the same again counts once."),
]
Method = Annotated[str, StringConstraints(max_length=MAX_METHOD), PrintableText, Field(examples=["bank transfer"])]
IdempotencyKey = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    PrintableText,
    Field(description="Asked again with the same key, nothing is done twice."),
]
Status = Literal["draft", "open", "paid", "void", "uncollectible"]


class InvoicesOfAccountQuery(PageQuery):
    status: Annotated[Status | None, Field(description="Only those.")] = None
    number: Annotated[str | None, Field(max_length=40, description="The one with that number.")] = None
    period_from: Annotated[Moment | None, Field(description="Whose periods begin then or later.")] = None
    period_until: Annotated[Moment | None, Field(description="Whose periods begin before.")] = None


class InvoicesQuery(InvoicesOfAccountQuery):
    account_id: Annotated[str | None, Field(pattern="^acc" + _ID, description="Of one account.")] = None


class CreditNotesQuery(PageQuery):
    account_id: Annotated[str | None, Field(pattern="^acc" + _ID, description="Of one account.")] = None


class PayInvoice(StrictBody):
    amount: Annotated[Amount | None, Field(description="All that is left if left out.")] = None
    paid_on: Annotated[date | None, Field(description="Today if left out.")] = None
    reference: Reference
    method: Method = ""
    surplus_to_balance: Annotated[
        bool, Field(strict=True, description="What exceeds the amount left goes to the account's balance.")
    ] = False


class PayFromBalance(StrictBody):
    amount: Annotated[
        Amount | None, Field(description="All that is left, as far as the balance goes, if left out.")
    ] = None
    reference: Reference


class NoteRefund(StrictBody):
    amount: Amount
    paid_on: Annotated[date | None, Field(description="Today if left out.")] = None
    reference: Reference
    method: Method = ""


class GiveReason(StrictBody):
    reason: Words


class ManualLineBody(StrictBody):
    description: Annotated[Text, StringConstraints(min_length=1), PrintableText]
    quantity: Annotated[int, Field(strict=True, ge=1, le=MAX_QUANTITY)] = 1
    unit_amount: Annotated[
        SignedAmount, Field(description="Decimal, before tax; below 0 gives something back.", examples=["120.00"])
    ]


class AddLines(StrictBody):
    lines: Annotated[list[ManualLineBody], Field(min_length=1, max_length=MAX_LINES)]


class CreateInvoice(StrictBody):
    account_id: Annotated[str, Field(pattern="^acc" + _ID)]
    lines: list[ManualLineBody] = Field(default_factory=list, max_length=MAX_LINES)
    note: Annotated[Text, PrintableText, Field(description="Stands on the invoice.")] = ""


class CreditedLineBody(StrictBody):
    position: Annotated[int, Field(strict=True, ge=1, le=10**9, description="The line's place on the invoice.")]
    amount: Annotated[
        Amount | None, Field(description="Before discount and tax; all that is left of the line if left out.")
    ] = None


class IssueCreditNote(StrictBody):
    """Lines, or an amount, or neither: then all that is left of the invoice."""

    reason: Annotated[
        Reason,
        Field(
            description="`correction`: the bill was too high, and the next one counts on it; `goodwill`: given on "
            "top; `dispute`: what a decided dispute leaves to be given."
        ),
    ]
    note: Annotated[str, StringConstraints(max_length=MAX_NOTE), PrintableText] = ""
    lines: list[CreditedLineBody] = Field(default_factory=list, max_length=1_000)
    amount: Amount | None = None
    dispute_id: Annotated[str | None, Field(pattern="^dsp" + _ID, description="With the reason dispute.")] = None
    surplus: Annotated[
        Literal["balance", "outside"],
        Field(description="Where it goes if nothing is due any more: the balance, or paid back by other means."),
    ] = "balance"
    idempotency_key: IdempotencyKey
