"""What Stripe's rating leaves to us, computed by hand."""

from datetime import UTC, datetime

import pytest

from control_plane.billing.terms import Terms
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.versions import SoldPrice, read_version
from control_plane.stripe_sync.invoices.adjustments import Adjusted, AtStripe, Plan, plan_adjustments
from control_plane.stripe_sync.invoices.due import usage_due
from control_plane.subscriptions.timeline import PhaseKind, Timeline, TimelinePhase

START, END = datetime(2026, 3, 1, 9, tzinfo=UTC), datetime(2026, 4, 1, 9, tzinfo=UTC)
PERIOD = BillingPeriod(START, END)
PRICES = {
    "a": ("overage", "requests", {"included": 100, "unit_amount": "0.10"}),
    "b": ("overage", "requests", {"included": 1_000, "unit_amount": "0.01"}),
}


def terms(code: str) -> Terms:
    model, meter, params = PRICES[code]
    sold = [SoldPrice(position=0, model=model, meter=meter, params=params)]
    version = read_version(version_id=code, name=code, currency="USD", prices=sold)
    return Terms(
        rated=version,
        in_advance=version,
        plan_code=code,
        plan_name=code,
        version=1,
        declares=False,
        not_carried=frozenset(),
    )


def due(*phases: tuple[str, int], own_quota: int | None = None):
    """What is due for phases that follow each other by a day: plan and units."""
    cuts = [START, *(START.replace(day=2 + at) for at in range(len(phases) - 1)), None]
    timeline = Timeline(
        subscription_id="sub_1",
        account_id="acc_1",
        api_product_id="prd_1",
        status="active",
        anchor_at=START,
        interval="month",
        time_zone="UTC",
        started_at=START,
        ends_at=None,
        trial_ends_at=None,
        unused_time="kept",
        billed_by="stripe",
        quota_override=own_quota,
        phases=tuple(
            TimelinePhase(f"ph_{at}", code, PhaseKind.PAID, cuts[at], cuts[at + 1], cuts[at])
            for at, (code, _) in enumerate(phases)
        ),
    )
    units = {f"ph_{at}": {"requests": count} for at, (_, count) in enumerate(phases)}
    return usage_due(timeline, PERIOD, terms={code: terms(code) for code in PRICES}, units=units)


def wanted(plan: Plan) -> list[tuple[str, str, int, int]]:
    return [(one.line.charge_key, one.cause.value, one.amount_minor, one.units) for one in plan.wanted]


class TestUsageDue:
    def test_starts_allowances_anew_with_each_change_and_not_with_each_phase(self) -> None:
        found = due(("a", 90), ("a", 90), ("b", 1_010), ("a", 150))
        assert [(one.line.charge_key, one.line.amount_minor) for one in found] == [("a/0", 800 + 500), ("b/0", 10)]
        assert [stretch.units for stretch in found[0].stretches] == [180, 150]


class TestPlanAdjustments:
    @pytest.mark.parametrize(
        ("before", "expected"),
        [
            (None, [("a/0", "not_native", 1_000, 200)]),
            (Adjusted(amounts={"not_native": 1_000}, units=200), []),
            (Adjusted(amounts={"not_native": 700}, units=170), [("a/0", "late_usage", 300, 30)]),
            (Adjusted(amounts={"not_native": 1_200}, units=220), [("a/0", "correction", -200, -20)]),
        ],
    )
    def test_charges_what_stripe_does_not_rate_once(self, before: Adjusted | None, expected: list) -> None:
        adjusted = {} if before is None else {"a/0": before}
        assert wanted(plan_adjustments(due(("a", 200)), native=(), at_stripe={}, adjusted=adjusted)) == expected

    @pytest.mark.parametrize(
        ("at_stripe", "expected"),
        [
            (AtStripe(units=200, amount_minor=1_000), []),
            (AtStripe(units=150, amount_minor=500), [("a/0", "late_usage", 500, 50)]),
            (AtStripe(units=230, amount_minor=1_300), [("a/0", "correction", -300, -30)]),
        ],
    )
    def test_adds_what_stripe_did_not_get(self, at_stripe: AtStripe, expected: list) -> None:
        plan = plan_adjustments(due(("a", 200)), native={"a/0"}, at_stripe={"a/0": at_stripe}, adjusted={})
        assert (wanted(plan), plan.unexplained) == (expected, ())

    def test_takes_off_what_an_own_quota_covers_besides_what_came_late(self) -> None:
        found = due(("a", 200), own_quota=150)
        billed = {"a/0": AtStripe(units=180, amount_minor=800)}
        plan = plan_adjustments(found, native={"a/0"}, at_stripe=billed, adjusted={})
        assert wanted(plan) == [("a/0", "allowance", -500, 0), ("a/0", "late_usage", 200, 20)]
        adjusted = {"a/0": Adjusted(amounts={"allowance": -500, "late_usage": 200}, units=20)}
        assert wanted(plan_adjustments(found, native={"a/0"}, at_stripe=billed, adjusted=adjusted)) == []

    def test_mends_no_amount_that_it_cannot_tell_the_cause_of(self) -> None:
        billed = {"a/0": AtStripe(units=200, amount_minor=1_100)}
        plan = plan_adjustments(due(("a", 200)), native={"a/0"}, at_stripe=billed, adjusted={})
        assert (wanted(plan), [one.amount_minor for one in plan.unexplained]) == ([], [-100])
