"""Which moment usage bears at Stripe, and whether Stripe can still bill it. Pure.

Our periods and phases begin at full hours and at milliseconds, Stripe's at seconds. An hour belongs to our period;
its event is given a moment in the period and in the plan that Stripe has for it: hours begin before they are used
up, so it is the hour's own beginning wherever that lies inside, and Stripe's first second of it where not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from control_plane.foundation.clock import floor_hour
from control_plane.foundation.period import period_containing
from control_plane.stripe_sync.usage.reasons import Reason

SECOND: Final = timedelta(seconds=1)

LONGEST_DRAFT: Final = timedelta(hours=73)
"""Stripe makes a draft final after an hour; an operator can have it wait three days. Without a draft that we know
of, an ended period is taken for billed after this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeTime:
    """[start, end) at Stripe; None: it goes on."""

    start: datetime
    end: datetime | None

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment and (self.end is None or moment < self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpan:
    """From `starts_at` on Stripe has it on a plan version; ours is on it from `ours_from`."""

    starts_at: datetime
    ours_from: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AtStripe:
    """A subscription as Stripe has it, and the billing periods of ours.

    `spans` in the order of time. `phase_starts`: of our phases, by id. `billed`: what invoices cover that are
    final, or that our adjustments were decided for. `drafts`: what invoices cover that are still open.
    """

    customer_id: str
    started_at: datetime
    ended_at: datetime | None
    billing_cycle_anchor: datetime
    current_period: StripeTime
    anchor_at: datetime
    interval: str
    time_zone: str = "UTC"
    spans: tuple[PlanSpan, ...] = ()
    phase_starts: Mapping[str, datetime] = field(default_factory=dict)
    billed: tuple[StripeTime, ...] = ()
    drafts: tuple[StripeTime, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row's usage lies at Stripe: its moment, the period and the time on one plan that hold it."""

    moment: datetime
    period: StripeTime
    plan: StripeTime


def place_of(hour: datetime, phase_id: str, at_stripe: AtStripe) -> Place:
    """Return where an hour's usage of a phase belongs; a phase that is gone counts as having begun in time."""
    phase_start = at_stripe.phase_starts.get(phase_id, hour)
    period, plan = _period(hour, at_stripe), _plan(phase_start, at_stripe)
    first = max(ceil_second(max(hour, phase_start)), plan.start, period.start)
    ends = [end for end in (plan.end, period.end, at_stripe.ended_at) if end is not None]
    last = min(ends) - SECOND if ends else first
    # where nothing is left between the two, the plan decides: the wrong one would have another price
    moment = max(min(first, last) if ends else first, plan.start)
    return Place(moment=moment, period=period, plan=plan)


def closed_because(place: Place, at_stripe: AtStripe, now: datetime) -> Reason | None:
    """Return why no invoice of Stripe's can take usage of this place any more; None while one can."""
    moment = place.moment
    if any(moment in billed for billed in at_stripe.billed):
        return Reason.INVOICE_FINAL
    if place.plan.end is not None and place.plan.end <= now and _ends_inside(place, at_stripe):
        # Stripe billed the removed price at once, for what it had by then
        return Reason.PLAN_CHANGED
    if any(moment in draft for draft in at_stripe.drafts):
        return None
    over = [end for end in (place.period.end, at_stripe.ended_at) if end is not None]
    if over and min(over) + LONGEST_DRAFT <= now:
        return Reason.INVOICE_FINAL
    return None


def ceil_second(moment: datetime) -> datetime:
    """Return the first whole second at or after a moment."""
    return moment if not moment.microsecond else moment.replace(microsecond=0) + SECOND


def _ends_inside(place: Place, at_stripe: AtStripe) -> bool:
    """Say whether the plan ended before the period would have: also where the change began another period."""
    end = place.plan.end
    if end is None or end == at_stripe.billing_cycle_anchor:
        return end is not None
    return place.period.end is None or end < place.period.end


def _period(hour: datetime, at_stripe: AtStripe) -> StripeTime:
    ours = period_containing(hour, at_stripe.anchor_at, at_stripe.interval, at_stripe.time_zone)
    return StripeTime(start=_boundary(ours.start, at_stripe), end=_boundary(ours.end, at_stripe))


def _boundary(ours: datetime, at_stripe: AtStripe) -> datetime:
    """Return Stripe's boundary between two periods for ours, which is the hour that holds it."""
    current = at_stripe.current_period
    for known in (current.start, current.end):
        if known is not None and floor_hour(known) == ours:
            return known
    anchor = at_stripe.billing_cycle_anchor
    return ours + (anchor - floor_hour(anchor))


def _plan(phase_start: datetime, at_stripe: AtStripe) -> StripeTime:
    spans = at_stripe.spans
    if not spans:
        return StripeTime(start=at_stripe.started_at, end=None)
    number = max((index for index, span in enumerate(spans) if span.ours_from <= phase_start), default=0)
    following = spans[number + 1] if number + 1 < len(spans) else None
    return StripeTime(start=spans[number].starts_at, end=following.starts_at if following else None)
