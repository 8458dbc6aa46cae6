"""Comparisons of plans for a customer's last 30 days, and for given units. Reads only."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.queries import account
from control_plane.billing.comparisons.demand import demands, not_added_meters
from control_plane.billing.comparisons.fitting_plans import NOT_OWN, Demand, OwnQuota
from control_plane.billing.comparisons.model import Candidate, Comparison, Words, compare
from control_plane.catalog.meter_queries import meters
from control_plane.catalog.model import PLAN
from control_plane.catalog.queries import api_product, plan_versions, plans, published_versions, terms_of_version
from control_plane.catalog.rules import check_currency
from control_plane.catalog.tables import ApiProduct, PlanVersion
from control_plane.foundation.errors import ValidationFailedError
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase


async def compare_last_month(
    session: AsyncSession, *, account_id: str, product_code: str, now: datetime
) -> Comparison:
    """Return what an account's last 30 days would cost on each public plan of an API product, and on its own.

    A quota of the subscription's own stays on every plan. Add-ons, discounts and taxes are left out. Calls that
    were refused by a rate limit or a quota count as asked for, one unit each.

    Raises:
        NotFoundError: no such account or API product.
    """
    payer = await account(session, account_id)
    product = await api_product(session, product_code)
    found = await demands(session, [account_id], now=now)
    held, own = await _held(session, account_id, product.id, now=now)
    demand = found.get((account_id, product_code), Demand())
    return await _comparison(
        session,
        product,
        demand=demand,
        currency=payer.currency,
        held=held,
        own=own,
    )


async def compare_units(
    session: AsyncSession, *, product_code: str, units: Mapping[str, int], currency: str
) -> Comparison:
    """Return what units of a month, by meter, would cost on each public plan of an API product.

    Raises:
        NotFoundError: no such API product. ValidationFailedError: not a currency, or no meter of the product.
    """
    product = await api_product(session, product_code)
    check_currency(currency, field="currency")
    declared = {meter.code for meter in await meters(session, product_codes=[product_code])}
    not_added = await not_added_meters(session, [product_code])
    demand = Demand(units=dict(units), not_added=not_added.get(product_code, frozenset()))
    known = {"requests", "bytes_in", "bytes_out", "upstream_ms", *product.unit_headers, *declared}
    for meter in units:
        if meter not in known:
            raise ValidationFailedError(f"units.{meter}", f"must be one of {', '.join(sorted(known))}")
    return await _comparison(session, product, demand=demand, currency=currency, held=None)


async def _comparison(
    session: AsyncSession,
    product: ApiProduct,
    *,
    demand: Demand,
    currency: str,
    held: PlanVersion | None,
    own: OwnQuota = NOT_OWN,
) -> Comparison:
    on_sale = await plans(session, product_code=product.code, public_only=True, kind=PLAN)
    versions = await published_versions(session, [plan.id for plan in on_sale])
    offered = [version for version in versions.values() if held is None or version.plan_id != held.plan_id]
    candidates = _candidates([*offered, *([held] if held else [])], currency, held)
    names = {meter.code: meter.name for meter in await meters(session, product_codes=[product.code])}
    return Comparison(
        product_code=product.code,
        product_name=product.name,
        currency=currency,
        demand=demand,
        plans=compare(
            candidates,
            demand=demand,
            currency=currency,
            held=terms_of_version(held).in_currency(currency) if held else None,
            words=Words(meter_names=names, weighted=bool(product.route_units)),
            own=own,
        ),
        not_sold=tuple(sorted({version.plan.code for version in offered} - {one.code for one in candidates})),
    )


def _candidates(versions: Collection[PlanVersion], currency: str, held: PlanVersion | None) -> list[Candidate]:
    found = []
    for version in versions:
        terms = terms_of_version(version)
        if not terms.is_sold_in(currency):
            continue
        found.append(
            Candidate(
                code=version.plan.code,
                name=version.plan.name,
                version=version.version,
                position=version.plan.position,
                terms=terms.in_currency(currency),
                public=version.plan.visibility == "public" and version.plan.archived_at is None,
                held=held is not None and version.id == held.id,
            )
        )
    return found


async def _held(
    session: AsyncSession, account_id: str, product_id: str, *, now: datetime
) -> tuple[PlanVersion | None, OwnQuota]:
    """Return the version that the account has, as it was sold to it, and its own quota."""
    statement = (
        select(SubscriptionPhase.plan_version_id, Subscription.overrides)
        .join(Subscription, Subscription.id == SubscriptionPhase.subscription_id)
        .where(
            Subscription.account_id == account_id,
            Subscription.api_product_id == product_id,
            Subscription.status.not_in(sorted(OVER)),
            SubscriptionPhase.starts_at <= now,
            SubscriptionPhase.ends_at.is_(None) | (SubscriptionPhase.ends_at > now),
        )
    )
    row = (await session.execute(statement)).first()
    if row is None:
        return None, NOT_OWN
    versions = await plan_versions(session, [row.plan_version_id])
    own = OwnQuota(row.overrides.get("quota_units"), row.overrides.get("quota_cap_units"))
    return versions[row.plan_version_id], own
