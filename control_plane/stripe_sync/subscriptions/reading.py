"""From Stripe's objects to values. Nothing of Stripe's shapes goes further than this."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, overload

import stripe as sdk

from control_plane.stripe_sync.subscriptions.model import DiscountSeen, ItemSeen, PlannedSeen, SubscriptionState

if TYPE_CHECKING:
    from control_plane.stripe_sync.client import Stripe

READ_WITH: Final = ["discounts.source.coupon", "schedule"]
_RUNNING: Final = frozenset({"active", "not_started"})


async def read_subscription(stripe: "Stripe", stripe_id: str) -> SubscriptionState:
    """Read a subscription with its discounts and its schedule, as they are at this moment.

    Raises:
        StripeRefused: there is none. StripeUnavailable.
    """
    found = await stripe.call(lambda c: c.v1.subscriptions.retrieve_async(stripe_id, {"expand": READ_WITH}))
    return state_of(found)


def state_of(found: sdk.Subscription) -> SubscriptionState:
    """Return a subscription (discounts and schedule expanded) as a value."""
    schedule = found.schedule if isinstance(found.schedule, sdk.SubscriptionSchedule) else None
    held = schedule is not None and schedule.status in _RUNNING
    # an attribute named items is the mapping's method
    items: list[sdk.SubscriptionItem] = found["items"].data
    pending = found.pending_update
    return SubscriptionState(
        stripe_id=found.id,
        customer_id=id_of(found.customer),
        status=found.status,
        currency=found.currency.upper(),
        metadata=dict(found.metadata.to_dict()),
        items=tuple(
            ItemSeen(
                item.id,
                item.price.id,
                getattr(item, "quantity", None),
                moment(item.current_period_start),
                moment(item.current_period_end),
            )
            for item in items
        ),
        started_at=moment(found.start_date),
        billing_cycle_anchor=moment(found.billing_cycle_anchor),
        trial_end=moment(found.trial_end),
        cancel_at_period_end=found.cancel_at_period_end,
        cancel_at=moment(found.cancel_at),
        canceled_at=moment(found.canceled_at),
        ended_at=moment(found.ended_at),
        latest_invoice_id=id_of(found.latest_invoice),
        pending_update_until=None if pending is None else moment(pending.expires_at),
        automatic_tax=found.automatic_tax.enabled,
        discounts=tuple(discounts_of(found.discounts)),
        schedule_id=schedule.id if held and schedule is not None else None,
        planned=planned_of(schedule) if held and schedule is not None else None,
    )


def planned_of(schedule: sdk.SubscriptionSchedule) -> PlannedSeen | None:
    """Return what a schedule puts in the place of the phase that runs, if it has a next one."""
    phases = sorted(schedule.phases, key=lambda phase: phase.start_date)
    running = schedule.current_phase
    ahead = phases[1:] if running is None else [one for one in phases if one.start_date > running.start_date]
    if not ahead:
        return None
    prices = tuple((id_of(item.price), getattr(item, "quantity", None)) for item in ahead[0]["items"])
    return PlannedSeen(moment(ahead[0].start_date), prices)


def discounts_of(discounts: Iterable[str | sdk.Discount]) -> Iterable[DiscountSeen]:
    """Return discounts, expanded with their coupons, as values."""
    for one in discounts:
        if isinstance(one, str) or not isinstance(one.source.coupon, sdk.Coupon):
            continue
        coupon = one.source.coupon
        percent = getattr(coupon, "percent_off", None)
        yield DiscountSeen(
            discount_id=one.id,
            coupon_id=coupon.id,
            starts_at=moment(one.start),
            ends_at=moment(one.end),
            item_id=getattr(one, "subscription_item", None),
            percent=None if percent is None else Decimal(str(percent)),
            amount_minor=getattr(coupon, "amount_off", None),
            duration=coupon.duration,
        )


@overload
def moment(seconds: int) -> datetime: ...
@overload
def moment(seconds: int | None) -> datetime | None: ...
def moment(seconds: int | None) -> datetime | None:
    """Return Stripe's seconds as a moment."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def seconds(at: datetime) -> int:
    """Return a moment as Stripe's seconds, cut."""
    return int(at.timestamp())


@overload
def id_of(found: str | sdk.StripeObject) -> str: ...
@overload
def id_of(found: str | sdk.StripeObject | None) -> str | None: ...
def id_of(found: str | sdk.StripeObject | None) -> str | None:
    """Return the id of what Stripe names by its id, or gives whole."""
    if found is None or isinstance(found, str):
        return found
    value: Any = found
    return str(value.id)


ProrationBehavior = Literal["always_invoice", "create_prorations", "none"]
