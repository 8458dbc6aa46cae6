"""Making drafts final: paid from credits and balance, numbered, told of, and never changed again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.balance.applying import BalanceDraw, apply_balances
from control_plane.billing.credits.applying import CreditDraw, draw_credits
from control_plane.billing.discounts.applying import note_discounts
from control_plane.billing.discounts.model import AppliedDiscount
from control_plane.billing.invoices.numbers import INVOICES, take_numbers
from control_plane.billing.profiles.model import Seller
from control_plane.billing.profiles.queries import buyers
from control_plane.foundation.audit import record_changes
from control_plane.foundation.json_rows import as_json
from control_plane.foundation.outbox import Topic, enqueue_many

ACTOR = "system:billing"

_FINALISE = text("""
UPDATE invoices SET status = CASE WHEN made.due_minor = 0 THEN 'paid' ELSE 'open' END, number = made.number,
    credits_applied_minor = made.credits_minor, balance_applied_minor = made.balance_minor,
    amount_due_minor = made.due_minor, seller = CAST(:seller AS jsonb), buyer = made.buyer,
    finalised_at = :now, due_at = :due_at, draft_digest = NULL,
    usage_as_of = coalesce(made.usage_as_of, invoices.usage_as_of),
    paid_at = CASE WHEN made.due_minor = 0 THEN CAST(:now AS timestamptz) END
FROM json_to_recordset(CAST(:rows AS json)) AS made (id text, number text, credits_minor bigint,
    balance_minor bigint, due_minor bigint, buyer jsonb, usage_as_of timestamptz)
WHERE invoices.id = made.id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceTerms:
    """What every invoice says of us: who sells, and how long there is to pay."""

    seller: Seller
    due_after: timedelta = timedelta(days=14)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyInvoice:
    """A draft, written down, that becomes final. `used_until`: it bills usage before this moment; None: none.

    `usage_as_of`: by then its usage was known; None: as the draft says. `buys_credits_minor` of the total buys
    prepaid credits, which no credits pay.
    """

    invoice_id: str
    account_id: str
    subscription_id: str | None
    period_start: datetime
    currency: str
    total_minor: int
    used_until: datetime | None = None
    usage_as_of: datetime | None = None
    discounts: tuple[AppliedDiscount, ...] = ()
    buys_credits_minor: int = 0


async def finalise(
    session: AsyncSession,
    ready: Sequence[ReadyInvoice],
    *,
    terms: InvoiceTerms,
    actor: str = ACTOR,
    now: datetime,
) -> dict[str, str]:
    """Make drafts final, all or none; returns their numbers by id, without gaps, in the order given.

    What credits and the account's balance pay is taken off; what is below zero is added to the balance. What is
    paid so is paid at once. Numbers are taken last: whoever else makes invoices final waits for them only until
    the commit, which should follow at once.
    """
    if not ready:
        return {}
    drawn = await draw_credits(session, [_credit_draw(one) for one in ready], now=now)
    balances = await apply_balances(
        session,
        [
            BalanceDraw(one.invoice_id, one.account_id, one.currency, left)
            for one in ready
            if (left := one.total_minor - drawn.get(one.invoice_id, 0))
        ],
        now=now,
    )
    due = {
        one.invoice_id: one.total_minor - drawn.get(one.invoice_id, 0) - balances.get(one.invoice_id, 0)
        for one in ready
    }
    await note_discounts(session, {one.invoice_id: one.discounts for one in ready if one.discounts}, now=now)
    bought_by = await buyers(session, {one.account_id for one in ready})
    ids = [one.invoice_id for one in ready]
    await enqueue_many(session, topic=Topic.INVOICE_FINALISED, entity_ids=ids, now=now)
    numbers = await take_numbers(session, series=INVOICES, count=len(ready))
    rows = [
        {
            "id": one.invoice_id,
            "number": number,
            "credits_minor": drawn.get(one.invoice_id, 0),
            "balance_minor": balances.get(one.invoice_id, 0),
            "due_minor": due[one.invoice_id],
            "buyer": bought_by[one.account_id],
            "usage_as_of": one.usage_as_of,
        }
        for one, number in zip(ready, numbers, strict=True)
    ]
    said = {"seller": json.dumps(terms.seller.as_dict()), "now": now, "due_at": now + terms.due_after}
    await session.execute(_FINALISE, {"rows": as_json(rows), **said})
    numbered = dict(zip(ids, numbers, strict=True))
    await record_changes(
        session,
        {
            one.invoice_id: {
                "number": numbered[one.invoice_id],
                "account_id": one.account_id,
                "subscription_id": one.subscription_id,
                "currency": one.currency,
                "total_minor": one.total_minor,
                "amount_due_minor": due[one.invoice_id],
            }
            for one in ready
        },
        actor=actor,
        action="invoice.finalised",
        entity_type="invoice",
        now=now,
    )
    return numbered


def _credit_draw(one: ReadyInvoice) -> CreditDraw:
    return CreditDraw(
        invoice_id=one.invoice_id,
        account_id=one.account_id,
        subscription_id=one.subscription_id,
        period_start=one.period_start,
        currency=one.currency,
        amount_minor=one.total_minor - one.buys_credits_minor,
        used_until=one.used_until,
    )
