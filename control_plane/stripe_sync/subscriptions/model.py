"""What a subscription has, at Stripe and here, as values. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, Self

from control_plane.foundation.clock import floor_hour
from control_plane.subscriptions.model import Status

LIVE_AT_STRIPE: Final = frozenset({"trialing", "active", "past_due", "unpaid", "paused"})
OVER_AT_STRIPE: Final = frozenset({"canceled", "incomplete_expired"})
# what a live subscription of Stripe's is here; what follows an unpaid one is for dunning to say
STATUS_HERE: Final[Mapping[str, Status]] = {
    "trialing": Status.TRIALING,
    "active": Status.ACTIVE,
    "past_due": Status.PAST_DUE,
    "unpaid": Status.PAST_DUE,
    "paused": Status.PAUSED,
}
PriceKind = Literal["flat", "metered", "setup_fee", "carrier"]


@dataclass(frozen=True, slots=True)
class PriceAtStripe:
    """A price that Stripe has, and the plan or add-on version that it is of."""

    price_id: str
    plan_version_id: str
    plan_id: str
    is_add_on: bool
    kind: str
    meter_id: str | None = None

    @property
    def recurs(self) -> bool:
        return self.kind != "setup_fee"

    @property
    def has_quantity(self) -> bool:
        """Say whether Stripe counts it: what is metered takes no quantity."""
        return self.kind in {"flat", "carrier"}


@dataclass(frozen=True, slots=True)
class ItemSeen:
    """An item of a subscription at Stripe."""

    item_id: str
    price_id: str
    quantity: int | None
    period_start: datetime
    period_end: datetime


@dataclass(frozen=True, slots=True)
class Holding:
    """One plan version, and so many of each add-on version (in the order of their ids)."""

    plan_version_id: str
    add_ons: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, plan_version_id: str, add_ons: Mapping[str, int]) -> Self:
        return cls(plan_version_id, tuple(sorted((key, count) for key, count in add_ons.items() if count > 0)))

    @property
    def quantities(self) -> dict[str, int]:
        return dict(self.add_ons)

    @property
    def version_ids(self) -> set[str]:
        return {self.plan_version_id, *self.quantities}

    def with_add_on(self, plan_version_id: str, quantity: int) -> Self:
        """Return it with so many of an add-on version; 0: without."""
        return type(self).of(self.plan_version_id, {**self.quantities, plan_version_id: quantity})

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {"plan_version_id": self.plan_version_id, "add_ons": self.quantities}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `as_dict` wrote down."""
        return cls.of(values["plan_version_id"], values["add_ons"])


@dataclass(frozen=True, slots=True)
class DiscountSeen:
    """A discount at Stripe, for [starts_at, ends_at), None: for ever. `percent` or `amount_minor`."""

    discount_id: str
    coupon_id: str
    starts_at: datetime
    ends_at: datetime | None
    item_id: str | None = None
    percent: Decimal | None = None
    amount_minor: int | None = None
    duration: str = "once"


@dataclass(frozen=True, slots=True)
class PlannedSeen:
    """What a schedule puts in the place of the present items, from its next phase's start on."""

    starts_at: datetime
    prices: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionState:
    """A subscription as Stripe showed it. Moments are whole seconds. `schedule_id` None: no schedule holds it."""

    stripe_id: str
    customer_id: str
    status: str
    currency: str
    metadata: Mapping[str, str]
    items: tuple[ItemSeen, ...]
    started_at: datetime
    billing_cycle_anchor: datetime
    trial_end: datetime | None
    cancel_at_period_end: bool
    cancel_at: datetime | None
    canceled_at: datetime | None
    ended_at: datetime | None
    latest_invoice_id: str | None
    pending_update_until: datetime | None
    automatic_tax: bool
    discounts: tuple[DiscountSeen, ...] = ()
    schedule_id: str | None = None
    planned: PlannedSeen | None = None

    @property
    def is_over(self) -> bool:
        return self.status in OVER_AT_STRIPE

    @property
    def is_live(self) -> bool:
        return self.status in LIVE_AT_STRIPE

    @property
    def period_start(self) -> datetime:
        """When the running period began: that of the items, which are billed together."""
        return max((item.period_start for item in self.items), default=self.billing_cycle_anchor)

    @property
    def period_end(self) -> datetime:
        return min((item.period_end for item in self.items), default=self.billing_cycle_anchor)

    @property
    def ends_at(self) -> datetime | None:
        """When it will end, as far as that is planned."""
        if self.cancel_at is not None:
            return self.cancel_at
        return self.period_end if self.cancel_at_period_end else None


def holding_of(
    prices: Collection[tuple[str, int | None]],
    known: Mapping[str, PriceAtStripe],
    *,
    counted_here: Mapping[str, int] | None = None,
) -> Holding | None:
    """Return what items of these prices and quantities come to; None where they are not one plan of ours.

    `counted_here`: how many there are of add-ons that are metered alone, which Stripe has no quantity of.
    """
    found = [(known[price_id], quantity) for price_id, quantity in prices if price_id in known]
    if len(found) < len(prices):
        return None
    plans = {price.plan_version_id for price, _ in found if not price.is_add_on}
    if len(plans) != 1:
        return None
    add_ons: dict[str, int] = {}
    for price, quantity in found:
        if price.is_add_on and quantity is not None:
            add_ons[price.plan_version_id] = quantity
        elif price.is_add_on:
            add_ons.setdefault(price.plan_version_id, (counted_here or {}).get(price.plan_version_id, 1))
    return Holding.of(plans.pop(), add_ons)


def hour_here(moment: datetime) -> datetime:
    """Return where a boundary of Stripe's lies here: billing periods begin at full hours."""
    return floor_hour(moment)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a subscription is to come to here: now, from a later moment on, and until when."""

    now: Holding
    later: tuple[datetime, Holding] | None = None
    ends_at: datetime | None = None
