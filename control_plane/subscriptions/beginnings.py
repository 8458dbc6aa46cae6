"""How a subscription begins: its anchor, its trial, its first phases."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.period import anchor_on_day
from control_plane.subscriptions.model import Status
from control_plane.subscriptions.phases import open_phase
from control_plane.subscriptions.segments import Segment
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timeline import PhaseKind

HOUR = timedelta(hours=1)
LAST_DAY = 31
FARTHEST_ANCHOR = timedelta(days=3653)


def new_subscription(
    account_id: str,
    version: PlanVersion,
    *,
    anchor_at: datetime,
    time_zone: str,
    trial_ends_at: datetime | None,
    now: datetime,
) -> Subscription:
    """Return a subscription to a version, loaded with its plan, that runs from `now` on; a row not yet added.

    After a trial the paid phase is planned already; of a plan that does not go on after its trial, the end is.
    """
    ends_at = trial_ends_at if version.after_trial == "cancel" else None
    segments = [Segment(version.id, PhaseKind.PAID, now, None)]
    if trial_ends_at is not None:
        segments = [Segment(version.id, PhaseKind.TRIAL, now, trial_ends_at)]
        if ends_at is None:
            segments.append(Segment(version.id, PhaseKind.PAID, trial_ends_at, None))
    return Subscription(
        id=new_id("sub", now),
        account_id=account_id,
        api_product_id=version.plan.api_product_id,
        status=(Status.ACTIVE if trial_ends_at is None else Status.TRIALING).value,
        anchor_at=anchor_at,
        interval=version.interval,
        time_zone=time_zone,
        trial_ends_at=trial_ends_at,
        unused_time="kept",
        billed_by=version.billed_by,
        started_at=now,
        ends_at=ends_at,
        overrides={},
        created_at=now,
        phases=[open_phase(segment, now=now) for segment in segments],
        add_ons=[],
    )


def anchor_of(
    *,
    anchor_at: datetime | None,
    anchor_day: int | None,
    trial_ends_at: datetime | None,
    time_zone: str,
    now: datetime,
) -> datetime:
    """Return where billing periods begin: as asked for, where the trial ends, or the hour that holds `now`.

    Raises:
        ValidationFailedError: both were asked for, or one beside a trial; not a full hour, or far away; no day of
        a month.
    """
    asked = "anchor_at" if anchor_at is not None else "anchor_day"
    if anchor_at is not None and anchor_day is not None:
        raise ValidationFailedError("anchor_day", "give either anchor_day or anchor_at")
    if trial_ends_at is not None and (anchor_at is not None or anchor_day is not None):
        raise ValidationFailedError(
            asked, "cannot be chosen with a trial, at whose end billing periods begin; trial: false leaves it out"
        )
    if anchor_at is not None:
        if anchor_at.tzinfo is None or floor_hour(anchor_at) != anchor_at:
            raise ValidationFailedError("anchor_at", "must be a full hour, with a time zone")
        if abs(anchor_at - now) > FARTHEST_ANCHOR:
            raise ValidationFailedError("anchor_at", "must be within ten years of now")
        return anchor_at
    if anchor_day is not None:
        if not 1 <= anchor_day <= LAST_DAY:
            raise ValidationFailedError("anchor_day", f"must be between 1 and {LAST_DAY}")
        return anchor_on_day(anchor_day, time_zone, now=now)
    return floor_hour(now) if trial_ends_at is None else trial_ends_at


def trial_end(version: PlanVersion, now: datetime) -> datetime:
    """Return where a trial of the version that begins now ends: its days later, at the next full hour.

    Raises:
        ValidationFailedError: the plan has no trial.
    """
    if version.trial_days is None:
        raise ValidationFailedError("trial", f"plan {version.plan.code} has no trial")
    ends_at = now + timedelta(days=version.trial_days)
    return ends_at if floor_hour(ends_at) == ends_at else floor_hour(ends_at) + HOUR


async def accounts_new_to(session: AsyncSession, account_ids: Collection[str], *, api_product_id: str) -> set[str]:
    """Return those of the accounts that never had a subscription to the API product: a trial is given once."""
    statement = select(Subscription.account_id).where(
        is_any_of(Subscription.account_id, account_ids), Subscription.api_product_id == api_product_id
    )
    return set(account_ids) - set(await session.scalars(statement))
