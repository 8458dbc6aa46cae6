"""What a change needs next, and how items become what is wanted: tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control_plane.stripe_sync.subscriptions.items import item_params, wanted_prices
from control_plane.stripe_sync.subscriptions.model import (
    DiscountSeen,
    Holding,
    ItemSeen,
    PlannedSeen,
    PriceAtStripe,
    SubscriptionState,
    holding_of,
)
from control_plane.stripe_sync.subscriptions.steps import Call, Kind, Outcome, Seen, next_step

AT = datetime(2026, 11, 10, 9, 20, 30, tzinfo=UTC)
END = AT + timedelta(days=30)
STARTER, GROWTH = Holding("starter"), Holding("growth")
TO_GROWTH = {**GROWTH.as_dict(), "later": None}
TO_GROWTH_THEN_STARTER = {**GROWTH.as_dict(), "later": STARTER.as_dict()}
STATE = SubscriptionState(
    stripe_id="sub_1",
    customer_id="cus_1",
    status="active",
    currency="USD",
    metadata={},
    items=(ItemSeen("si_flat", "flat_s", 1, AT, END), ItemSeen("si_calls", "calls_s", None, AT, END)),
    started_at=AT,
    billing_cycle_anchor=AT,
    trial_end=None,
    cancel_at_period_end=False,
    cancel_at=None,
    canceled_at=None,
    ended_at=None,
    latest_invoice_id=None,
    pending_update_until=None,
    automatic_tax=False,
)
SEEN = Seen(state=STATE, held=STARTER)


def seen(*, held: Holding = STARTER, later: Holding | None = None, fee: bool = False, **state: Any) -> Seen:
    if later is not None:
        state |= {"schedule_id": "sub_sched_1", "planned": PlannedSeen(END, ())}
    return Seen(state=replace(STATE, **state), held=held, later=later, setup_fee_at=AT if fee else None)


HELD_BY_SCHEDULE: dict[str, Any] = {"schedule_id": "sub_sched_1"}
WAITS: dict[str, Any] = {"pending_update_until": END}
TRIAL: dict[str, Any] = {"status": "trialing", "trial_end": END}
HALF = DiscountSeen("di_1", "half", AT, None)


class TestNextStep:
    @pytest.mark.parametrize(
        ("kind", "wanted", "shown", "step"),
        [
            (Kind.UPDATE, TO_GROWTH, seen(), Call.UPDATE_ITEMS),
            (Kind.UPDATE, TO_GROWTH, seen(**HELD_BY_SCHEDULE), Call.RELEASE_SCHEDULE),
            (Kind.UPDATE, TO_GROWTH, seen(held=GROWTH), Outcome.DONE),
            (Kind.UPDATE, TO_GROWTH, seen(**WAITS), Outcome.PENDING),
            (Kind.UPDATE, TO_GROWTH, seen(status="canceled"), Outcome.OVER),
            (Kind.UPDATE, TO_GROWTH_THEN_STARTER, seen(held=GROWTH), Call.MAKE_SCHEDULE),
            (Kind.UPDATE, TO_GROWTH_THEN_STARTER, seen(held=GROWTH, **HELD_BY_SCHEDULE), Call.PLAN_PHASES),
            (Kind.UPDATE, TO_GROWTH_THEN_STARTER, seen(held=GROWTH, later=STARTER), Outcome.DONE),
            (Kind.SCHEDULE, GROWTH.as_dict(), seen(), Call.MAKE_SCHEDULE),
            (Kind.SCHEDULE, GROWTH.as_dict(), seen(**HELD_BY_SCHEDULE), Call.PLAN_PHASES),
            (Kind.SCHEDULE, GROWTH.as_dict(), seen(later=GROWTH), Outcome.SCHEDULED),
            (Kind.SCHEDULE, GROWTH.as_dict(), seen(held=GROWTH), Outcome.DONE),
            (Kind.WITHDRAW, {}, seen(later=GROWTH), Call.RELEASE_SCHEDULE),
            (Kind.WITHDRAW, {}, seen(), Outcome.DONE),
            (Kind.CANCEL, {}, seen(later=GROWTH), Call.RELEASE_SCHEDULE),
            (Kind.CANCEL, {}, seen(), Call.END_LATER),
            (Kind.CANCEL, {}, seen(cancel_at_period_end=True), Outcome.DONE),
            (Kind.CANCEL_NOW, {}, seen(cancel_at_period_end=True), Call.END_NOW),
            (Kind.CANCEL_NOW, {}, seen(status="canceled"), Outcome.DONE),
            (Kind.KEEP, {}, seen(cancel_at=END), Call.GO_ON),
            (Kind.KEEP, {}, seen(), Outcome.DONE),
            (Kind.END_TRIAL, {}, seen(**TRIAL), Call.MOVE_TRIAL_END),
            (Kind.END_TRIAL, {}, seen(**TRIAL, **WAITS), Outcome.PENDING),
            (Kind.END_TRIAL, {}, seen(), Outcome.DONE),
            (Kind.EXTEND_TRIAL, {"ends_at": END.isoformat()}, seen(**TRIAL), Outcome.DONE),
            (Kind.EXTEND_TRIAL, {"ends_at": AT.isoformat()}, seen(**TRIAL), Call.MOVE_TRIAL_END),
            (Kind.DISCOUNT, {"coupon": "half"}, seen(), Call.SET_DISCOUNTS),
            (Kind.DISCOUNT, {"coupon": "half"}, seen(discounts=(HALF,)), Outcome.DONE),
            (Kind.DISCOUNT, {"remove": "di_1"}, seen(discounts=(HALF,)), Call.SET_DISCOUNTS),
            (Kind.DISCOUNT, {"remove": "di_1"}, seen(), Outcome.DONE),
            (Kind.BEGIN, {"end_with_trial": True, "setup_fees": []}, seen(**TRIAL), Call.END_LATER),
            (Kind.BEGIN, {"end_with_trial": False, "setup_fees": ["fee"]}, seen(**TRIAL), Call.CHARGE_SETUP_FEE),
            (Kind.BEGIN, {"end_with_trial": False, "setup_fees": ["fee"]}, seen(fee=True, **TRIAL), Outcome.DONE),
        ],
    )
    def test_is_what_is_missing_at_stripe(
        self, kind: Kind, wanted: dict[str, Any], shown: Seen, step: Call | Outcome
    ) -> None:
        assert next_step(kind, wanted, shown) is step

    def test_what_waited_for_a_payment_and_waits_no_more_has_failed(self) -> None:
        assert next_step(Kind.UPDATE, TO_GROWTH, SEEN, was_pending=True) is Outcome.PAYMENT_FAILED
        paid = replace(SEEN, held=GROWTH)
        assert next_step(Kind.UPDATE, TO_GROWTH, paid, was_pending=True) is Outcome.DONE


def price(price_id: str, version: str, kind: str, meter: str | None = None) -> PriceAtStripe:
    return PriceAtStripe(price_id, version, f"plan_{version}", version == "extra", kind, meter)


PRICES = {
    "starter": [price("flat_s", "starter", "flat"), price("calls_s", "starter", "metered", "calls")],
    "growth": [
        price("flat_g", "growth", "flat"),
        price("calls_g", "growth", "metered", "calls"),
        price("bytes_g", "growth", "metered", "bytes"),
        price("fee_g", "growth", "setup_fee"),
    ],
    "extra": [price("flat_x", "extra", "flat")],
}
KNOWN = {one.price_id: one for prices in PRICES.values() for one in prices}


class TestItems:
    @pytest.mark.parametrize(
        ("target", "params"),
        [
            (STARTER, []),
            (
                GROWTH,
                [
                    {"id": "si_flat", "price": "flat_g", "quantity": 1},
                    {"id": "si_calls", "price": "calls_g"},
                    {"price": "bytes_g"},
                ],
            ),
            (STARTER.with_add_on("extra", 3), [{"price": "flat_x", "quantity": 3}]),
        ],
    )
    def test_take_each_others_place(self, target: Holding, params: list[dict[str, Any]]) -> None:
        assert item_params(STATE.items, wanted_prices(target, PRICES), KNOWN) == params

    def test_change_in_number_and_go(self) -> None:
        items = (*STATE.items, ItemSeen("si_x", "flat_x", 3, AT, END), ItemSeen("si_theirs", "theirs", 1, AT, END))
        more = wanted_prices(STARTER.with_add_on("extra", 5), PRICES)
        assert item_params(items, more, KNOWN) == [
            {"id": "si_x", "quantity": 5},
            {"id": "si_theirs", "deleted": True},
        ]
        none = wanted_prices(STARTER, PRICES)
        assert item_params(items[:3], none, KNOWN) == [{"id": "si_x", "deleted": True}]

    @pytest.mark.parametrize(
        ("prices", "held"),
        [
            ([("flat_s", 1), ("calls_s", None)], STARTER),
            ([("flat_s", 1), ("flat_x", 2)], STARTER.with_add_on("extra", 2)),
            ([("flat_s", 1), ("flat_g", 1)], None),
            ([("flat_s", 1), ("theirs", 1)], None),
            ([("flat_x", 1)], None),
        ],
    )
    def test_are_one_plan_of_ours_or_nothing(
        self, prices: list[tuple[str, int | None]], held: Holding | None
    ) -> None:
        assert holding_of(prices, KNOWN) == held
