# ruff: noqa: E501 - a table of cases reads across, one case a line
"""Reading plan files: exact, strict, and saying all that is wrong by path."""

from pathlib import Path

import pytest

import control_plane
from control_plane.catalog.plan_file import parse_plan_file
from control_plane.foundation.errors import ValidationFailedError
from gateway_contract.records import Window

ROOT = Path(control_plane.__file__).parent.parent
PRODUCT = "api_products: [{code: weather, name: Weather, service: weather, routes: [weather, bulk], %s}]\n"


def a_file(plan: str = "", product: str = "") -> str:
    """One product and one plan, with what the test adds to either."""
    plans = "plans: [{code: starter, name: Starter, api_product: weather, %s}]\n"
    return PRODUCT % product + plans % plan


def problems_of(text: str, **options) -> list[str]:
    with pytest.raises(ValidationFailedError) as refused:
        parse_plan_file(text, **options)
    return [str(problem) for problem in refused.value.problems]


class TestParsePlanFile:
    def test_reads_the_default_catalogue_as_it_was_promised(self):
        file = parse_plan_file((ROOT / "plans.yml").read_text())
        (product,) = file.products
        assert (product.code, product.service, product.routes) == ("weather", "weather", ("weather",))
        plans = {plan.facts.code: plan for plan in file.plans}
        shown = sorted(plans.values(), key=lambda plan: plan.facts.position)
        listed = [plan.facts.code for plan in shown if plan.facts.visibility == "public"]
        assert listed == ["enterprise", "growth", "starter", "free"]
        assert [code for code, plan in plans.items() if plan.terms.billed_by == "stripe"] == ["team"]
        assert [code for code, plan in plans.items() if plan.facts.recommended] == ["growth"]
        assert [code for code, plan in plans.items() if plan.terms.by_quote] == ["enterprise"]
        expected = {
            "free": (1_000, True, [(2, 1_000), (60, 60_000)], []),
            "starter": (50_000, False, [(10, 1_000), (300, 60_000)], ["49.00", "0.0015"]),
            "growth": (500_000, False, [(50, 1_000), (1_500, 60_000)], ["199.00", "0.0006"]),
        }
        for code, (units, hard, windows, amounts) in expected.items():
            terms = plans[code].terms
            assert (terms.quota_units, terms.quota_hard) == (units, hard)
            assert terms.windows == tuple(Window(*window) for window in windows)
            assert [p.params.get("amount") or p.params["unit_amount"] for p in terms.prices] == amounts
            assert (terms.interval, terms.currency) == ("month", "USD")

    def test_takes_numbers_with_a_point_by_their_characters(self):
        file = parse_plan_file(a_file("prices: [{model: per_unit, unit_amount: 0.000000000001}]"))
        assert file.plans[0].terms.prices[0].params == {"unit_amount": "0.000000000001"}
        file = parse_plan_file(a_file("prices: [{model: per_unit, unit_amount: 0.100000000000}]"))
        assert file.plans[0].terms.prices[0].params == {"unit_amount": "0.10"}

    def test_overage_includes_the_quota_unless_it_says_otherwise(self):
        quota = "quota: {units: 500, on_exceed: charge}, prices: [{model: overage, unit_amount: 0.01%s}]"
        assert parse_plan_file(a_file(quota % "")).plans[0].terms.prices[0].params["included"] == 500
        assert parse_plan_file(a_file(quota % ", included: 9")).plans[0].terms.prices[0].params["included"] == 9

    def test_prices_can_count_what_the_upstream_reports(self):
        file = parse_plan_file(
            a_file(
                "prices: [{model: per_unit, meter: tokens, unit_amount: 1}]", "unit_headers: {tokens: X-Tokens}"
            )
        )
        assert file.products[0].unit_headers == {"tokens": "x-tokens"}
        assert file.plans[0].terms.prices[0].meter == "tokens"

    def test_endpoints_may_be_written_short_or_long_or_taken_from_openapi(self):
        short = parse_plan_file(a_file(product="endpoints: [GET /v1/a]")).products[0].endpoints
        long = parse_plan_file(a_file(product="endpoints: [{method: GET, path_template: /v1/a}]"))
        document = '{"openapi": "3.1.0", "paths": {"/v1/a": {"get": {}, "summary": "x", "parameters": []}}}'
        taken = parse_plan_file(a_file(product="openapi: weather.json"), documents={"weather.json": document})
        assert short == long.products[0].endpoints == taken.products[0].endpoints
        assert [(e.method, e.path_template) for e in short] == [("GET", "/v1/a")]

    @pytest.mark.parametrize(
        ("servers", "path"),
        [
            ('[{"url": "https://api.example.com/weather/"}, {"url": "/other"}]', "/weather/v1/a"),
            ('[{"url": "https://api.example.com"}]', "/v1/a"),
            ('[{"url": "/weather"}]', "/weather/v1/a"),
            ("[]", "/v1/a"),
        ],
    )
    def test_openapi_paths_begin_with_the_servers_path_as_callers_send_them(self, servers, path):
        document = f'{{"openapi": "3.1.0", "servers": {servers}, "paths": {{"/v1/a": {{"get": {{}}}}}}}}'
        file = parse_plan_file(a_file(product="openapi: weather.json"), documents={"weather.json": document})
        assert [endpoint.path_template for endpoint in file.products[0].endpoints] == [path]

    def test_a_file_without_plans_has_none(self):
        assert parse_plan_file("plans: []").plans == ()

    @pytest.mark.parametrize("text", ["", "{}", "[]", "# nothing yet"])
    def test_a_file_that_says_nothing_is_refused(self, text):
        with pytest.raises(ValidationFailedError, match="the file must have `api_products` and `plans`"):
            parse_plan_file(text)


class TestPlanFileErrors:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (a_file("limits: [{limit: 5, per: week}]"), "plans[0].limits[0].per: must be one of second, minute, hour, day"),
            (a_file("limits: [{limit: 0, per: day}]"), "plans[0].limits[0].limit: must be at least 1"),
            (a_file("limits: [{limit: 1.5, per: day}]"), "plans[0].limits[0].limit: must be a whole number"),
            (a_file("limits: [{limit: 1, per: day}, {limit: 2, per: day}]"), "plans[0].limits[1]: another limit has the same window"),
            (a_file("limitz: []"), "plans[0].limitz: is not a field here"),
            (a_file("interval: week"), "plans[0].interval: must be one of month, year"),
            (a_file("currency: usd"), "plans[0].currency: must be an ISO 4217 code such as USD"),
            (a_file("quota: {units: 0, on_exceed: refuse}"), "plans[0].quota.units: must be between 1 and 9007199254740991"),
            (a_file("quota: {units: 5}"), "plans[0].quota.on_exceed: is required"),
            (a_file("recommended: 1"), "plans[0].recommended: must be true or false"),
            (a_file("entitlements: [Premium Data]"), "plans[0].entitlements[0]: must be lower-case letters, digits and _ . : -, and begin with a letter"),
            (a_file("billable_statuses: {below: 700}"), "plans[0].billable_statuses.below: must be between 200 and 600"),
            (a_file("prices: [{model: flat}]"), "plans[0].prices[0].amount: is required"),
            (a_file("prices: [{amount: 5}]"), "plans[0].prices[0].model: is required"),
            (a_file("prices: [{model: flat, amount: 49.005}]"), "plans[0].prices[0].amount: USD has 2 digits after the point"),
            (a_file("prices: [{model: flat, amount: 5, meter: requests}]"), "plans[0].prices[0].meter: a flat price counts nothing: leave it out"),
            (a_file("prices: [{model: per_unit, unit_amount: x}]"), "plans[0].prices[0].unit_amount: must be a number from 0, with at most 12 digits before and 12 after the point"),
            (a_file("prices: [{model: per_unit, meter: tokens, unit_amount: 1}]"), "plans[0].prices[0].meter: must be one of bytes_in, bytes_out, requests, upstream_ms"),
            (a_file("prices: [{model: overage, unit_amount: 1}]"), "plans[0].prices[0].included: is required"),
            (a_file("quota: {units: 5, on_exceed: refuse}, prices: [{model: overage, unit_amount: 1}]"), "plans[0].prices[0].model: overage never comes due where the quota refuses calls"),
            (a_file(product="route_units: {other: 2}"), "api_products[0].route_units.other: is not one of the product's routes"),
            (a_file(product="route_units: {bulk: 0}"), "api_products[0].route_units.bulk: must be between 1 and 1000000"),
            (a_file(product="unit_headers: {requests: x-r}"), "api_products[0].unit_headers.requests: is the gateway's own meter: take another name"),
            (a_file(product="unit_headers: {bytes_out: x-b}"), "api_products[0].unit_headers.bytes_out: is the gateway's own meter: take another name"),
            (a_file(product="unit_headers: {Tokens: x-t}"), "api_products[0].unit_headers.Tokens: dimension 'Tokens': use lower-case letters, digits and _"),
            (a_file(product="endpoints: [GET v1]"), "api_products[0].endpoints[0].path_template: must begin with / and have at most 256 characters"),
            (a_file(product="endpoints: [FETCH /v1]"), "api_products[0].endpoints[0].method: must be one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            (a_file(product="openapi: missing.json"), "api_products[0].openapi: the document missing.json was not sent along"),
            ("plans: [{code: x, name: X, api_product: nix}]", "plans[0].api_product: must be one of the file's api_products: there are none"),
            ("plans: 3", "plans: must be a list"),
            ("[]", "the file must have `api_products` and `plans`"),
            ("plans: [", "line 1, column 9: expected the node content, but found '<stream end>'"),
            ("plans: []\nplans: []", "line 2, column 1: the key plans is there twice, or is no plain text"),
            ("a: &x [1]\nplans: *x", "line 2, column 8: aliases (*name) are not supported"),
            ("plans: .inf", "line 1, column 8: .inf is not a decimal number"),
        ],
    )  # fmt: skip
    def test_name_the_path_and_say_what_must_be_true(self, text, problem):
        assert problems_of(text) == [problem]

    def test_come_all_at_once(self):
        text = (
            PRODUCT % ""
            + """
plans:
  - {code: a, name: A, api_product: weather, position: 1, recommended: true, currency: EURO}
  - {code: a, name: " ", api_product: weather, position: 1, recommended: true}
"""
        )
        assert sorted(problems_of(text)) == [
            "plans[0].currency: must be an ISO 4217 code such as USD",
            "plans[1].code: is there twice",
            "plans[1].name: must not be empty",
            "plans[1].position: another plan of the product has it",
            "plans[1].recommended: another plan of the product is recommended",
        ]

    def test_a_route_belongs_to_one_product(self):
        text = """
api_products:
  - {code: one, name: One, service: s, routes: [a, b]}
  - {code: two, name: Two, service: s, routes: [b]}
"""
        assert problems_of(text) == ["api_products[1].routes[0]: belongs to one already"]

    def test_a_document_without_paths_is_refused(self):
        documents = {"weather.json": '{"swagger": "2.0"}'}
        assert problems_of(a_file(product="openapi: weather.json"), documents=documents) == [
            "api_products[0].openapi: must be an OpenAPI 3 document with `openapi` and `paths`"
        ]
