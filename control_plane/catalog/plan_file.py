"""Plans as code: reading `plans.yml`. Pure; `plan_changes` compares with the database and applies."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import ValidationError

from control_plane.catalog.meters import Aggregation, MeteredEvents, MeterFacts, MeterFilters, check_meter
from control_plane.catalog.model import REQUESTS_METER, Endpoint, PlanFacts, PlanTerms, PriceTerms, ProductFacts
from control_plane.catalog.openapi import read_endpoints
from control_plane.catalog.plan_schema import ApiProductShape, FileShape, MeterShape, PlanShape, problems_of
from control_plane.catalog.rules import (
    check_billable_below,
    check_code,
    check_concurrency,
    check_currency,
    check_entitlements,
    check_event_retention,
    check_price,
    check_product,
    check_quota,
    check_quota_cap,
)
from control_plane.catalog.yaml_text import load_yaml
from control_plane.foundation.errors import Problem, ValidationFailedError
from control_plane.foundation.text import clean_name
from control_plane.foundation.windows import PER_MS, check_windows
from gateway_contract.records import Concurrency, Window

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlanOffer:
    """A plan of the file: what it shows, and its terms."""

    facts: PlanFacts
    terms: PlanTerms


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan file that is right in itself."""

    products: tuple[ProductFacts, ...]
    plans: tuple[PlanOffer, ...]
    meters: tuple[MeterFacts, ...] = ()


def parse_plan_file(text: str, *, documents: Mapping[str, str] | None = None) -> PlanFile:
    """Read a plan file. `documents` holds the text of OpenAPI documents by the name that `openapi:` gives.

    Raises:
        ValidationFailedError: with every wrong field found, by path (`plans[1].prices[0].unit_amount`).
    """
    value = load_yaml(text)
    if not isinstance(value, dict):
        raise ValidationFailedError("", "the file must have `api_products` and `plans`")
    try:
        shape = FileShape.model_validate(value)
    except ValidationError as error:
        raise _failed(problems_of(error)) from error
    reader = _Reader(documents or {})
    file = reader.read(shape)
    if reader.problems:
        raise _failed(reader.problems)
    return file


class _Reader:
    """Collects problems, so that people mend a file in one go."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        self._documents = documents
        self._meters: list[MeterFacts] = []
        self.problems: list[Problem] = []

    def read(self, shape: FileShape) -> PlanFile:
        products: dict[str, ProductFacts] = {}
        for index, product_shape in enumerate(shape.api_products):
            path = f"api_products[{index}]"
            product = self._checked(lambda p=path, s=product_shape: self._product(s, p))  # type: ignore[misc]
            if product is not None:
                self._refuse_twice(product.code in products, f"{path}.code")
                products[product.code] = product
        self._refuse_shared_routes(shape)
        known = {product.code for product in shape.api_products}
        self._meters = self._declared(shape, products, known)
        plans: list[PlanOffer] = []
        for index, plan in enumerate(shape.plans):
            path = f"plans[{index}]"
            self._refuse_twice(any(plan.code == earlier.code for earlier in shape.plans[:index]), f"{path}.code")
            if plan.api_product not in known:
                self._refuse_unknown_product(known, path)
            elif plan.api_product in products:
                plans.append(self._plan(plan, products[plan.api_product], index, path))
        self._refuse_clashes(shape)
        return PlanFile(tuple(products.values()), tuple(plans), tuple(self._meters))

    def _product(self, shape: ApiProductShape, path: str) -> ProductFacts:
        if shape.endpoints is not None and shape.openapi is not None:
            raise ValidationFailedError(f"{path}.openapi", "must not stand beside endpoints: give one of them")
        endpoints = tuple(Endpoint(e.method, e.path_template) for e in shape.endpoints or ())
        if shape.openapi is not None:
            if shape.openapi not in self._documents:
                raise ValidationFailedError(f"{path}.openapi", f"the document {shape.openapi} was not sent along")
            endpoints = read_endpoints(self._documents[shape.openapi], field=f"{path}.openapi")
        product = ProductFacts(
            code=shape.code,
            name=shape.name,
            description=shape.description,
            service=shape.service,
            routes=tuple(shape.routes),
            endpoints=endpoints,
            route_units=dict(shape.route_units),
            unit_headers=dict(shape.unit_headers),
            unit_maximums={route: dict(most) for route, most in shape.unit_maximums.items()},
            replay_header=shape.replay_header,
        )
        return check_product(product, field=path)

    def _declared(
        self, shape: FileShape, products: Mapping[str, ProductFacts], known: Collection[str]
    ) -> list[MeterFacts]:
        found: dict[str, MeterFacts] = {}
        for index, meter in enumerate(shape.meters):
            path = f"meters[{index}]"
            self._refuse_twice(any(meter.code == earlier.code for earlier in shape.meters[:index]), f"{path}.code")
            if meter.api_product not in known:
                self._refuse_unknown_product(known, path)
            elif meter.api_product in products:
                product = products[meter.api_product]
                checked = self._checked(
                    lambda m=meter, p=product, f=path: check_meter(meter_facts(m), product=p, field=f)  # type: ignore[misc]
                )
                if checked is not None:
                    found[checked.code] = checked
        return list(found.values())

    def _refuse_unknown_product(self, known: Collection[str], path: str) -> None:
        message = f"must be one of the file's api_products: {', '.join(sorted(known)) or 'there are none'}"
        self.problems.append(Problem(f"{path}.api_product", message))

    def _plan(self, shape: PlanShape, product: ProductFacts, index: int, path: str) -> PlanOffer:
        facts = PlanFacts(
            code=self._checked(lambda: check_code(shape.code, field=f"{path}.code")) or "",
            name=self._checked(lambda: clean_name(shape.name, field=f"{path}.name")) or "",
            api_product=product.code,
            position=_position(shape, index),
            visibility=shape.visibility,
            recommended=shape.recommended,
        )
        return PlanOffer(facts, self._terms(shape, product, path))

    def _terms(self, shape: PlanShape, product: ProductFacts, path: str) -> PlanTerms:
        quota, billable = shape.quota, shape.billable_statuses
        units = quota.units if quota else None
        below = billable.below if billable else None
        windows = [Window(limit=limit.limit, window_ms=PER_MS[limit.per]) for limit in shape.limits]
        currency = self._checked(lambda: check_currency(shape.currency, field=f"{path}.currency"))
        terms = PlanTerms(
            interval=shape.interval,
            currency=currency or "USD",
            quota_units=self._checked(lambda: check_quota(units, field=f"{path}.quota.units")),
            quota_hard=quota is not None and quota.on_exceed == "refuse",
            windows=self._checked(lambda: check_windows(windows, field=f"{path}.limits")) or (),
            entitlements=self._checked(
                lambda: check_entitlements(shape.entitlements, field=f"{path}.entitlements")
            )
            or (),
            redis_down=shape.redis_down,
            on_past_due=shape.on_past_due,
            billable_below=self._checked(
                lambda: check_billable_below(below, field=f"{path}.billable_statuses.below")
            ),
            event_retention_days=self._checked(
                lambda: check_event_retention(shape.event_retention_days, field=f"{path}.event_retention_days")
            ),
            by_quote=shape.by_quote,
        )
        return self._with_prices(self._with_caps(terms, shape, path), shape, product, path)

    def _with_caps(self, terms: PlanTerms, shape: PlanShape, path: str) -> PlanTerms:
        # of a quota that is wrong itself nothing more is said
        cap = shape.quota.cap if shape.quota and terms.quota_units else None
        limit = shape.concurrency
        concurrency = Concurrency(limit.limit, limit.lease_seconds * 1000) if limit else None
        return replace(
            terms,
            quota_cap_units=self._checked(
                lambda: check_quota_cap(
                    cap, quota_units=terms.quota_units, quota_hard=terms.quota_hard, field=f"{path}.quota.cap"
                )
            ),
            concurrency=self._checked(
                lambda: check_concurrency(concurrency, field=f"{path}.concurrency", lease_field="lease_seconds")
            ),
        )

    def _with_prices(self, terms: PlanTerms, shape: PlanShape, product: ProductFacts, path: str) -> PlanTerms:
        prices = []
        meters, monthly = product.meters, set()
        for declared in self._meters:
            if declared.api_product == product.code and declared.aggregation is Aggregation.UNIQUE:
                monthly.add(declared.code)
            elif declared.api_product == product.code:
                meters |= {declared.code}
        for index, price in enumerate(shape.prices):
            meter = price.meter or (None if price.model == "flat" else REQUESTS_METER)
            written = PriceTerms(
                model=price.model, meter=meter, params=price.params, description=price.description
            )
            field = f"{path}.prices[{index}]"
            checked = self._checked(
                lambda w=written, f=field: check_price(  # type: ignore[misc]
                    w, terms=terms, meters=meters, monthly_meters=monthly, field=f
                )
            )
            if checked is not None:
                prices.append(checked)
        return replace(terms, prices=tuple(prices))

    def _refuse_shared_routes(self, shape: FileShape) -> None:
        owners: dict[str, str] = {}
        for index, product in enumerate(shape.api_products):
            for place, route in enumerate(product.routes):
                owner = owners.setdefault(route, product.code)
                if owner != product.code:
                    self.problems.append(
                        Problem(f"api_products[{index}].routes[{place}]", f"belongs to {owner} already")
                    )

    def _refuse_clashes(self, shape: FileShape) -> None:
        positions: set[tuple[str, int]] = set()
        recommended: set[str] = set()
        for index, plan in enumerate(shape.plans):
            place = (plan.api_product, _position(plan, index))
            if place in positions:
                self.problems.append(Problem(f"plans[{index}].position", "another plan of the product has it"))
            if plan.recommended and plan.api_product in recommended:
                self.problems.append(
                    Problem(f"plans[{index}].recommended", "another plan of the product is recommended")
                )
            positions.add(place)
            if plan.recommended:
                recommended.add(plan.api_product)

    def _refuse_twice(self, twice: bool, field: str) -> None:  # noqa: FBT001 - reads well at its two callers
        if twice:
            self.problems.append(Problem(field, "is there twice"))

    def _checked(self, check: Callable[[], T]) -> T | None:
        try:
            return check()
        except ValidationFailedError as error:
            self.problems.extend(error.problems)
            return None


def meter_facts(shape: MeterShape) -> MeterFacts:
    """Return a meter of a file as a value, unchecked."""
    given = shape.filters
    return MeterFacts(
        code=shape.code,
        name=shape.name,
        api_product=shape.api_product,
        aggregation=Aggregation(shape.aggregation),
        value=shape.value,
        events=MeteredEvents(shape.events),
        filters=MeterFilters(
            endpoints=tuple(given.endpoints),
            methods=tuple(given.methods),
            lowest_status=given.lowest_status,
            highest_status=given.highest_status,
            event_types=tuple(given.event_types),
            sources=tuple(given.sources),
            properties=dict(given.properties),
        ),
        weights=dict(shape.weights),
    )


def _position(plan: PlanShape, index: int) -> int:
    return index if plan.position is None else plan.position


def _failed(problems: list[Problem]) -> ValidationFailedError:
    first, *more = problems
    return ValidationFailedError(first.field, first.message, *more)
