"""Plans as code, the other way: the catalogue as the text of a plan file. Applying it again changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.meter_queries import facts_of_meter, meters
from control_plane.catalog.meters import ANY_EVENT, MeterFacts
from control_plane.catalog.model import ADD_ON, PLAN, ProductFacts
from control_plane.catalog.plan_file import PlanFile, PlanOffer
from control_plane.catalog.plan_terms import written_terms
from control_plane.catalog.queries import (
    api_products,
    facts_of_plan,
    facts_of_product,
    plans,
    published_versions,
    terms_of_version,
)


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """Text of a plan file, and the OpenAPI documents it names, each by its name."""

    text: str
    documents: dict[str, str]


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
            for row in sorted(plan_rows, key=lambda row: row.kind == ADD_ON)
            if row.id in versions
        ),
    )


def export_plan_file(file: PlanFile) -> ExportedFile:
    """Return the YAML of a plan file; what is as it is by default is left out. Pure.

    Raises:
        LimitNotExpressibleError: a plan has a limit over a time that plan files have no word for.
    """
    content = {
        "api_products": [_product(product) for product in file.products],
        "meters": [_meter(meter) for meter in file.meters],
        "plans": [_offer(offer) for offer in file.plans if offer.facts.kind == PLAN],
        "add_ons": [_offer(offer) for offer in file.plans if offer.facts.kind == ADD_ON],
    }
    given = {name: value for name, value in content.items() if value}
    return ExportedFile(
        text=yaml.safe_dump(given, sort_keys=False, allow_unicode=True, width=100),
        documents={
            document_name(product): product.openapi_document
            for product in file.products
            if product.openapi_document is not None
        },
    )


def document_name(product: ProductFacts) -> str:
    """Return what the OpenAPI document of a product is called beside its plan file."""
    is_json = (product.openapi_document or "").lstrip().startswith("{")
    return f"{product.code}.openapi.{'json' if is_json else 'yaml'}"


def _product(product: ProductFacts) -> dict[str, Any]:
    standard = ProductFacts(code="", name="", service="", routes=())
    given = _differing(product.as_dict(), standard.as_dict())
    given.pop("openapi_document", None)
    if product.openapi_document is not None:
        given.pop("endpoints", None)
        given["openapi"] = document_name(product)
    elif product.endpoints:
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


def _offer(offer: PlanOffer) -> dict[str, Any]:
    facts = offer.facts
    plan: dict[str, Any] = {
        "code": facts.code,
        "name": facts.name,
        "api_product": facts.api_product,
        "position": facts.position,
    }
    optional = {
        "description": facts.description,
        "recommended": facts.recommended,
        "visibility": facts.visibility,
    }
    plan |= _differing(optional, {"description": "", "recommended": False, "visibility": "public"})
    return plan | written_terms(offer.terms, code=facts.code, kind=facts.kind)


def _differing(values: Mapping[str, Any], standard: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value != standard[name]}
