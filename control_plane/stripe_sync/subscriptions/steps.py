"""What a change that is wanted needs next, judged by what Stripe shows. Pure.

Nothing is remembered of calls that were made: whoever takes a change up, after whatever befell the one before,
looks at the subscription and does what is missing. So a call that was cut off, or whose answer was lost, is seen
by its effect, and not made twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from control_plane.stripe_sync.subscriptions.model import Holding, SubscriptionState


class Kind(StrEnum):
    """What can be wanted of a subscription at Stripe; `begin` is what its checkout could not say."""

    UPDATE = "update"
    SCHEDULE = "schedule"
    WITHDRAW = "withdraw"
    CANCEL = "cancel"
    CANCEL_NOW = "cancel_now"
    KEEP = "keep"
    END_TRIAL = "end_trial"
    EXTEND_TRIAL = "extend_trial"
    DISCOUNT = "discount"
    BEGIN = "begin"


class Call(StrEnum):
    """A call that changes something at Stripe."""

    RELEASE_SCHEDULE = "release_schedule"
    UPDATE_ITEMS = "update_items"
    MAKE_SCHEDULE = "make_schedule"
    PLAN_PHASES = "plan_phases"
    END_LATER = "end_later"
    END_NOW = "end_now"
    GO_ON = "go_on"
    MOVE_TRIAL_END = "move_trial_end"
    SET_DISCOUNTS = "set_discounts"
    CHARGE_SETUP_FEE = "charge_setup_fee"


class Outcome(StrEnum):
    """`SCHEDULED`: Stripe has it planned. `PENDING`: it waits for a payment. `OVER`: nothing is left to change."""

    DONE = "done"
    SCHEDULED = "scheduled"
    PENDING = "pending"
    PAYMENT_FAILED = "payment_failed"
    OVER = "over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What Stripe shows: `held` None where its items are no plan of ours, `later` what a schedule has planned."""

    state: SubscriptionState
    held: Holding | None
    later: Holding | None = None
    setup_fee_at: datetime | None = None


def next_step(kind: Kind, wanted: Mapping[str, Any], seen: Seen, *, was_pending: bool = False) -> Call | Outcome:
    """Return the call to make next, or what has come of the change. `was_pending`: it waited for a payment."""
    state = seen.state
    if state.is_over:
        return Outcome.DONE if kind in {Kind.CANCEL, Kind.CANCEL_NOW} else Outcome.OVER
    match kind:
        case Kind.UPDATE:
            step = _update(wanted, seen, was_pending=was_pending)
        case Kind.SCHEDULE:
            step = _schedule(wanted, seen)
        case Kind.WITHDRAW:
            step = Call.RELEASE_SCHEDULE if state.schedule_id is not None else Outcome.DONE
        case Kind.END_TRIAL | Kind.EXTEND_TRIAL:
            step = _trial(kind, wanted, state, was_pending=was_pending)
        case Kind.DISCOUNT:
            step = _discount(wanted, state)
        case Kind.BEGIN:
            step = _begin(wanted, seen)
        case _:
            step = _end(kind, state)
    return step


def _update(wanted: Mapping[str, Any], seen: Seen, *, was_pending: bool) -> Call | Outcome:
    if seen.held == Holding.from_dict(wanted):
        later = wanted.get("later")
        if later is None or Holding.from_dict(later) in {seen.held, seen.later}:
            return Outcome.DONE
        return Call.MAKE_SCHEDULE if seen.state.schedule_id is None else Call.PLAN_PHASES
    if seen.state.pending_update_until is not None:
        return Outcome.PENDING
    if was_pending:
        return Outcome.PAYMENT_FAILED
    return Call.RELEASE_SCHEDULE if seen.state.schedule_id is not None else Call.UPDATE_ITEMS


def _schedule(wanted: Mapping[str, Any], seen: Seen) -> Call | Outcome:
    target = Holding.from_dict(wanted)
    if seen.later == target:
        return Outcome.SCHEDULED
    if seen.held == target and seen.state.planned is None:
        return Outcome.DONE
    return Call.MAKE_SCHEDULE if seen.state.schedule_id is None else Call.PLAN_PHASES


def _trial(
    kind: Kind, wanted: Mapping[str, Any], state: SubscriptionState, *, was_pending: bool
) -> Call | Outcome:
    if kind is Kind.END_TRIAL and state.status != "trialing":
        return Outcome.DONE
    if kind is Kind.EXTEND_TRIAL and (state.status != "trialing" or _same(state.trial_end, wanted["ends_at"])):
        return Outcome.DONE
    if state.pending_update_until is not None:
        return Outcome.PENDING
    if was_pending:
        return Outcome.PAYMENT_FAILED
    return Call.RELEASE_SCHEDULE if state.schedule_id is not None else Call.MOVE_TRIAL_END


def _discount(wanted: Mapping[str, Any], state: SubscriptionState) -> Call | Outcome:
    if "coupon" in wanted:
        done = any(one.coupon_id == wanted["coupon"] for one in state.discounts)
    else:
        done = all(one.discount_id != wanted["remove"] for one in state.discounts)
    return Outcome.DONE if done else Call.SET_DISCOUNTS


def _begin(wanted: Mapping[str, Any], seen: Seen) -> Call | Outcome:
    if wanted.get("end_with_trial") and seen.state.ends_at is None:
        return Call.END_LATER
    if wanted.get("setup_fees") and seen.setup_fee_at is None:
        return Call.CHARGE_SETUP_FEE
    return Outcome.DONE


def _end(kind: Kind, state: SubscriptionState) -> Call | Outcome:
    if kind is Kind.KEEP:
        return Outcome.DONE if state.ends_at is None else Call.GO_ON
    if kind is Kind.CANCEL and state.ends_at is not None:
        return Outcome.DONE
    if state.schedule_id is not None:
        return Call.RELEASE_SCHEDULE
    return Call.END_LATER if kind is Kind.CANCEL else Call.END_NOW


def _same(moment: datetime | None, text: str) -> bool:
    return moment is not None and moment == datetime.fromisoformat(text)
