"""Subscriptions: which plan an account is on, for each API product."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts import queries as account_queries
from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    AccountId,
    Code,
    Moment,
    MoneyAnswer,
    StrictBody,
    SubscriptionId,
    Units,
    WindowForm,
)
from control_plane.admin_api.resources.fitting_plans import FittingPlanAnswer, fitting_plan
from control_plane.admin_api.services import Now
from control_plane.billing.operations import require_cap_kept
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.rules import MAX_CONCURRENCY
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.unset import UNSET
from control_plane.foundation.windows import MAX_WINDOWS
from control_plane.subscriptions import operations, own_terms, queries, statuses
from control_plane.subscriptions.queries import current_and_next_period, phase_at
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from gateway_contract.records import Window

router = APIRouter(tags=["subscriptions"])

PlanCode = Annotated[
    Code, Field(description="The plan's code; its version on sale is taken.", examples=["starter"])
]
AllowUnlisted = Annotated[bool, Field(strict=True, description="Permit hidden plans and plans sold by quote.")]
At = Annotated[Literal["now", "period_end"], Field(description="`now`, or when the billing period ends.")]


class CreateSubscription(StrictBody):
    plan: PlanCode
    anchor_at: Annotated[
        Moment | None,
        Field(description="Where billing periods begin: a full hour. By default the hour that holds now."),
    ] = None
    allow_unlisted: AllowUnlisted = False


class ChangePlan(StrictBody):
    plan: PlanCode
    at: At = "now"
    allow_unlisted: AllowUnlisted = False


class CancelSubscription(StrictBody):
    at: At


class OverrideLimits(StrictBody):
    """What is left out stays as it is; null goes back to the plan's."""

    windows: Annotated[list[WindowForm] | None, Field(max_length=MAX_WINDOWS)] = None
    quota_units: Units | None = None
    quota_cap_units: Annotated[
        Units | None, Field(description="Where a quota that charges refuses after all; more than the quota.")
    ] = None
    concurrency_limit: Annotated[
        int | None,
        Field(
            strict=True, ge=1, le=MAX_CONCURRENCY, description="Calls at a time, where the plan has such a limit."
        ),
    ] = None


class ChangeStatus(StrictBody):
    status: Annotated[
        Literal["active", "past_due", "paused"],
        Field(description="`past_due`: a payment failed; `paused`: no calls until it is `active` again."),
    ]


class PhaseAnswer(BaseModel):
    """One plan version for [starts_at, ends_at)."""

    id: str
    plan: str
    plan_name: str
    plan_version: int
    starts_at: Moment
    ends_at: Moment | None


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
    current_period: PeriodAnswer
    started_at: Moment
    canceled_at: Moment | None
    ends_at: Moment | None
    windows_override: list[WindowForm] | None
    quota_units_override: int | None
    quota_cap_units_override: int | None
    concurrency_limit_override: int | None
    spend_cap: MoneyAnswer | None = Field(description="The most to pay for a billing period, before tax.")
    phases: list[PhaseAnswer] = Field(description="In order of time; planned changes too.")


class SubscriptionDetailAnswer(SubscriptionAnswer):
    fitting_plan: FittingPlanAnswer | None = Field(description="Null while there is no usage.")


class SubscriptionsAnswer(BaseModel):
    items: list[SubscriptionAnswer]


async def answers(session: AsyncSession, rows: list[Subscription], now: datetime) -> list[SubscriptionAnswer]:
    """Return answers for rows with their phases loaded."""
    versions = await plan_versions(session, {phase.plan_version_id for row in rows for phase in row.phases})
    return [_answer(row, versions, now) for row in rows]


def _answer(row: Subscription, versions: dict[str, PlanVersion], now: datetime) -> SubscriptionAnswer:
    phases = [_phase(phase, versions[phase.plan_version_id]) for phase in row.phases]
    in_force = phase_at(row, now)
    current = next((phase for phase in phases if in_force is not None and phase.id == in_force.id), None)
    period = current_and_next_period(row, now)[0]
    windows = row.overrides.get("windows")
    return SubscriptionAnswer(
        id=row.id,
        account_id=row.account_id,
        api_product=versions[row.phases[0].plan_version_id].plan.api_product.code,
        status=row.status,
        plan=current and current.plan,
        plan_name=current and current.plan_name,
        plan_version=current and current.plan_version,
        interval=row.interval,
        anchor_at=row.anchor_at,
        current_period=PeriodAnswer(start=period.start, end=period.end),
        started_at=row.started_at,
        canceled_at=row.canceled_at,
        ends_at=row.ends_at,
        windows_override=None if windows is None else [WindowForm(**window) for window in windows],
        quota_units_override=row.overrides.get("quota_units"),
        quota_cap_units_override=row.overrides.get("quota_cap_units"),
        concurrency_limit_override=row.overrides.get("concurrency_limit"),
        spend_cap=None
        if row.spend_cap_minor is None
        else MoneyAnswer.of(row.spend_cap_minor, versions[row.phases[0].plan_version_id].currency),
        phases=phases,
    )


def _phase(phase: SubscriptionPhase, version: PlanVersion) -> PhaseAnswer:
    return PhaseAnswer(
        id=phase.id,
        plan=version.plan.code,
        plan_name=version.plan.name,
        plan_version=version.version,
        starts_at=phase.starts_at,
        ends_at=phase.ends_at,
    )


async def _one(session: AsyncSession, row: Subscription, now: datetime) -> SubscriptionAnswer:
    return (await answers(session, [row], now))[0]


@router.post("/accounts/{account_id}/subscriptions", status_code=201)
async def create_subscription(
    account_id: AccountId, body: CreateSubscription, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """Put an account on a plan from now on. At most one live subscription for each API product."""
    row = await operations.subscribe(
        session,
        account_id=account_id,
        plan_code=body.plan,
        anchor_at=body.anchor_at,
        allow_unlisted=body.allow_unlisted,
        actor=caller.actor,
        now=now,
    )
    return await _one(session, row, now)


@router.get("/accounts/{account_id}/subscriptions")
async def list_subscriptions(account_id: AccountId, session: Database, now: Now) -> SubscriptionsAnswer:
    """List an account's subscriptions, those that are over too, newest first."""
    await account_queries.account(session, account_id)
    rows = await queries.subscriptions_of_account(session, account_id)
    return SubscriptionsAnswer(items=await answers(session, list(rows), now))


@router.get("/subscriptions/{subscription_id}")
async def get_subscription(
    subscription_id: SubscriptionId, session: Database, now: Now
) -> SubscriptionDetailAnswer:
    """Return one subscription, with the plan that would have fitted its last 30 days."""
    found = await _one(session, await queries.subscription(session, subscription_id), now)
    return SubscriptionDetailAnswer(
        **found.model_dump(), fitting_plan=await fitting_plan(session, subscription_id)
    )


@router.post("/subscriptions/{subscription_id}/change")
async def change_plan(
    subscription_id: SubscriptionId, body: ChangePlan, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """Move to the version of a plan that is on sale, now or at period end. Replaces a change planned before."""
    effective_at = None
    if body.at == "period_end":
        subscription = await queries.subscription(session, subscription_id)
        effective_at = current_and_next_period(subscription, now)[0].end
    row = await operations.change_plan(
        session,
        subscription_id=subscription_id,
        plan_code=body.plan,
        effective_at=effective_at,
        allow_unlisted=body.allow_unlisted,
        actor=caller.actor,
        now=now,
    )
    await require_cap_kept(session, row, now=now)
    return await _one(session, row, now)


@router.post("/subscriptions/{subscription_id}/cancel")
async def cancel_subscription(
    subscription_id: SubscriptionId, body: CancelSubscription, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """End it now, or when the billing period ends. Plan changes planned for later are dropped."""
    row = await operations.cancel(
        session, subscription_id=subscription_id, at=body.at, actor=caller.actor, now=now
    )
    return await _one(session, row, now)


@router.post("/subscriptions/{subscription_id}/keep")
async def keep_subscription(
    subscription_id: SubscriptionId, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """Take a cancellation at period end back. Without one nothing changes."""
    row = await operations.withdraw_cancellation(
        session, subscription_id=subscription_id, actor=caller.actor, now=now
    )
    return await _one(session, row, now)


@router.post("/subscriptions/{subscription_id}/status")
async def change_status(
    subscription_id: SubscriptionId, body: ChangeStatus, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """Say that a payment failed or arrived, pause it or resume it; gateways know within a second. Repeatable."""
    row = await statuses.change_status(
        session, subscription_id=subscription_id, status=body.status, actor=caller.actor, now=now
    )
    return await _one(session, row, now)


@router.post("/subscriptions/{subscription_id}/override")
async def override_limits(
    subscription_id: SubscriptionId, body: OverrideLimits, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """Give one subscription limits of its own in place of its plan's."""
    given = body.model_fields_set
    windows = (
        None if body.windows is None else [Window(limit=w.limit, window_ms=w.window_ms) for w in body.windows]
    )
    row = await own_terms.override_limits(
        session,
        subscription_id=subscription_id,
        windows=windows if "windows" in given else UNSET,
        quota_units=body.quota_units if "quota_units" in given else UNSET,
        quota_cap_units=body.quota_cap_units if "quota_cap_units" in given else UNSET,
        concurrency_limit=body.concurrency_limit if "concurrency_limit" in given else UNSET,
        actor=caller.actor,
        now=now,
    )
    return await _one(session, row, now)
