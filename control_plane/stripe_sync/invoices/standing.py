"""What Stripe's next invoice of a subscription will say, from the database: `expected_invoice`. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import floor_hour
from control_plane.foundation.period import BillingPeriod, period_containing
from control_plane.stripe_sync.invoices.adjustment_lines import adjustment_lines
from control_plane.stripe_sync.invoices.adjustments import Plan as Adjustments
from control_plane.stripe_sync.invoices.adjustments import plan_adjustments
from control_plane.stripe_sync.invoices.discounts import discounts_at
from control_plane.stripe_sync.invoices.due import UnitsByPhase
from control_plane.stripe_sync.invoices.expected import (
    InvoiceEvent,
    Standing,
    Use,
    cancel_now_lines,
    change_lines,
    discount_shares,
    period_end_lines,
)
from control_plane.stripe_sync.invoices.facts import (
    BillingFacts,
    adjusted_charges,
    at_stripe,
    billing_facts,
    delivered_units,
    period_due,
    used_units,
)
from control_plane.stripe_sync.invoices.lines import Debit, Item, Span
from control_plane.stripe_sync.invoices.tables import StripeInvoice, StripeInvoiceLine
from control_plane.stripe_sync.invoices.totals import (
    DiscountTerms,
    ExpectedInvoice,
    ExpectedLine,
    LineKind,
    add_up,
)
from control_plane.stripe_sync.subscriptions.tables import (
    StripeCustomer,
    StripeSpan,
    StripeSubscriptionItem,
)
from control_plane.subscriptions.timeline import TimelinePhase


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What the next invoice will say, when Stripe will make it, and what nobody but Stripe can know of it.

    `adjustments`: what we shall add to what Stripe rates (they are among the invoice's lines).
    """

    event: InvoiceEvent
    at: datetime
    invoice: ExpectedInvoice
    unknown: tuple[str, ...] = ()
    adjustments: Adjustments = field(default_factory=Adjustments)


async def expected_invoice(
    session: AsyncSession,
    subscription_id: str,
    *,
    now: datetime,
    event: InvoiceEvent = InvoiceEvent.PERIOD_END,
    to: Mapping[str, int] | None = None,
    waiting: Sequence[ExpectedLine] = (),
) -> Expectation:
    """Return what Stripe's next invoice says if nothing else happens.

    At the period's end all that was counted so far is on it, also what is not at Stripe yet. A change and an end
    at once (`now`) bill what Stripe has by then. `to`: of a change, how many of each plan version it is to have.
    `waiting`: what waits at Stripe for the next invoice, as `waiting.waiting_lines` reads it.

    Raises:
        NotBilledByStripeError: Stripe has no subscription for it. KeyError: a version of `to` is not at Stripe.
    """
    facts = await billing_facts(session, subscription_id, also_versions=to or ())
    at = facts.row.current_period_end if event is InvoiceEvent.PERIOD_END else now.replace(microsecond=0)
    period = _running_period(facts)
    is_end = event is InvoiceEvent.PERIOD_END
    units = await (
        used_units(session, facts, period)
        if is_end
        else delivered_units(session, subscription_id, period, also_waiting=True)
    )
    standing = await _standing(session, facts, period, units=units, at=at)
    adjustments = Adjustments()
    if is_end:
        adjustments = await _adjustments(session, facts, period, units)
        lines = _at_period_end(facts, standing, adjustments, waiting, at=at)
    elif event is InvoiceEvent.CHANGE:
        lines = change_lines(standing, items_of(facts, to or {}), at=at, others=waiting)
    else:
        lines = [*cancel_now_lines(standing, at=at), *waiting]
    unknown = ("tax",) if facts.row.automatic_tax else ()
    balance = await session.scalar(
        select(StripeCustomer.balance_minor).where(StripeCustomer.account_id == facts.row.account_id)
    )
    invoice = add_up(
        lines,
        currency=facts.currency,
        discounts=standing.discounts,
        taxes=None if facts.row.automatic_tax else (),
        balance_minor=balance or 0,
    )
    return Expectation(event=event, at=at, invoice=invoice, unknown=unknown, adjustments=adjustments)


def items_of(facts: BillingFacts, held: Mapping[str, int]) -> list[Item]:
    """Return what Stripe has of plan versions, so many of each: what recurs, in the order of their prices."""
    return [
        Item(price=price, quantity=1 if price.kind is LineKind.METERED else held[key.partition("/")[0]])
        for key, price in sorted(facts.sold.items(), key=lambda one: _place(one[0]))
        if key.partition("/")[0] in held and price.kind is not LineKind.SETUP_FEE
    ]


def _place(charge_key: str) -> tuple[str, int]:
    version_id, _, position = charge_key.partition("/")
    return version_id, int(position)


def _running_period(facts: BillingFacts) -> BillingPeriod:
    return facts.period_of(facts.row.current_period_start, facts.row.current_period_end)


def _at_period_end(
    facts: BillingFacts,
    standing: Standing,
    adjustments: Adjustments,
    waiting: Sequence[ExpectedLine],
    *,
    at: datetime,
) -> list[ExpectedLine]:
    """Return the lines of the period's end: ours ends or changes at the hour of Stripe's boundary."""
    boundary = floor_hour(at)
    after = facts.timeline.phase_at(boundary)
    goes_on = after is not None and facts.row.cancel_at is None and not facts.row.cancel_at_period_end
    lines = period_end_lines(
        standing,
        next_items=items_of(facts, _held(after)) if goes_on and after is not None else (),
        next_span=_next_span(facts),
        others=waiting,
    )
    by_stripe = add_up(lines, currency=facts.currency, discounts=standing.discounts).lines
    return [*lines, *adjustment_lines(facts, adjustments, standing.span, by_stripe)]


def _held(phase: TimelinePhase) -> dict[str, int]:
    held = {phase.plan_version_id: 1}
    for one in phase.add_ons:
        held[one.plan_version_id] = held.get(one.plan_version_id, 0) + one.quantity
    return held


def _next_span(facts: BillingFacts) -> Span:
    """Return Stripe's next period: its boundaries are as far behind ours as its anchor is."""
    row, timeline = facts.row, facts.timeline
    starts_at = row.current_period_end
    behind = starts_at - floor_hour(starts_at)
    following = period_containing(floor_hour(starts_at), timeline.anchor_at, timeline.interval, timeline.time_zone)
    return Span(starts_at, following.end + behind)


async def _standing(
    session: AsyncSession, facts: BillingFacts, period: BillingPeriod, *, units: UnitsByPhase, at: datetime
) -> Standing:
    row = facts.row
    span = Span(row.current_period_start, row.current_period_end)
    items = await _items(session, facts)
    discounts = await discounts_at(session, row.subscription_id, at=at)
    return Standing(
        currency=row.currency,
        span=span,
        items=tuple(items),
        debits=await _debits(session, facts, items, span, discounts),
        uses=await _uses(session, facts, period, items, units),
        discounts=discounts,
        in_trial=row.status == "trialing",
    )


async def _items(session: AsyncSession, facts: BillingFacts) -> list[Item]:
    rows = await session.scalars(
        select(StripeSubscriptionItem)
        .where(StripeSubscriptionItem.stripe_id == facts.row.stripe_id)
        .order_by(StripeSubscriptionItem.item_id)
    )
    by_price = {price.price_id: price for price in facts.sold.values()}
    return [
        Item(price=by_price[row.price_id], quantity=row.quantity or 1, item_id=row.item_id)
        for row in rows
        if row.price_id in by_price
    ]


async def _uses(
    session: AsyncSession,
    facts: BillingFacts,
    period: BillingPeriod,
    items: Sequence[Item],
    units: UnitsByPhase,
) -> dict[str, Use]:
    """Return what metered items have counted since they came; of a carrier's time, nothing."""
    spans = await session.scalars(
        select(StripeSpan.starts_at).where(StripeSpan.subscription_id == facts.row.subscription_id)
    )
    begun = [one for one in spans if one < facts.row.current_period_end]
    since = max([facts.row.current_period_start, *begun])
    due = {one.line.charge_key: one for one in await period_due(session, facts, period, units=units)}
    uses = {}
    for item in items:
        if item.price.kind is LineKind.METERED:
            found = due.get(item.price.charge_key)
            counted = 0
            if found is not None and found.stretches:
                meter = found.line.meter or ""
                phases = found.stretches[-1].phase_ids
                counted = sum(units.get(phase_id, {}).get(meter, 0) for phase_id in phases)
            uses[item.price.charge_key] = Use(max(0, counted), since)
    return uses


async def _debits(
    session: AsyncSession,
    facts: BillingFacts,
    items: Sequence[Item],
    span: Span,
    discounts: Sequence[DiscountTerms],
) -> dict[str, Debit]:
    """Return what fixed items were charged ahead, as their lines say; one that came since, by its price."""
    line = StripeInvoiceLine
    rows = await session.scalars(
        select(line)
        .join(StripeInvoice, StripeInvoice.id == line.invoice_id)
        .where(
            StripeInvoice.subscription_id == facts.row.subscription_id,
            line.kind == LineKind.FLAT.value,
            line.period_start == span.starts_at,
            line.period_end == span.ends_at,
        )
    )
    charged = {row.charge_key: row.amount_minor - row.discount_minor for row in rows}
    plain = Standing(currency=facts.currency, span=span, items=tuple(items), discounts=tuple(discounts))
    shares = discount_shares(items, plain)
    return {
        item.price.charge_key: Debit(
            charged.get(
                item.price.charge_key,
                item.price.amount_minor * item.quantity - shares.get(item.price.charge_key, 0),
            ),
            span,
        )
        for item in items
        if item.price.kind is LineKind.FLAT
    }


async def _adjustments(
    session: AsyncSession, facts: BillingFacts, period: BillingPeriod, units: UnitsByPhase
) -> Adjustments:
    """Return what we shall add at the period's end, if Stripe gets all that was counted since its last invoice."""
    due = await period_due(session, facts, period, units=units)
    return plan_adjustments(
        due,
        native=facts.native,
        at_stripe=await at_stripe(session, facts, period, due, running=units),
        adjusted=await adjusted_charges(session, facts.row.subscription_id, period),
    )
