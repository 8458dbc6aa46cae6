"""Plan versions as values."""

from typing import Any

from control_plane.catalog.model import PlanFacts, PlanTerms, PriceTerms
from control_plane.catalog.prices import check_price_params
from control_plane.stripe_sync.catalog.wanted import VersionFacts, Wanted, wanted_of

PRO = PlanFacts(code="pro", name="Pro", api_product="weather", position=0, description="For teams.")


def a_price(
    model: str, meter: str | None = None, *, currency: str = "USD", other: bool = False, **params: Any
) -> PriceTerms:
    """`other`: the currency is not the version's own."""
    checked = check_price_params(model, params, currency=currency)
    return PriceTerms(model=model, meter=meter, params=checked, currency=currency if other else "")


FLAT = a_price("flat", amount="49")
OVERAGE = a_price("overage", "requests", included=50_000, unit_amount="0.0015")


def facts(*prices: PriceTerms, plan: PlanFacts = PRO, currency: str = "USD", **more: Any) -> VersionFacts:
    terms = PlanTerms(interval=more.pop("interval", "month"), currency=currency, prices=prices, billed_by="stripe")
    given: dict[str, Any] = {
        "version_id": "plv_1",
        "plan_id": "pln_1",
        "version": 3,
        "plan": plan,
        "api_product_id": "prd_1",
        "product_name": "Weather",
        "terms": terms,
        "aggregations": {},
        "meter_names": {},
    }
    return VersionFacts(**given | more)


def wanted(*prices: PriceTerms, automatic_tax: bool = False, **more: Any) -> Wanted:
    return wanted_of(facts(*prices, **more), installation="main", automatic_tax=automatic_tax)
