"""Plans as code, the other way: the catalogue as the text of a plan file. Applying it again changes nothing."""

from collections.abc import Mapping
from typing import Any

import yaml
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.meter_queries import facts_of_meter, meters
from control_plane.catalog.meters import ANY_EVENT, MeterFacts
from control_plane.catalog.model import PlanTerms, ProductFacts
from control_plane.catalog.plan_file import PlanFile, PlanOffer
from control_plane.catalog.queries import (
    api_products,
    facts_of_plan,
    facts_of_product,
    plans,
    published_versions,
    terms_of_version,
)
from control_plane.foundation.errors import ConflictError
from control_plane.foundation.windows import PER_MS

_PER = {window_ms: name for name, window_ms in PER_MS.items()}


class LimitNotExpressibleError(ConflictError):
    """A plan file limits calls by second, minute, hour or day."""

    def __init__(self, plan: str, window_ms: int) -> None:
        super().__init__(
            "limit_not_expressible", f"Plan {plan} has a limit over {window_ms} ms, which a plan file cannot say."
        )


async def read_catalog(session: AsyncSession) -> PlanFile:
    """Return all that is on sale as a plan file says it: products, meters, plans with a published version.

    Archived things are left out, and so are plans of archived API products.
    """
    products = [facts_of_product(row) for row in await api_products(session)]
    known = {product.code for product in products}
    plan_rows = [row for row in await plans(session) if row.api_product.code in known]
    versions = await published_versions(session, [row.id for row in plan_rows])
    return PlanFile(
        products=tuple(products),
        meters=tuple(facts_of_meter(row) for row in await meters(session, product_codes=known)),
        plans=tuple(
            PlanOffer(facts_of_plan(row), terms_of_version(versions[row.id]))
            for row in plan_rows
            if row.id in versions
        ),
    )


def plan_file_text(file: PlanFile) -> str:
    """Return the YAML of a plan file; what is as it is by default is left out. Pure.

    Raises:
        LimitNotExpressibleError: a plan has a limit over a time that plan files have no word for.
    """
    content = {
        "api_products": [_product(product) for product in file.products],
        "meters": [_meter(meter) for meter in file.meters],
        "plans": [_plan(offer) for offer in file.plans],
    }
    given = {name: value for name, value in content.items() if value}
    return yaml.safe_dump(given, sort_keys=False, allow_unicode=True, width=100)


def _product(product: ProductFacts) -> dict[str, Any]:
    standard = ProductFacts(code="", name="", service="", routes=())
    given = _differing(product.as_dict(), standard.as_dict())
    if product.endpoints:
        given["endpoints"] = [f"{endpoint.method} {endpoint.path_template}" for endpoint in product.endpoints]
    return given


def _meter(meter: MeterFacts) -> dict[str, Any]:
    written = meter.as_dict()
    always = ("code", "name", "api_product", "aggregation")
    optional: dict[str, Any] = {"value": None, "events": "calls", "filters": {}, "weights": {}}
    written["filters"] = _differing(meter.filters.as_dict(), ANY_EVENT.as_dict())
    return {name: written[name] for name in always} | _differing(
        {name: written[name] for name in optional}, optional
    )


def _plan(offer: PlanOffer) -> dict[str, Any]:
    facts, terms = offer.facts, offer.terms
    plan: dict[str, Any] = {
        "code": facts.code,
        "name": facts.name,
        "api_product": facts.api_product,
        "position": facts.position,
    }
    optional = {
        "recommended": facts.recommended,
        "visibility": facts.visibility,
        "by_quote": terms.by_quote,
        "entitlements": list(terms.entitlements),
        "redis_down": terms.redis_down,
        "on_past_due": terms.on_past_due,
        "event_retention_days": terms.event_retention_days,
    }
    standard = {"recommended": False, "visibility": "public", "by_quote": False, "entitlements": []}
    standard |= {"redis_down": "open", "on_past_due": "serve", "event_retention_days": None}
    plan |= {"interval": terms.interval, "currency": terms.currency, **_differing(optional, standard)}
    return plan | _limits(facts.code, terms) | _prices(terms)


def _limits(code: str, terms: PlanTerms) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if terms.quota_units is not None:
        given["quota"] = {
            "units": terms.quota_units,
            "on_exceed": "refuse" if terms.quota_hard else "charge",
            **({} if terms.quota_cap_units is None else {"cap": terms.quota_cap_units}),
        }
    for window in terms.windows:
        if window.window_ms not in _PER:
            raise LimitNotExpressibleError(code, window.window_ms)
    if terms.windows:
        given["limits"] = [{"limit": one.limit, "per": _PER[one.window_ms]} for one in terms.windows]
    if terms.concurrency is not None:
        lease_seconds = terms.concurrency.lease_ms // 1000
        given["concurrency"] = {"limit": terms.concurrency.limit, "lease_seconds": lease_seconds}
    if terms.billable_below is not None:
        given["billable_statuses"] = {"below": terms.billable_below}
    return given


def _prices(terms: PlanTerms) -> dict[str, Any]:
    prices = [
        {
            "model": price.model,
            **({} if price.meter is None else {"meter": price.meter}),
            **price.params,
            **({"description": price.description} if price.description else {}),
        }
        for price in terms.prices
    ]
    return {"prices": prices} if prices else {}


def _differing(values: Mapping[str, Any], standard: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value != standard[name]}
