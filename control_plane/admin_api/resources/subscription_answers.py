"""What is told of subscriptions: phases, periods, add-ons."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.admin_api.discount_forms import DiscountAnswer
from control_plane.admin_api.forms import Moment, MoneyAnswer, WindowForm
from control_plane.admin_api.resources.fitting_plans import FittingPlanAnswer
from control_plane.admin_api.stripe_changes import StripeChangeAnswer
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import ApiProduct, PlanVersion
from control_plane.stripe_sync.subscriptions.changes import open_changes
from control_plane.subscriptions.queries import current_and_next_period, phase_at
from control_plane.subscriptions.tables import Subscription, SubscriptionAddOn, SubscriptionPhase


class PhaseAnswer(BaseModel):
    """One plan version, of one kind and with the same add-ons, for [starts_at, ends_at)."""

    id: str
    plan: str
    plan_name: str
    plan_version: int
    kind: str = Field(description="`paid`; `trial` and `paused` cost nothing.")
    starts_at: Moment
    ends_at: Moment | None


class AddOnAnswer(BaseModel):
    """An add-on beside the plan for [starts_at, ends_at)."""

    add_on: str = Field(description="Its code.")
    name: str
    version: int
    quantity: int
    starts_at: Moment
    ends_at: Moment | None = Field(description="Ahead: it will be removed then.")


class PeriodAnswer(BaseModel):
    """[start, end)."""

    start: Moment
    end: Moment


class SubscriptionAnswer(BaseModel):
    id: str
    account_id: str
    api_product: str
    status: str = Field(description="`trialing`, `active`, `past_due`, `paused`, `canceled` or `ended`.")
    plan: str | None = Field(description="Code of the plan in force; null before the first and after the last.")
    plan_name: str | None
    plan_version: int | None
    interval: str
    anchor_at: Moment
    time_zone: str = Field(description="Periods follow its wall clock, cut down to full UTC hours.")
    current_period: PeriodAnswer
    started_at: Moment
    canceled_at: Moment | None
    ends_at: Moment | None
    trial_ends_at: Moment | None
    unused_time: str = Field(description="`kept` or `credited`, when it was cancelled before its end.")
    billed_by: str = Field(description="`own` invoices or `stripe`.")
    windows_override: list[WindowForm] | None
    quota_units_override: int | None
    quota_cap_units_override: int | None
    concurrency_limit_override: int | None
    spend_cap: MoneyAnswer | None = Field(description="The most to pay for a billing period, before tax.")
    phases: list[PhaseAnswer] = Field(description="In order of time; planned changes too.")
    add_ons: list[AddOnAnswer] = Field(description="In force now or later, oldest first.")
    stripe_change: StripeChangeAnswer | None = Field(
        description="Where Stripe bills it: what was wanted of Stripe and is not through."
    )


class ChangedSubscriptionAnswer(SubscriptionAnswer):
    changed_at: Literal["now", "period_end"] = Field(description="Which of the two was taken.")
    effective_at: Moment = Field(description="When the plan changes.")


class SubscriptionDetailAnswer(SubscriptionAnswer):
    fitting_plan: FittingPlanAnswer | None = Field(description="Null while there is no usage.")
    discounts: list[DiscountAnswer] = Field(description="In the order in which they apply; past ones too.")


class SubscriptionsAnswer(BaseModel):
    items: list[SubscriptionAnswer]


async def answers(session: AsyncSession, rows: list[Subscription], now: datetime) -> list[SubscriptionAnswer]:
    """Return answers for rows with their phases and add-ons loaded."""
    phases = {phase.plan_version_id for row in rows for phase in row.phases}
    versions = await plan_versions(
        session, phases | {held.plan_version_id for row in rows for held in row.add_ons}
    )
    products = select(ApiProduct.id, ApiProduct.code).where(
        ApiProduct.id.in_({row.api_product_id for row in rows})
    )
    currencies = select(Account.id, Account.currency).where(Account.id.in_({row.account_id for row in rows}))
    known = _Known(
        versions=versions,
        products=dict((await session.execute(products)).all()),
        currencies=dict((await session.execute(currencies)).all()),
        changes={
            subscription_id: StripeChangeAnswer.of(change)
            for subscription_id, change in (await open_changes(session, {row.id for row in rows})).items()
        },
    )
    return [_answer(row, known, now) for row in rows]


async def one_answer(session: AsyncSession, row: Subscription, now: datetime) -> SubscriptionAnswer:
    return (await answers(session, [row], now))[0]


@dataclass(frozen=True, slots=True)
class _Known:
    """What rows speak of, by id: plan versions, API products' codes, accounts' currencies, changes at Stripe."""

    versions: dict[str, PlanVersion]
    products: dict[str, str]
    currencies: dict[str, str]
    changes: dict[str, StripeChangeAnswer]


def _answer(row: Subscription, known: _Known, now: datetime) -> SubscriptionAnswer:
    versions = known.versions
    phases = [_phase(phase, versions[phase.plan_version_id]) for phase in row.phases]
    in_force = phase_at(row, now)
    current = next((phase for phase in phases if in_force is not None and phase.id == in_force.id), None)
    period = current_and_next_period(row, now)[0]
    windows = row.overrides.get("windows")
    return SubscriptionAnswer(
        id=row.id,
        account_id=row.account_id,
        api_product=known.products[row.api_product_id],
        status=row.status,
        plan=current and current.plan,
        plan_name=current and current.plan_name,
        plan_version=current and current.plan_version,
        interval=row.interval,
        anchor_at=row.anchor_at,
        time_zone=row.time_zone,
        current_period=PeriodAnswer(start=period.start, end=period.end),
        started_at=row.started_at,
        canceled_at=row.canceled_at,
        ends_at=row.ends_at,
        trial_ends_at=row.trial_ends_at,
        unused_time=row.unused_time,
        billed_by=row.billed_by,
        windows_override=None if windows is None else [WindowForm(**window) for window in windows],
        quota_units_override=row.overrides.get("quota_units"),
        quota_cap_units_override=row.overrides.get("quota_cap_units"),
        concurrency_limit_override=row.overrides.get("concurrency_limit"),
        spend_cap=None
        if row.spend_cap_minor is None
        else MoneyAnswer.of(row.spend_cap_minor, known.currencies[row.account_id]),
        phases=phases,
        add_ons=[
            _add_on(held, versions[held.plan_version_id])
            for held in row.add_ons
            if held.ends_at is None or held.ends_at > now
        ],
        stripe_change=known.changes.get(row.id),
    )


def _phase(phase: SubscriptionPhase, version: PlanVersion) -> PhaseAnswer:
    return PhaseAnswer(
        id=phase.id,
        kind=phase.kind,
        plan=version.plan.code,
        plan_name=version.plan.name,
        plan_version=version.version,
        starts_at=phase.starts_at,
        ends_at=phase.ends_at,
    )


def _add_on(held: SubscriptionAddOn, version: PlanVersion) -> AddOnAnswer:
    return AddOnAnswer(
        add_on=version.plan.code,
        name=version.plan.name,
        version=version.version,
        quantity=held.quantity,
        starts_at=held.starts_at,
        ends_at=held.ends_at,
    )
