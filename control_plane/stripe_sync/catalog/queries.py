"""Reading what of the catalogue lies at Stripe."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.model import ADD_ON
from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import ConflictError, NotFoundError
from control_plane.stripe_sync.catalog.facts import version_facts
from control_plane.stripe_sync.catalog.native import Kind, Ours
from control_plane.stripe_sync.catalog.tables import StripeMeter, StripePrice, StripePush
from control_plane.stripe_sync.catalog.wanted import OursHere, rated_prices


class NotAtStripeError(ConflictError):
    """Stripe does not have a plan version's prices (yet)."""

    def __init__(self, name: str, problem: str | None) -> None:
        why = problem or "it is on its way; `km stripe sync` says how far it is"
        super().__init__("not_at_stripe", f"{name} is not at Stripe: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StripePriceRef:
    """A price at Stripe. `position` is that of our price of the version (a carrier has none of ours)."""

    price_id: str
    plan_version_id: str
    position: int
    currency: str
    kind: Kind
    product_id: str
    meter: str | None
    meter_id: str | None
    event_name: str | None

    @property
    def quantity(self) -> int | None:
        """Return the quantity to give with an item: 1, or None where usage is counted and none may be given."""
        return None if self.kind == "metered" else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StripePrices:
    """A plan version's prices in one currency: `items` recur, `fees` come once, `ours` our rating charges."""

    plan_version_id: str
    currency: str
    items: tuple[StripePriceRef, ...]
    fees: tuple[StripePriceRef, ...]
    ours: tuple[OursHere, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsRead:
    """What the items of a Stripe subscription are of. `plan_version_id` None: of no plan, or of several.

    `add_ons`: quantity by plan version. `missing`: prices of the plan version that no item has; `unknown`: prices
    of items that are not ours.
    """

    plan_version_id: str | None
    add_ons: Mapping[str, int]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


async def prices_of(session: AsyncSession, plan_version_id: str, currency: str) -> StripePrices:
    """Return what a subscription to a plan version (or to an add-on's) consists of at Stripe.

    Raises:
        NotFoundError: there is no such version.
        NotAtStripeError: Stripe does not have all of it, or it is not sold in the currency.
    """
    facts = (await version_facts(session, [plan_version_id])).get(plan_version_id)
    if facts is None:
        raise NotFoundError("plan_version", plan_version_id)
    name = f"{facts.plan.code} v{facts.version}"
    if currency not in (facts.terms.currency, *facts.terms.other_currencies):
        raise NotAtStripeError(name, f"it is not sold in {currency}.")
    push = await session.get(StripePush, plan_version_id)
    if push is None or push.state != "pushed":
        raise NotAtStripeError(name, None if push is None else push.problem)
    found = await _prices(session, [plan_version_id], currency)
    ours = tuple(
        OursHere(position=position, currency=currency, model=price.model, meter=price.meter, reason=rating.reason)
        for position, price, rating in rated_prices(facts)
        if isinstance(rating, Ours) and price.currency == currency
    )
    return StripePrices(
        plan_version_id=plan_version_id,
        currency=currency,
        items=tuple(ref for ref in found if ref.kind != "setup_fee"),
        fees=tuple(ref for ref in found if ref.kind == "setup_fee"),
        ours=ours,
    )


async def price_refs(session: AsyncSession, price_ids: Collection[str]) -> dict[str, StripePriceRef]:
    """Return what we know of prices, by Stripe's id; those that are not ours are left out."""
    rows = await session.execute(_statement().where(is_any_of(StripePrice.price_id, price_ids)))
    return {price.price_id: _ref(price, meter) for price, meter in rows}


async def read_items(session: AsyncSession, quantities: Mapping[str, int | None]) -> ItemsRead:
    """Say what items are of; `quantities` are the items' by price (None where usage is counted)."""
    refs = await price_refs(session, quantities)
    versions = {ref.plan_version_id for ref in refs.values()}
    statement = select(PlanVersion.id, Plan.kind).join(Plan, Plan.id == PlanVersion.plan_id)
    kinds = {
        row.id: row.kind for row in await session.execute(statement.where(is_any_of(PlanVersion.id, versions)))
    }
    plans = [version for version, kind in kinds.items() if kind != ADD_ON]
    add_ons: dict[str, int] = {}
    for ref in refs.values():
        if kinds[ref.plan_version_id] == ADD_ON and ref.kind != "setup_fee":
            counted = quantities[ref.price_id] or 1
            add_ons[ref.plan_version_id] = max(counted, add_ons.get(ref.plan_version_id, 1))
    missing: tuple[str, ...] = ()
    if len(plans) == 1:
        currency = next(ref.currency for ref in refs.values() if ref.plan_version_id == plans[0])
        needed = await _prices(session, plans, currency)
        missing = tuple(
            ref.price_id for ref in needed if ref.kind != "setup_fee" and ref.price_id not in quantities
        )
    return ItemsRead(
        plan_version_id=plans[0] if len(plans) == 1 else None,
        add_ons=add_ons,
        missing=missing,
        unknown=tuple(sorted(set(quantities) - set(refs))),
    )


async def version_of_items(session: AsyncSession, price_ids: Collection[str]) -> str | None:
    """Return the plan version that items with these prices are of; None if of none, or of several."""
    return (await read_items(session, dict.fromkeys(price_ids))).plan_version_id


async def event_names(session: AsyncSession, api_product_id: str) -> dict[str, str]:
    """Return Stripe's event names of an API product's meters, by our meter's code."""
    rows = await session.execute(
        select(StripeMeter.meter, StripeMeter.event_name).where(StripeMeter.api_product_id == api_product_id)
    )
    return {row.meter: row.event_name for row in rows}


async def _prices(session: AsyncSession, version_ids: Collection[str], currency: str) -> list[StripePriceRef]:
    rows = await session.execute(
        _statement()
        .where(is_any_of(StripePrice.plan_version_id, version_ids), StripePrice.currency == currency)
        .order_by(StripePrice.position)
    )
    return [_ref(price, meter) for price, meter in rows]


def _statement() -> Select[StripePrice, StripeMeter]:
    return select(StripePrice, StripeMeter).outerjoin(StripeMeter, StripeMeter.meter_id == StripePrice.meter_id)


def _ref(price: StripePrice, meter: StripeMeter | None) -> StripePriceRef:
    return StripePriceRef(
        price_id=price.price_id,
        plan_version_id=price.plan_version_id,
        position=price.position,
        currency=price.currency,
        kind=cast("Kind", price.kind),  # a check of the table's
        product_id=price.product_id,
        meter=meter.meter if meter else None,
        meter_id=price.meter_id,
        event_name=meter.event_name if meter else None,
    )
