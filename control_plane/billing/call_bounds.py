"""What gateways must be able to bound, call by call: whatever costs money under a spend cap or prepaid credits."""

from collections.abc import Collection, Iterator

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.terms import terms_of
from control_plane.catalog.meter_queries import meters_of_versions
from control_plane.catalog.meters import Aggregation, MeteredEvents
from control_plane.catalog.model import MEASURED_METERS, unit_maximum
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import Meter, Plan, PlanVersion
from control_plane.foundation.errors import ConflictError
from control_plane.rating.spend_cap import reported_dimensions

_NO_CAP = "No spend cap can be kept on"
_NO_CREDITS = "Prepaid credits cannot pay for"


class MaximumMissingError(ConflictError):
    """It must be known how much one call can cost, and for this route nobody said."""

    def __init__(self, *, version: PlanVersion, route: str, dimension: str, prepaid: bool) -> None:
        product = version.plan.api_product.code
        why = (
            "how many of them a call comes to is known only afterwards."
            if dimension in MEASURED_METERS
            else f"API product {product} does not declare how many of them one call to route {route} can report "
            "at most (unit_maximums)."
        )
        super().__init__(
            "unit_maximum_missing",
            f"{_refused(version, prepaid=prepaid)}: it charges for {dimension}, and {why}",
        )


class MeterUncappedError(ConflictError):
    """What may be used is bounded by the gateway, call by call; what this meter counts, it cannot bound."""

    def __init__(self, *, version: PlanVersion, meter: Meter, prepaid: bool) -> None:
        super().__init__(
            "meter_uncapped",
            f"{_refused(version, prepaid=prepaid)}: it charges for {meter.name} ({meter.code}), and "
            f"{_why_unbounded(meter)}",
        )


async def require_bounds(session: AsyncSession, version_ids: Collection[str], *, prepaid: bool = False) -> None:
    """Refuse plan versions of which a call can cost any amount; `prepaid`: because credits pay for them.

    Raises:
        MaximumMissingError, MeterUncappedError: for the first of them.
    """
    versions = await plan_versions(session, version_ids)
    declared = await meters_of_versions(session, list(versions))
    for version_id in sorted(versions):
        version, meters = versions[version_id], declared.get(version_id, {})
        # in every currency the same is counted
        reported = reported_dimensions([terms_of(version, meters, currency=version.currency).rated])
        for code in sorted(reported & meters.keys()):
            raise MeterUncappedError(version=version, meter=meters[code], prepaid=prepaid)
        for route, dimension in _without_maximum(version, reported):
            raise MaximumMissingError(version=version, route=route, dimension=dimension, prepaid=prepaid)


async def require_maximums(session: AsyncSession, version_ids: Collection[str]) -> None:
    """Refuse an API product that leaves out how much a call can report of what prepaid plans charge for.

    Raises:
        MaximumMissingError: for the first of them.
    """
    versions = await plan_versions(session, version_ids)
    for version_id in sorted(versions):
        version = versions[version_id]
        # what the product has no part in, it does not have to say
        reported = {
            price.meter for price in version.prices if price.meter in version.plan.api_product.unit_headers
        }
        for route, dimension in _without_maximum(version, reported):
            raise MaximumMissingError(version=version, route=route, dimension=dimension, prepaid=True)


async def prepaid_on_sale(session: AsyncSession, product_id: str) -> set[str]:
    """Return the prepaid plan versions of an API product that can be bought."""
    statement = (
        select(PlanVersion.id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .where(
            Plan.api_product_id == product_id,
            Plan.archived_at.is_(None),
            PlanVersion.status == "published",
            PlanVersion.payment == "prepaid",
        )
    )
    return set(await session.scalars(statement))


def _without_maximum(version: PlanVersion, dimensions: Collection[str | None]) -> Iterator[tuple[str, str]]:
    product = version.plan.api_product
    for route in product.routes:
        for dimension in sorted(name for name in dimensions if name is not None):
            if unit_maximum(product.unit_maximums, route=route, dimension=dimension) is None:
                yield route, dimension


def _refused(version: PlanVersion, *, prepaid: bool) -> str:
    return f"{_NO_CREDITS if prepaid else _NO_CAP} plan {version.plan.code}"


def _why_unbounded(meter: Meter) -> str:
    if meter.events != MeteredEvents.CALLS:
        return "what applications report never passes the gateway."
    if meter.aggregation == Aggregation.UNIQUE:
        return "how many different values a period comes to is known only afterwards."
    if meter.aggregation in {Aggregation.MAX, Aggregation.LATEST}:
        return "what it comes to can change with every event until the period is over."
    return "the gateway counts requests and reported units only, not what a meter makes of them."
