"""What is known of one request: whether it is billed and why, its hour, and its row of the rollup."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.foundation.clock import floor_hour, from_ms, to_ms
from control_plane.keys.tables import ApiKey
from control_plane.subscriptions.tables import SubscriptionPhase
from control_plane.usage.corrections.queries import voided_events
from control_plane.usage.model import FLAG_BAD_RECEIPT, FLAG_REPLAYED, HourKey
from control_plane.usage.reads import phases_of_hours
from control_plane.usage.rollups.rollup import DEFAULT_STATUSES, NO_PHASE, PhaseTerms
from control_plane.usage.tables import TouchedHour, UnmatchedReplay, UsageHour, UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.usage_events import UsageEvent, is_billable


class BillingReason(StrEnum):
    """Why a request is billed or not; the first that holds."""

    NO_ACCOUNT = "no_account"
    VOIDED = "voided"
    TEST_MODE = "test_mode"
    REFUSED = "refused"
    STATUS_NOT_BILLED = "status_not_billed"
    REPLAYED = "replayed"
    BILLABLE = "billable"


class HourState(StrEnum):
    """`waiting`: the request is not counted yet. `open`: counted, figures may change. `sealed`: final so far."""

    WAITING = "waiting"
    OPEN = "open"
    SEALED = "sealed"


IN_WORDS = {
    BillingReason.NO_ACCOUNT: "The call belongs to no account: no key, an unknown one, or no receipt.",
    BillingReason.VOIDED: "It was taken out of the count by a correction.",
    BillingReason.TEST_MODE: "It was made with a test key.",
    BillingReason.REFUSED: "The gateway refused it.",
    BillingReason.STATUS_NOT_BILLED: "The plan does not bill answers with this status.",
    BillingReason.REPLAYED: "The upstream repeated an answer that was billed before.",
    BillingReason.BILLABLE: "It is counted and billed.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseOfRequest:
    """The terms under which the request was made."""

    phase_id: str
    subscription_id: str
    plan: str
    plan_version: int
    billed_below_status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupRow:
    """The row of the rollup that the request is counted in, with its figures."""

    phase_id: str
    product: str
    mode: str
    key_id: str
    endpoint: str
    status: int
    outcome: str
    replayed: bool
    calls: int
    units: int
    billable_calls: int
    billable_units: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDetail:
    """One request with all that follows from it. `receipt_id` is '' for a line that came without a receipt.

    `hour_revision` counts how often the hour's figures changed. `rollup` is None while the request waits, or where
    it counts nothing.
    """

    event: UsageEvent
    receipt_id: str
    key_name: str
    billed: bool
    reason: BillingReason
    phase: PhaseOfRequest | None
    hour: datetime
    hour_state: HourState
    hour_revision: int
    aggregated_at: datetime | None
    sealed_at: datetime | None
    rollup: RollupRow | None


async def request_detail(session: AsyncSession, event: UsageEvent) -> RequestDetail:
    """Return what is known of a stored event."""
    hour = floor_hour(from_ms(event.occurred_at_ms))
    key = HourKey(event.account_id, to_ms(hour))
    terms = (await phases_of_hours(session, [key])).get((event.account_id, event.product), [])
    phase = next((found for found in terms if event.occurred_at_ms in found), None)
    statuses = phase.billable_statuses if phase else DEFAULT_STATUSES
    would_be = is_billable(
        account_id=event.account_id, mode=Mode.LIVE, outcome=event.outcome, status=event.status, statuses=statuses
    )
    replayed = FLAG_REPLAYED in event.flags and would_be and not await _is_unmatched(session, event, hour)
    voided = await voided_events(session, account_id=event.account_id, event_ids=[event.event_id])
    reason = BillingReason.VOIDED if voided else _reason(event, replayed=replayed, would_be=would_be)
    row = await session.scalar(
        select(UsageHour).where(UsageHour.account_id == event.account_id, UsageHour.hour == hour)
    )
    state = await _state(session, row, account_id=event.account_id, hour=hour)
    return RequestDetail(
        event=event,
        receipt_id="" if _without_receipt(event) else event.event_id,
        key_name=await session.scalar(select(ApiKey.name).where(ApiKey.id == event.key_id)) or "",
        billed=reason is BillingReason.BILLABLE,
        reason=reason,
        phase=await _phase(session, phase),
        hour=hour,
        hour_state=state,
        hour_revision=row.revision if row else 0,
        aggregated_at=row.aggregated_at if row else None,
        sealed_at=row.sealed_at if row else None,
        rollup=await _rollup_row(session, event, hour=hour, phase=phase, replayed=replayed)
        if state is not HourState.WAITING and reason is not BillingReason.VOIDED
        else None,
    )


def _without_receipt(event: UsageEvent) -> bool:
    return event.event_id == event.request_id or FLAG_BAD_RECEIPT in event.flags


def _reason(event: UsageEvent, *, replayed: bool, would_be: bool) -> BillingReason:
    if not event.account_id:
        return BillingReason.NO_ACCOUNT
    if event.mode is not Mode.LIVE:
        return BillingReason.TEST_MODE
    if event.outcome is not Outcome.SERVED:
        return BillingReason.REFUSED
    if not would_be:
        return BillingReason.STATUS_NOT_BILLED
    return BillingReason.REPLAYED if replayed else BillingReason.BILLABLE


async def _state(session: AsyncSession, row: UsageHour | None, *, account_id: str, hour: datetime) -> HourState:
    mark = exists().where(TouchedHour.account_id == account_id, TouchedHour.hour == hour)
    touched = await session.scalar(select(mark))
    if row is None or row.aggregated_at is None or touched:
        return HourState.WAITING
    return HourState.OPEN if row.sealed_at is None else HourState.SEALED


async def _is_unmatched(session: AsyncSession, event: UsageEvent, hour: datetime) -> bool:
    found = exists().where(
        UnmatchedReplay.account_id == event.account_id,
        UnmatchedReplay.hour == hour,
        UnmatchedReplay.event_id == event.event_id,
    )
    return bool(await session.scalar(select(found)))


async def _phase(session: AsyncSession, phase: PhaseTerms | None) -> PhaseOfRequest | None:
    if phase is None:
        return None
    row = (
        await session.execute(
            select(SubscriptionPhase.subscription_id, Plan.code, PlanVersion.version)
            .join(PlanVersion, PlanVersion.id == SubscriptionPhase.plan_version_id)
            .join(Plan, Plan.id == PlanVersion.plan_id)
            .where(SubscriptionPhase.id == phase.phase_id)
        )
    ).one()
    return PhaseOfRequest(
        phase_id=phase.phase_id,
        subscription_id=row.subscription_id,
        plan=row.code,
        plan_version=row.version,
        billed_below_status=phase.billable_statuses.stop,
    )


async def _rollup_row(
    session: AsyncSession, event: UsageEvent, *, hour: datetime, phase: PhaseTerms | None, replayed: bool
) -> RollupRow | None:
    row = await session.scalar(
        select(UsageHourly).where(
            UsageHourly.account_id == event.account_id,
            UsageHourly.hour == hour,
            UsageHourly.phase_id == (phase.phase_id if phase else NO_PHASE),
            UsageHourly.product == event.product,
            UsageHourly.mode == event.mode.value,
            UsageHourly.key_id == event.key_id,
            UsageHourly.endpoint == event.endpoint,
            UsageHourly.status == event.status,
            UsageHourly.outcome == event.outcome.value,
            UsageHourly.replayed == replayed,
            UsageHourly.amendment_id == "",
        )
    )
    if row is None:
        return None
    names = RollupRow.__dataclass_fields__
    return RollupRow(**{name: getattr(row, name) for name in names})
