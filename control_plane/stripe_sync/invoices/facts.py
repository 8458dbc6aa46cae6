"""What the invoices of one Stripe-billed subscription go by, read once. Reads only."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.terms import Terms, read_terms
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.money import round_minor
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.flat import Flat
from control_plane.rating.setup_fee import SetupFee
from control_plane.stripe_sync.catalog.tables import StripePrice
from control_plane.stripe_sync.invoices.adjustments import Adjusted, AtStripe
from control_plane.stripe_sync.invoices.due import UnitsByPhase, UsageDue, usage_due
from control_plane.stripe_sync.invoices.lines import SoldPrice, Span, metered_lines
from control_plane.stripe_sync.invoices.tables import (
    StripeAdjustment,
    StripeInvoice,
    StripeInvoiceLine,
    is_charged,
)
from control_plane.stripe_sync.invoices.totals import LineKind
from control_plane.stripe_sync.subscriptions.tables import StripeSubscription
from control_plane.stripe_sync.usage.tables import StripeUsageRow
from control_plane.subscriptions.timeline import Timeline
from control_plane.subscriptions.timelines import timeline
from control_plane.usage.rollups.period_units import PhasePeriod, units_of_periods

MILLISECOND = timedelta(milliseconds=1)
_KINDS = {"flat": LineKind.FLAT, "metered": LineKind.METERED, "setup_fee": LineKind.SETUP_FEE}


class NotBilledByStripeError(NotFoundError):
    """Stripe does not bill the subscription (yet)."""

    def __init__(self, subscription_id: str) -> None:
        super().__init__("stripe_subscription", f"of subscription {subscription_id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingFacts:
    """A subscription, here and at Stripe. `terms` by plan version, `sold` by charge: what Stripe has of it."""

    row: StripeSubscription
    timeline: Timeline
    terms: Mapping[str, Terms]
    sold: Mapping[str, SoldPrice]

    @property
    def currency(self) -> str:
        return self.row.currency

    @property
    def native(self) -> frozenset[str]:
        """The charges that Stripe rates itself."""
        return frozenset(key for key, price in self.sold.items() if price.kind is LineKind.METERED)

    def period_of(self, starts_at: datetime, ends_at: datetime) -> BillingPeriod:
        """Return our billing period for a span of Stripe's, whose bounds lie up to an hour behind ours."""
        last = floor_hour(ends_at) - MILLISECOND
        return self.timeline.period_at(max(last, floor_hour(starts_at)))


async def billing_facts(
    session: AsyncSession, subscription_id: str, *, also_versions: Collection[str] = ()
) -> BillingFacts:
    """Read a subscription; `also_versions`: plan versions that it may change to.

    Raises:
        NotBilledByStripeError: Stripe has no subscription for it.
    """
    row = await session.get(StripeSubscription, subscription_id, populate_existing=True)
    if row is None:
        raise NotBilledByStripeError(subscription_id)
    found = await timeline(session, subscription_id)
    versions = {*found.version_ids, *also_versions}
    terms = await read_terms(session, {(version_id, row.currency) for version_id in versions})
    by_version = {version_id: one for (version_id, _), one in terms.items()}
    return BillingFacts(
        row=row, timeline=found, terms=by_version, sold=await sold_prices(session, by_version, row.currency)
    )


async def sold_prices(session: AsyncSession, terms: Mapping[str, Terms], currency: str) -> dict[str, SoldPrice]:
    """Return what Stripe has of plan versions, by charge; carriers are left out."""
    rows = await session.scalars(
        select(StripePrice).where(is_any_of(StripePrice.plan_version_id, terms), StripePrice.currency == currency)
    )
    found = {}
    for row in rows:
        if row.kind in _KINDS:
            found[f"{row.plan_version_id}/{row.position}"] = _sold(row, terms[row.plan_version_id])
    return found


def _sold(row: StripePrice, terms: Terms) -> SoldPrice:
    price = next(one for one in terms.rated.prices if one.position == row.position)
    fixed = price.price.amount if isinstance(price.price, Flat | SetupFee) else None
    return SoldPrice(
        kind=_KINDS[row.kind],
        charge_key=f"{row.plan_version_id}/{row.position}",
        price_id=row.price_id,
        product_id=row.product_id,
        currency=row.currency,
        description=f"{terms.plan_name}: {price.description}" if price.description else terms.plan_name,
        amount_minor=0 if fixed is None else round_minor(fixed, row.currency),
        rated=price if row.kind == "metered" else None,
    )


async def used_units(session: AsyncSession, facts: BillingFacts, period: BillingPeriod) -> UnitsByPhase:
    """Return what paid phases used of a period, as far as it is counted, by phase and meter."""
    asked = [
        PhasePeriod(phase.id, facts.timeline.account_id, period.start, period.end)
        for phase in facts.timeline.phases_within(period)
        if phase.costs
    ]
    found = await units_of_periods(session, asked)
    return {phase_id: units for (phase_id, _), units in found.items()}


async def delivered_units(
    session: AsyncSession, subscription_id: str, period: BillingPeriod, *, also_waiting: bool = False
) -> UnitsByPhase:
    """Return what Stripe has of a period's usage, by phase and meter; or what it has and will be sent."""
    states = ("delivered", "waiting", "sent") if also_waiting else ("delivered",)
    rows = await session.execute(
        select(StripeUsageRow.phase_id, StripeUsageRow.meter, func.sum(StripeUsageRow.delta_units).label("units"))
        .where(
            StripeUsageRow.subscription_id == subscription_id,
            StripeUsageRow.hour >= period.start,
            StripeUsageRow.hour < period.end,
            StripeUsageRow.state.in_(states),
        )
        .group_by(StripeUsageRow.phase_id, StripeUsageRow.meter)
    )
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        found[row.phase_id][row.meter] = int(row.units)
    return found


@dataclass(frozen=True, slots=True)
class BilledCharge:
    """What final invoices of Stripe's say of a charge of a period: its own lines, without adjustments of ours."""

    amount_minor: int
    discount_minor: int
    units: int


async def billed_charges(
    session: AsyncSession, subscription_id: str, period: BillingPeriod, *, kinds: Collection[LineKind]
) -> dict[str, BilledCharge]:
    """Return what final invoices charged for a period, by charge; see `is_charged` for void ones."""
    line = StripeInvoiceLine
    rows = await session.execute(
        select(
            line.charge_key,
            func.sum(line.amount_minor).label("amount"),
            func.sum(line.discount_minor).label("discount"),
            func.sum(line.quantity).label("units"),
        )
        .join(StripeInvoice, StripeInvoice.id == line.invoice_id)
        .where(
            StripeInvoice.subscription_id == subscription_id,
            is_charged(),
            line.kind.in_([kind.value for kind in kinds]),
            line.period_start >= period.start,
            line.period_start < period.end,
        )
        .group_by(line.charge_key)
    )
    return {row.charge_key: BilledCharge(int(row.amount), int(row.discount), int(row.units or 0)) for row in rows}


async def adjusted_charges(
    session: AsyncSession, subscription_id: str, period: BillingPeriod
) -> dict[str, Adjusted]:
    """Return what we have adjusted of a period's charges, by charge; what Stripe refused is not among it."""
    rows = await session.scalars(
        select(StripeAdjustment).where(
            StripeAdjustment.subscription_id == subscription_id,
            StripeAdjustment.period_start == period.start,
            StripeAdjustment.state != "refused",
        )
    )
    amounts: dict[str, dict[str, int]] = defaultdict(dict)
    units: dict[str, int] = defaultdict(int)
    for row in rows:
        amounts[row.charge_key][row.cause] = amounts[row.charge_key].get(row.cause, 0) + row.amount_minor
        units[row.charge_key] += row.details.get("units", 0)
    return {key: Adjusted(amounts=found, units=units[key]) for key, found in amounts.items()}


async def period_due(
    session: AsyncSession, facts: BillingFacts, period: BillingPeriod, *, units: UnitsByPhase | None = None
) -> tuple[UsageDue, ...]:
    """Return what is due for the use of a period by our rating, by what was used or by `units`."""
    fixed = await billed_charges(
        session,
        facts.row.subscription_id,
        period,
        kinds=(LineKind.FLAT, LineKind.PRORATION, LineKind.SETUP_FEE),
    )
    return usage_due(
        facts.timeline,
        period,
        terms=facts.terms,
        units=await used_units(session, facts, period) if units is None else units,
        fixed_minor={key: one.amount_minor for key, one in fixed.items()},
    )


async def at_stripe(
    session: AsyncSession,
    facts: BillingFacts,
    period: BillingPeriod,
    due: Collection[UsageDue],
    *,
    running: UnitsByPhase | None = None,
) -> dict[str, AtStripe]:
    """Return what Stripe has billed of a period's metered charges.

    `running`: what Stripe has of usage that is on no final invoice yet, by phase; then the last stretch of each
    charge is reckoned with it, as Stripe will.
    """
    subscription_id = facts.row.subscription_id
    final = await billed_charges(session, subscription_id, period, kinds=(LineKind.METERED,))
    found = {key: AtStripe(units=one.units, amount_minor=one.amount_minor) for key, one in final.items()}
    if running is None:
        return found
    ends_at = min(period.end, facts.timeline.ends_at or period.end)
    for one in due:
        key = one.line.charge_key
        if key not in facts.native or not one.stretches or one.stretches[-1].ends_at < ends_at:
            continue
        more = running_charge(facts, one, running)
        before = found.get(key, AtStripe())
        found[key] = AtStripe(
            units=before.units + more.units, amount_minor=before.amount_minor + more.amount_minor
        )
    return found


def running_charge(facts: BillingFacts, due: UsageDue, running: UnitsByPhase) -> AtStripe:
    """Return what Stripe will bill of the last stretch of a charge, by what it has of it."""
    stretch, meter = due.stretches[-1], due.line.meter or ""
    units = max(0, sum(running.get(phase_id, {}).get(meter, 0) for phase_id in stretch.phase_ids))
    lines = metered_lines(facts.sold[due.line.charge_key], units, Span(stretch.starts_at, stretch.ends_at))
    return AtStripe(units=units, amount_minor=sum(line.amount_minor for line in lines))
