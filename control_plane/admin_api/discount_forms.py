"""Forms of coupons, promotion codes and discounts on subscriptions."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, Field, StringConstraints

from control_plane.admin_api.forms import Code, Moment, MoneyAnswer, Name, PageQuery, StrictBody
from control_plane.billing.credits.model import read_amount
from control_plane.billing.discounts.model import CodeTerms, CouponTerms, Duration
from control_plane.billing.discounts.queries import HeldDiscount
from control_plane.billing.discounts.tables import Coupon, PromotionCode
from control_plane.billing.line_scopes import LineScope
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.money import UnknownCurrencyError

MOST = 10**9
_CODES_AT_ONCE = 100
Percent = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?$"),
    Field(description="Per cent, a decimal above 0 and up to 100.", examples=["20"]),
]
Amount = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$"),
    Field(description="Decimal, in the currency's major unit.", examples=["20.00"]),
]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217.", examples=["USD"])]
Redemptions = Annotated[int, Field(strict=True, ge=1, le=MOST, description="How often it can be redeemed.")]
Until = Annotated[Moment, Field(description="It can be redeemed before this moment.")]
TypedCode = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,47}$"),
    Field(description="What people type; capitals and small letters are the same.", examples=["SPRING26"]),
]
TypedReferralCode = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9]{8}$"),
    Field(description="The referrer's code; capitals and small letters are the same."),
]
WithPromotionCode = Annotated[
    TypedCode | None,
    Field(
        description="Redeemed with it, or nothing is done. Holds for the running billing period where the plan "
        "begins now, else from the next one on."
    ),
]
TypedCodePath = Annotated[
    str, Path(alias="code", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,47}$", description="The promotion code.")
]
DiscountId = Annotated[str, Path(pattern=r"^dsc_[0-9a-hjkmnp-tv-z]{26}$", description="The discount's id.")]
Starts = Annotated[
    Literal["now", "next_period"] | None,
    Field(
        description="Whether it holds for the running billing period, or from the next one on. Left out: for the "
        "running one where the subscription or its plan begins at this moment, else from the next one on."
    ),
]


class CouponBody(StrictBody):
    """`percent`, or `amount` with its `currency`."""

    name: Name = Field(description="Stands on invoices.", examples=["Spring offer"])
    percent: Percent | None = None
    amount: Amount | None = None
    currency: Currency | None = None
    duration: Annotated[
        Duration,
        Field(
            description="Billing periods that it holds for: `once` (one), `periods` (`count` of them), `months` "
            "(those that begin within `count` months), or `forever`."
        ),
    ]
    count: Annotated[int | None, Field(strict=True, ge=1, le=120)] = None
    scope: Annotated[
        LineScope, Field(description="`fixed`: prices per period and setup fees; `usage`: what is charged by use.")
    ] = LineScope.ALL
    plans: Annotated[
        list[Code], Field(max_length=_CODES_AT_ONCE, description="Only lines of these plans or add-ons.")
    ] = Field(default_factory=list)
    api_products: Annotated[
        list[Code], Field(max_length=_CODES_AT_ONCE, description="Only subscriptions to these.")
    ] = Field(default_factory=list)
    max_redemptions: Redemptions | None = None
    redeem_until: Until | None = None

    def terms(self) -> CouponTerms:
        """Return them as the operations take them.

        Raises:
            ValidationFailedError: an amount without a currency, or finer than the currency's minor unit.
        """
        return CouponTerms(
            name=self.name,
            percent=None if self.percent is None else Decimal(self.percent),
            amount_minor=read_money(self.amount, self.currency, field="amount"),
            currency=self.currency,
            duration=self.duration,
            count=self.count,
            scope=self.scope,
            plan_codes=tuple(dict.fromkeys(self.plans)),
            product_codes=tuple(dict.fromkeys(self.api_products)),
            max_redemptions=self.max_redemptions,
            redeem_until=self.redeem_until,
        )


class CreateCoupon(CouponBody):
    code: Annotated[Code, Field(description="Its name for programs and for `km`.", examples=["spring"])]


class CreatePromotionCode(StrictBody):
    """`minimum_amount` goes with `minimum_currency`."""

    code: TypedCode
    coupon: Annotated[Code, Field(description="The coupon's code.")]
    max_redemptions: Redemptions | None = None
    redeem_until: Until | None = None
    first_time_only: Annotated[
        bool, Field(strict=True, description="Only for accounts that have not paid an invoice yet.")
    ] = False
    minimum_amount: Annotated[
        Amount | None, Field(description="What the plan costs for a whole billing period before use, at least.")
    ] = None
    minimum_currency: Currency | None = None

    def terms(self) -> CodeTerms:
        """Return them as the operations take them."""
        return CodeTerms(
            max_redemptions=self.max_redemptions,
            redeem_until=self.redeem_until,
            first_time_only=self.first_time_only,
            minimum_minor=read_money(self.minimum_amount, self.minimum_currency, field="minimum_amount"),
            minimum_currency=self.minimum_currency,
        )


class GiveDiscount(StrictBody):
    """Either a `coupon` or a `promotion_code`."""

    coupon: Annotated[Code | None, Field(description="A coupon's code.")] = None
    promotion_code: TypedCode | None = None
    starts: Starts = None


class CouponsQuery(PageQuery):
    archived: Annotated[bool, Field(description="Those that are not given any more, too.")] = False


class PromotionCodesQuery(CouponsQuery):
    coupon: Annotated[Code | None, Field(description="Only codes of this coupon.")] = None


class CouponAnswer(BaseModel):
    id: str
    code: str
    name: str
    percent: str | None
    amount: MoneyAnswer | None
    duration: Duration
    count: int | None
    scope: LineScope
    plans: list[str]
    api_products: list[str]
    max_redemptions: int | None
    redeem_until: Moment | None
    redemptions: int
    created_at: Moment
    archived_at: Moment | None


class CouponDetailAnswer(CouponAnswer):
    taken_off: list[MoneyAnswer] = Field(description="What it has taken off final invoices, by currency.")


class PromotionCodeAnswer(BaseModel):
    id: str
    code: str
    coupon: str
    max_redemptions: int | None
    redeem_until: Moment | None
    first_time_only: bool
    minimum: MoneyAnswer | None
    redemptions: int
    created_at: Moment
    archived_at: Moment | None


class DiscountAnswer(BaseModel):
    id: str
    subscription_id: str
    name: str = Field(examples=["Spring offer"])
    source: str = Field(description="`coupon`, `promotion_code` or `founding`.")
    coupon: str
    promotion_code: str | None
    percent: str | None
    amount: MoneyAnswer | None
    scope: LineScope
    holds_from: Moment = Field(description="Start of the first billing period that it holds for.")
    ends_at: Moment | None = Field(description="It holds for billing periods that begin before.")
    periods_left: int | None = Field(description="For how many more billing periods, where they are counted.")
    over: bool = Field(description="It holds for no billing period to come.")
    taken_off: MoneyAnswer = Field(description="From final invoices so far.")
    created_at: Moment
    removed_at: Moment | None = Field(description="Taken away before it took anything off.")


class DiscountsAnswer(BaseModel):
    items: list[DiscountAnswer]


def read_money(amount: str | None, currency: str | None, *, field: str) -> int | None:
    """Return minor units of an amount, None for None.

    Raises:
        ValidationFailedError: without a currency, or one that there is not, or finer than its minor unit.
    """
    if amount is None:
        return None
    if currency is None:
        raise ValidationFailedError(field, "needs a currency")
    try:
        return read_amount(amount, currency, field=field)
    except UnknownCurrencyError as unknown:
        raise ValidationFailedError("currency", "must be an ISO 4217 code such as USD") from unknown


def percent_text(percent: Decimal | None) -> str | None:
    return None if percent is None else f"{percent.normalize():f}"


def _money(amount_minor: int | None, currency: str | None) -> MoneyAnswer | None:
    return None if amount_minor is None or currency is None else MoneyAnswer.of(amount_minor, currency)


def coupon_answer(row: Coupon) -> CouponAnswer:
    same = ("id", "code", "name", "count", "max_redemptions", "redeem_until", "redemptions", "created_at")
    return CouponAnswer(
        **{name: getattr(row, name) for name in same},
        percent=percent_text(row.percent),
        amount=_money(row.amount_minor, row.currency),
        duration=Duration(row.duration),
        scope=LineScope(row.scope),
        plans=row.plan_codes,
        api_products=row.product_codes,
        archived_at=row.archived_at,
    )


def promotion_code_answer(row: PromotionCode) -> PromotionCodeAnswer:
    same = ("id", "code", "max_redemptions", "redeem_until", "first_time_only", "redemptions", "created_at")
    return PromotionCodeAnswer(
        **{name: getattr(row, name) for name in same},
        coupon=row.coupon.code,
        minimum=_money(row.minimum_minor, row.minimum_currency),
        archived_at=row.archived_at,
    )


def discount_answer(held: HeldDiscount, *, currency: str, now: datetime) -> DiscountAnswer:
    """Return what is told of a discount; `currency`: the account's."""
    row, coupon = held.row, held.row.coupon
    return DiscountAnswer(
        id=row.id,
        subscription_id=row.subscription_id,
        name=coupon.name,
        source=row.source,
        coupon=coupon.code,
        promotion_code=None if row.promotion_code is None else row.promotion_code.code,
        percent=percent_text(coupon.percent),
        amount=_money(coupon.amount_minor, coupon.currency),
        scope=LineScope(coupon.scope),
        holds_from=row.holds_from,
        ends_at=held.ends_at,
        periods_left=held.periods_left,
        over=held.is_over(now),
        taken_off=MoneyAnswer.of(held.taken_minor, currency),
        created_at=row.created_at,
        removed_at=row.removed_at,
    )
