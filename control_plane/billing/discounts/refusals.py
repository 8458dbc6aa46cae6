"""Why a coupon or a code is not taken. Each is a sentence for whoever typed it."""

from datetime import datetime

from control_plane.foundation.errors import ConflictError
from control_plane.foundation.money import Money


class RedemptionRefusedError(ConflictError):
    """A coupon or promotion code is not taken for this subscription."""


class ArchivedError(RedemptionRefusedError):
    """It is not given any more."""

    def __init__(self, kind: str, code: str) -> None:
        super().__init__(f"{kind}_archived", f"{_named(kind, code)} is no longer given: use another.")


class ExpiredError(RedemptionRefusedError):
    """It could be redeemed until a moment that is past."""

    def __init__(self, kind: str, code: str, until: datetime) -> None:
        super().__init__(
            f"{kind}_expired", f"{_named(kind, code)} could be redeemed until {until:%Y-%m-%d %H:%M} UTC."
        )


class UsedUpError(RedemptionRefusedError):
    """It was redeemed as often as it may be."""

    def __init__(self, kind: str, code: str, times: int) -> None:
        super().__init__(
            f"{kind}_used_up", f"{_named(kind, code)} has been redeemed {times:,} times, as often as it may be."
        )


class CodeUsedBeforeError(RedemptionRefusedError):
    """Each account can redeem a promotion code once."""

    def __init__(self, code: str) -> None:
        super().__init__("promotion_code_used_before", f"The account has used promotion code {code} already.")


class NotFirstTimeError(RedemptionRefusedError):
    """The code is for accounts that have not paid an invoice yet."""

    def __init__(self, code: str) -> None:
        super().__init__(
            "promotion_code_first_time_only",
            f"Promotion code {code} is for new customers, and the account has paid an invoice before.",
        )


class BelowMinimumError(RedemptionRefusedError):
    """The plan costs less for a billing period than the code asks for."""

    def __init__(self, code: str, *, costs: Money, minimum: Money) -> None:
        super().__init__(
            "promotion_code_below_minimum",
            f"Promotion code {code} is for plans from {minimum} a billing period; this one costs {costs}.",
        )


class CouponCurrencyDiffersError(RedemptionRefusedError):
    """An amount, in another currency than the account pays in."""

    def __init__(self, code: str, *, amount: Money, currency: str) -> None:
        super().__init__(
            "coupon_currency_differs", f"Coupon {code} takes {amount} off; the account pays in {currency}."
        )


class CouponPlanDiffersError(RedemptionRefusedError):
    """The coupon is for other plans or API products than the subscription's."""

    def __init__(self, code: str, kind: str, wanted: list[str]) -> None:
        super().__init__(
            f"coupon_{kind}_differs",
            f"Coupon {code} is for {', '.join(wanted)}; the subscription has none of these.",
        )


class AlreadyDiscountedError(RedemptionRefusedError):
    """The same coupon is in force on the subscription."""

    def __init__(self, code: str, discount_id: str) -> None:
        super().__init__(
            "already_discounted", f"The subscription has coupon {code} already, as discount {discount_id}."
        )


class DiscountNeverHoldsError(RedemptionRefusedError):
    """The subscription ends before the discount would begin to hold."""

    def __init__(self, ends_at: datetime) -> None:
        super().__init__(
            "discount_never_holds",
            f"The subscription ends at {ends_at:%Y-%m-%d %H:%M} UTC, before the discount would begin to hold.",
        )


def _named(kind: str, code: str) -> str:
    return f"{'Coupon' if kind == 'coupon' else 'Promotion code'} {code}"
