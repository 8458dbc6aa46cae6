"""A small catalogue at the simulated Stripe, and the moves tests repeat."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
import stripe

from devstack.stripe.embedded import EmbeddedStripe

DAY = 86_400
NUMBERS = count(1)


@dataclass
class Shop:
    """Prices in US dollars by the month: pro 49.00, team 99.00; calls 1,000 free and then 0.4 cents each."""

    sim: EmbeddedStripe
    client: stripe.StripeClient
    event_name: str = "calls"
    prices: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        v1 = self.client.v1
        self.product = v1.products.create({"name": "API"}).id
        self.other_product = v1.products.create({"name": "Add-on"}).id
        meter = v1.billing.meters.create(
            {
                "display_name": "Calls",
                "event_name": self.event_name,
                "default_aggregation": {"formula": "sum"},
                "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
                "value_settings": {"event_payload_key": "value"},
            }
        ).id
        self.prices = {"pro": self.flat(4900), "team": self.flat(9900), "yearly": self.flat(50000, "year")}
        self.prices["addon"] = self.flat(1000, product=self.other_product)
        for name, rate in (("calls", "0.4"), ("calls_team", "0.2")):
            self.prices[name] = v1.prices.create(
                {
                    "currency": "usd",
                    "product": self.product,
                    "billing_scheme": "tiered",
                    "tiers_mode": "graduated",
                    "tiers": [{"up_to": 1000, "unit_amount": 0}, {"up_to": "inf", "unit_amount_decimal": rate}],
                    "recurring": {"interval": "month", "usage_type": "metered", "meter": meter},
                }
            ).id

    def flat(self, amount: int, interval: str | None = "month", *, product: str | None = None) -> str:
        given: dict[str, Any] = {"currency": "usd", "product": product or self.product, "unit_amount": amount}
        if interval:
            given["recurring"] = {"interval": interval}
        return self.client.v1.prices.create(given).id

    def customer(self, card: str | None = "pm_card_visa", **more: Any) -> str:
        given = {"email": f"c{next(NUMBERS)}@example.com", **more}
        if card:
            given |= {"payment_method": card, "invoice_settings": {"default_payment_method": card}}
        return self.client.v1.customers.create(given).id

    def subscribe(self, customer: str, *names: str, **more: Any) -> Any:
        items = [{"price": self.prices[name]} for name in names]
        return self.client.v1.subscriptions.create({"customer": customer, "items": items, **more})

    def use(self, customer: str, value: int, *, at: int | None = None) -> None:
        given: dict[str, Any] = {"event_name": self.event_name}
        given["payload"] = {"stripe_customer_id": customer, "value": str(value)}
        if at is not None:
            given["timestamp"] = at
        self.client.v1.billing.meter_events.create(given)

    def item(self, sub: Any, name: str) -> str:
        return next(one.id for one in sub["items"].data if one.price.id == self.prices[name])

    def swap(self, sub: Any, old: str, new: str, **more: Any) -> Any:
        items = [{"id": self.item(sub, old), "price": self.prices[new]}]
        return self.client.v1.subscriptions.update(sub.id, {"items": items, **more})

    def again(self, sub: Any, *expand: str) -> Any:
        return self.client.v1.subscriptions.retrieve(sub.id, {"expand": list(expand)})

    def invoices(self, customer: str) -> list[Any]:
        """Newest first."""
        return list(self.client.v1.invoices.list({"customer": customer, "limit": 100}).data)

    def events(self) -> list[str]:
        """Types, oldest first."""
        return [one.type for one in reversed(self.client.v1.events.list({"limit": 100}).data)]

    def to_period_end(self, sub: Any, *, plus: int = 0) -> None:
        end = min(one.current_period_end for one in self.again(sub)["items"].data)
        self.sim.control.advance(to=end + plus)


@pytest.fixture
def shop(sim: EmbeddedStripe, client: stripe.StripeClient) -> Shop:
    return Shop(sim, client)


def lines_of(invoice: Any) -> list[tuple[int, int | None]]:
    return [(one.amount, one.quantity) for one in invoice.lines.data]


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
