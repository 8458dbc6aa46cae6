"""Declared meters: what a price can count beside calls, bytes and reported units. Pure.

A meter looks at calls, at events that applications report, or at both. Only what is billable counts: live, of an
account, served with a status that the plan bills (calls), not repeated by the upstream, not voided.
"""

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from control_plane.catalog.model import BUILT_IN_METERS, ProductFacts
from control_plane.catalog.rules import METHODS, check_code
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.text import clean_name
from gateway_contract.usage_events import OTHER_ENDPOINT

MAX_METERS = 50
MAX_FILTER_VALUES = 100
MAX_TEXT = 300
MAX_WEIGHT = 1_000_000
MAX_STATUS = 999
# what the gateway measures of every call; `units` are the quota units of its route
MEASURED_VALUES = ("bytes_in", "bytes_out", "gateway_ms", "latency_ms", "units", "upstream_ms")
UNIQUE_FIELDS = ("client_ip", "endpoint", "key_id", "path")
PROPERTY = "properties."
_DIMENSION = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PROPERTY = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class Aggregation(StrEnum):
    """How a meter comes to one number: of an hour, and of a billing period."""

    COUNT = "count"
    SUM = "sum"
    UNIQUE = "unique"
    MAX = "max"
    LATEST = "latest"

    @property
    def adds_up(self) -> bool:
        """Say whether hours add up to a period."""
        return self in {Aggregation.COUNT, Aggregation.SUM}


class MeteredEvents(StrEnum):
    """Which usage events a meter looks at."""

    CALLS = "calls"
    REPORTED = "reported"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterFilters:
    """What counts: empty lists and mappings let everything pass, and every filter that is given must.

    `endpoints`, `methods` and statuses judge calls only; `event_types`, `sources` and `properties` judge reported
    events only.
    """

    endpoints: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    lowest_status: int = 0
    highest_status: int = MAX_STATUS
    event_types: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


ANY_EVENT = MeterFilters()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterFacts:
    """A declared meter of an API product.

    `value`: None to count; a dimension or one of MEASURED_VALUES for sum, max and latest; one of UNIQUE_FIELDS or
    `properties.NAME` for unique. `weights`: what a call of an endpoint counts for, 1 where none is given.
    """

    code: str
    name: str
    api_product: str
    aggregation: Aggregation
    value: str | None = None
    events: MeteredEvents = MeteredEvents.CALLS
    filters: MeterFilters = ANY_EVENT
    weights: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "aggregation": self.aggregation.value,
            "events": self.events.value,
            "filters": self.filters.as_dict(),
        }

    def counts_like(self, other: "MeterFacts") -> bool:
        """Say whether both come to the same numbers, whatever they are called."""
        return replace(self, name=other.name) == other


def check_meter(meter: MeterFacts, *, product: ProductFacts, field: str = "") -> MeterFacts:
    """Return the meter in canonical form.

    Raises:
        ValidationFailedError: names the first wrong field below `field`.
    """
    prefix = f"{field}." if field else ""
    check_code(meter.code, field=f"{prefix}code")
    if meter.code in BUILT_IN_METERS or meter.code in product.unit_headers:
        raise ValidationFailedError(f"{prefix}code", f"{meter.code} is counted already: take another code")
    _check_value(meter, product, field=f"{prefix}value")
    filters = _checked_filters(meter, product, field=f"{prefix}filters")
    _check_weights(meter, product, field=f"{prefix}weights")
    return replace(meter, name=clean_name(meter.name, field=f"{prefix}name"), filters=filters)


def _check_value(meter: MeterFacts, product: ProductFacts, *, field: str) -> None:
    value = meter.value
    if meter.aggregation is Aggregation.COUNT:
        if value is not None:
            raise ValidationFailedError(field, "must be left out: count counts the events themselves")
        return
    if value is None:
        raise ValidationFailedError(field, f"is required: {meter.aggregation} needs something to look at")
    if meter.aggregation is Aggregation.UNIQUE:
        _check_unique(meter.events, value, field=field)
    elif value in MEASURED_VALUES:
        if meter.events is MeteredEvents.REPORTED:
            raise ValidationFailedError(field, f"reported events have no {value}: name one of their dimensions")
    elif meter.events is MeteredEvents.CALLS and value not in product.unit_headers:
        known = ", ".join(sorted({*MEASURED_VALUES, *product.unit_headers}))
        raise ValidationFailedError(field, f"must be one of {known}")
    elif not _DIMENSION.fullmatch(value):
        raise ValidationFailedError(field, "must be the name of a dimension: lower-case letters, digits and _")


def _check_unique(events: MeteredEvents, value: str, *, field: str) -> None:
    name = value.removeprefix(PROPERTY)
    if name == value:
        if value not in UNIQUE_FIELDS:
            known = ", ".join((*UNIQUE_FIELDS, f"{PROPERTY}NAME"))
            raise ValidationFailedError(field, f"must be one of {known}")
    elif events is MeteredEvents.CALLS:
        raise ValidationFailedError(field, "calls have no properties: look at events: reported")
    elif not _PROPERTY.fullmatch(name):
        raise ValidationFailedError(field, f"{PROPERTY}NAME takes letters, digits and _ . : -")


def _checked_filters(meter: MeterFacts, product: ProductFacts, *, field: str) -> MeterFilters:
    filters = meter.filters
    of_calls = ("endpoints", "methods", "lowest_status", "highest_status")
    foreign = {
        MeteredEvents.CALLS: ("event_types", "sources", "properties"),
        MeteredEvents.REPORTED: of_calls,
    }.get(meter.events, ())
    for name in foreign:
        if getattr(filters, name) != getattr(ANY_EVENT, name):
            what = "calls" if name in of_calls else "reported events"
            raise ValidationFailedError(f"{field}.{name}", f"judges {what}, and this meter looks at none")
    for name in ("endpoints", "methods", "event_types", "sources"):
        _check_texts(getattr(filters, name), field=f"{field}.{name}")
    _check_endpoints(filters.endpoints, product, field=f"{field}.endpoints")
    for index, method in enumerate(filters.methods):
        if method not in METHODS:
            raise ValidationFailedError(f"{field}.methods[{index}]", f"must be one of {', '.join(METHODS)}")
    if not 0 <= filters.lowest_status <= filters.highest_status <= MAX_STATUS:
        raise ValidationFailedError(
            f"{field}.highest_status", f"must be from lowest_status to {MAX_STATUS}, and lowest_status from 0"
        )
    if len(filters.properties) > MAX_FILTER_VALUES:
        raise ValidationFailedError(f"{field}.properties", f"must have at most {MAX_FILTER_VALUES} entries")
    for name, text in filters.properties.items():
        if not _PROPERTY.fullmatch(name):
            raise ValidationFailedError(f"{field}.properties", "names take letters, digits and _ . : -")
        _check_texts((text,), field=f"{field}.properties.{name}")
    return replace(
        filters,
        endpoints=tuple(sorted(set(filters.endpoints))),
        methods=tuple(sorted(set(filters.methods))),
        event_types=tuple(sorted(set(filters.event_types))),
        sources=tuple(sorted(set(filters.sources))),
    )


def _check_weights(meter: MeterFacts, product: ProductFacts, *, field: str) -> None:
    if not meter.weights:
        return
    if not meter.aggregation.adds_up:
        raise ValidationFailedError(field, f"{meter.aggregation} cannot be weighted: only count and sum can")
    if meter.events is MeteredEvents.REPORTED:
        raise ValidationFailedError(field, "weighs calls by endpoint, and this meter looks at none")
    if len(meter.weights) > MAX_FILTER_VALUES:
        raise ValidationFailedError(field, f"must have at most {MAX_FILTER_VALUES} entries")
    _check_endpoints(meter.weights, product, field=field)
    for endpoint, weight in meter.weights.items():
        if not 1 <= weight <= MAX_WEIGHT:
            raise ValidationFailedError(f"{field}.{endpoint}", f"must be between 1 and {MAX_WEIGHT}")


def _check_endpoints(names: Collection[str], product: ProductFacts, *, field: str) -> None:
    known = {f"{endpoint.method} {endpoint.path_template}" for endpoint in product.endpoints}
    known |= {*product.routes, OTHER_ENDPOINT}
    for name in names:
        if name not in known:
            raise ValidationFailedError(
                field,
                f"{name} is neither an endpoint of {product.code}, nor one of its routes, nor {OTHER_ENDPOINT}",
            )


def _check_texts(texts: Collection[str], *, field: str) -> None:
    if len(texts) > MAX_FILTER_VALUES:
        raise ValidationFailedError(field, f"must have at most {MAX_FILTER_VALUES} entries")
    for text in texts:
        if not 1 <= len(text) <= MAX_TEXT or not text.isprintable():
            raise ValidationFailedError(field, f"must hold printable texts of 1 to {MAX_TEXT} characters")
