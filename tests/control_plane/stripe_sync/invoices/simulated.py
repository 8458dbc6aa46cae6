"""Plans of ours at a simulated Stripe within this process, so that both reckon the same invoice."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from control_plane.rating.versions import SoldPrice, VersionPrice, read_version
from control_plane.stripe_sync.catalog.native import Native, RatedPrice, stripe_rating
from control_plane.stripe_sync.invoices.lines import Item
from control_plane.stripe_sync.invoices.lines import SoldPrice as PriceAtStripe
from control_plane.stripe_sync.invoices.totals import DiscountTerms, LineKind
from devstack.stripe import operations
from devstack.stripe.routes import Call, match
from devstack.stripe.simulator import Simulator

START = 1_772_366_400  # 2026-03-01 12:00 UTC


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True)
class PlanOfTest:
    """`flat` in minor units; `metered`: (model, params), one for each meter."""

    code: str
    flat: int
    metered: tuple[tuple[str, dict[str, Any]], ...] = ()


@dataclass
class SimulatedStripe:
    """One customer with a card. `prices`: our view of Stripe's, by plan."""

    sim: Simulator = field(default_factory=Simulator)
    prices: dict[str, list[PriceAtStripe]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        operations.load()
        self.sim.reset()
        self.sim.clock = type(self.sim.clock)(START)
        self.customer = self.call("POST", "/v1/customers", {"email": "ada@example.com"})["id"]
        card = self.call("POST", "/v1/payment_methods/pm_card_visa/attach", {"customer": self.customer})["id"]
        self.call("POST", f"/v1/customers/{self.customer}", {"invoice_settings": {"default_payment_method": card}})
        self.meters: dict[str, str] = {}

    def call(self, method: str, path: str, params: dict[str, Any]) -> dict[str, Any]:
        """Carry an operation out, checked by nobody: parameters are as the contract leaves them."""
        found = match(method, path)
        assert found is not None, path
        route, ids = found
        return route.handler(self.sim, Call(method=method, url_path=path, path=ids, params=params))

    @property
    def balance(self) -> int:
        """The customer's: what was too small to be charged waits there."""
        return self.sim.state.get("customer", self.customer)["balance"]

    def add_plan(self, plan: PlanOfTest) -> list[PriceAtStripe]:
        product = self.call("POST", "/v1/products", {"name": plan.code})["id"]
        sold = [("flat", None, {"amount": f"{Decimal(plan.flat).scaleb(-2):f}"})]
        sold += [(model, f"meter_{at}", params) for at, (model, params) in enumerate(plan.metered)]
        version = read_version(
            version_id=plan.code,
            name=plan.code,
            currency="USD",
            prices=[
                SoldPrice(position=position, model=model, meter=meter, params=params)
                for position, (model, meter, params) in enumerate(sold)
            ],
        )
        self.prices[plan.code] = [
            self._add_price(product, price, sold[price.position][2], plan) for price in version.prices
        ]
        return self.prices[plan.code]

    def _add_price(
        self, product: str, price: VersionPrice, params: dict[str, Any], plan: PlanOfTest
    ) -> PriceAtStripe:
        rated = RatedPrice(model=price.model, meter=price.meter, params=params, currency="USD")
        native = stripe_rating(rated, "sum")
        assert isinstance(native, Native)
        meter = None if price.meter is None else self._meter(price.meter)
        asked: dict[str, Any] = {
            "currency": "usd",
            "product": product,
            "recurring": {"interval": "month", "usage_type": "licensed"}
            if meter is None
            else {"interval": "month", "usage_type": "metered", "meter": meter},
        }
        if native.tiers:
            asked |= {"billing_scheme": "tiered", "tiers_mode": native.tiers_mode}
            asked["tiers"] = [
                {"up_to": tier.up_to or "inf", "unit_amount_decimal": tier.unit_amount} for tier in native.tiers
            ]
        else:
            asked |= {"billing_scheme": "per_unit", "unit_amount_decimal": native.unit_amount}
        if native.package_size is not None:
            asked["transform_quantity"] = {"divide_by": native.package_size, "round": "up"}
        return PriceAtStripe(
            kind=LineKind.FLAT if meter is None else LineKind.METERED,
            charge_key=f"{plan.code}/{price.position}",
            price_id=self.call("POST", "/v1/prices", asked)["id"],
            product_id=product,
            currency="USD",
            description=plan.code,
            amount_minor=plan.flat if meter is None else 0,
            rated=None if meter is None else price,
        )

    def _meter(self, code: str) -> str:
        if code not in self.meters:
            asked = {
                "display_name": code,
                "event_name": code,
                "default_aggregation": {"formula": "sum"},
                "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
                "value_settings": {"event_payload_key": "value"},
            }
            self.meters[code] = self.call("POST", "/v1/billing/meters", asked)["id"]
        return self.meters[code]

    def add_coupon(self, terms: dict[str, Any], *, products: list[str] | None = None) -> DiscountTerms:
        asked = {"duration": "forever", **terms}
        if "amount_off" in asked:
            asked["currency"] = "usd"
        if products is not None:
            asked["applies_to"] = {"products": products}
        coupon = self.call("POST", "/v1/coupons", asked)["id"]
        return DiscountTerms(
            id=coupon,
            name=coupon,
            percent=None if "percent_off" not in terms else Decimal(str(terms["percent_off"])),
            amount_minor=terms.get("amount_off", 0),
            products=None if products is None else frozenset(products),
        )

    def items(self, code: str) -> tuple[Item, ...]:
        return tuple(Item(price=price) for price in self.prices[code])

    def subscribe(self, code: str, discounts: list[DiscountTerms], **more: Any) -> dict[str, Any]:
        return self.call("POST", "/v1/subscriptions", self.asked(code, discounts) | more)

    def asked(self, code: str, discounts: list[DiscountTerms]) -> dict[str, Any]:
        return {
            "customer": self.customer,
            "items": [{"price": price.price_id} for price in self.prices[code]],
            "discounts": [{"coupon": one.id} for one in discounts],
            "billing_mode": {"type": "flexible"},
        }

    def use(self, code: str, units: int, *, at: int) -> None:
        if not units:
            return
        asked = {
            "event_name": code,
            "payload": {"stripe_customer_id": self.customer, "value": str(units)},
            "identifier": f"{code}:{at}",
            "timestamp": at,
        }
        self.call("POST", "/v1/billing/meter_events", asked)

    def advance(self, to: int) -> None:
        self.sim.clock.advance_to(to)

    def preview(self, params: dict[str, Any]) -> dict[str, Any]:
        return self.call("POST", "/v1/invoices/create_preview", params)
