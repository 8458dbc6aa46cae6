"""Stripe's invoices: as they were read last, as they are expected, and what we give back of them."""

import contextlib
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field, StringConstraints

from control_plane.accounts.model import Role
from control_plane.accounts.queries import account as account_by_id
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    AccountId,
    PageAnswer,
    PageQuery,
    PrintableText,
    StrictBody,
    SubscriptionId,
    page_answer,
)
from control_plane.admin_api.stripe_access import StripeGiven
from control_plane.admin_api.stripe_invoice_answers import (
    ExpectedInvoiceAnswer,
    StripeAdjustmentAnswer,
    StripeInvoiceAnswer,
    StripeInvoiceDetailAnswer,
    adjustment_answer,
)
from control_plane.stripe_sync.invoices.adjustments import Cause
from control_plane.stripe_sync.invoices.crediting import put_credit_notes, want_credit
from control_plane.stripe_sync.invoices.expected import InvoiceEvent
from control_plane.stripe_sync.invoices.facts import billing_facts
from control_plane.stripe_sync.invoices.mirror import refresh_invoice
from control_plane.stripe_sync.invoices.queries import stripe_invoice, stripe_invoices
from control_plane.stripe_sync.invoices.standing import expected_invoice
from control_plane.stripe_sync.invoices.tables import StripeAdjustment
from control_plane.stripe_sync.invoices.waiting import waiting_lines
from control_plane.stripe_sync.outcomes import StripeUnavailable

router = APIRouter(tags=["stripe"])
InvoiceName = Annotated[
    str,
    Path(pattern=r"^[A-Za-z0-9_.:-]{1,100}$", description="Stripe's id or number of the invoice."),
]
Status = Literal["draft", "open", "paid", "void", "uncollectible", "deleted"]
Account = Annotated[str | None, Field(pattern=r"^acc_[0-9a-hjkmnp-tv-z]{26}$", description="Of one account.")]
Subscription = Annotated[
    str | None, Field(pattern=r"^sub_[0-9a-hjkmnp-tv-z]{26}$", description="Of one subscription of ours.")
]


class OfAccountQuery(PageQuery):
    """Which invoices of an account."""

    status: Annotated[Status | None, Field(description="As Stripe has them.")] = None
    subscription_id: Subscription = None


class StripeInvoicesQuery(OfAccountQuery):
    """Which invoices."""

    account_id: Account = None


class CreditBody(StrictBody):
    """What is given back of an invoice, with tax. Paid ones: to the customer's balance at Stripe."""

    amount_minor: Annotated[int, Field(strict=True, ge=1, le=10**12)]
    reason: Annotated[Literal["dispute", "goodwill"], Field(description="Why.")]
    note: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=500),
        PrintableText,
        Field(description="The customer reads it on the credit note."),
    ]


@router.get("/stripe/invoices")
async def list_stripe_invoices(
    session: Database, query: Annotated[StripeInvoicesQuery, Query()]
) -> PageAnswer[StripeInvoiceAnswer]:
    """List Stripe's invoices, drafts too, newest first."""
    page = await stripe_invoices(
        session,
        account_id=query.account_id,
        subscription_id=query.subscription_id,
        statuses=() if query.status is None else (query.status,),
        cursor=query.cursor,
        limit=query.limit,
    )
    return page_answer(page, StripeInvoiceAnswer.of)


@router.get("/accounts/{account_id}/stripe-invoices")
async def list_stripe_invoices_of_account(
    account_id: AccountId, session: Database, query: Annotated[OfAccountQuery, Query()]
) -> PageAnswer[StripeInvoiceAnswer]:
    """List an account's invoices at Stripe, drafts too, newest first."""
    await account_by_id(session, account_id)
    page = await stripe_invoices(
        session,
        account_id=account_id,
        subscription_id=query.subscription_id,
        statuses=() if query.status is None else (query.status,),
        cursor=query.cursor,
        limit=query.limit,
    )
    return page_answer(page, StripeInvoiceAnswer.of)


@router.get("/stripe/invoices/{invoice}")
async def get_stripe_invoice(invoice: InvoiceName, session: Database) -> StripeInvoiceDetailAnswer:
    """Return one of Stripe's invoices and all that belongs to it."""
    return StripeInvoiceDetailAnswer.of_detail(await stripe_invoice(session, invoice))


@router.post("/stripe/invoices/{invoice}/refresh")
@allows(Role.FINANCE)
async def refresh_stripe_invoice(
    invoice: InvoiceName, session: Database, stripe: StripeGiven
) -> StripeInvoiceDetailAnswer:
    """Read an invoice at Stripe again."""
    found = await stripe_invoice(session, invoice)
    await refresh_invoice(stripe, found.invoice.id)
    session.expire_all()
    return StripeInvoiceDetailAnswer.of_detail(await stripe_invoice(session, found.invoice.id))


@router.post("/stripe/invoices/{invoice}/credit-notes", status_code=201)
@allows(Role.FINANCE)
async def credit_stripe_invoice(
    invoice: InvoiceName, body: CreditBody, *, stripe: StripeGiven, caller: Authenticated
) -> StripeAdjustmentAnswer:
    """Give something back of a final invoice by a credit note at Stripe, on top of what is due.

    `wanted`: Stripe cannot be reached, and a worker makes it later.
    """
    async with stripe.sessions() as session, session.begin():
        found = await stripe_invoice(session, invoice)
        wanted = await want_credit(
            session,
            invoice_id=found.invoice.id,
            amount_minor=body.amount_minor,
            cause=Cause(body.reason),
            note=body.note,
            actor=caller.actor,
            now=stripe.now,
        )
        wanted_id = wanted.id
    with contextlib.suppress(StripeUnavailable):
        await put_credit_notes(stripe, only=wanted_id)
    async with stripe.sessions() as session:
        return adjustment_answer(await session.get_one(StripeAdjustment, wanted_id))


@router.get("/subscriptions/{subscription_id}/expected-invoice")
async def get_expected_invoice(
    subscription_id: SubscriptionId,
    session: Database,
    stripe: StripeGiven,
    event: Annotated[Literal["period_end", "cancel_now"], Query(description="What makes it.")] = "period_end",
) -> ExpectedInvoiceAnswer:
    """Return what Stripe's next invoice of a subscription will say, by our reckoning.

    Stripe is asked only what waits for it. `preview-change` says what a change of plan costs.
    """
    row = (await billing_facts(session, subscription_id)).row
    waiting = await waiting_lines(stripe.stripe, customer_id=row.customer_id, stripe_subscription_id=row.stripe_id)
    found = await expected_invoice(
        session, subscription_id, now=stripe.now, event=InvoiceEvent(event), waiting=waiting
    )
    return ExpectedInvoiceAnswer.of(found)
