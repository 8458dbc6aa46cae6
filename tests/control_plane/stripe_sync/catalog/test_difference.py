"""What differs at Stripe: what is mended, what is said, and what is left alone."""

from dataclasses import replace

import pytest

from control_plane.stripe_sync.catalog.actual import Actual, ActualMeter, ActualPrice, ActualProduct
from control_plane.stripe_sync.catalog.difference import Step, price_step, steps
from tests.control_plane.stripe_sync.catalog.builders import FLAT, OVERAGE, wanted

WANTED = wanted(FLAT, OVERAGE)
PRODUCT = ActualProduct(
    id="km_main_pln_1", owner="main", name="Pro", description="For teams.", active=True, tax_code=None
)
METER = ActualMeter(
    id="mtr_1",
    event_name="km_main_weather_requests",
    display_name="Weather: requests",
    active=True,
    formula="sum",
    customer_key="stripe_customer_id",
    value_key="value",
)
PRICE = ActualPrice(
    id="price_0",
    owner="main",
    lookup_key="km:main:pro:3:0:USD",
    product_id="km_main_pln_1",
    nickname="pro v3: flat",
    active=True,
    tax_behavior="unspecified",
    terms_digest=WANTED.prices[0].terms_digest,
)
METERED = replace(
    PRICE,
    id="price_1",
    lookup_key="km:main:pro:3:1:USD",
    nickname="pro v3: overage requests",
    terms_digest=WANTED.prices[1].terms_digest,
)


def compared(
    *,
    product: ActualProduct | None = PRODUCT,
    meter: ActualMeter | None = METER,
    price: ActualPrice | None = PRICE,
) -> list[Step]:
    prices = {one.lookup_key: one for one in (price, METERED) if one is not None}
    actual = Actual(
        products={product.id: product} if product else {},
        meters={meter.event_name: meter} if meter else {},
        prices=prices,
        prices_by_id={one.id: one for one in prices.values()},
    )
    return steps(WANTED, actual, installation="main", known={})


class TestDifference:
    def test_nothing_differs_where_all_is_as_pushed(self) -> None:
        assert [step.action for step in compared()] == ["none"] * 4

    def test_an_empty_account_lacks_everything_in_the_order_of_making(self) -> None:
        found = steps(WANTED, Actual(), installation="main", known={})
        assert [(step.thing, step.action) for step in found] == [
            ("product", "create"),
            ("meter", "create"),
            ("price", "create"),
            ("price", "create"),
        ]

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"product": replace(PRODUCT, name="Gold")}, "'Gold'"),
            ({"product": replace(PRODUCT, description="")}, "description"),
            ({"product": replace(PRODUCT, active=False)}, "archived"),
            ({"meter": replace(METER, active=False)}, "inactive"),
            ({"meter": replace(METER, display_name="x")}, "'x'"),
            ({"price": replace(PRICE, active=False)}, "archived"),
            ({"price": replace(PRICE, nickname="")}, "nickname"),
        ],
    )
    def test_what_is_ours_and_can_be_changed_is_mended(
        self, change: dict[str, ActualProduct | ActualMeter | ActualPrice], says: str
    ) -> None:
        [step] = [step for step in compared(**change) if step.action != "none"]  # type: ignore[arg-type]
        assert step.action == "update"
        assert not step.problems
        assert says in step.because[0]

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"product": replace(PRODUCT, owner="")}, "something else"),
            ({"product": replace(PRODUCT, owner="other")}, "installation other"),
            ({"price": replace(PRICE, owner="")}, "something else"),
            ({"price": replace(PRICE, terms_digest="x")}, "other terms"),
            ({"meter": replace(METER, formula="last")}, "counts by last"),
            ({"meter": replace(METER, customer_key="who")}, "customer in who"),
            ({"meter": replace(METER, value_key="n")}, "value in n"),
        ],
    )
    def test_the_rest_is_only_said(
        self, change: dict[str, ActualProduct | ActualMeter | ActualPrice], says: str
    ) -> None:
        found = compared(**change)  # type: ignore[arg-type]
        assert {step.action for step in found} == {"none"}
        [problem] = [step.problems[0] for step in found if step.problems]
        assert says in problem

    def test_a_lookup_key_that_was_taken_away_is_given_back_to_our_price(self) -> None:
        ours = replace(PRICE, lookup_key="")
        step = price_step(WANTED.prices[0], None, ours, installation="main")
        assert (step.action, step.stripe_id) == ("update", "price_0")

    def test_a_lookup_key_that_another_took_is_left_to_it(self) -> None:
        foreign = replace(PRICE, id="price_9", owner="")
        step = price_step(WANTED.prices[0], foreign, replace(PRICE, lookup_key=""), installation="main")
        assert (step.action, step.stripe_id, bool(step.problems)) == ("none", "price_9", True)

    def test_a_tax_behaviour_can_be_set_once(self) -> None:
        taxed = wanted(FLAT, automatic_tax=True).prices[0]
        unset = price_step(taxed, PRICE, None, installation="main")
        inclusive = price_step(taxed, replace(PRICE, tax_behavior="inclusive"), None, installation="main")
        assert (unset.action, inclusive.action) == ("update", "none")
        assert "inclusive" in inclusive.problems[0]

    def test_taxes_that_were_turned_off_leave_the_behaviour_be(self) -> None:
        step = price_step(WANTED.prices[0], replace(PRICE, tax_behavior="exclusive"), None, installation="main")
        assert (step.action, step.problems) == ("none", ())
