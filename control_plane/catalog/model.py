"""What the catalogue sells, as plain values: products, plans and terms, equal when nothing changed."""

from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
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
PLAN, ADD_ON = "plan", "add_on"
# prices that count nothing
FIXED_MODELS = frozenset({"flat", "setup_fee", "commitment"})


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
    `openapi_document`: the text that the endpoints were read from, None where they were given by themselves.
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
    openapi_document: str | None = None

    @property
    def meters(self) -> frozenset[str]:
        """What a price of this product can count."""
        return BUILT_IN_METERS.union(self.unit_headers)

    def as_dict(self) -> dict[str, Any]:
        """Return the facts JSON-ready; of the OpenAPI document only its digest, for it may be large."""
        document = self.openapi_document
        return {
            **asdict(self),
            "routes": list(self.routes),
            "endpoints": [asdict(endpoint) for endpoint in self.endpoints],
            "openapi_document": None if document is None else f"sha256:{sha256(document.encode()).hexdigest()}",
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
    prices in the same order, with other amounts (its own currency first, then the others by code).
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

    @property
    def other_currencies(self) -> tuple[str, ...]:
        """Return the currencies beside its own that the version has prices in."""
        return tuple(sorted({price.currency for price in self.prices} - {""}))

    def is_sold_in(self, currency: str) -> bool:
        """Say whether an account that pays in the currency can have it; what is free suits all."""
        return not self.prices or currency == self.currency or currency in self.other_currencies

    def in_currency(self, currency: str) -> "PlanTerms":
        """Return the terms as an account that pays in the currency has them: in one currency.

        Without prices in it, where `is_sold_in` says no.
        """
        wanted = "" if currency == self.currency else currency
        prices = tuple(replace(price, currency="") for price in self.prices if price.currency == wanted)
        return replace(self, currency=currency, prices=prices)

    def as_dict(self) -> dict[str, Any]:
        """Return the terms JSON-ready: `prices` in their own currency, those of others by code."""
        return {
            **asdict(self),
            "windows": windows_to_json(self.windows),
            "entitlements": list(self.entitlements),
            "features": list(self.features),
            "prices": self._prices(""),
            "prices_in": {currency: self._prices(currency) for currency in self.other_currencies},
        }

    def _prices(self, currency: str) -> list[dict[str, Any]]:
        fields = ("model", "meter", "params", "description")
        return [
            {name: getattr(price, name) for name in fields} for price in self.prices if price.currency == currency
        ]


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
