"""Whom new terms of a plan concern, and what it comes to in money each month if all moved to them. Reads only.

What recurs (flat prices) is known without usage. What usage would cost is another question, for another report: it
would be a further part of `PlanImpact`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.model import PlanTerms
from control_plane.catalog.queries import plan_versions, terms_of_version
from control_plane.foundation.money import round_minor
from control_plane.subscriptions.plan_use import uses_of_versions

MONTHS = {"month": 1, "year": 12}


@dataclass(frozen=True, slots=True)
class VersionImpact:
    """Live subscriptions that pay in `currency` on one version; `paying`: neither in a trial nor paused.

    `recurring_minor`: what those who pay owe each month in flat prices, a yearly price a twelfth of it; the new
    terms would make it `new_recurring_minor`, None where they are not sold in the currency.
    """

    version: int
    currency: str
    subscriptions: int
    paying: int
    recurring_minor: int
    new_recurring_minor: int | None


@dataclass(frozen=True, slots=True)
class PlanImpact:
    """What new terms of one plan or add-on would mean for those who have it, by version and currency."""

    plan: str
    versions: tuple[VersionImpact, ...]


async def impact_of_terms(
    session: AsyncSession, terms: Mapping[str, PlanTerms], *, now: datetime
) -> tuple[PlanImpact, ...]:
    """Return the impact of new terms, in canonical form and given by plan code, in the order given.

    Publishing moves nobody: this is what a migration of all would come to. Plans nobody has are left out.
    """
    uses = await uses_of_versions(session, terms.keys(), now=now)
    versions = await plan_versions(session, {use.plan_version_id for found in uses.values() for use in found})
    impacts = []
    for code, new in terms.items():
        found = []
        for use in uses.get(code, ()):
            version = versions[use.plan_version_id]
            found.append(
                VersionImpact(
                    version=version.version,
                    currency=use.currency,
                    subscriptions=use.subscriptions,
                    paying=use.paying,
                    recurring_minor=recurring_minor(terms_of_version(version), use.currency, use.units),
                    new_recurring_minor=recurring_minor(new, use.currency, use.units)
                    if new.is_sold_in(use.currency)
                    else None,
                )
            )
        if found:
            found.sort(key=lambda one: (-one.version, one.currency))
            impacts.append(PlanImpact(code, tuple(found)))
    return tuple(impacts)


def recurring_minor(terms: PlanTerms, currency: str, units: int) -> int:
    """Return what the flat prices come to in a month for so many subscriptions; rounded once."""
    flats = [price for price in terms.in_currency(currency).prices if price.model == "flat"]
    amount = sum((Decimal(price.params["amount"]) for price in flats), Decimal(0))
    return round_minor(amount * units / MONTHS[terms.interval], currency)
