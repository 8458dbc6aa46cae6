"""What a plan can say of caps, calls at a time and late payment, and a product of units and replays."""

from dataclasses import replace

import pytest

from control_plane.catalog.model import unit_maximum
from control_plane.catalog.operations import create_api_product, update_api_product
from control_plane.catalog.plan_changes import apply_plan_file, diff_plan_file
from control_plane.catalog.plan_file import parse_plan_file
from control_plane.catalog.queries import (
    api_product,
    event_retentions,
    facts_of_product,
    plan,
    product_usage_rules,
    published_versions,
    terms_of_version,
)
from control_plane.foundation.errors import ValidationFailedError
from gateway_contract.records import Concurrency
from tests.control_plane.builders import ACTOR, a_published_plan, outbox_of

PRODUCT = (
    "api_products: [{code: weather, name: Weather, service: weather, routes: [chat, status], "
    "unit_headers: {tokens: x-tokens}, %s}]\n"
)
PLAN = "plans: [{code: starter, name: Starter, api_product: weather, %s}]\n"
CHARGED = "quota: {units: 500, on_exceed: charge, cap: 900}"


def parsed(plan: str = "", product: str = ""):
    return parse_plan_file(PRODUCT % product + PLAN % plan)


def problems_of(plan: str = "", product: str = "") -> list[str]:
    with pytest.raises(ValidationFailedError) as refused:
        parsed(plan, product)
    return [str(problem) for problem in refused.value.problems]


class TestPlanTerms:
    def test_read_cap_concurrency_and_policy(self):
        terms = parsed(f"{CHARGED}, concurrency: {{limit: 20}}, on_past_due: refuse").plans[0].terms
        assert (terms.quota_units, terms.quota_cap_units, terms.on_past_due) == (500, 900, "refuse")
        assert terms.concurrency == Concurrency(limit=20, lease_ms=60_000)

    def test_say_none_of_it_by_default(self):
        terms = parsed().plans[0].terms
        assert (terms.quota_cap_units, terms.concurrency, terms.on_past_due) == (None, None, "serve")

    @pytest.mark.parametrize(
        ("plan", "problem"),
        [
            (
                "quota: {units: 500, on_exceed: refuse, cap: 900}",
                "quota.cap: needs a quota with on_exceed: charge",
            ),
            (
                "quota: {units: 500, on_exceed: charge, cap: 500}",
                "quota.cap: must be greater than the quota's 500 units",
            ),
            (
                "quota: {units: 0, on_exceed: charge, cap: 5}",
                "quota.units: must be between 1 and 9007199254740991",
            ),
            ("concurrency: {limit: 0}", "concurrency.limit: must be between 1 and 100000"),
            (
                "concurrency: {limit: 5, lease_seconds: 3601}",
                "concurrency.lease_seconds: must be between 1 second and 1 hour",
            ),
            ("concurrency: {lease_seconds: 60}", "concurrency.limit: is required"),
            ("on_past_due: wait", "on_past_due: must be one of serve, refuse"),
            ("event_retention_days: 89", "event_retention_days: must be between 90 and 3660"),
            ("event_retention_days: 3661", "event_retention_days: must be between 90 and 3660"),
        ],
    )
    def test_are_refused_by_path(self, plan, problem):
        assert problems_of(plan) == [f"plans[0].{problem}"]

    async def test_are_read_back_as_the_file_says(self, session, now):
        file = parsed(
            f"{CHARGED}, concurrency: {{limit: 20, lease_seconds: 5}}, on_past_due: refuse,"
            " event_retention_days: 400",
            'unit_maximums: {"*": {tokens: 8000}, status: {tokens: 0}}, replay_header: X-Again',
        )
        await apply_plan_file(session, file, actor=ACTOR, now=now)
        row = await plan(session, "starter")
        (version,) = (await published_versions(session, [row.id])).values()
        assert terms_of_version(version) == file.plans[0].terms
        assert facts_of_product(await api_product(session, "weather")) == file.products[0]
        assert (await diff_plan_file(session, file)).changes == ()
        assert await event_retentions(session) == {("starter", 1): 400}

    async def test_differences_are_named_by_field(self, session, now):
        await apply_plan_file(session, parsed(CHARGED), actor=ACTOR, now=now)
        changed = parsed("quota: {units: 500, on_exceed: charge, cap: 1000}, concurrency: {limit: 2}")
        (change,) = (await diff_plan_file(session, changed)).changes
        assert {field.field: (field.before, field.after) for field in change.fields} == {
            "quota_cap_units": (900, 1000),
            "concurrency": (None, {"limit": 2, "lease_ms": 60_000}),
        }

    async def test_concurrency_is_told_to_the_renderer_when_it_begins(self, session, now):
        await a_published_plan(session, now=now)
        before = len(await outbox_of(session, "config.changed"))
        await apply_plan_file(
            session,
            parse_plan_file(
                "api_products: [{code: weather, name: Weather, service: weather, routes: [weather]}]\n"
                + PLAN % "position: 0, concurrency: {limit: 5}"
            ),
            actor=ACTOR,
            now=now,
        )
        assert len(await outbox_of(session, "config.changed")) == before + 1


class TestProductRules:
    @pytest.mark.parametrize(
        ("product", "problem"),
        [
            (
                "unit_maximums: {other: {tokens: 5}}",
                "unit_maximums.other: is not one of the product's routes, nor *",
            ),
            ("unit_maximums: {chat: {images: 5}}", "unit_maximums.chat.images: is not one of the unit_headers"),
            (
                "unit_maximums: {chat: {tokens: -1}}",
                "unit_maximums.chat.tokens: must be between 0 and 1000000000000",
            ),
            ("replay_header: 'a b'", "replay_header: replay header 'a b': use letters, digits and -"),
        ],
    )
    def test_are_refused_by_path(self, product, problem):
        assert problems_of(product=product) == [f"api_products[0].{problem}"]

    def test_a_route_of_its_own_comes_before_all_others(self):
        maximums = {"*": {"tokens": 8000, "images": 4}, "status": {"tokens": 0}}
        assert unit_maximum(maximums, route="status", dimension="tokens") == 0
        assert unit_maximum(maximums, route="status", dimension="images") == 4
        assert unit_maximum(maximums, route="chat", dimension="tokens") == 8000
        assert unit_maximum({}, route="chat", dimension="tokens") is None

    async def test_are_what_usage_reads(self, session, now):
        product = parsed(product="unit_maximums: {chat: {tokens: 8000}}").products[0]
        await create_api_product(session, product=product, actor=ACTOR, now=now)
        rules = (await product_usage_rules(session))["weather"]
        assert (rules.unit_maximums, rules.replay_header) == ({"chat": {"tokens": 8000}}, "idempotent-replayed")
        await update_api_product(session, product=replace(product, replay_header=""), actor=ACTOR, now=now)
        assert (await product_usage_rules(session))["weather"].replay_header == ""

    async def test_maxima_are_told_to_the_projector(self, session, now):
        product = parsed().products[0]
        await create_api_product(session, product=product, actor=ACTOR, now=now)
        assert await outbox_of(session, "product.changed") == []
        changed = replace(product, unit_maximums={"*": {"tokens": 1}})
        row = await update_api_product(session, product=changed, actor=ACTOR, now=now)
        assert await outbox_of(session, "product.changed") == [row.id]
