"""The shape of a plan file: which fields there are, and of which kind. What they may say is in `rules`."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from control_plane.catalog.meters import MAX_STATUS
from control_plane.foundation.errors import Problem
from gateway_contract.headers import DEFAULT_REPLAY_HEADERS


def _endpoint(value: object) -> object:
    """`GET /v1/cities` is short for {method: GET, path_template: /v1/cities}."""
    if isinstance(value, str):
        method, _, path = value.strip().partition(" ")
        return {"method": method.upper(), "path_template": path.strip()}
    return value


class Shape(BaseModel):
    """Refuses unknown fields and converts nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class EndpointShape(Shape):
    method: str
    path_template: str


class ApiProductShape(Shape):
    code: str
    name: str
    description: str = ""
    service: str
    routes: list[str]
    endpoints: list[Annotated[EndpointShape, BeforeValidator(_endpoint)]] | None = None
    openapi: str | None = None
    route_units: dict[str, int] = {}
    unit_headers: dict[str, str] = {}
    unit_maximums: dict[str, dict[str, int]] = {}
    replay_header: str = DEFAULT_REPLAY_HEADERS[0]


class FiltersShape(Shape):
    endpoints: list[str] = []
    methods: list[str] = []
    lowest_status: int = 0
    highest_status: int = MAX_STATUS
    event_types: list[str] = []
    sources: list[str] = []
    properties: dict[str, str] = {}


class MeterShape(Shape):
    code: str
    name: str
    api_product: str
    aggregation: Literal["count", "sum", "unique", "max", "latest"]
    value: str | None = None
    events: Literal["calls", "reported", "all"] = "calls"
    filters: FiltersShape = FiltersShape()
    weights: dict[str, int] = {}


class QuotaShape(Shape):
    units: int
    on_exceed: Literal["refuse", "charge"]
    cap: int | None = None


class ConcurrencyShape(Shape):
    limit: int
    lease_seconds: int = 60


class LimitShape(Shape):
    limit: int = Field(ge=1)
    per: Literal["second", "minute", "hour", "day"]


class BillableShape(Shape):
    below: int


class TrialShape(Shape):
    days: int
    after: Literal["continue", "cancel"] = "continue"


class ExtraQuotaShape(Shape):
    """Added to the quota of the plan that the add-on is bought beside."""

    units: int


class PriceShape(Shape):
    """The model's own parameters stand beside these fields; `prices` judges them."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    model: Literal[
        "flat",
        "setup_fee",
        "commitment",
        "per_unit",
        "overage",
        "graduated",
        "volume",
        "package",
        "percentage",
    ]
    meter: str | None = None
    description: str = ""

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class AddOnTermsShape(Shape):
    """What an add-on brings: its quota is added to the plan's, its entitlements are united with the plan's."""

    by_quote: bool = False
    interval: Literal["month", "year"] = "month"
    currency: str = "USD"
    other_currencies: list[str] = []
    billed_by: Literal["own", "stripe"] = "own"
    quota: ExtraQuotaShape | None = None
    entitlements: list[str] = []
    features: list[str] = []
    sla: str | None = None
    support: str | None = None
    prices: list[PriceShape] = []


class PlanTermsShape(Shape):
    """What a version of a plan fixes."""

    by_quote: bool = False
    interval: Literal["month", "year"] = "month"
    currency: str = "USD"
    other_currencies: list[str] = []
    trial: TrialShape | None = None
    payment: Literal["invoice", "prepaid"] = "invoice"
    billed_by: Literal["own", "stripe"] = "own"
    quota: QuotaShape | None = None
    quota_on_change: Literal["full", "carry", "prorated"] = "full"
    limits: list[LimitShape] = []
    concurrency: ConcurrencyShape | None = None
    entitlements: list[str] = []
    features: list[str] = []
    sla: str | None = None
    support: str | None = None
    redis_down: Literal["open", "closed"] = "open"
    on_past_due: Literal["serve", "refuse"] = "serve"
    billable_statuses: BillableShape | None = None
    event_retention_days: int | None = None
    prices: list[PriceShape] = []


class OfferShape(Shape):
    """What a plan or an add-on shows."""

    code: str
    name: str
    api_product: str
    description: str = ""
    position: int | None = None
    visibility: Literal["public", "hidden"] = "public"


class PlanShape(PlanTermsShape, OfferShape):
    recommended: bool = False


class AddOnShape(AddOnTermsShape, OfferShape):
    pass


FACTS_FIELDS = frozenset(OfferShape.model_fields) | {"recommended"}


class FileShape(Shape):
    api_products: list[ApiProductShape] = []
    meters: list[MeterShape] = []
    plans: list[PlanShape] = []
    add_ons: list[AddOnShape] = []


def problems_of(error: ValidationError) -> list[Problem]:
    """Return pydantic's findings in our words, with paths like `plans[2].limits[0].per`."""
    return [Problem(_path(found["loc"]), _words(found)) for found in error.errors(include_url=False)]


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def _words(found: Any) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "literal_error":
        return f"must be one of {context['expected'].replace(chr(39), '').replace(' or ', ', ')}"
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']}"
    if kind == "int_type" and isinstance(found["input"], Decimal | float):
        return "must be a whole number"
    return _PLAIN_WORDS.get(kind) or f"{found['msg'][:1].lower()}{found['msg'][1:]}"


_PLAIN_WORDS = {
    "extra_forbidden": "is not a field here",
    "missing": "is required",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of names to values",
    "model_attributes_type": "must be a mapping of names to values",
}
