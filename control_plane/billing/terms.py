"""What plan versions charge, in the currency of an account: read once for any number of subscriptions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.currencies import prices_in
from control_plane.catalog.meter_queries import meters_of_versions
from control_plane.catalog.meters import Aggregation
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import Meter, PlanVersion
from control_plane.rating.versions import RatedVersion, SoldPrice, read_version

IN_ADVANCE = frozenset({"flat", "setup_fee"})
VersionKey = tuple[str, str]
"""A plan version's id, and a currency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A plan version in one currency. `in_advance`: the same with only what is charged before use.

    `declares`: it has prices on declared meters; `not_carried`: those of them that do not add up.
    """

    rated: RatedVersion
    in_advance: RatedVersion
    plan_code: str
    plan_name: str
    version: int
    declares: bool
    not_carried: frozenset[str]


async def read_terms(session: AsyncSession, wanted: Collection[VersionKey]) -> dict[VersionKey, Terms]:
    """Return terms by version and currency.

    Raises:
        CurrencyDiffersError: a version has prices, none of them in the currency.
    """
    ids = {version_id for version_id, _ in wanted}
    if not ids:
        return {}
    versions = await plan_versions(session, ids)
    declared = await meters_of_versions(session, ids)
    return {
        (version_id, currency): terms_of(versions[version_id], declared.get(version_id, {}), currency=currency)
        for version_id, currency in wanted
    }


def terms_of(version: PlanVersion, declared: Mapping[str, Meter], *, currency: str) -> Terms:
    """Return the terms of a version, loaded with plan, API product and prices; `declared` are its meters."""
    rated = read_version(
        version_id=version.id,
        name=version.plan.name,
        currency=currency,
        prices=[
            SoldPrice(
                position=price.position,
                model=price.model,
                meter=price.meter,
                params=price.params,
                description=price.description,
            )
            for price in prices_in(version, currency)
        ],
        is_add_on=version.plan.kind == "add_on",
        quota_units=version.quota_units,
        quota_hard=version.quota_hard,
        quota_on_change=version.quota_on_change,
        meter_names={code: meter.name for code, meter in declared.items()},
        weighted=bool(version.plan.api_product.route_units),
    )
    fixed = tuple(price for price in rated.prices if price.model in IN_ADVANCE)
    return Terms(
        rated=rated,
        in_advance=replace(rated, prices=fixed),
        plan_code=version.plan.code,
        plan_name=version.plan.name,
        version=version.version,
        declares=bool(declared),
        not_carried=frozenset(
            code for code, meter in declared.items() if not Aggregation(meter.aggregation).adds_up
        ),
    )
