"""Lines and discounts as values. Each names only what matters to the test."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from control_plane.billing.discounts.model import Discount
from control_plane.billing.line_scopes import LineScope

JAN = datetime(2026, 1, 1, tzinfo=UTC)
FEB = datetime(2026, 2, 1, tzinfo=UTC)
MAR = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Line:
    amount_minor: int
    kind: str = "recurring"
    plan_code: str | None = "starter"
    charge_key: str = "starter/0"
    period_start: datetime = JAN


def a_discount(percent: int | str | None = 20, amount: int | None = None, **facts: Any) -> Discount:
    return Discount(
        **{
            "id": "dsc_1",
            "subscription_id": "sub_1",
            "name": "Spring",
            "percent": Decimal(percent) if percent is not None and amount is None else None,
            "amount_minor": amount,
            "currency": None if amount is None else "USD",
            "scope": LineScope.ALL,
            "plan_codes": frozenset(),
            "holds_from": JAN,
            "ends_at": None,
            "periods": None,
            **facts,
        }
    )
