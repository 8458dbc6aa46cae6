"""What the catalogue sells, as plain values: products, plans and terms, equal when nothing changed."""

from dataclasses import asdict, dataclass, field
from typing import Any

from control_plane.foundation.windows import windows_to_json
from gateway_contract.headers import DEFAULT_REPLAY_HEADERS
from gateway_contract.records import Concurrency, Window

REQUESTS_METER = "requests"
# measured by the gateway for every call: bytes with their headers, and ms that the upstream took
MEASURED_METERS = frozenset({"bytes_in", "bytes_out", "upstream_ms"})
BUILT_IN_METERS = MEASURED_METERS | {REQUESTS_METER}
DEFAULT_BILLABLE_BELOW = 500
EVERY_ROUTE = "*"
MAX_ENDPOINTS = 500


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and a path template (`/v1/cities/{city}`): how calls are told apart in usage figures."""

    method: str
    path_template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFacts:
    """An API product. `route_units`: quota units of a call by route (1 where a route is not named).

    `unit_headers`: the upstream's answer header by dimension, `{"tokens": "x-tokens"}`. `unit_maximums`: by route,
    or `*` for all others, the most units of a dimension that one call can report; what reports more counts 0.
    `replay_header`: by which the upstream says that it repeated an earlier answer, '' where it never does.
    """

    code: str
    name: str
    description: str = ""
    service: str
    routes: tuple[str, ...]
    endpoints: tuple[Endpoint, ...] = ()
    route_units: dict[str, int] = field(default_factory=dict)
    unit_headers: dict[str, str] = field(default_factory=dict)
    unit_maximums: dict[str, dict[str, int]] = field(default_factory=dict)
    replay_header: str = DEFAULT_REPLAY_HEADERS[0]

    @property
    def meters(self) -> frozenset[str]:
        """What a price of this product can count."""
        return BUILT_IN_METERS.union(self.unit_headers)

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "routes": list(self.routes),
            "endpoints": [asdict(endpoint) for endpoint in self.endpoints],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductUsageRules:
    """How usage of an API product is read; the fields are those of `ProductFacts`."""

    unit_maximums: dict[str, dict[str, int]]
    replay_header: str


def unit_maximum(maximums: dict[str, dict[str, int]], *, route: str, dimension: str) -> int | None:
    """Return the most units of a dimension that one call of a route can report, None where nobody said."""
    own = maximums.get(route, {}).get(dimension)
    return maximums.get(EVERY_ROUTE, {}).get(dimension) if own is None else own


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTerms:
    """One price component. `params` are canonical (see catalog.prices); `meter` is None where nothing is counted.

    `currency` '': the plan version's own. A version that is sold in several currencies has, in each, the same
    prices in the same order, with other amounts.
    """

    model: str
    meter: str | None
    params: dict[str, Any]
    description: str = ""
    currency: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTerms:
    """What a plan version fixes for ever. `billable_below` None: the default, statuses below 500.

    `quota_cap_units`: where a quota that charges refuses after all. `on_past_due`: `serve` or `refuse` calls
    while a bill is unpaid. `event_retention_days`: how long single requests are kept, if longer than elsewhere.

    `trial_days` None: no trial; `after_trial`: `continue` paid, or `cancel`. `quota_on_change` says what an
    allowance of the version is worth when it begins within a billing period (see docs/pricing-models.md): `full`,
    `carry` or `prorated`. `payment`: `invoice`, or `prepaid` (usage is paid from credits, calls beyond them are
    refused). `billed_by`: `own` invoices or `stripe`. `features`, `sla_level` and `support_level` are shown;
    routes ask for `entitlements`.
    """

    interval: str
    currency: str
    quota_units: int | None = None
    quota_hard: bool = False
    quota_cap_units: int | None = None
    windows: tuple[Window, ...] = ()
    concurrency: Concurrency | None = None
    entitlements: tuple[str, ...] = ()
    redis_down: str = "open"
    on_past_due: str = "serve"
    billable_below: int | None = None
    event_retention_days: int | None = None
    by_quote: bool = False
    trial_days: int | None = None
    after_trial: str = "continue"
    quota_on_change: str = "full"
    payment: str = "invoice"
    billed_by: str = "own"
    features: tuple[str, ...] = ()
    sla_level: str | None = None
    support_level: str | None = None
    prices: tuple[PriceTerms, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "windows": windows_to_json(self.windows),
            "entitlements": list(self.entitlements),
            "features": list(self.features),
            "prices": [asdict(price) for price in self.prices],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What a plan shows and may change at any time. `kind`, for good: `plan`, or `add_on` (sold beside a plan)."""

    code: str
    name: str
    api_product: str
    position: int
    visibility: str = "public"
    recommended: bool = False
    description: str = ""
    kind: str = "plan"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
