"""What we expect of Stripe's invoices against a Stripe that reckons them by itself, to the cent."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.stripe_sync.invoices.expected import (
    Standing,
    Use,
    cancel_now_lines,
    change_lines,
    period_end_lines,
    start_lines,
)
from control_plane.stripe_sync.invoices.lines import Debit, Span
from control_plane.stripe_sync.invoices.totals import DiscountTerms, ExpectedInvoice, add_up
from tests.control_plane.stripe_sync.invoices.simulated import START, PlanOfTest, SimulatedStripe, moment

MONTH = 31 * 86_400
unit_amounts = st.integers(0, 3_000).map(lambda value: f"{value / 10_000:.4f}")


@st.composite
def metered(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    model = draw(st.sampled_from(["per_unit", "overage", "graduated", "volume", "package"]))
    amount = draw(unit_amounts)
    if model == "per_unit":
        return model, {"unit_amount": amount}
    if model == "overage":
        return model, {"included": draw(st.integers(0, 2_000)), "unit_amount": amount}
    if model == "package":
        return model, {"size": draw(st.integers(1, 300)), "amount": amount}
    bounds = sorted(draw(st.sets(st.integers(1, 3_000), min_size=1, max_size=3)))
    tiers = [{"up_to": bound, "unit_amount": draw(unit_amounts)} for bound in bounds]
    return model, {"tiers": [*tiers, {"up_to": None, "unit_amount": amount}]}


plans = st.builds(
    PlanOfTest,
    code=st.just("plan"),
    flat=st.integers(1, 2_000_000),
    metered=st.lists(metered(), max_size=2).map(tuple),
)
coupons = st.lists(
    st.one_of(
        st.integers(1, 100).map(lambda percent: {"percent_off": percent}),
        st.integers(1, 5_000).map(lambda amount: {"amount_off": amount}),
    ),
    max_size=2,
)
used = st.lists(st.integers(0, 4_000), min_size=2, max_size=2)


def same(expected: ExpectedInvoice, actual: dict[str, Any]) -> None:
    assert sorted(line.amount_minor for line in expected.lines) == sorted(
        line["amount"] for line in actual["_lines"]
    )
    assert expected.subtotal_minor == actual["subtotal"]
    assert expected.total_minor == actual["total"]
    assert expected.amount_due_minor == actual["amount_due"]


def standing_of(
    stripe: SimulatedStripe, code: str, discounts: list[DiscountTerms], sub: dict[str, Any], units: list[int]
) -> Standing:
    item = sub["items"]["data"][0]
    span = Span(moment(item["current_period_start"]), moment(item["current_period_end"]))
    plain = Standing(currency="USD", span=span, items=stripe.items(code), discounts=tuple(discounts))
    first = add_up(start_lines(plain.items, span=span), currency="USD", discounts=discounts)
    return replace(
        plain,
        debits={line.charge_key: Debit(line.left_minor, span) for line in first.lines},
        uses={f"{code}/{at + 1}": Use(count, span.starts_at) for at, count in enumerate(units)},
    )


def begun(plan: PlanOfTest, terms: list[dict[str, Any]], *, scope: str) -> Any:
    stripe = SimulatedStripe()
    prices = stripe.add_plan(plan)
    products = [prices[0].product_id] if scope == "one" else None
    discounts = [stripe.add_coupon(one, products=products) for one in terms]
    return stripe, discounts


class TestExpectedInvoice:
    @settings(max_examples=15, deadline=None)
    @given(plan=plans, terms=coupons, balance=st.integers(-3_000, 300))
    def test_of_a_first_purchase(self, plan: PlanOfTest, terms: list[dict[str, Any]], balance: int) -> None:
        stripe, discounts = begun(plan, terms, scope="all")
        if balance:
            asked = {"amount": balance, "currency": "usd"}
            stripe.call("POST", f"/v1/customers/{stripe.customer}/balance_transactions", asked)
        span = Span(moment(START), moment(START + MONTH))
        expected = add_up(
            start_lines(stripe.items("plan"), span=span),
            currency="USD",
            discounts=discounts,
            balance_minor=balance,
        )
        sub = stripe.subscribe("plan", discounts)
        same(expected, stripe.sim.state.get("invoice", sub["latest_invoice"]))

    @settings(max_examples=25, deadline=None)
    @given(plan=plans, terms=coupons, units=used, scope=st.sampled_from(["all", "one"]))
    def test_of_a_periods_end(
        self, plan: PlanOfTest, terms: list[dict[str, Any]], units: list[int], scope: str
    ) -> None:
        stripe, discounts = begun(plan, terms, scope=scope)
        sub = stripe.subscribe("plan", discounts)
        units = units[: len(plan.metered)]
        stripe.advance(START + 86_400)
        for at, count in enumerate(units):
            stripe.use(f"meter_{at}", count, at=START + 3_600)
        standing = standing_of(stripe, "plan", discounts, sub, units)
        ends_at = standing.span.ends_at
        lines = period_end_lines(
            standing, next_items=standing.items, next_span=Span(ends_at, ends_at + timedelta(days=30))
        )
        expected = add_up(lines, currency="USD", discounts=discounts, balance_minor=stripe.balance)
        same(expected, stripe.preview({"subscription": sub["id"]}))
        stripe.advance(START + MONTH)
        draft = stripe.sim.state.get("invoice", stripe.sim.state.get("subscription", sub["id"])["latest_invoice"])
        assert draft["billing_reason"] == "subscription_cycle"
        same(expected, draft)

    @settings(max_examples=30, deadline=None)
    @given(
        plan=plans,
        other=plans,
        terms=coupons,
        units=used,
        at=st.integers(7_200, MONTH - 1),
        scope=st.sampled_from(["all", "one"]),
    )
    def test_of_a_change_at_once_at_any_second(  # noqa: PLR0917 - as hypothesis draws
        self,
        plan: PlanOfTest,
        other: PlanOfTest,
        terms: list[dict[str, Any]],
        units: list[int],
        at: int,
        scope: str,
    ) -> None:
        stripe, discounts = begun(plan, terms, scope=scope)
        stripe.add_plan(replace(other, code="other"))
        sub = stripe.subscribe("plan", discounts)
        units = units[: len(plan.metered)]
        stripe.advance(START + at)
        for number, count in enumerate(units):
            stripe.use(f"meter_{number}", count, at=START + 3_600)
        standing = standing_of(stripe, "plan", discounts, sub, units)
        lines = change_lines(standing, stripe.items("other"), at=moment(START + at))
        expected = add_up(lines, currency="USD", discounts=discounts, balance_minor=stripe.balance)
        items = [{"id": item["id"], "deleted": True} for item in sub["items"]["data"]]
        details = {
            "items": [*items, *({"price": price.price_id} for price in stripe.prices["other"])],
            "proration_date": START + at,
            "proration_behavior": "always_invoice",
        }
        same(expected, stripe.preview({"subscription": sub["id"], "subscription_details": details}))

    @settings(max_examples=10, deadline=None)
    @given(plan=plans.filter(lambda plan: plan.metered), terms=coupons, units=used)
    def test_of_an_end_at_once(self, plan: PlanOfTest, terms: list[dict[str, Any]], units: list[int]) -> None:
        stripe, discounts = begun(plan, terms, scope="all")
        sub = stripe.subscribe("plan", discounts)
        units = units[: len(plan.metered)]
        stripe.advance(START + 86_400)
        for at, count in enumerate(units):
            stripe.use(f"meter_{at}", count, at=START + 3_600)
        lines = cancel_now_lines(standing_of(stripe, "plan", discounts, sub, units), at=moment(START + 86_400))
        expected = add_up(lines, currency="USD", discounts=discounts, balance_minor=stripe.balance)
        details = {"cancel_now": True, "proration_behavior": "none"}
        same(expected, stripe.preview({"subscription": sub["id"], "subscription_details": details}))
