"""Whom a move concerns and what it would mean for each: read for thousands at once. Reads only."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.comparisons.demand import not_added_meters
from control_plane.billing.comparisons.plan_cost import DEMAND_DAYS, plan_cost, setup_fee_minor
from control_plane.billing.plan_impact import recurring_minor
from control_plane.billing.plan_moves.model import (
    OPEN,
    Candidate,
    MonthlyCost,
    MoveTarget,
    MoveTime,
    reason_against,
)
from control_plane.billing.plan_moves.tables import PlanMoveItem
from control_plane.catalog.model import PlanTerms
from control_plane.catalog.queries import plan_versions, terms_of_version
from control_plane.catalog.tables import Plan, PlanVersion, Price
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.db import is_any_of
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.offers import version_on_sale
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.subscriptions.timeline import Timeline
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.meters.demand import units_of_accounts
from control_plane.usage.rollups.period_units import PhasePeriod, units_of_periods

AT_ONCE = 1000
HOUR = timedelta(hours=1)
SETUP_FEE = "setup_fee"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveScope:
    """From which plan, and versions of it (none named: all but the target), to the version on sale of another."""

    from_plan: str
    from_versions: tuple[int, ...] = ()
    to_plan: str


async def target_of(session: AsyncSession, plan_code: str) -> MoveTarget:
    """Return the version that is on sale, hidden or not.

    Raises:
        NotFoundError, PlanIsAddOnError, PlanNotOnSaleError.
    """
    version = await version_on_sale(session, plan_code, allow_unlisted=True)
    return MoveTarget(
        plan_version_id=version.id,
        plan_code=version.plan.code,
        plan_name=version.plan.name,
        version=version.version,
        api_product_id=version.plan.api_product_id,
        terms=terms_of_version(version),
    )


async def move_candidates(
    session: AsyncSession, scope: MoveScope, *, target: MoveTarget, when: MoveTime, now: datetime
) -> list[Candidate]:
    """Return the live subscriptions on the versions to move from, each judged, in the order of their ids."""
    rows = (await session.execute(_concerned(scope, target, now))).all()
    versions = await plan_versions(session, {row.plan_version_id for row in rows})
    product = next(iter(versions.values())).plan.api_product.code if versions else ""
    not_added = (await not_added_meters(session, [product])).get(product, frozenset())
    costs = _Costs({key: terms_of_version(one) for key, one in versions.items()}, target.terms, not_added)
    found = []
    for chunk in _chunks(rows):
        lines = await timelines(session, [row.id for row in chunk])
        taken = await _in_other_moves(session, lines)
        fee_asked = await _fee_asked(session, lines.values(), target)
        units = await _last_month(session, lines.values(), product, not_added=not_added, now=now)
        for row in chunk:
            timeline, version = lines[row.id], versions[row.plan_version_id]
            effective_at = when.of(timeline)
            sold = target.terms.is_sold_in(row.currency)
            found.append(
                Candidate(
                    timeline=timeline,
                    account_id=row.account_id,
                    account_name=row.name,
                    currency=row.currency,
                    from_plan_version_id=version.id,
                    from_plan_code=version.plan.code,
                    from_version=version.version,
                    effective_at=effective_at,
                    cannot=reason_against(
                        timeline,
                        target,
                        currency=row.currency,
                        spend_cap_minor=row.spend_cap_minor,
                        fixed_minor=costs.fixed_minor(row.currency) if sold else 0,
                        effective_at=effective_at,
                        in_another_move=row.id in taken,
                        now=now,
                    ),
                    cost=costs.of(version.id, row.currency, units.get(row.id, {}), timeline.quota_override)
                    if sold
                    else None,
                    setup_fee_minor=costs.setup_fee_minor(row.currency)
                    if sold and not _paid_before(timeline, fee_asked, effective_at)
                    else 0,
                )
            )
    return found


def _concerned(scope: MoveScope, target: MoveTarget, now: datetime) -> Any:
    statement = (
        select(
            Subscription.id,
            Subscription.account_id,
            Subscription.spend_cap_minor,
            SubscriptionPhase.plan_version_id,
            Account.name,
            Account.currency,
        )
        .join(Account, Account.id == Subscription.account_id)
        .join(SubscriptionPhase, SubscriptionPhase.subscription_id == Subscription.id)
        .join(PlanVersion, PlanVersion.id == SubscriptionPhase.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .where(
            Plan.code == scope.from_plan,
            PlanVersion.id != target.plan_version_id,
            Subscription.status.not_in(sorted(OVER)),
            SubscriptionPhase.starts_at <= now,
            SubscriptionPhase.ends_at.is_(None) | (SubscriptionPhase.ends_at > now),
        )
        .order_by(Subscription.id)
    )
    return statement.where(PlanVersion.version.in_(scope.from_versions)) if scope.from_versions else statement


async def _in_other_moves(session: AsyncSession, subscription_ids: Collection[str]) -> set[str]:
    statement = select(PlanMoveItem.subscription_id).where(
        is_any_of(PlanMoveItem.subscription_id, subscription_ids), PlanMoveItem.status.in_(sorted(OPEN))
    )
    return set(await session.scalars(statement))


async def _fee_asked(session: AsyncSession, found: Iterable[Timeline], target: MoveTarget) -> set[str]:
    """Return the versions with a setup fee that subscriptions have, or had: they pay one in their life."""
    if all(price.model != SETUP_FEE for price in target.terms.prices):
        return set()
    ids = {phase.plan_version_id for timeline in found for phase in timeline.phases}
    statement = select(Price.plan_version_id).where(
        is_any_of(Price.plan_version_id, ids), Price.model == SETUP_FEE
    )
    return set(await session.scalars(statement))


def _paid_before(timeline: Timeline, fee_asked: Collection[str], effective_at: datetime) -> bool:
    return any(
        phase.costs and phase.starts_at < effective_at and phase.plan_version_id in fee_asked
        for phase in timeline.phases
    )


class _Costs:
    """What versions cost a month before and after, each worked out once for the same use."""

    def __init__(self, before: Mapping[str, PlanTerms], after: PlanTerms, not_added: Collection[str]) -> None:
        self._before = before
        self._after = after
        self._not_added = not_added
        self._fixed: dict[str, int] = {}
        self._known: dict[Any, tuple[int, int]] = {}  # flat prices, and with use

    def fixed_minor(self, currency: str) -> int:
        """Return what a billing period costs unused."""
        if currency not in self._fixed:
            self._fixed[currency] = plan_cost(self._after.in_currency(currency), {}).amount_minor
        return self._fixed[currency]

    def setup_fee_minor(self, currency: str) -> int:
        """Return what is due once of who has never had a plan with a setup fee."""
        return setup_fee_minor(self._after.in_currency(currency))

    def of(
        self, version_id: str, currency: str, units: Mapping[str, int], own_quota_units: int | None
    ) -> MonthlyCost:
        """Return them; a quota of the subscription's own stays when it is moved."""
        before = self._before[version_id]
        recurring_before, month_before = self._of(version_id, before, currency, units, own_quota_units)
        recurring_after, month_after = self._of("", self._after, currency, units, own_quota_units)
        return MonthlyCost(
            recurring_before_minor=recurring_before,
            recurring_after_minor=recurring_after,
            month_before_minor=month_before,
            month_after_minor=month_after,
        )

    def _of(
        self, key: str, terms: PlanTerms, currency: str, units: Mapping[str, int], own_quota_units: int | None
    ) -> tuple[int, int]:
        place = key, currency, tuple(sorted(units.items())), own_quota_units
        if place not in self._known:
            cost = plan_cost(
                terms.in_currency(currency),
                units,
                own_quota_units=own_quota_units,
                not_added=self._not_added,
            )
            self._known[place] = recurring_minor(terms, currency, 1), cost.monthly_minor(currency)
        return self._known[place]


async def _last_month(
    session: AsyncSession,
    found: Collection[Timeline],
    product_code: str,
    *,
    not_added: Collection[str],
    now: datetime,
) -> dict[str, dict[str, int]]:
    """Return billable units of the last 30 days by subscription and meter.

    Of meters that do not add up they are those of the account, as in comparisons of plans.
    """
    end = floor_hour(now)
    start = end - timedelta(days=DEMAND_DAYS)
    of_phase = {
        phase.id: PhasePeriod(phase.id, timeline.account_id, start, end)
        for timeline in found
        for phase in timeline.phases
        if phase.starts_at < end and (phase.ends_at is None or phase.ends_at > start)
    }
    owner = {phase.id: timeline.subscription_id for timeline in found for phase in timeline.phases}
    units: dict[str, dict[str, int]] = defaultdict(dict)
    for (phase_id, _), used in (await units_of_periods(session, list(of_phase.values()))).items():
        total = units[owner[phase_id]]
        for meter, count in used.items():
            if meter not in not_added:
                # an amendment may have taken more than is left of it since
                total[meter] = total.get(meter, 0) + max(0, count)
    if not_added:
        accounts = {timeline.account_id for timeline in found}
        of_accounts = await units_of_accounts(session, accounts, start=start, end=end - HOUR)
        for timeline in found:
            values = of_accounts.get((timeline.account_id, product_code), {})
            units[timeline.subscription_id].update(
                {meter: value for meter, value in values.items() if meter in not_added}
            )
    return dict(units)


def _chunks(rows: Sequence[Row[Any]]) -> list[Sequence[Row[Any]]]:
    return [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
