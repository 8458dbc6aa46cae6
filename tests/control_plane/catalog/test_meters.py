"""Declared meters in the catalogue: what is accepted, what can change, and which prices can name them."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.meter_operations import (
    MeterCodeTakenError,
    MeterInUseError,
    MeterOnSaleError,
    TooManyMetersError,
    archive_meter,
    create_meter,
    update_meter,
)
from control_plane.catalog.meter_queries import (
    counting_meters,
    facts_of_meter,
    meter,
    meters_of_versions,
    meters_page,
    uses_of_meter,
)
from control_plane.catalog.meters import (
    Aggregation,
    MeteredEvents,
    MeterFacts,
    MeterFilters,
    check_meter,
)
from control_plane.catalog.model import Endpoint, PriceTerms, ProductFacts
from control_plane.catalog.operations import archive_plan, create_api_product, update_api_product
from control_plane.catalog.plan_changes import PlanDiff, apply_plan_file, diff_plan_file
from control_plane.catalog.plan_export import export_plan_file, read_catalog
from control_plane.catalog.plan_file import parse_plan_file
from control_plane.catalog.plan_terms import LimitNotExpressibleError
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from gateway_contract.records import Window
from tests.control_plane.builders import ACTOR, a_new_version, a_published_plan, audit_of

PRODUCT = ProductFacts(
    code="weather",
    name="Weather",
    service="weather",
    routes=("weather", "bulk"),
    endpoints=(Endpoint("GET", "/v1/cities/{city}"),),
    unit_headers={"tokens": "x-tokens"},
)


def facts(aggregation: str = "count", value: str | None = None, **fields: Any) -> MeterFacts:
    filters = MeterFilters(**fields.pop("filters", {}))
    events = MeteredEvents(fields.pop("events", "calls"))
    given = {"code": "writes", "name": "Writes", "api_product": "weather", **fields}
    return MeterFacts(aggregation=Aggregation(aggregation), value=value, events=events, filters=filters, **given)


def per_unit(meter: str) -> PriceTerms:
    return PriceTerms(model="per_unit", meter=meter, params={"unit_amount": "0.01"})


@pytest.fixture
async def product(session: AsyncSession, now: datetime) -> ProductFacts:
    await create_api_product(session, product=PRODUCT, actor=ACTOR, now=now)
    return PRODUCT


class TestCheckMeter:
    @pytest.mark.parametrize(
        ("field", "wrong"),
        [
            ("code", facts(code="Writes")),
            ("code", facts(code="requests")),
            ("code", facts(code="bytes_in")),
            ("code", facts(code="tokens")),
            ("name", facts(name=" ")),
            ("value", facts(value="tokens")),
            ("value", facts("sum")),
            ("value", facts("sum", "pages")),
            ("value", facts("sum", "Pages", events="reported")),
            ("value", facts("max", "bytes_in", events="reported")),
            ("value", facts("unique", "bytes_in")),
            ("value", facts("unique", "properties.user")),
            ("value", facts("unique", "properties.", events="reported")),
            ("filters.event_types", facts(filters={"event_types": ("paid",)})),
            ("filters.properties", facts(filters={"properties": {"plan": "gold"}})),
            ("filters.methods", facts(events="reported", filters={"methods": ("GET",)})),
            ("filters.highest_status", facts(events="reported", filters={"highest_status": 299})),
            ("filters.methods[0]", facts(filters={"methods": ("get",)})),
            ("filters.highest_status", facts(filters={"lowest_status": 300, "highest_status": 299})),
            ("filters.endpoints", facts(filters={"endpoints": ("GET /v1/typo",)})),
            ("filters.sources", facts(events="reported", filters={"sources": ("",)})),
            ("filters.properties", facts(events="reported", filters={"properties": {"a b": "gold"}})),
            ("filters.properties.plan", facts(events="reported", filters={"properties": {"plan": "\n"}})),
            ("weights", facts("max", "tokens", weights={"bulk": 2})),
            ("weights", facts(events="reported", weights={"bulk": 2})),
            ("weights", facts(weights={"typo": 2})),
            ("weights.bulk", facts(weights={"bulk": 0})),
        ],
    )
    def test_names_what_is_wrong(self, field: str, wrong: MeterFacts) -> None:
        with pytest.raises(ValidationFailedError) as caught:
            check_meter(wrong, product=PRODUCT)
        assert caught.value.field == field

    @pytest.mark.parametrize(
        "right",
        [
            facts(weights={"GET /v1/cities/{city}": 5, "bulk": 1_000_000}),
            facts(filters={"endpoints": ("bulk", "other"), "methods": ("POST", "PUT"), "highest_status": 299}),
            facts("sum", "tokens"),
            facts("sum", "upstream_ms", events="all"),
            facts("max", "seats", events="reported"),
            facts("unique", "client_ip"),
            facts("unique", "properties.user.id", events="all", filters={"properties": {"plan": "gold"}}),
        ],
    )
    def test_takes_what_is_right(self, right: MeterFacts) -> None:
        assert check_meter(right, product=PRODUCT).counts_like(right)

    def test_gives_lists_one_order(self) -> None:
        one = facts(filters={"methods": ("PUT", "POST", "PUT")})
        other = facts(filters={"methods": ("POST", "PUT")})
        assert check_meter(one, product=PRODUCT) == check_meter(other, product=PRODUCT)


class TestDeclaring:
    async def test_keeps_all_that_was_said_and_tells_the_audit_log(self, session, now, product) -> None:
        wanted = check_meter(
            facts("sum", "tokens", weights={"bulk": 2}, filters={"methods": ("POST",), "lowest_status": 200}),
            product=product,
        )
        row = await create_meter(session, meter=wanted, actor=ACTOR, now=now)
        assert facts_of_meter(await meter(session, "writes")) == wanted
        (entry,) = await audit_of(session, row.id)
        assert (entry.action, entry.after["weights"]) == ("meter.created", {"bulk": 2})

    async def test_refuses_a_code_that_something_else_has(self, session, now, product) -> None:
        await create_meter(session, meter=facts(), actor=ACTOR, now=now)
        with pytest.raises(MeterCodeTakenError):
            await create_meter(session, meter=facts(name="Other"), actor=ACTOR, now=now)
        await a_published_plan(session, now=now, prices=(per_unit("tokens"),))
        await update_api_product(session, product=replace(product, unit_headers={}), actor=ACTOR, now=now)
        with pytest.raises(MeterCodeTakenError, match="plan starter"):
            await create_meter(session, meter=facts(code="tokens"), actor=ACTOR, now=now)

    async def test_keeps_dimensions_from_taking_a_meters_code(self, session, now, product) -> None:
        await create_meter(session, meter=facts(), actor=ACTOR, now=now)
        with pytest.raises(ValidationFailedError, match=r"unit_headers\.writes"):
            await update_api_product(
                session, product=replace(product, unit_headers={"writes": "x-writes"}), actor=ACTOR, now=now
            )

    async def test_has_a_limit(self, session, now, product, monkeypatch) -> None:
        monkeypatch.setattr("control_plane.catalog.meter_operations.MAX_METERS", 1)
        await create_meter(session, meter=facts(), actor=ACTOR, now=now)
        with pytest.raises(TooManyMetersError, match="has 1 meters"):
            await create_meter(session, meter=facts(code="more"), actor=ACTOR, now=now)
        await archive_meter(session, code="writes", actor=ACTOR, now=now)
        await create_meter(session, meter=facts(code="more"), actor=ACTOR, now=now)

    async def test_needs_the_api_product(self, session, now) -> None:
        with pytest.raises(NotFoundError):
            await create_meter(session, meter=facts(), actor=ACTOR, now=now)


class TestChanging:
    async def test_a_meter_that_nothing_prices_begins_anew_under_another_id(self, session, now, product) -> None:
        before = await create_meter(session, meter=facts(), actor=ACTOR, now=now)
        after = await update_meter(session, meter=facts("sum", "tokens"), actor=ACTOR, now=now)
        assert (after.code, after.id == before.id) == ("writes", False)
        assert facts_of_meter(await meter(session, "writes")) == facts("sum", "tokens")

    async def test_a_meter_that_a_price_counts_stays_as_it_is_but_for_its_name(
        self, session, now, product
    ) -> None:
        before = await create_meter(session, meter=facts(), actor=ACTOR, now=now)
        await a_published_plan(session, now=now, prices=(per_unit("writes"),))
        await a_new_version(session, now=now)  # superseded, but its subscriptions go on
        with pytest.raises(MeterInUseError, match="plan starter"):
            await update_meter(session, meter=facts("sum", "tokens"), actor=ACTOR, now=now)
        renamed = await update_meter(session, meter=facts(name="Writing calls"), actor=ACTOR, now=now)
        assert (renamed.id, renamed.name) == (before.id, "Writing calls")

    async def test_to_what_is_there_changes_nothing(self, session, now, product) -> None:
        row = await create_meter(session, meter=facts(), actor=ACTOR, now=now)
        await update_meter(session, meter=facts(), actor=ACTOR, now=now)
        assert len(await audit_of(session, row.id)) == 1

    async def test_never_moves_it_to_another_product(self, session, now, product) -> None:
        await create_api_product(
            session, product=replace(product, code="maps", routes=("maps",)), actor=ACTOR, now=now
        )
        await create_meter(session, meter=facts(), actor=ACTOR, now=now)
        with pytest.raises(MeterCodeTakenError, match="a meter of weather"):
            await update_meter(session, meter=facts(api_product="maps"), actor=ACTOR, now=now)


class TestArchiving:
    async def test_keeps_new_prices_away_and_goes_on_for_old_ones(self, session, now, product) -> None:
        await create_meter(session, meter=facts(), actor=ACTOR, now=now)
        await create_meter(session, meter=facts(code="unused"), actor=ACTOR, now=now)
        await a_published_plan(session, now=now, prices=(per_unit("writes"),))
        with pytest.raises(MeterOnSaleError, match="plan starter"):
            await archive_meter(session, code="writes", actor=ACTOR, now=now)
        await a_new_version(session, now=now)
        for code in ("writes", "unused", "writes"):
            await archive_meter(session, code=code, actor=ACTOR, now=now)
        with pytest.raises(ValidationFailedError, match="must be one of"):
            await a_new_version(session, now=now, prices=(per_unit("writes"),))
        counted = await counting_meters(session)
        assert {product: [one.facts.code for one in known] for product, known in counted.items()} == {
            "weather": ["writes"]
        }

    async def test_ends_when_it_is_declared_again(self, session, now, product) -> None:
        await create_meter(session, meter=facts(), actor=ACTOR, now=now)
        await archive_meter(session, code="writes", actor=ACTOR, now=now)
        row = await update_meter(session, meter=facts(), actor=ACTOR, now=now)
        assert row.archived_at is None


class TestPrices:
    async def test_name_meters_of_their_product_only(self, session, now, product) -> None:
        await create_api_product(
            session, product=replace(product, code="maps", routes=("maps",)), actor=ACTOR, now=now
        )
        await create_meter(session, meter=facts(code="views", api_product="maps"), actor=ACTOR, now=now)
        with pytest.raises(ValidationFailedError) as caught:
            await a_published_plan(session, now=now, prices=(per_unit("views"),))
        assert caught.value.field == "prices[0].meter"
        version = await a_published_plan(
            session, code="atlas", product="maps", now=now, prices=(per_unit("views"),)
        )
        assert set((await meters_of_versions(session, [version.id]))[version.id]) == {"views"}
        uses = await uses_of_meter(session, await meter(session, "views"))
        assert [(use.plan, use.version, use.status, use.model) for use in uses] == [
            ("atlas", 1, "published", "per_unit")
        ]

    async def test_on_unique_meters_need_a_monthly_plan(self, session, now, product) -> None:
        await create_meter(session, meter=facts("unique", "key_id"), actor=ACTOR, now=now)
        with pytest.raises(ValidationFailedError, match="only monthly plans"):
            await a_published_plan(session, now=now, interval="year", prices=(per_unit("writes"),))


class TestListing:
    async def test_comes_in_pages_by_code(self, session, now, product) -> None:
        for code in ("c", "a", "b"):
            await create_meter(session, meter=facts(code=code), actor=ACTOR, now=now)
        await archive_meter(session, code="b", actor=ACTOR, now=now)
        found, cursor = [], None
        while True:
            page = await meters_page(session, product_code="weather", archived=True, cursor=cursor, limit=2)
            found += [row.code for row in page.items]
            if (cursor := page.next_cursor) is None:
                break
        assert found == ["a", "b", "c"]
        page = await meters_page(session, product_code="weather", archived=False, cursor=None, limit=9)
        assert [row.code for row in page.items] == ["a", "c"]


FILE = """
api_products:
  - code: weather
    name: Weather
    service: weather
    routes: [weather, bulk]
    endpoints: ["GET /v1/cities/{city}"]
    unit_headers: { tokens: x-tokens }
meters:
  - code: active-users
    name: Active users
    api_product: weather
    aggregation: unique
    value: properties.user
    events: reported
    filters: { event_types: [login], properties: { plan: gold } }
  - code: writes
    name: Writes
    api_product: weather
    aggregation: count
    filters: { methods: [PUT, POST], highest_status: 299 }
    weights: { bulk: 10 }
plans:
  - code: starter
    name: Starter
    api_product: weather
    prices:
      - { model: per_unit, meter: active-users, unit_amount: "0.50" }
      - { model: overage, meter: writes, included: 100, unit_amount: "0.01" }
"""


class TestPlanFiles:
    async def test_declare_meters_before_the_plans_that_price_them(self, session, now) -> None:
        file = parse_plan_file(FILE)
        diff = await apply_plan_file(session, file, actor=ACTOR, now=now)
        assert [str(change) for change in diff.changes] == [
            "api_product weather: create",
            "meter active-users: create",
            "meter writes: create",
            "plan starter: create",
            "plan starter: new_version",
        ]
        again = await apply_plan_file(session, file, actor=ACTOR, now=now)
        assert (again.changes, again.left_alone) == ((), ())
        assert facts_of_meter(await meter(session, "writes")) == file.meters[1]

    async def test_say_what_would_change_and_refuse_what_is_in_use(self, session, now) -> None:
        await apply_plan_file(session, parse_plan_file(FILE), actor=ACTOR, now=now)
        renamed = parse_plan_file(FILE.replace("name: Writes", "name: Writing calls"))
        assert [str(change) for change in (await diff_plan_file(session, renamed)).changes] == [
            "meter writes: update (name: 'Writes' -> 'Writing calls')"
        ]
        await apply_plan_file(session, renamed, actor=ACTOR, now=now)
        heavier = parse_plan_file(FILE.replace("bulk: 10", "bulk: 20"))
        (change,) = [one for one in (await diff_plan_file(session, heavier)).changes if one.code == "writes"]
        assert ("weights.bulk", 10, 20) in [(one.field, one.before, one.after) for one in change.fields]
        with pytest.raises(MeterInUseError):
            await apply_plan_file(session, heavier, actor=ACTOR, now=now)

    async def test_name_meters_that_they_leave_alone(self, session, now) -> None:
        await apply_plan_file(session, parse_plan_file(FILE), actor=ACTOR, now=now)
        await create_meter(session, meter=facts(code="more"), actor=ACTOR, now=now)
        assert (await diff_plan_file(session, parse_plan_file(FILE))).left_alone == ("meter more",)

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ("aggregation: unique", "aggregation: average", "meters[0].aggregation: must be one of"),
            ("meter: writes", "meter: reads", "plans[0].prices[1].meter: must be one of"),
            ("code: writes", "code: tokens", "meters[1].code: tokens is counted already"),
            ("code: writes", "code: active-users", "meters[1].code: is there twice"),
            ("value: properties.user", "value: user", "meters[0].value: must be one of"),
            ("methods: [PUT", "methods: [WRITE", "meters[1].filters.methods[0]: must be one of"),
            ("bulk: 10", "typo: 10", "meters[1].weights: typo is neither"),
            ("    name: Starter", "    name: Starter\n    interval: year", "only monthly plans can"),
            (
                "name: Writes\n    api_product: weather",
                "name: Writes\n    api_product: maps",
                "meters[1].api_product",
            ),
        ],
    )
    def test_say_what_is_wrong_and_where(self, old: str, new: str, problem: str) -> None:
        with pytest.raises(ValidationFailedError) as caught:
            parse_plan_file(FILE.replace(old, new))
        assert any(problem in str(one) for one in caught.value.problems), caught.value.problems


EVERYTHING = """
api_products:
  - code: weather
    name: Weather
    description: All of it
    service: weather
    routes: [weather, bulk]
    endpoints: ["GET /v1/cities/{city}"]
    route_units: { bulk: 5 }
    unit_headers: { tokens: x-tokens }
    unit_maximums: { "*": { tokens: 8000 } }
    replay_header: x-replayed
  - { code: maps, name: Maps, service: maps, routes: [maps] }
plans:
  - code: pro
    name: "Pro: yes"
    api_product: weather
    position: 3
    recommended: true
    visibility: hidden
    interval: year
    currency: EUR
    quota: { units: 500, on_exceed: charge, cap: 900 }
    limits: [{ limit: 5, per: second }, { limit: 99, per: day }]
    concurrency: { limit: 20, lease_seconds: 90 }
    entitlements: [history]
    redis_down: closed
    on_past_due: refuse
    billable_statuses: { below: 400 }
    event_retention_days: 400
    prices:
      - { model: flat, amount: 49 }
      - { model: overage, unit_amount: 0.0015, description: Beyond the quota }
      - model: graduated
        meter: tokens
        tiers: [{ up_to: 10, unit_amount: "0" }, { up_to: null, unit_amount: "1" }]
  - { code: quote, name: Quote, api_product: maps, by_quote: true }
"""


class TestExport:
    @pytest.mark.parametrize(
        "text", [FILE, EVERYTHING, (Path(__file__).parents[3] / "plans.yml").read_text(encoding="utf-8")]
    )
    async def test_applied_again_changes_nothing_and_says_all(self, text, session, now) -> None:
        file = parse_plan_file(text)
        await apply_plan_file(session, file, actor=ACTOR, now=now)
        exported = parse_plan_file(export_plan_file(await read_catalog(session)).text)
        assert (await diff_plan_file(session, exported)) == PlanDiff((), ())
        assert {product.code: product for product in exported.products} == {
            product.code: product for product in file.products
        }
        assert {offer.facts.code: offer for offer in exported.plans} == {
            offer.facts.code: offer for offer in file.plans
        }
        assert {one.code: one for one in exported.meters} == {one.code: one for one in file.meters}

    async def test_leaves_out_what_is_archived(self, session, now) -> None:
        await apply_plan_file(session, parse_plan_file(FILE), actor=ACTOR, now=now)
        await archive_plan(session, code="starter", actor=ACTOR, now=now)
        assert parse_plan_file(export_plan_file(await read_catalog(session)).text).plans == ()

    async def test_names_a_limit_that_a_file_cannot_say(self, session, now) -> None:
        await a_published_plan(session, now=now, windows=(Window(limit=5, window_ms=1500),))
        with pytest.raises(LimitNotExpressibleError, match="1500 ms"):
            export_plan_file(await read_catalog(session))
