"""Writing drafts and their lines, many in one statement."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.invoices.model import ChargeLine
from control_plane.billing.invoices.steps import ClosingRules, StepKind
from control_plane.billing.invoices.work import Work
from control_plane.rating.model import TierUse

_DELETE_DRAFTS = text("DELETE FROM invoices WHERE status = 'draft' AND id = ANY (CAST(:ids AS text[]))")
_DELETE_LINES = text("DELETE FROM invoice_lines WHERE invoice_id = ANY (CAST(:ids AS text[]))")
_INVOICES = text("""
INSERT INTO invoices (id, account_id, subscription_id, reason, currency, period_start, period_end, subtotal_minor,
    discount_minor, tax_minor, total_minor, amount_due_minor, discounts, taxes, draft_digest, usage_as_of,
    created_at, finalise_at)
SELECT id, account_id, subscription_id, reason, currency, period_start, period_end, subtotal_minor,
    discount_minor, tax_minor, subtotal_minor - discount_minor + tax_minor,
    subtotal_minor - discount_minor + tax_minor, CAST(discounts AS jsonb), CAST(taxes AS jsonb), draft_digest,
    :now, :now, finalise_at
FROM unnest(CAST(:ids AS text[]), CAST(:accounts AS text[]), CAST(:subscriptions AS text[]),
    CAST(:reasons AS text[]), CAST(:currencies AS text[]), CAST(:starts AS timestamptz[]),
    CAST(:ends AS timestamptz[]), CAST(:subtotals AS bigint[]), CAST(:discounts_minor AS bigint[]),
    CAST(:taxes_minor AS bigint[]), CAST(:discounts AS text[]), CAST(:taxes AS text[]), CAST(:digests AS text[]),
    CAST(:finalise_at AS timestamptz[]))
    AS made (id, account_id, subscription_id, reason, currency, period_start, period_end, subtotal_minor,
        discount_minor, tax_minor, discounts, taxes, draft_digest, finalise_at)
ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, period_start = excluded.period_start,
    period_end = excluded.period_end, subtotal_minor = excluded.subtotal_minor,
    discount_minor = excluded.discount_minor, tax_minor = excluded.tax_minor, total_minor = excluded.total_minor,
    amount_due_minor = excluded.amount_due_minor, discounts = excluded.discounts, taxes = excluded.taxes,
    draft_digest = excluded.draft_digest, usage_as_of = excluded.usage_as_of, finalise_at = excluded.finalise_at
""")
_LINES = text("""
INSERT INTO invoice_lines (id, invoice_id, position, kind, subscription_id, charge_key, period_start, period_end,
    plan_version_id, description, formula, meter, used_units, quantity, unit_amount, exact_amount, amount_minor,
    tiers, details)
SELECT replace(invoice_id, 'inv_', 'line_') || '_' || position, invoice_id, position, kind, subscription_id,
    charge_key, period_start, period_end, plan_version_id, description, formula, meter, used_units, quantity,
    unit_amount, exact_amount, amount_minor, CAST(tiers AS jsonb), CAST(details AS jsonb)
FROM unnest(CAST(:invoices AS text[]), CAST(:positions AS integer[]), CAST(:kinds AS text[]),
    CAST(:subscriptions AS text[]), CAST(:charge_keys AS text[]), CAST(:starts AS timestamptz[]),
    CAST(:ends AS timestamptz[]), CAST(:versions AS text[]), CAST(:descriptions AS text[]),
    CAST(:formulas AS text[]), CAST(:meters AS text[]), CAST(:used_units AS bigint[]),
    CAST(:quantities AS bigint[]), CAST(:unit_amounts AS numeric[]), CAST(:exact_amounts AS numeric[]),
    CAST(:amounts AS bigint[]), CAST(:tiers AS text[]), CAST(:details AS text[]))
    AS made (invoice_id, position, kind, subscription_id, charge_key, period_start, period_end, plan_version_id,
        description, formula, meter, used_units, quantity, unit_amount, exact_amount, amount_minor, tiers, details)
""")


async def write_drafts(session: AsyncSession, works: Sequence[Work], *, rules: ClosingRules, now: datetime) -> int:
    """Make drafts what they should be; returns how many invoices stand then.

    A draft of which nothing is left to charge is dropped; lines that have not changed stay as they are.
    """
    stale = [work.draft.invoice_id for work in works if work.draft and work.invoice_id is None]
    if stale:
        await session.execute(_DELETE_DRAFTS, {"ids": stale})
    made = [work for work in works if work.invoice_id is not None]
    if not made:
        return 0
    await session.execute(_INVOICES, {**_invoice_arrays(made, rules), "now": now})
    changed = [work for work in made if work.draft is None or work.draft.digest != work.digest]
    rewritten = [work.invoice_id for work in changed if work.draft]
    if rewritten:
        await session.execute(_DELETE_LINES, {"ids": rewritten})
    if changed:
        await session.execute(_LINES, _line_arrays(changed))
    return len(made)


def _invoice_arrays(works: Sequence[Work], rules: ClosingRules) -> dict[str, list[Any]]:
    return {
        "ids": [work.invoice_id for work in works],
        "accounts": [work.account_id for work in works],
        "subscriptions": [work.subscription_id for work in works],
        "reasons": [work.reason.value for work in works],
        "currencies": [work.currency for work in works],
        "starts": [work.step.period.start for work in works],
        "ends": [_period_end(work) for work in works],
        "subtotals": [work.amounts.subtotal_minor for work in works],
        "discounts_minor": [work.amounts.discount_minor for work in works],
        "taxes_minor": [work.amounts.tax_minor for work in works],
        "discounts": [json.dumps(work.amounts.discounts_as_json()) for work in works],
        "taxes": [json.dumps(work.amounts.taxes_as_json()) for work in works],
        "digests": [work.digest for work in works],
        "finalise_at": [
            None if work.step.kind is StepKind.ADVANCE else work.step.closes_at + rules.grace for work in works
        ],
    }


def _period_end(work: Work) -> datetime:
    """Return the end of what the invoice bills: a last period is cut where the subscription ended."""
    ends_at = work.timeline.ends_at
    if work.step.final and ends_at is not None and work.step.period.start < ends_at:
        return min(work.step.period.end, ends_at)
    return work.step.period.end


def _line_arrays(works: Iterable[Work]) -> dict[str, list[Any]]:
    rows = [
        (work.invoice_id, position, work.subscription_id, line)
        for work in works
        for position, line in enumerate(work.lines, start=1)
    ]
    lines = [line for *_, line in rows]
    return {
        "invoices": [invoice_id for invoice_id, *_ in rows],
        "positions": [position for _, position, _, _ in rows],
        "subscriptions": [subscription_id for _, _, subscription_id, _ in rows],
        "kinds": [line.kind.value for line in lines],
        "charge_keys": [line.charge_key for line in lines],
        "starts": [line.period.start for line in lines],
        "ends": [line.period.end for line in lines],
        "versions": [line.plan_version_id for line in lines],
        "descriptions": [line.description for line in lines],
        "formulas": [line.formula for line in lines],
        "meters": [line.meter for line in lines],
        "used_units": [line.used_units for line in lines],
        "quantities": [line.quantity for line in lines],
        "unit_amounts": [line.unit_amount for line in lines],
        "exact_amounts": [line.exact_amount for line in lines],
        "amounts": [line.amount_minor for line in lines],
        "tiers": [tiers_as_json(line) for line in lines],
        "details": [json.dumps(line.details()) for line in lines],
    }


def tiers_as_json(line: ChargeLine) -> str:
    """Return the tiers of a line as they are kept; amounts are decimal strings."""
    return json.dumps([_tier(tier) for tier in line.tiers]) if line.tiers else "[]"


def _tier(tier: TierUse) -> dict[str, Any]:
    return {
        "first_unit": tier.first_unit,
        "last_unit": tier.last_unit,
        "quantity": tier.quantity,
        "unit_amount": _decimal(tier.unit_amount),
        "flat_amount": _decimal(tier.flat_amount),
        "amount": _decimal(tier.amount),
    }


def _decimal(value: Decimal) -> str:
    return f"{value:f}"
