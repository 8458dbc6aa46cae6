"""Founding members: who starts to pay while an offer is open gets its discount, without asking. Nothing commits.

An account is a founding member once, on one subscription: the one with which it first went onto a plan that costs
something. Accounts that paid before the offer was opened are not.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from control_plane.billing.discounts.coupons import create_coupon
from control_plane.billing.discounts.model import CouponTerms, Duration
from control_plane.billing.discounts.redeeming import add_discount
from control_plane.billing.discounts.redemption_rules import costs_something
from control_plane.billing.discounts.tables import Coupon, FirstPayment, FoundingMember, FoundingOffer
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.audit import record_change
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timeline import Timeline
from control_plane.subscriptions.timelines import timelines

SYSTEM = "system:founding"
FIRST_YEAR_MONTHS = 12


class FoundingOfferOpenError(ConflictError):
    """One offer is open at a time."""

    def __init__(self) -> None:
        super().__init__("founding_offer_open", "A founding offer is open already: close it first.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundingTerms:
    """`percent` off everything for `months`, for the first `max_accounts`, or until a moment, or both."""

    percent: Decimal
    months: int = FIRST_YEAR_MONTHS
    max_accounts: int | None = None
    until: datetime | None = None


async def open_founding_offer(
    session: AsyncSession, *, terms: FoundingTerms, actor: str, now: datetime
) -> FoundingOffer:
    """Open an offer: from now on, who starts to pay becomes a founding member.

    Raises:
        FoundingOfferOpenError: see there. ValidationFailedError: percent or months are not usable, there is no
        limit, or it is past.
    """
    if terms.max_accounts is None and terms.until is None:
        raise ValidationFailedError(
            "max_accounts", "give a number of accounts, or a moment until which it is open"
        )
    if terms.max_accounts is not None and terms.max_accounts < 1:
        raise ValidationFailedError("max_accounts", "must be at least 1")
    if terms.until is not None and terms.until <= now:
        raise ValidationFailedError("until", "must be in the future")
    if await _open_offer(session, locked=True) is not None:
        raise FoundingOfferOpenError
    offer_id = new_id("fnd", now)
    coupon = CouponTerms(
        name="Founding member", percent=terms.percent, duration=Duration.MONTHS, count=terms.months
    )
    made = await create_coupon(session, code=f"founding-{offer_id[-8:]}", terms=coupon, actor=actor, now=now)
    offer = FoundingOffer(
        id=offer_id,
        coupon_id=made.id,
        coupon=made,
        state="open",
        max_accounts=terms.max_accounts,
        until=terms.until,
        members=0,
        opened_at=now,
    )
    session.add(offer)
    await session.flush()
    await _record(session, offer, "founding_offer.opened", actor=actor, now=now)
    return offer


async def close_founding_offer(session: AsyncSession, *, actor: str, now: datetime) -> FoundingOffer:
    """Close the offer that is open. Members keep their discount.

    Raises:
        NotFoundError: none is open.
    """
    offer = await _open_offer(session, locked=True)
    if offer is None:
        raise NotFoundError("founding_offer", "that is open")
    offer.state, offer.closed_at = "closed", now
    await session.flush()
    await _record(session, offer, "founding_offer.closed", actor=actor, now=now)
    return offer


async def join_founders(
    session: AsyncSession, subscription_ids: Collection[str], *, now: datetime
) -> dict[str, int]:
    """Make founding members of the accounts of these subscriptions where the open offer is for them.

    Returns the members' numbers by subscription. To be called when a subscription begins or its plan changes, and
    before its first invoice is made; again it changes nothing. Without an open offer it is one short query.
    """
    offer = await _open_offer(session) if subscription_ids else None
    if offer is None or not _has_room(offer, now):
        return {}
    begun = await _beginners(session, subscription_ids, since=offer.opened_at, now=now)
    offer = await _open_offer(session, locked=True) if begun else None
    if offer is None:
        return {}
    taken = await _no_new_accounts(session, {timeline.account_id for timeline, _ in begun})
    joined: dict[str, int] = {}
    for timeline, first in begun:
        if timeline.account_id not in taken and _has_room(offer, now):
            taken.add(timeline.account_id)
            joined[timeline.subscription_id] = await _join(session, offer, timeline, first=first, now=now)
    return joined


async def _beginners(
    session: AsyncSession, subscription_ids: Collection[str], *, since: datetime, now: datetime
) -> list[tuple[Timeline, datetime]]:
    """Return subscriptions of new accounts that came onto a plan that costs something since then, in their order.

    With the start of the billing period in which that was, also where nobody looked until a later one.
    """
    accounts = select(Subscription.account_id).where(is_any_of(Subscription.id, subscription_ids))
    payers = set(await session.scalars(accounts))
    new = payers - await _no_new_accounts(session, payers)
    # all that they ever had: who was on a plan that costs something before, of whatever product, is not new
    had = select(Subscription.id).where(is_any_of(Subscription.account_id, new))
    found = await timelines(session, (await session.scalars(had)).all())
    versions = await plan_versions(session, {key for one in found.values() for key in one.version_ids})
    begins_at = {key: _begins_to_pay(timeline, versions) for key, timeline in found.items()}
    old = {one.account_id for key, one in found.items() if (begins_at[key] or now) < since}
    begun, asked = [], set(subscription_ids)
    for timeline in sorted(found.values(), key=lambda one: (one.started_at, one.subscription_id)):
        begins = begins_at[timeline.subscription_id]
        if timeline.subscription_id not in asked or timeline.account_id in old:
            continue
        if begins is None or not since <= begins <= now:
            continue
        first = timeline.period_at(begins).start
        if timeline.status in OVER or (timeline.ends_at is not None and timeline.ends_at <= max(first, now)):
            continue
        begun.append((timeline, first))
    return begun


async def _open_offer(session: AsyncSession, *, locked: bool = False) -> FoundingOffer | None:
    statement = (
        select(FoundingOffer).where(FoundingOffer.state == "open").execution_options(populate_existing=True)
    )
    if not locked:
        return (await session.scalars(statement)).one_or_none()
    offer = (await session.scalars(statement.with_for_update())).one_or_none()
    if offer is not None:
        coupon = select(Coupon).where(Coupon.id == offer.coupon_id).with_for_update()
        offer.coupon = (await session.scalars(coupon.execution_options(populate_existing=True))).one()
    return offer


def _has_room(offer: FoundingOffer, now: datetime) -> bool:
    if offer.until is not None and offer.until <= now:
        return False
    return offer.max_accounts is None or offer.members < offer.max_accounts


async def _no_new_accounts(session: AsyncSession, account_ids: set[str]) -> set[str]:
    members = select(FoundingMember.account_id).where(is_any_of(FoundingMember.account_id, account_ids))
    payers = select(FirstPayment.account_id).where(is_any_of(FirstPayment.account_id, account_ids))
    return {*await session.scalars(members), *await session.scalars(payers)}


def _begins_to_pay(timeline: Timeline, versions: Mapping[str, PlanVersion]) -> datetime | None:
    """Return when the subscription first is on a plan that costs something, or is on trial of one."""
    paid = (phase.starts_at for phase in timeline.phases if costs_something(versions[phase.plan_version_id]))
    return next(paid, None)


async def _join(
    session: AsyncSession, offer: FoundingOffer, timeline: Timeline, *, first: datetime, now: datetime
) -> int:
    discount = await add_discount(
        session, timeline=timeline, coupon=offer.coupon, source="founding", begins=first, actor=SYSTEM, now=now
    )
    offer.members += 1
    session.add(
        FoundingMember(
            account_id=timeline.account_id,
            offer_id=offer.id,
            number=offer.members,
            discount_id=discount.id,
            joined_at=now,
        )
    )
    await session.flush()
    return offer.members


async def offer_for_buyer(
    session: AsyncSession, account_id: str, *, promised: int, now: datetime
) -> FoundingOffer | None:
    """Return the open offer, locked with its coupon, if the account would become a member by buying now.

    `promised`: to how many others the offer is held open while they buy.
    """
    offer = await _open_offer(session, locked=True)
    if offer is None or not _has_room(offer, now):
        return None
    if offer.max_accounts is not None and offer.members + promised >= offer.max_accounts:
        return None
    if await _no_new_accounts(session, {account_id}):
        return None
    had = (await session.scalars(select(Subscription.id).where(Subscription.account_id == account_id))).all()
    found = await timelines(session, had)
    versions = await plan_versions(session, {key for one in found.values() for key in one.version_ids})
    paid_before = any(_begins_to_pay(timeline, versions) is not None for timeline in found.values())
    return None if paid_before else offer


async def current_offer(session: AsyncSession) -> FoundingOffer | None:
    """Return the offer that is open, else the last one, with its coupon; None where there never was one."""
    statement = (
        select(FoundingOffer)
        .options(joinedload(FoundingOffer.coupon))
        .order_by(FoundingOffer.closed_at.desc().nulls_first())
        .limit(1)
    )
    return (await session.scalars(statement)).first()


async def _record(session: AsyncSession, offer: FoundingOffer, action: str, *, actor: str, now: datetime) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="founding_offer",
        entity_id=offer.id,
        before=None,
        after={
            "state": offer.state,
            "coupon_id": offer.coupon_id,
            "max_accounts": offer.max_accounts,
            "until": None if offer.until is None else offer.until.isoformat(),
            "members": offer.members,
        },
        now=now,
    )
