"""One billing period of a subscription as it stands: what ran in it, what was used, and what that comes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.queries import account
from control_plane.accounts.tables import Account
from control_plane.billing.discounts.applying import discounts_in_force
from control_plane.billing.discounts.model import Discount
from control_plane.billing.invoices.amounts import Amounts, amounts_of
from control_plane.billing.invoices.due import due_in_advance, due_lines
from control_plane.billing.invoices.model import ChargeLine
from control_plane.billing.model import QuotaProgress
from control_plane.billing.taxes.applying import tax_terms
from control_plane.billing.taxes.model import TaxTerm
from control_plane.billing.terms import Terms, read_terms
from control_plane.catalog.queries import api_product
from control_plane.catalog.tables import ApiProduct
from control_plane.foundation.clock import MILLISECOND
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.model import Share
from control_plane.rating.versions import CARRY, PRORATED, REQUESTS
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timeline import PhaseKind, Timeline, TimelinePhase
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.rollups.period_units import PhasePeriod, units_of_periods

UnitsByPhase = Mapping[str, Mapping[str, int]]


class NotSubscribedError(NotFoundError):
    """The account never had a subscription to the API product: there is nothing to preview."""

    def __init__(self, account_id: str, product_code: str) -> None:
        super().__init__("subscription", f"of account {account_id} to API product {product_code}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodFacts:
    """What a billing period is rated by: `terms` by plan version, `units` by phase; `phases` are cut to it.

    `discounts` are as they were before anything of the period was billed. `spend_cap_minor`: before tax.
    """

    payer: Account
    product: ApiProduct
    timeline: Timeline
    period: BillingPeriod
    terms: Mapping[str, Terms]
    phases: tuple[TimelinePhase, ...]
    units: UnitsByPhase
    discounts: tuple[Discount, ...]
    taxes: tuple[TaxTerm, ...]
    spend_cap_minor: int | None

    def lines(self, units: UnitsByPhase | None = None) -> tuple[ChargeLine, ...]:
        """Return what is due by what was used, or by `units` in place of that."""
        return due_lines(
            self.timeline, self.period, terms=self.terms, units=self.units if units is None else units
        )

    def lines_after_trial(self) -> tuple[ChargeLine, ...]:
        """Return what is due in advance for the first billing period, which begins where the trial ends."""
        begins = self.timeline.anchor_at
        return due_in_advance(self.timeline, self.timeline.period_at(begins), terms=self.terms, begun_by=begins)

    def amounts(self, lines: Sequence[ChargeLine]) -> Amounts:
        """Return what lines come to."""
        return amounts_of(lines, discounts=self.discounts, taxes=self.taxes, currency=self.payer.currency)


async def period_facts(
    session: AsyncSession,
    *,
    account_id: str,
    product_code: str,
    now: datetime,
    period_start: datetime | None = None,
    seller_country: str = "",
) -> PeriodFacts:
    """Return the billing period that holds `period_start`, by default the running one; the last of what is over.

    Raises:
        NotFoundError: no such account or API product. NotSubscribedError: never a subscription.
        ValidationFailedError: `period_start` lies before the subscription, after it, or ahead.
    """
    payer = await account(session, account_id)
    product = await api_product(session, product_code)
    timeline = await _timeline(session, account_id, product.id, product_code, period_start)
    period = _period(timeline, now if period_start is None else period_start, now, asked=period_start is not None)
    wanted = {(version_id, payer.currency) for version_id in timeline.version_ids}
    terms = {version_id: found for (version_id, _), found in (await read_terms(session, wanted)).items()}
    phases = timeline.phases_within(period)
    taxes = await tax_terms(session, [account_id], at=now, seller_country=seller_country)
    return PeriodFacts(
        payer=payer,
        product=product,
        timeline=timeline,
        period=period,
        terms=terms,
        phases=tuple(phases),
        units=await _units(session, timeline, phases, period),
        discounts=tuple(
            _as_if_not_billed(await discounts_in_force(session, [timeline.subscription_id]), timeline, period)
        ),
        taxes=tuple(taxes.get(account_id, ())),
        spend_cap_minor=await _spend_cap(session, timeline.subscription_id),
    )


def quota_progress(facts: PeriodFacts, *, at: datetime) -> QuotaProgress | None:
    """Return how far the quota in force at a moment is used: by what counts against it (`quota_on_change`)."""
    timeline, period, terms = facts.timeline, facts.period, facts.terms
    in_force = timeline.phase_at(at)
    if in_force is None:
        return None
    rated = terms[in_force.plan_version_id].rated
    # the last hour of a trial that was ended early lies in the first billing period, and uses none of its quota
    in_trial = in_force.kind is PhaseKind.TRIAL
    phases = [phase for phase in facts.phases if in_trial or phase.kind is not PhaseKind.TRIAL]
    own = [phase for phase in phases if phase.plan_version_id == in_force.plan_version_id]
    override = timeline.own_quota_in(period)
    quota_units = rated.quota_units if override is None else override
    if quota_units is None or not own:
        return None
    if rated.quota_on_change == PRORATED:
        quota_units = Share((period.end - own[0].charged_from) // MILLISECOND, _ms(period)).of_units(quota_units)
    for add_on in in_force.add_ons:
        quota_units += (terms[add_on.plan_version_id].rated.quota_units or 0) * add_on.quantity
    counted = phases if rated.quota_on_change == CARRY else own
    used = sum(facts.units.get(phase.id, {}).get(REQUESTS, 0) for phase in counted)
    return QuotaProgress(used_units=used, quota_units=quota_units, hard=rated.quota_hard)


def _ms(period: BillingPeriod) -> int:
    return (period.end - period.start) // MILLISECOND


async def _timeline(
    session: AsyncSession, account_id: str, product_id: str, product_code: str, period_start: datetime | None
) -> Timeline:
    """Return the account's latest subscription to the product, of those that had begun at the moment asked for."""
    statement = (
        select(Subscription.id)
        .where(Subscription.account_id == account_id, Subscription.api_product_id == product_id)
        .order_by(Subscription.started_at.desc(), Subscription.id.desc())
    )
    found = await timelines(session, list(await session.scalars(statement)))
    if not found:
        raise NotSubscribedError(account_id, product_code)
    latest = sorted(found.values(), key=lambda one: (one.started_at, one.subscription_id), reverse=True)
    if period_start is None:
        return latest[0]
    return next((one for one in latest if one.period_at(one.started_at).start <= period_start), latest[-1])


def _period(timeline: Timeline, moment: datetime, now: datetime, *, asked: bool) -> BillingPeriod:
    last = now if timeline.ends_at is None else min(now, timeline.ends_at - MILLISECOND)
    last = max(last, timeline.started_at)
    if not asked:
        return timeline.period_at(last)
    if not timeline.period_at(timeline.started_at).start <= moment < timeline.period_at(last).end:
        raise ValidationFailedError(
            "period_start", "lies in no billing period of the subscription up to now: see its usage by period"
        )
    return timeline.period_at(moment)


async def _units(
    session: AsyncSession, timeline: Timeline, phases: Sequence[TimelinePhase], period: BillingPeriod
) -> UnitsByPhase:
    asked = [PhasePeriod(phase.id, timeline.account_id, period.start, period.end) for phase in phases]
    return {phase_id: units for (phase_id, _), units in (await units_of_periods(session, asked)).items()}


def _as_if_not_billed(
    discounts: Mapping[str, Sequence[Discount]], timeline: Timeline, period: BillingPeriod
) -> list[Discount]:
    """Return the discounts as they were before anything of the period was billed."""
    return [
        replace(
            discount,
            taken={charge: taken for charge, taken in discount.taken.items() if charge[0] != period.start},
            periods_taken=discount.periods_taken - {period.start},
        )
        for discount in discounts.get(timeline.subscription_id, ())
    ]


async def _spend_cap(session: AsyncSession, subscription_id: str) -> int | None:
    return await session.scalar(select(Subscription.spend_cap_minor).where(Subscription.id == subscription_id))
