"""Products and prices, driven by Stripe's SDK."""

from decimal import Decimal
from typing import Any

import pytest
import stripe

METERED = {"interval": "month", "usage_type": "metered"}
MONTH = {"interval": "month"}


@pytest.fixture
def product(client: stripe.StripeClient) -> str:
    return client.v1.products.create({"id": "km_main_pro", "name": "Pro"}).id


@pytest.fixture
def meter(client: stripe.StripeClient) -> str:
    made = client.v1.billing.meters.create(
        {"display_name": "Calls", "event_name": "calls", "default_aggregation": {"formula": "sum"}}
    )
    return made.id


class TestProducts:
    def test_an_own_id_makes_creating_idempotent(self, client: stripe.StripeClient, product: str) -> None:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.v1.products.create({"id": product, "name": "Again"})
        assert refused.value.code == "resource_already_exists"
        assert client.v1.products.retrieve(product).name == "Pro"

    def test_metadata_is_merged_key_by_key(self, client: stripe.StripeClient, product: str) -> None:
        client.v1.products.update(product, {"metadata": {"a": "1", "b": "2"}})
        changed = client.v1.products.update(product, {"metadata": {"a": "", "c": "3"}})
        assert changed.metadata.to_dict() == {"b": "2", "c": "3"}
        assert client.v1.products.update(product, {"metadata": ""}).metadata.to_dict() == {}

    @pytest.mark.parametrize("metadata", [{"k" * 41: "v"}, {"k": "v" * 501}, {f"k{i}": "v" for i in range(51)}])
    def test_metadata_has_limits(
        self, client: stripe.StripeClient, product: str, metadata: dict[str, str]
    ) -> None:
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.products.update(product, {"metadata": metadata})

    def test_only_one_without_prices_can_be_deleted(self, client: stripe.StripeClient, product: str) -> None:
        other = client.v1.products.create({"name": "Other"}).id
        client.v1.prices.create({"currency": "usd", "product": product, "unit_amount": 1})
        assert client.v1.products.delete(other).deleted
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.products.retrieve(other)
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.products.delete(product)


class TestPrices:
    def test_a_graduated_price_shows_its_tiers_only_when_they_are_expanded(
        self, client: stripe.StripeClient, product: str, meter: str
    ) -> None:
        made = client.v1.prices.create(
            {
                "currency": "usd",
                "product": product,
                "billing_scheme": "tiered",
                "tiers_mode": "graduated",
                "tiers": [
                    {"up_to": 1_000, "unit_amount": 0},
                    {"up_to": "inf", "unit_amount_decimal": Decimal("0.04"), "flat_amount": 500},
                ],
                "recurring": {**METERED, "meter": meter},
            }
        )
        assert "tiers" not in made
        assert made.unit_amount is None
        listed = client.v1.prices.list({"product": product, "expand": ["data.tiers", "data.product"]}).data[0]
        assert listed.tiers is not None
        first, last = listed.tiers
        assert (first.up_to, first.unit_amount, first.unit_amount_decimal) == (1_000, 0, Decimal(0))
        assert (last.up_to, last.unit_amount, last.unit_amount_decimal) == (None, None, Decimal("0.04"))
        assert (last.flat_amount, last.flat_amount_decimal) == (500, Decimal(500))
        assert isinstance(listed.product, stripe.Product)
        assert listed.product.name == "Pro"

    @pytest.mark.parametrize(
        ("given", "param"),
        [
            ({}, "unit_amount"),
            ({"unit_amount": 1, "unit_amount_decimal": Decimal(1)}, "unit_amount"),
            ({"unit_amount": -1}, "unit_amount"),
            ({"unit_amount_decimal": Decimal("0.0000000000001")}, "unit_amount_decimal"),
            ({"unit_amount": 1, "tiers": [{"up_to": "inf", "unit_amount": 1}]}, "tiers"),
            ({"unit_amount": 1, "recurring": METERED}, "recurring[meter]"),
            ({"unit_amount": 1, "recurring": {**METERED, "meter": "mtr_none"}}, "recurring[meter]"),
            ({"unit_amount": 1, "recurring": {**MONTH, "interval_count": 37}}, "recurring[interval_count]"),
            ({"unit_amount": 1, "lookup_key": "k" * 201}, "lookup_key"),
            ({"unit_amount": 1, "currency": "usdollar"}, "currency"),
            ({"billing_scheme": "tiered"}, "tiers"),
            ({"billing_scheme": "tiered", "tiers": [{"up_to": "inf", "unit_amount": 1}]}, "tiers_mode"),
            ({"billing_scheme": "tiered", "tiers_mode": "volume", "unit_amount": 1}, "unit_amount"),
            ({"billing_scheme": "tiered", "tiers_mode": "volume", "tiers": [{"up_to": 5, "unit_amount": 1}]},
             "tiers[0][up_to]"),
            ({"billing_scheme": "tiered", "tiers_mode": "volume",
              "tiers": [{"up_to": 5, "unit_amount": 1}, {"up_to": 5, "unit_amount": 1},
                        {"up_to": "inf", "unit_amount": 1}]}, "tiers[1][up_to]"),
            ({"billing_scheme": "tiered", "tiers_mode": "volume", "tiers": [{"up_to": "inf"}]},
             "tiers[0][unit_amount]"),
            ({"billing_scheme": "tiered", "tiers_mode": "volume", "tiers": [{"up_to": "inf", "unit_amount": 1}],
              "transform_quantity": {"divide_by": 10, "round": "up"}}, "transform_quantity"),
            ({"unit_amount": 1, "transform_quantity": {"divide_by": 0, "round": "up"}},
             "transform_quantity[divide_by]"),
        ],
    )  # fmt: skip
    def test_what_does_not_go_together_is_refused(
        self, client: stripe.StripeClient, product: str, given: dict[str, Any], param: str
    ) -> None:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.v1.prices.create({"currency": "usd", "product": product, **given})  # type: ignore[typeddict-item]
        assert refused.value.param == param
        assert client.v1.prices.list().data == []

    def test_an_inactive_meter_takes_no_new_price(
        self, client: stripe.StripeClient, product: str, meter: str
    ) -> None:
        client.v1.billing.meters.deactivate(meter)
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.prices.create(
                {"currency": "usd", "product": product, "unit_amount": 1, "recurring": {**METERED, "meter": meter}}
            )

    def test_a_lookup_key_belongs_to_one_price_until_it_is_transferred(
        self, client: stripe.StripeClient, product: str
    ) -> None:
        def make(**more: Any) -> stripe.Price:
            return client.v1.prices.create(
                {"currency": "usd", "product": product, "unit_amount": 1, "lookup_key": "pro:1", **more}
            )

        old = make()
        with pytest.raises(stripe.InvalidRequestError) as refused:
            make()
        assert refused.value.param == "lookup_key"
        new = make(transfer_lookup_key=True)
        assert [one.id for one in client.v1.prices.list({"lookup_keys": ["pro:1"]}).data] == [new.id]
        assert client.v1.prices.retrieve(old.id).lookup_key is None

    def test_what_it_charges_never_changes(self, client: stripe.StripeClient, product: str) -> None:
        made = client.v1.prices.create(
            {"currency": "usd", "product": product, "unit_amount": 1, "tax_behavior": "exclusive"}
        )
        changed = client.v1.prices.update(made.id, {"active": False, "nickname": "old"})
        assert (changed.active, changed.nickname) == (False, "old")
        for given in ({"unit_amount": 2}, {"tax_behavior": "inclusive"}):
            with pytest.raises(stripe.InvalidRequestError):
                client.v1.prices.update(made.id, given)  # type: ignore[arg-type]

    def test_at_most_ten_lookup_keys_are_looked_up_at_once(self, client: stripe.StripeClient) -> None:
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.prices.list({"lookup_keys": [str(number) for number in range(11)]})
