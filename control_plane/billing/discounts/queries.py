"""Reading coupons, promotion codes and discounts."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from control_plane.accounts.tables import Account
from control_plane.billing.discounts.model import Discount, Duration, Taken, discount_name
from control_plane.billing.discounts.redemption_rules import months_end
from control_plane.billing.discounts.tables import Coupon, DiscountRow, DiscountUse, PromotionCode
from control_plane.billing.line_scopes import LineScope
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import Page, decode_cursor, page_of
from control_plane.subscriptions.tables import Subscription

# columns, not mapped objects: closing reads these of a hundred thousand subscriptions
_DISCOUNT = (
    DiscountRow.id,
    DiscountRow.subscription_id,
    DiscountRow.holds_from,
    DiscountRow.ends_at,
    Coupon.name,
    Coupon.percent,
    Coupon.amount_minor,
    Coupon.currency,
    Coupon.duration,
    Coupon.count.label("limit"),  # a row has a method `count`
    Coupon.scope,
    Coupon.plan_codes,
    Subscription.anchor_at,
    Subscription.interval,
    Subscription.time_zone,
)
ORDER = (DiscountRow.created_at, DiscountRow.id)


@dataclass(frozen=True, slots=True)
class HeldDiscount:
    """A discount's row, with coupon and promotion code, when it ends, and what it has taken off."""

    row: DiscountRow
    ends_at: datetime | None
    taken_minor: int
    periods_taken: int

    @property
    def periods_left(self) -> int | None:
        """Return how many more billing periods it holds for, None where they are not counted."""
        limit = counted_periods(self.row.coupon.duration, self.row.coupon.count)
        return None if limit is None else max(0, limit - self.periods_taken)

    def is_over(self, now: datetime) -> bool:
        """Say whether it holds for no billing period that is still to come."""
        ended = self.ends_at is not None and self.ends_at <= now
        return ended or self.row.removed_at is not None or self.periods_left == 0


def counted_periods(duration: str, count: int | None) -> int | None:
    """Return for how many billing periods a discount holds, None where another limit, or none, is set."""
    if duration == Duration.ONCE:
        return 1
    return count if duration == Duration.PERIODS else None


async def discounts_with_memory(
    session: AsyncSession, subscription_ids: Collection[str], *, locked: bool
) -> dict[str, tuple[Discount, ...]]:
    """Return discounts by subscription, in their order, with what they took off so far."""
    statement = (
        select(*_DISCOUNT)
        .join(Coupon, Coupon.id == DiscountRow.coupon_id)
        .join(Subscription, Subscription.id == DiscountRow.subscription_id)
        .where(is_any_of(DiscountRow.subscription_id, subscription_ids), DiscountRow.removed_at.is_(None))
        .order_by(DiscountRow.id)  # by age; and all lock in one order, so nobody waits in a circle
    )
    if locked:
        statement = statement.with_for_update(of=DiscountRow)
    rows = (await session.execute(statement)).all()
    taken = await _taken(session, [row.id for row in rows])
    found: dict[str, list[Discount]] = defaultdict(list)
    for row in rows:
        memory = taken.get(row.id, {})
        found[row.subscription_id].append(
            Discount(
                id=row.id,
                subscription_id=row.subscription_id,
                name=discount_name(
                    row.name, percent=row.percent, amount_minor=row.amount_minor, currency=row.currency
                ),
                percent=row.percent,
                amount_minor=row.amount_minor,
                currency=row.currency,
                scope=LineScope(row.scope),
                plan_codes=frozenset(row.plan_codes),
                holds_from=row.holds_from,
                ends_at=_ends_at(row, row.duration, row.limit, row),
                periods=counted_periods(row.duration, row.limit),
                periods_taken=frozenset(start for (start, _), part in memory.items() if part.base_minor > 0),
                taken=memory,
            )
        )
    return {subscription_id: tuple(discounts) for subscription_id, discounts in found.items()}


async def _taken(
    session: AsyncSession, discount_ids: Collection[str]
) -> dict[str, dict[tuple[datetime, str], Taken]]:
    if not discount_ids:
        return {}
    statement = (
        select(
            DiscountUse.discount_id,
            DiscountUse.period_start,
            DiscountUse.charge_key,
            func.sum(DiscountUse.base_minor),
            func.sum(DiscountUse.amount_minor),
        )
        .where(is_any_of(DiscountUse.discount_id, discount_ids))
        .group_by(DiscountUse.discount_id, DiscountUse.period_start, DiscountUse.charge_key)
    )
    found: dict[str, dict[tuple[datetime, str], Taken]] = defaultdict(dict)
    for discount_id, period_start, charge_key, base, amount in await session.execute(statement):
        found[discount_id][period_start, charge_key] = Taken(int(base), int(amount))
    return found


async def discounts_of(session: AsyncSession, subscription_id: str) -> list[HeldDiscount]:
    """Return all discounts that a subscription has or had, in the order in which they apply."""
    statement = _whole().where(DiscountRow.subscription_id == subscription_id).order_by(*ORDER)
    return await _held(session, (await session.scalars(statement)).all())


async def held_discount(session: AsyncSession, discount_id: str) -> HeldDiscount:
    """Return one discount with what it has taken off.

    Raises:
        NotFoundError: there is none.
    """
    (held,) = await _held(session, [await discount_row(session, discount_id)])
    return held


async def discount_row(session: AsyncSession, discount_id: str) -> DiscountRow:
    """Return a discount with its coupon and promotion code.

    Raises:
        NotFoundError: there is none.
    """
    statement = _whole().where(DiscountRow.id == discount_id)
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFoundError("discount", discount_id)
    return found


async def coupon(session: AsyncSession, code: str) -> Coupon:
    """Return one coupon.

    Raises:
        NotFoundError: there is none.
    """
    found = await session.scalar(select(Coupon).where(Coupon.code == code))
    if found is None:
        raise NotFoundError("coupon", code)
    return found


async def coupon_page(
    session: AsyncSession, *, limit: int, cursor: str | None = None, archived: bool = False
) -> Page[Coupon]:
    """Return coupons, newest first; with `archived` those that are not given any more, too.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = select(Coupon).order_by(Coupon.created_at.desc(), Coupon.id.desc()).limit(limit + 1)
    if not archived:
        statement = statement.where(Coupon.archived_at.is_(None))
    if cursor:
        statement = statement.where(tuple_(Coupon.created_at, Coupon.id) < decode_cursor(cursor, datetime, str))
    return page_of((await session.scalars(statement)).all(), limit=limit, sort_values=_newest)


async def promotion_code_page(
    session: AsyncSession,
    *,
    limit: int,
    cursor: str | None = None,
    coupon_code: str | None = None,
    archived: bool = False,
) -> Page[PromotionCode]:
    """Return promotion codes with their coupons, newest first, of one coupon or of all.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = (
        select(PromotionCode)
        .options(joinedload(PromotionCode.coupon))
        .order_by(PromotionCode.created_at.desc(), PromotionCode.id.desc())
        .limit(limit + 1)
    )
    if coupon_code is not None:
        statement = statement.join(Coupon).where(Coupon.code == coupon_code)
    if not archived:
        statement = statement.where(PromotionCode.archived_at.is_(None))
    if cursor:
        after = decode_cursor(cursor, datetime, str)
        statement = statement.where(tuple_(PromotionCode.created_at, PromotionCode.id) < after)
    return page_of((await session.scalars(statement)).all(), limit=limit, sort_values=_newest)


async def taken_off(session: AsyncSession, coupon_ids: Collection[str]) -> dict[str, dict[str, int]]:
    """Return what coupons have taken off final invoices: minor units by coupon and currency."""
    statement = (
        select(DiscountRow.coupon_id, Account.currency, func.sum(DiscountUse.amount_minor))
        .join(DiscountUse, DiscountUse.discount_id == DiscountRow.id)
        .join(Account, Account.id == DiscountRow.account_id)
        .where(is_any_of(DiscountRow.coupon_id, coupon_ids))
        .group_by(DiscountRow.coupon_id, Account.currency)
        .order_by(Account.currency)
    )
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for coupon_id, currency, amount in await session.execute(statement):
        found[coupon_id][currency] = int(amount)
    return found


def _newest(row: Coupon | PromotionCode) -> tuple[datetime, str]:
    return row.created_at, row.id


def _whole() -> Select[DiscountRow]:
    return (
        select(DiscountRow)
        .options(joinedload(DiscountRow.coupon), joinedload(DiscountRow.promotion_code))
        .execution_options(populate_existing=True)
    )


async def _held(session: AsyncSession, rows: Sequence[DiscountRow]) -> list[HeldDiscount]:
    used = await _used(session, [row.id for row in rows])
    ids = {row.subscription_id for row in rows}
    subscriptions = {
        subscription.id: subscription
        for subscription in await session.scalars(select(Subscription).where(is_any_of(Subscription.id, ids)))
    }
    return [
        HeldDiscount(
            row,
            _ends_at(row, row.coupon.duration, row.coupon.count, subscriptions[row.subscription_id]),
            *used.get(row.id, (0, 0)),
        )
        for row in rows
    ]


def _ends_at(
    row: DiscountRow | Row[*tuple[Any, ...]],
    duration: str,
    count: int | None,
    subscription: Subscription | Row[*tuple[Any, ...]],
) -> datetime | None:
    """Return when a discount ends: as it was set, else so many months from the end of the trial."""
    ends_at: datetime | None = row.ends_at
    if ends_at is not None or duration != Duration.MONTHS or count is None:
        return ends_at
    return months_end(
        count,
        begins=row.holds_from,
        anchor_at=subscription.anchor_at,
        interval=subscription.interval,
        time_zone=subscription.time_zone,
    )


async def _used(session: AsyncSession, discount_ids: Collection[str]) -> dict[str, tuple[int, int]]:
    taken: dict[str, Any] = await _taken(session, discount_ids)
    return {
        discount_id: (
            sum(part.taken_minor for part in parts.values()),
            len({start for (start, _), part in parts.items() if part.base_minor > 0}),
        )
        for discount_id, parts in taken.items()
    }
