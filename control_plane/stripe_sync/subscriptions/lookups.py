"""What our tables say of prices at Stripe: which version each is of, and which a version has."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.model import ADD_ON
from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.stripe_sync.catalog.tables import StripePrice, StripePush
from control_plane.stripe_sync.subscriptions.model import PriceAtStripe


async def known_prices(session: AsyncSession, price_ids: Collection[str]) -> dict[str, PriceAtStripe]:
    """Return those of these prices that we have made, by id."""
    if not price_ids:
        return {}
    rows = await session.execute(_prices().where(is_any_of(StripePrice.price_id, price_ids)))
    return {row.price_id: _price(row) for row in rows}


async def prices_of_versions(
    session: AsyncSession, version_ids: Collection[str], *, currency: str
) -> dict[str, Sequence[PriceAtStripe]]:
    """Return the prices that versions have at Stripe in a currency, in their order; without: left out.

    What Stripe has is complete: where a push of the version is not over, it is left out.
    """
    if not version_ids:
        return {}
    statement = (
        _prices()
        .join(StripePush, StripePush.plan_version_id == StripePrice.plan_version_id)
        .where(
            is_any_of(StripePrice.plan_version_id, version_ids),
            StripePrice.currency == currency,
            StripePrice.active,
            StripePush.state == "pushed",
        )
        .order_by(StripePrice.position)
    )
    found: dict[str, list[PriceAtStripe]] = defaultdict(list)
    for row in await session.execute(statement):
        found[row.plan_version_id].append(_price(row))
    return dict(found)


def _prices() -> Select[*tuple[Any, ...]]:
    return (
        select(
            StripePrice.price_id,
            StripePrice.plan_version_id,
            PlanVersion.plan_id,
            Plan.kind.label("plan_kind"),
            StripePrice.kind,
            StripePrice.meter_id,
        )
        .join(PlanVersion, PlanVersion.id == StripePrice.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
    )


def _price(row: Row[Any]) -> PriceAtStripe:
    return PriceAtStripe(
        row.price_id, row.plan_version_id, row.plan_id, row.plan_kind == ADD_ON, row.kind, row.meter_id
    )
