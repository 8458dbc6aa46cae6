"""Coupons and discounts as values, and what must be true of them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol

from control_plane.billing.line_scopes import LineScope, kinds_of
from control_plane.foundation.money import Money


class Duration(StrEnum):
    """For how many billing periods a discount holds.

    `once`: one; `periods`: a number of them; `months`: those that begin within so many months of the first.
    Periods in which there was nothing to take anything off are not counted.
    """

    ONCE = "once"
    FOREVER = "forever"
    PERIODS = "periods"
    MONTHS = "months"


COUNTED = frozenset({Duration.PERIODS, Duration.MONTHS})


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponTerms:
    """What a coupon takes off, of what, and for how long. `percent` or `amount_minor` with its `currency`.

    `count`: how many periods or months; None for other durations. Empty `plan_codes` and `product_codes`: all.
    """

    name: str
    percent: Decimal | None = None
    amount_minor: int | None = None
    currency: str | None = None
    duration: Duration = Duration.ONCE
    count: int | None = None
    scope: LineScope = LineScope.ALL
    plan_codes: tuple[str, ...] = ()
    product_codes: tuple[str, ...] = ()
    max_redemptions: int | None = None
    redeem_until: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return them ready for JSON."""
        return {
            "name": self.name,
            "percent": None if self.percent is None else str(self.percent),
            "amount_minor": self.amount_minor,
            "currency": self.currency,
            "duration": str(self.duration),
            "count": self.count,
            "scope": str(self.scope),
            "plan_codes": list(self.plan_codes),
            "product_codes": list(self.product_codes),
            "max_redemptions": self.max_redemptions,
            "redeem_until": None if self.redeem_until is None else self.redeem_until.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTerms:
    """Who can redeem a promotion code, apart from its coupon's own limits; see `tables.PromotionCode`."""

    max_redemptions: int | None = None
    redeem_until: datetime | None = None
    first_time_only: bool = False
    minimum_minor: int | None = None
    minimum_currency: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return them ready for JSON."""
        return {
            "max_redemptions": self.max_redemptions,
            "redeem_until": None if self.redeem_until is None else self.redeem_until.isoformat(),
            "first_time_only": self.first_time_only,
            "minimum_minor": self.minimum_minor,
            "minimum_currency": self.minimum_currency,
        }


class ChargedLine(Protocol):
    """What a discount looks at of an invoice line. `charge_key`: what is charged, within its billing period."""

    @property
    def kind(self) -> str: ...
    @property
    def plan_code(self) -> str | None: ...
    @property
    def charge_key(self) -> str: ...
    @property
    def period_start(self) -> datetime: ...
    @property
    def amount_minor(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Taken:
    """How much one charge of one period came to under a discount, in all, and what was taken off it."""

    base_minor: int = 0
    taken_minor: int = 0


Charge = tuple[datetime, str]  # the period's start, and the charge's key
NOTHING_TAKEN: Mapping[Charge, Taken] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Discount:
    """A discount on a subscription, with what it has taken off so far.

    It holds for billing periods that begin in [`holds_from`, `ends_at`), at most `periods` of them.
    `periods_taken`: starts of the periods in which it had something to take off.
    """

    id: str
    subscription_id: str
    name: str
    percent: Decimal | None
    amount_minor: int | None
    currency: str | None
    scope: LineScope
    plan_codes: frozenset[str]
    holds_from: datetime
    ends_at: datetime | None
    periods: int | None
    periods_taken: frozenset[datetime] = frozenset()
    taken: Mapping[Charge, Taken] = field(default_factory=lambda: NOTHING_TAKEN)

    def covers(self, line: ChargedLine) -> bool:
        """Say whether it may take something off a line, apart from how many periods it holds for."""
        return (
            line.kind in kinds_of(self.scope)
            and (not self.plan_codes or line.plan_code in self.plan_codes)
            and self.holds_from <= line.period_start
            and (self.ends_at is None or line.period_start < self.ends_at)
        )

    def is_used_up(self, *, at: datetime) -> bool:
        """Say whether no billing period that begins at or after `at` is under it."""
        used = self.periods is not None and len(self.periods_taken) >= self.periods
        return used or (self.ends_at is not None and self.ends_at <= at)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscountShare:
    """The part of a discount that falls on one line (`index` in what was given); minor units, signed as the line.

    `base_minor` is what earlier discounts left of the line, as far as this one has to do with it.
    """

    index: int
    period_start: datetime
    charge_key: str
    base_minor: int
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedDiscount:
    """What a discount takes off an invoice (below 0: gives back to us what a credited line had been given)."""

    discount_id: str
    description: str
    amount_minor: int
    shares: tuple[DiscountShare, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return what an invoice writes down."""
        return {
            "discount_id": self.discount_id,
            "description": self.description,
            "amount_minor": self.amount_minor,
        }


def discount_name(
    terms_name: str, *, percent: Decimal | None, amount_minor: int | None, currency: str | None
) -> str:
    """Return "Founding member (25% off)" or "Welcome (20.00 USD off)"."""
    off = f"{percent.normalize():f}%" if percent is not None else str(Money(amount_minor or 0, currency or ""))
    return f"{terms_name} ({off} off)"
