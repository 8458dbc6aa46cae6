"""Whatever can be sold, a plan file says: writing it and reading it again gives the same."""

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.catalog.model import (
    ADD_ON,
    MEASURED_METERS,
    PLAN,
    PlanFacts,
    PlanTerms,
    PriceTerms,
    ProductFacts,
)
from control_plane.catalog.plan_changes import apply_plan_file, diff_plan_file
from control_plane.catalog.plan_export import export_plan_file, read_catalog
from control_plane.catalog.plan_file import PlanFile, PlanOffer, parse_plan_file
from control_plane.catalog.sale_rules import Sale
from control_plane.catalog.terms_rules import check_terms
from gateway_contract.records import Concurrency, Window
from tests.control_plane.builders import ACTOR

PRODUCT = ProductFacts(
    code="weather",
    name="Weather",
    service="weather",
    routes=("weather",),
    unit_headers={"cents": "x-cents", "tokens": "x-tokens"},
    unit_maximums={"*": {"cents": 100}, "weather": {"tokens": 8000}},
)
METERS = sorted(PRODUCT.meters)
TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=12)
LINES = st.lists(TEXT, max_size=3, unique=True).map(tuple)
AMOUNTS = st.decimals(0, 10**6, places=2).map(lambda amount: f"{amount:f}")
UNIT_AMOUNTS = st.decimals(0, 100, places=6).map(lambda amount: f"{amount:f}")
UNITS = st.integers(1, 10**9)


@st.composite
def params_of(draw, model: str, currency_count: int) -> list[dict]:  # noqa: PLR0911 - one for each model
    """Return the parameters of one price, once for each currency: only amounts differ."""

    def amounts(name: str) -> list[dict]:
        kind = AMOUNTS if name in {"amount", "flat_amount"} else UNIT_AMOUNTS
        return [{name: draw(kind)} for _ in range(currency_count)]

    def merged(*parts: list[dict]) -> list[dict]:
        return [
            {name: value for part in each for name, value in part.items()} for each in zip(*parts, strict=True)
        ]

    match model:
        case "flat" | "setup_fee":
            return amounts("amount")
        case "commitment":
            counts = draw(st.sampled_from(["usage", "all"]))
            return merged(amounts("amount"), [{"counts": counts}] * currency_count)
        case "percentage":
            return [{"percent": draw(st.sampled_from(["2.9", "0.5", "100"]))}] * currency_count
        case "per_unit":
            return amounts("unit_amount")
        case "overage":
            return merged(amounts("unit_amount"), [{"included": draw(UNITS)}] * currency_count)
        case "package":
            return merged(amounts("amount"), [{"size": draw(UNITS)}] * currency_count)
    bounds = [*sorted(draw(st.sets(UNITS, max_size=2))), None]
    tiers = [
        merged(amounts("unit_amount"), amounts("flat_amount"), [{"up_to": b}] * currency_count) for b in bounds
    ]
    return [{"tiers": list(each)} for each in zip(*tiers, strict=True)]


@st.composite
def prices(draw, currencies: list[str], *, kind: str, hard: bool) -> tuple[PriceTerms, ...]:
    models = ["flat", "setup_fee", "per_unit", "graduated", "volume", "package", "percentage"]
    models += [] if hard else ["overage"]
    chosen = ["per_unit", *draw(st.lists(st.sampled_from(models), max_size=3))]
    if kind == PLAN and draw(st.booleans()):
        chosen.append("commitment")
    written: dict[str, list[PriceTerms]] = {currency: [] for currency in currencies}
    for model in chosen:
        fixed = model in {"flat", "setup_fee", "commitment"}
        meter = None if fixed else "cents" if model == "percentage" else draw(st.sampled_from(METERS))
        description = draw(st.just("") | TEXT)
        for currency, params in zip(currencies, draw(params_of(model, len(currencies))), strict=True):
            written[currency].append(
                PriceTerms(model=model, meter=meter, params=params, description=description, currency=currency)
            )
    return tuple(price for currency in currencies for price in written[currency])


@st.composite
def offers(draw, code: str, position: int, kind: str) -> PlanOffer:
    own, *others = draw(st.sampled_from([["USD"], ["EUR", "USD"], ["USD", "CHF", "EUR"]]))
    hard = kind == PLAN and draw(st.booleans())
    common = {
        "interval": draw(st.sampled_from(["month", "year"])),
        "currency": own,
        "quota_units": draw(UNITS) if hard else draw(st.none() | UNITS),
        "entitlements": tuple(sorted(draw(st.sets(st.sampled_from(["history", "bulk:read"]))))),
        "by_quote": draw(st.booleans()),
        "features": draw(LINES),
        "sla_level": draw(st.none() | TEXT),
        "support_level": draw(st.none() | TEXT),
        "prices": draw(prices([own, *others], kind=kind, hard=hard)),
    }
    of_plan = {}
    if kind == PLAN:
        trial = draw(st.none() | st.integers(1, 365))
        # neither can be paid ahead
        invoiced = any(price.model == "commitment" or price.meter in MEASURED_METERS for price in common["prices"])
        of_plan = {
            "quota_hard": hard,
            "quota_cap_units": None
            if hard or common["quota_units"] is None
            else draw(st.none() | st.just(common["quota_units"] + 1)),
            "windows": tuple(draw(st.lists(st.sampled_from([Window(5, 1_000), Window(9, 60_000)]), unique=True))),
            "concurrency": draw(st.none() | st.just(Concurrency(3, 30_000))),
            "redis_down": draw(st.sampled_from(["open", "closed"])),
            "on_past_due": draw(st.sampled_from(["serve", "refuse"])),
            "billable_below": draw(st.none() | st.integers(200, 600)),
            "event_retention_days": draw(st.none() | st.integers(90, 3660)),
            "trial_days": trial,
            "after_trial": "continue" if trial is None else draw(st.sampled_from(["continue", "cancel"])),
            "quota_on_change": draw(st.sampled_from(["full", "carry", "prorated"])),
            "payment": "invoice" if invoiced else draw(st.sampled_from(["invoice", "prepaid"])),
        }
    sale = Sale(kind=kind, meters=PRODUCT.meters, monthly_meters=())
    terms = check_terms(PlanTerms(**common, **of_plan), sale=sale)
    facts = PlanFacts(
        code=code,
        name=draw(TEXT),
        api_product="weather",
        position=position,
        visibility=draw(st.sampled_from(["public", "hidden"])),
        description=draw(st.just("") | TEXT),
        kind=kind,
    )
    return PlanOffer(facts, terms)


@st.composite
def plan_files(draw) -> PlanFile:
    plans = [draw(offers(f"plan-{index}", index, PLAN)) for index in range(draw(st.integers(1, 2)))]
    return PlanFile((PRODUCT,), (*plans, draw(offers("more", 0, ADD_ON))))


class TestExport:
    @settings(max_examples=25, deadline=None)
    @given(plan_files())
    def test_is_read_back_as_it_was(self, file: PlanFile):
        assert parse_plan_file(export_plan_file(file).text) == file

    async def test_of_the_catalogue_changes_nothing_when_it_is_applied(self, session, now):
        text = """
api_products:
  - {code: weather, name: Weather, service: weather, routes: [weather], openapi: w.json,
     unit_headers: {cents: x-cents}}
meters:
  - {code: reads, name: Reads, api_product: weather, aggregation: count, filters: {endpoints: [GET /v1/a]}}
plans:
  - code: pro
    name: Pro
    api_product: weather
    description: "For teams: all of it"
    other_currencies: [JPY, EUR]
    trial: {days: 14, after: cancel}
    quota: {units: 1000, on_exceed: charge, cap: 5000}
    quota_on_change: carry
    features: [SSO]
    sla: 99.9 %
    support: Phone
    prices:
      - {model: flat, amount: {USD: 49, EUR: 45, JPY: 7000}}
      - {model: setup_fee, amount: {USD: 10, EUR: 10, JPY: 1000}}
      - {model: overage, unit_amount: {USD: 0.001, EUR: 0.0009, JPY: 0.1}}
      - {model: per_unit, meter: reads, unit_amount: {USD: 0.01, EUR: 0.01, JPY: 1}}
      - {model: percentage, meter: cents, percent: 2.9}
      - {model: commitment, amount: {USD: 500, EUR: 450, JPY: 70000}, counts: all}
  - {code: wallet, name: Wallet, api_product: weather, payment: prepaid,
     prices: [{model: per_unit, unit_amount: 0.001}]}
  - {code: card, name: Card, api_product: weather, billed_by: stripe, prices: [{model: flat, amount: 9}]}
add_ons:
  - {code: more, name: More, api_product: weather, quota: {units: 100}, prices: [{model: flat, amount: 5}]}
"""
        documents = {"w.json": '{"openapi": "3.1.0", "paths": {"/v1/a": {"get": {}}}}'}
        file = parse_plan_file(text, documents=documents)
        await apply_plan_file(session, file, actor=ACTOR, now=now)
        assert (await diff_plan_file(session, file)).changes == ()
        exported = export_plan_file(await read_catalog(session))
        again = parse_plan_file(exported.text, documents=exported.documents)
        assert again == file
        diff = await diff_plan_file(session, again)
        assert (diff.changes, diff.left_alone) == ((), ())
