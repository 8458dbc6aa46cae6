"""Writing drafts and their lines, many in one statement."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.invoices.steps import ClosingRules, StepKind
from control_plane.billing.invoices.work import Work
from control_plane.foundation.json_rows import as_json
from control_plane.rating.model import TierUse

_DELETE_DRAFTS = text("DELETE FROM invoices WHERE status = 'draft' AND id = ANY (CAST(:ids AS text[]))")
_DELETE_LINES = text("DELETE FROM invoice_lines WHERE invoice_id = ANY (CAST(:ids AS text[]))")
# rows come as one JSON text: arrays of as many values take Python several times as long to write
_INVOICES = text("""
INSERT INTO invoices (id, account_id, subscription_id, reason, currency, period_start, period_end, subtotal_minor,
    discount_minor, tax_minor, total_minor, amount_due_minor, discounts, taxes, draft_digest, usage_as_of,
    created_at, finalise_at)
SELECT id, account_id, subscription_id, reason, currency, period_start, period_end, subtotal_minor,
    discount_minor, tax_minor, total_minor, total_minor, discounts, taxes, draft_digest, :now, :now, finalise_at
FROM json_to_recordset(CAST(:rows AS json)) AS made (id text, account_id text, subscription_id text, reason text,
    currency text, period_start timestamptz, period_end timestamptz, subtotal_minor bigint, discount_minor bigint,
    tax_minor bigint, total_minor bigint, discounts jsonb, taxes jsonb, draft_digest text, finalise_at timestamptz)
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
    unit_amount, exact_amount, amount_minor, tiers, details
FROM json_to_recordset(CAST(:rows AS json)) AS made (invoice_id text, position integer, kind text,
    subscription_id text, charge_key text, period_start timestamptz, period_end timestamptz, plan_version_id text,
    description text, formula text, meter text, used_units bigint, quantity bigint, unit_amount numeric,
    exact_amount numeric, amount_minor bigint, tiers jsonb, details jsonb)
""")


async def write_drafts(session: AsyncSession, works: Sequence[Work], *, rules: ClosingRules, now: datetime) -> int:
    """Make drafts what they should be; returns how many invoices stand then.

    A draft of which nothing is left to charge is dropped; one that says what it said before stays as it is.
    """
    stale = [work.draft.invoice_id for work in works if work.draft and work.invoice_id is None]
    if stale:
        await session.execute(_DELETE_DRAFTS, {"ids": stale})
    made = [work for work in works if work.invoice_id is not None]
    for work in made:
        work.digest = draft_digest(work)
    changed = [work for work in made if work.draft is None or work.draft.digest != work.digest]
    if changed:
        await session.execute(_INVOICES, {"rows": as_json(_invoice_rows(changed, rules)), "now": now})
    rewritten = [work.invoice_id for work in changed if work.draft]
    if rewritten:
        await session.execute(_DELETE_LINES, {"ids": rewritten})
    if changed:
        await session.execute(_LINES, {"rows": as_json(_line_rows(changed))})
    return len(made)


def draft_digest(work: Work) -> str:
    """Return a digest of what a draft says: where it is the same as before, nothing is written.

    Formulas tell quantities, prices and time, so that unit amounts and tiers need not be in it.
    """
    said = [
        (
            line.charge_key,
            line.period.start.isoformat(),
            line.description,
            line.formula,
            line.used_units,
            line.covered_ms,
            str(line.exact_amount),
            line.amount_minor,
        )
        for line in work.lines
    ]
    amounts = work.amounts
    whole = (
        said,
        work.reason.value,
        _period_end(work).isoformat(),
        amounts.discounts_as_json(),
        amounts.taxes_as_json(),
        amounts.total_minor,
    )
    return hashlib.blake2b(repr(whole).encode(), digest_size=16).hexdigest()


def _invoice_rows(works: Sequence[Work], rules: ClosingRules) -> Iterator[dict[str, Any]]:
    for work in works:
        in_advance = work.step.kind is StepKind.ADVANCE
        yield {
            "id": work.invoice_id,
            "account_id": work.account_id,
            "subscription_id": work.subscription_id,
            "reason": work.reason.value,
            "currency": work.currency,
            "period_start": work.step.period.start,
            "period_end": _period_end(work),
            "subtotal_minor": work.amounts.subtotal_minor,
            "discount_minor": work.amounts.discount_minor,
            "tax_minor": work.amounts.tax_minor,
            "total_minor": work.amounts.total_minor,
            "discounts": work.amounts.discounts_as_json(),
            "taxes": work.amounts.taxes_as_json(),
            "draft_digest": work.digest,
            "finalise_at": None if in_advance else work.step.closes_at + rules.grace,
        }


def _period_end(work: Work) -> datetime:
    """Return the end of what the invoice bills: a last period is cut where the subscription ended."""
    ends_at = work.timeline.ends_at
    if work.step.final and ends_at is not None and work.step.period.start < ends_at:
        return min(work.step.period.end, ends_at)
    return work.step.period.end


def _line_rows(works: Iterable[Work]) -> Iterator[dict[str, Any]]:
    for work in works:
        discounts = _line_discounts(work)
        for position, line in enumerate(work.lines, start=1):
            taken_off = discounts.get(position - 1)
            yield {
                "invoice_id": work.invoice_id,
                "position": position,
                "subscription_id": work.subscription_id,
                "kind": line.kind.value,
                "charge_key": line.charge_key,
                "period_start": line.period.start,
                "period_end": line.period.end,
                "plan_version_id": line.plan_version_id,
                "description": line.description,
                "formula": line.formula,
                "meter": line.meter,
                "used_units": line.used_units,
                "quantity": line.quantity,
                "unit_amount": line.unit_amount,
                "exact_amount": line.exact_amount,
                "amount_minor": line.amount_minor,
                "tiers": [_tier(tier) for tier in line.tiers],
                "details": {**line.details(), "discount_minor": taken_off} if taken_off else line.details(),
            }


def _line_discounts(work: Work) -> dict[int, int]:
    """Return what all discounts together take off each line, by its index; lines without are left out."""
    taken_off: dict[int, int] = {}
    for discount in work.amounts.discounts:
        for share in discount.shares:
            taken_off[share.index] = taken_off.get(share.index, 0) + share.amount_minor
    return taken_off


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
