"""What the catalogue sells, as plain values: products, plans and terms, equal when nothing changed."""

from dataclasses import asdict, dataclass, field
from typing import Any

from control_plane.foundation.windows import windows_to_json
from gateway_contract.records import Window

REQUESTS_METER = "requests"
DEFAULT_BILLABLE_BELOW = 500
MAX_ENDPOINTS = 500


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and a path template (`/v1/cities/{city}`): how calls are told apart in usage figures."""

    method: str
    path_template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFacts:
    """An API product. `route_units`: quota units of a call by route (1 where a route is not named).

    `unit_headers`: the upstream's answer header by dimension, `{"tokens": "x-tokens"}`.
    """

    code: str
    name: str
    description: str = ""
    service: str
    routes: tuple[str, ...]
    endpoints: tuple[Endpoint, ...] = ()
    route_units: dict[str, int] = field(default_factory=dict)
    unit_headers: dict[str, str] = field(default_factory=dict)

    @property
    def meters(self) -> frozenset[str]:
        """What a price of this product can count."""
        return frozenset({REQUESTS_METER, *self.unit_headers})

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "routes": list(self.routes),
            "endpoints": [asdict(endpoint) for endpoint in self.endpoints],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTerms:
    """One price component. `params` are canonical (see catalog.prices); `meter` is None for a flat price."""

    model: str
    meter: str | None
    params: dict[str, Any]
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTerms:
    """What a plan version fixes for ever. `billable_below` None: the default, statuses below 500."""

    interval: str
    currency: str
    quota_units: int | None = None
    quota_hard: bool = False
    windows: tuple[Window, ...] = ()
    entitlements: tuple[str, ...] = ()
    redis_down: str = "open"
    billable_below: int | None = None
    by_quote: bool = False
    prices: tuple[PriceTerms, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "windows": windows_to_json(self.windows),
            "entitlements": list(self.entitlements),
            "prices": [asdict(price) for price in self.prices],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What a plan shows and may change at any time."""

    code: str
    name: str
    api_product: str
    position: int
    visibility: str = "public"
    recommended: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
