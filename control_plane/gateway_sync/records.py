"""From plain snapshots of rows to the records the gateway reads. Pure: `now` and the public address come in."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote

from control_plane.catalog.plan_sizes import is_larger, plan_size, quota_size, rate_per_ms
from control_plane.foundation.clock import from_ms, to_ms
from control_plane.foundation.period import Interval, next_period, period_containing
from control_plane.gateway_sync.allowances import Counting
from control_plane.rating.model import WHOLE_PERIOD, Share
from gateway_contract.records import (
    AccountRecord,
    AccountStatus,
    Allowance,
    Concurrency,
    KeyRecord,
    NextGrant,
    Period,
    ProductGrant,
    Quota,
    RedisDownPolicy,
    SpendCap,
    Upgrade,
    Window,
)

CLOCKS_DIFFER_MS = 60_000


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """One key: its record, and the hash that names the record and is not in it."""

    key_hash: str
    record: KeyRecord


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """One plan version as the gateway needs it. `quota_units` None: no quota. `currencies` (): all."""

    code: str
    name: str
    version: int
    position: int
    windows: tuple[Window, ...]
    quota_units: int | None
    quota_hard: bool
    entitlements: tuple[str, ...]
    redis_down: str
    by_quote: bool
    quota_cap_units: int | None = None
    concurrency: Concurrency | None = None
    on_past_due: str = "serve"
    currencies: tuple[str, ...] = ()
    interval: str = "month"
    quota_on_change: str = "full"
    prepaid: bool = False


@dataclass(frozen=True, slots=True)
class FittingPlan:
    """Which plan would have fitted the last 30 days, by code; None where nothing larger was on sale.

    `valid` is off where plan or quota changed since.
    """

    plan: str | None
    valid: bool


@dataclass(frozen=True, slots=True)
class AddedTerms:
    """What add-ons bring: units in the billing period that runs, units in those after it, entitlements."""

    units: int = 0
    units_later: int = 0
    entitlements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SubscriptionSnapshot:
    """A live subscription in its present phase, with the plans on offer for the same API product.

    An override that is not None takes the plan's place; that of `concurrency` where the plan has such a limit.
    `ends_at` may lie ahead: cancelled at period end. `plan_changed`: its spend cap holds for a billing period in
    which another plan ran before. `counting`: how units count in the billing period with the number (ms)
    `counting_from_ms`. `next`: what is known to come, and when; None there: the subscription ends.
    `blocked`: no calls while it is past due, whatever the plan's policy.
    """

    id: str
    product: str
    plan: PlanTerms
    anchor_at: datetime
    ends_at: datetime | None
    interval: Interval
    time_zone: str
    windows_override: tuple[Window, ...] | None
    quota_override: int | None
    route_units: dict[str, int]
    offers: tuple[PlanTerms, ...]
    fitting: FittingPlan | None = None
    past_due: bool = False
    blocked: bool = False
    quota_cap_override: int | None = None
    concurrency_override: int | None = None
    spend_cap: SpendCap | None = None
    plan_changed: bool = False
    paused: bool = False
    added: AddedTerms = AddedTerms()
    counting: Counting | None = None
    counting_from_ms: int = 0
    next: "tuple[datetime, SubscriptionSnapshot | None] | None" = None
    trial_ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AccountSnapshot:
    """One account with its live subscriptions, all read in one database snapshot."""

    id: str
    name: str
    status: str
    version: int
    subscriptions: tuple[SubscriptionSnapshot, ...]


def build_account_record(account: AccountSnapshot, *, now: datetime, public_url: str) -> AccountRecord:
    """Return the account's record with the billing periods around `now`."""
    return AccountRecord(
        id=account.id,
        name=account.name,
        status=AccountStatus(account.status),
        version=account.version,
        products={
            subscription.product: build_grant(subscription, now=now, public_url=public_url)
            for subscription in account.subscriptions
        },
    )


def build_grant(subscription: SubscriptionSnapshot, *, now: datetime, public_url: str) -> ProductGrant:
    """Return what the subscription allows at `now`, overrides applied."""
    plan = subscription.plan
    windows = plan.windows if subscription.windows_override is None else subscription.windows_override
    quota_units = plan.quota_units if subscription.quota_override is None else subscription.quota_override
    better = _better_plan(subscription, quota_units)
    quota = None if quota_units is None else _quota(subscription, quota_units, subscription.added.units_later)
    return ProductGrant(
        subscription_id=subscription.id,
        plan=plan.code,
        plan_name=plan.name,
        plan_version=plan.version,
        windows=windows,
        quota=quota,
        periods=_periods(subscription, now),
        entitlements=tuple(dict.fromkeys((*plan.entitlements, *subscription.added.entitlements))),
        route_units=subscription.route_units,
        redis_down=RedisDownPolicy(plan.redis_down),
        upgrade=None
        if better is None
        else Upgrade(
            plan=better.code, name=better.name, url=upgrade_url(public_url, subscription.product, better)
        ),
        concurrency=_concurrency(subscription),
        spend_cap=subscription.spend_cap,
        payment_due=subscription.past_due and (subscription.blocked or plan.on_past_due == "refuse"),
        allowance=_allowance(subscription, quota_units, quota),
        paused=subscription.paused,
        next=_next(subscription, now=now, public_url=public_url),
    )


def _allowance(
    subscription: SubscriptionSnapshot, quota_units: int | None, quota: Quota | None
) -> Allowance | None:
    """Return how units count in the period that runs; None where all of them do, against the whole quota."""
    counting = subscription.counting
    if counting is None:
        return None
    here = None
    if quota_units is not None:
        here = _quota(subscription, quota_units, subscription.added.units, share=counting.share)
    allowance = counting.allowance
    if here == quota:
        return allowance
    return replace(allowance or Allowance(subscription.counting_from_ms), quota=here)


def _next(subscription: SubscriptionSnapshot, *, now: datetime, public_url: str) -> NextGrant | None:
    if subscription.next is None:
        return None
    starts_at, then = subscription.next
    # the periods around now: those after them are written in time
    grant = None if then is None else build_grant(then, now=now, public_url=public_url)
    return NextGrant(to_ms(starts_at), grant)


def _quota(subscription: SubscriptionSnapshot, units: int, added: int, *, share: Share = WHOLE_PERIOD) -> Quota:
    """Return what a billing period includes: the plan's part by time, and what add-ons bring."""
    plan, cap = subscription.plan, subscription.quota_cap_override or subscription.plan.quota_cap_units
    included = share.of_units(units) + added
    if plan.quota_hard or cap is None:
        return Quota(units=included, hard=plan.quota_hard)
    # a quota of the subscription's own may have outgrown the cap of a plan that it was moved to
    return Quota(units=included, hard=False, cap_units=share.of_units(max(cap, units)) + added)


def _concurrency(subscription: SubscriptionSnapshot) -> Concurrency | None:
    planned, own = subscription.plan.concurrency, subscription.concurrency_override
    return planned if planned is None or own is None else replace(planned, limit=own)


def _better_plan(subscription: SubscriptionSnapshot, quota_units: int | None) -> PlanTerms | None:
    """Return the plan that fits what was asked for, or the next larger one while that is not known."""
    fitting, plan = subscription.fitting, subscription.plan
    # a subscription can move to no plan of another interval; those of other currencies are not offered to it
    offers = [offer for offer in subscription.offers if offer.interval == plan.interval]
    if fitting is not None and fitting.valid:
        for offer in offers:
            if offer.code == fitting.plan:
                return offer
    # windows that were negotiated apart say nothing of which plan fits
    return choose_upgrade(offers, windows=plan.windows, quota_units=quota_units, plan_code=plan.code)


def choose_upgrade(
    offers: Iterable[PlanTerms], *, windows: tuple[Window, ...], quota_units: int | None, plan_code: str
) -> PlanTerms | None:
    """Return the smallest offer that allows more than `windows` and `quota_units` do, and no less of either.

    Plans sold by quote come last: their terms are still to be agreed, so they count as without limits. None where
    nothing on offer is larger.
    """
    have_quota, have_rate = quota_size(quota_units), rate_per_ms(windows)
    larger = [
        offer
        for offer in offers
        if offer.code != plan_code and is_larger(_size(offer), than=(have_quota, have_rate))
    ]
    return min(larger, key=lambda offer: (offer.by_quote, *_size(offer), offer.position, offer.code), default=None)


def upgrade_url(public_url: str, product: str, plan: PlanTerms) -> str:
    """Return the absolute address where the plan can be taken."""
    return f"{public_url.rstrip('/')}/upgrade?product={quote(product, safe='')}&plan={quote(plan.code, safe='')}"


def _periods(subscription: SubscriptionSnapshot, now: datetime) -> tuple[Period, ...]:
    """Current and next, but no period that begins when the subscription is over: no call counts in it.

    Just after a period began, the one before as well: by Redis' clock, which judges calls, it may still run.
    """
    counted_from = subscription.anchor_at, subscription.interval, subscription.time_zone
    current, following = _current_and_next(now, *counted_from)
    if subscription.paused:
        # one that is over: gateways that are older than pauses refuse, too
        return (Period(current.start_ms, current.start_ms),)
    periods = [current]
    if to_ms(now) - current.start_ms < CLOCKS_DIFFER_MS:
        before = from_ms(current.start_ms - 1)
        periods.insert(0, _current_and_next(before, *counted_from)[0])
    if subscription.ends_at is None or to_ms(subscription.ends_at) > following.start_ms:
        periods.append(following)
    return tuple(periods)


# A sweep asks for one moment and for anchors on full hours: far fewer of those than subscriptions.
@lru_cache(maxsize=10_000)
def _current_and_next(
    now: datetime, anchor_at: datetime, interval: Interval, time_zone: str
) -> tuple[Period, Period]:
    current = period_containing(now, anchor_at, interval, time_zone)
    following = next_period(current, anchor_at, interval, time_zone)
    return Period(current.start_ms, current.end_ms), Period(following.start_ms, following.end_ms)


def _size(plan: PlanTerms) -> tuple[float, float]:
    return plan_size(quota_units=plan.quota_units, windows=plan.windows, by_quote=plan.by_quote)
