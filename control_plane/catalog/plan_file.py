"""Plans as code: reading `plans.yml`. Pure; `plan_changes` compares with the database and applies."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from control_plane.catalog.meters import Aggregation, MeteredEvents, MeterFacts, MeterFilters, check_meter
from control_plane.catalog.model import ADD_ON, PLAN, Endpoint, PlanFacts, PlanTerms, ProductFacts
from control_plane.catalog.openapi import read_endpoints
from control_plane.catalog.plan_schema import (
    AddOnShape,
    ApiProductShape,
    FileShape,
    MeterShape,
    OfferShape,
    PlanShape,
    problems_of,
)
from control_plane.catalog.plan_terms import read_terms
from control_plane.catalog.rules import check_code, check_description, check_product
from control_plane.catalog.sale_rules import Sale, unbounded_meters
from control_plane.catalog.terms_rules import check_terms, names_in_file
from control_plane.catalog.yaml_text import load_yaml
from control_plane.foundation.errors import Problem, ValidationFailedError
from control_plane.foundation.text import clean_name

T = TypeVar("T")
# of a plan whose terms are wrong: the file is refused anyway
NO_TERMS = PlanTerms(interval="month", currency="USD")


@dataclass(frozen=True, slots=True)
class PlanOffer:
    """A plan or an add-on of the file: what it shows, and its terms."""

    facts: PlanFacts
    terms: PlanTerms


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan file that is right in itself. `plans`: the add-ons, too, after all plans."""

    products: tuple[ProductFacts, ...]
    plans: tuple[PlanOffer, ...]
    meters: tuple[MeterFacts, ...] = ()


def parse_plan_file(text: str, *, documents: Mapping[str, str] | None = None) -> PlanFile:
    """Read a plan file. `documents` holds the text of OpenAPI documents by the name that `openapi:` gives.

    Raises:
        ValidationFailedError: with every wrong field found, by path (`plans[1].prices[0].unit_amount`).
    """
    value = load_yaml(text)
    if not isinstance(value, dict) or not value:
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
        codes: set[str] = set()
        for path, index, offered in _offers(shape):
            self._refuse_twice(offered.code in codes, f"{path}.code")
            codes.add(offered.code)
            if offered.api_product not in known:
                self._refuse_unknown_product(known, path)
            elif offered.api_product in products:
                plans.append(self._offer(offered, products[offered.api_product], index, path))
        self._refuse_clashes(shape)
        return PlanFile(tuple(products.values()), tuple(plans), tuple(self._meters))

    def _product(self, shape: ApiProductShape, path: str) -> ProductFacts:
        if shape.endpoints is not None and shape.openapi is not None:
            raise ValidationFailedError(f"{path}.openapi", "must not stand beside endpoints: give one of them")
        endpoints = tuple(Endpoint(e.method, e.path_template) for e in shape.endpoints or ())
        document = None
        if shape.openapi is not None:
            if shape.openapi not in self._documents:
                raise ValidationFailedError(f"{path}.openapi", f"the document {shape.openapi} was not sent along")
            document = self._documents[shape.openapi]
            endpoints = read_endpoints(document, field=f"{path}.openapi")
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
            openapi_document=document,
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

    def _offer(self, shape: PlanShape | AddOnShape, product: ProductFacts, index: int, path: str) -> PlanOffer:
        kind = PLAN if isinstance(shape, PlanShape) else ADD_ON
        facts = PlanFacts(
            code=self._checked(lambda: check_code(shape.code, field=f"{path}.code")) or "",
            name=self._checked(lambda: clean_name(shape.name, field=f"{path}.name")) or "",
            api_product=product.code,
            position=_position(shape, index),
            visibility=shape.visibility,
            recommended=isinstance(shape, PlanShape) and shape.recommended,
            description=self._checked(lambda: check_description(shape.description, field=f"{path}.description"))
            or "",
            kind=kind,
        )
        sale = self._sale(product, kind)
        terms = self._checked(lambda: read_terms(shape, path=path))
        checked = terms and self._checked(lambda: check_terms(terms, sale=sale, names=names_in_file(path)))
        return PlanOffer(facts, checked or NO_TERMS)

    def _sale(self, product: ProductFacts, kind: str) -> Sale:
        declared = [meter for meter in self._meters if meter.api_product == product.code]
        monthly = frozenset(meter.code for meter in declared if meter.aggregation is Aggregation.UNIQUE)
        meters = product.meters.union(meter.code for meter in declared) - monthly
        unbounded = unbounded_meters(product, [meter.code for meter in declared])
        return Sale(kind=kind, meters=meters, monthly_meters=monthly, unbounded=unbounded)

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
        positions: set[tuple[str, str, int]] = set()
        recommended: set[str] = set()
        for path, index, offered in _offers(shape):
            place = (path.partition("[")[0], offered.api_product, _position(offered, index))
            if place in positions:
                what = "plan" if isinstance(offered, PlanShape) else "add-on"
                self.problems.append(Problem(f"{path}.position", f"another {what} of the product has it"))
            positions.add(place)
            if isinstance(offered, PlanShape) and offered.recommended:
                if offered.api_product in recommended:
                    words = "another plan of the product is recommended"
                    self.problems.append(Problem(f"{path}.recommended", words))
                recommended.add(offered.api_product)

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


def _offers(shape: FileShape) -> Iterator[tuple[str, int, PlanShape | AddOnShape]]:
    """Yield path, place in its list, and shape of all plans, then of all add-ons."""
    for index, plan in enumerate(shape.plans):
        yield f"plans[{index}]", index, plan
    for index, add_on in enumerate(shape.add_ons):
        yield f"add_ons[{index}]", index, add_on


def _position(offered: OfferShape, index: int) -> int:
    return index if offered.position is None else offered.position


def _failed(problems: list[Problem]) -> ValidationFailedError:
    first, *more = problems
    return ValidationFailedError(first.field, first.message, *more)
