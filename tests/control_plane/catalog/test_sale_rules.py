# ruff: noqa: E501 - a table of cases reads across, one case a line
"""What plan files can say of trials, add-ons, payment and currencies, and every reason against selling it."""

import re
from pathlib import Path

import pytest

import control_plane
from control_plane.catalog.plan_export import export_plan_file
from control_plane.catalog.plan_file import PlanFile, parse_plan_file
from control_plane.foundation.errors import ValidationFailedError

PRODUCT = (
    "api_products: [{code: weather, name: Weather, service: weather, routes: [weather],"
    " unit_headers: {tokens: x-tokens, cents: x-cents}}]\n"
    "meters: [{code: users, name: Users, api_product: weather, aggregation: unique, value: key_id}]\n"
)
PLAN = "plans: [{code: pro, name: Pro, api_product: weather, %s}]\n"
ADD_ON = "add_ons: [{code: more, name: More, api_product: weather, %s}]\n"
PER_CALL = "{model: per_unit, unit_amount: 1}"
TWO = "other_currencies: [EUR], "


def parsed(plan: str = "", add_on: str | None = None) -> PlanFile:
    return parse_plan_file(PRODUCT + PLAN % plan + ("" if add_on is None else ADD_ON % add_on))


def problems_of(plan: str = "", add_on: str | None = None) -> list[str]:
    with pytest.raises(ValidationFailedError) as refused:
        parsed(plan, add_on)
    return [str(problem) for problem in refused.value.problems]


class TestPlanFile:
    def test_says_what_a_plan_sells(self):
        terms = parsed(
            "trial: {days: 14, after: cancel}, payment: prepaid, features: [Chat support, SSO], sla: 99.9 %,"
            f" support: Business hours, quota_on_change: prorated, prices: [{PER_CALL}]"
        ).plans[0].terms  # fmt: skip
        assert (terms.trial_days, terms.after_trial, terms.payment) == (14, "cancel", "prepaid")
        assert terms.features == ("Chat support", "SSO")
        assert (terms.sla_level, terms.support_level) == ("99.9 %", "Business hours")
        assert (terms.quota_on_change, terms.billed_by) == ("prorated", "own")

    def test_says_none_of_it_by_default(self):
        terms = parsed().plans[0].terms
        assert (terms.trial_days, terms.after_trial, terms.payment) == (None, "continue", "invoice")
        assert (terms.features, terms.sla_level, terms.quota_on_change) == ((), None, "full")

    def test_lists_add_ons_after_all_plans(self):
        file = parsed(add_on="quota: {units: 100}, entitlements: [history], prices: [{model: flat, amount: 5}]")
        plan, add_on = file.plans
        assert (plan.facts.kind, add_on.facts.kind) == ("plan", "add_on")
        assert (add_on.terms.quota_units, add_on.terms.quota_hard) == (100, False)
        assert add_on.terms.entitlements == ("history",)

    def test_gives_amounts_in_every_currency(self):
        terms = parsed(
            "other_currencies: [JPY, EUR], prices: [{model: flat, amount: {USD: 49, EUR: 45.00, JPY: 7000}},"
            " {model: overage, included: 5, unit_amount: {USD: 0.001, EUR: 0.0009, JPY: 0.1}}]"
        ).plans[0].terms  # fmt: skip
        assert terms.other_currencies == ("EUR", "JPY")
        assert [price.params["amount"] for price in terms.prices if price.model == "flat"] == [
            "49.00",
            "45.00",
            "7000",
        ]
        yen = terms.in_currency("JPY")
        assert (yen.currency, yen.other_currencies) == ("JPY", ())
        assert [price.params for price in yen.prices] == [
            {"amount": "7000"},
            {"included": 5, "unit_amount": "0.1"},
        ]
        assert terms.in_currency("USD").prices[1].params["unit_amount"] == "0.001"
        assert (terms.is_sold_in("EUR"), terms.is_sold_in("CHF")) == (True, False)

    def test_sells_what_is_free_in_every_currency(self):
        assert parsed().plans[0].terms.is_sold_in("CHF")

    @pytest.mark.parametrize(
        ("plan", "problem"),
        [
            ("trial: {days: 0}", "trial.days: must be between 1 and 365"),
            ("trial: {after: cancel}", "trial.days: is required"),
            ("features: ['']", "features[0]: must not be empty"),
            ("features: [SSO, ' SSO ']", "features[1]: is there twice"),
            (f"{TWO}prices: [{{model: flat, amount: 5}}]", "prices[0].amount: the plan is sold in several currencies: write {USD: ..., EUR: ...}"),
            (f"{TWO}prices: [{{model: flat, amount: {{USD: 5}}}}]", "prices[0].amount: has no amount in EUR"),
            (f"{TWO}prices: [{{model: flat, amount: {{USD: 5, EUR: 5, GBP: 5}}}}]", "prices[0].amount.GBP: is neither the plan's currency nor one of its other_currencies"),
            (f"{TWO}prices: [{{model: flat, amount: {{USD: 5, EUR: 5.001}}}}]", "prices[0].amount.EUR: EUR has 2 digits after the point"),
            (f"{TWO}prices: [{{model: volume, tiers: [{{up_to: null, unit_amount: {{USD: 1}}}}]}}]", "prices[0].tiers[0].unit_amount: has no amount in EUR"),
            ("prices: [{model: flat, amount: {USD: 5, EUR: 5}}]", "prices[0].amount.EUR: is neither the plan's currency nor one of its other_currencies"),
            ("other_currencies: [EUR]", "other_currencies: needs prices: what is free suits every currency"),
            (f"other_currencies: [USD], prices: [{PER_CALL}]", "other_currencies[0]: is one of the plan's already"),
            (f"other_currencies: [eur], prices: [{PER_CALL}]", "other_currencies[0]: must be an ISO 4217 code such as USD"),
            ("billed_by: stripe, quota_on_change: carry", "quota_on_change: must be full where Stripe bills: there an upgrade begins anew, with the whole allowance; or say billed_by: own"),
            (f"billed_by: stripe, payment: prepaid, prices: [{PER_CALL}]", "payment: must be invoice where Stripe bills: prepaid credits are kept here"),
            ("payment: prepaid, prices: [{model: flat, amount: 5}]", "payment: prepaid credits pay for usage: add a price that counts something, or say invoice"),
            (f"payment: prepaid, prices: [{PER_CALL}, {{model: commitment, amount: 5}}]", "payment: a commitment is settled by invoice: say invoice, or take it out"),
            ("payment: prepaid, prices: [{model: per_unit, meter: tokens, unit_amount: 1}]", "prices[0].meter: prepaid credits cannot pay for tokens: API product weather does not declare how many of them one call to route weather can report at most (unit_maximums)"),
            ("payment: prepaid, prices: [{model: per_unit, meter: bytes_out, unit_amount: 1}]", "prices[0].meter: prepaid credits cannot pay for bytes_out: how many of them a call comes to is known only afterwards"),
            ("payment: prepaid, prices: [{model: per_unit, meter: users, unit_amount: 1}]", "prices[0].meter: prepaid credits cannot pay for users: gateways count requests and reported units, not what a meter makes of them"),
            ("prices: [{model: flat, amount: 5}, {model: commitment, amount: 5}]", "prices[1]: there is nothing to commit to: add a price whose charges count towards it"),
            ("prices: [{model: commitment, amount: 5, counts: all}]", "prices[0]: there is nothing to commit to: add a price whose charges count towards it"),
            (f"prices: [{PER_CALL}, {{model: commitment, amount: 5}}, {{model: commitment, amount: 5}}]", "prices: must have at most one commitment"),
            ("prices: [{model: percentage, percent: 1}]", "prices[0].meter: requests is no amount of money: a percentage needs a meter that counts minor units (cents)"),
            ("prices: [{model: setup_fee, amount: 5, meter: tokens}]", "prices[0].meter: a setup fee counts nothing: leave it out"),
            ("interval: year, prices: [{model: per_unit, meter: users, unit_amount: 1}]", "prices[0].meter: users counts different values, which needs all events of a period: only monthly plans can"),
        ],
    )  # fmt: skip
    def test_is_refused_by_path(self, plan, problem):
        assert problems_of(plan) == [f"plans[0].{problem}"]

    @pytest.mark.parametrize(
        ("add_on", "problem"),
        [
            ("", "prices: the add-on gives nothing and costs nothing: add a quota or a price"),
            ("limits: [{limit: 1, per: second}], quota: {units: 1}", "limits: is not a field here"),
            ("quota: {units: 1, on_exceed: refuse}", "quota.on_exceed: is not a field here"),
            ("quota: {units: 9}, prices: [{model: overage, unit_amount: 1}]", "prices[0].included: is required"),
            (f"prices: [{PER_CALL}, {{model: commitment, amount: 5}}]", "prices[1].model: an add-on cannot have a commitment: it belongs to the plan"),
        ],
    )  # fmt: skip
    def test_refuses_what_an_add_on_cannot_have(self, add_on, problem):
        assert problems_of(add_on=add_on) == [f"add_ons[0].{problem}"]

    def test_tells_every_reason_at_once(self):
        found = problems_of(
            f"billed_by: stripe, payment: prepaid, quota_on_change: carry, {TWO}"
            "prices: [{model: flat, amount: {USD: 1, EUR: 1}}, {model: commitment, amount: {USD: 1, EUR: 1}}]"
        )
        assert [problem.partition(":")[0] for problem in found] == [
            "plans[0].quota_on_change",
            "plans[0].payment",
            "plans[0].prices[1]",
            "plans[0].payment",
            "plans[0].payment",
        ]

    def test_takes_what_costs_nothing_and_what_is_sold_by_quote(self):
        assert parsed().plans[0].terms.prices == ()
        assert parsed("by_quote: true").plans[0].terms.by_quote

    def test_does_not_give_a_code_to_a_plan_and_an_add_on(self):
        text = PRODUCT + PLAN % "" + "add_ons: [{code: pro, name: X, api_product: weather, quota: {units: 1}}]"
        with pytest.raises(ValidationFailedError) as refused:
            parse_plan_file(text)
        assert [str(problem) for problem in refused.value.problems] == ["add_ons[0].code: is there twice"]


class TestOpenApiDocument:
    def test_is_kept_with_the_product_and_exported_beside_the_file(self):
        document = '{"openapi": "3.1.0", "paths": {"/v1/a": {"get": {}}}}'
        text = "api_products: [{code: weather, name: Weather, service: s, routes: [a], openapi: any.json}]"
        file = parse_plan_file(text, documents={"any.json": document})
        assert file.products[0].openapi_document == document
        exported = export_plan_file(file)
        assert exported.documents == {"weather.openapi.json": document}
        assert parse_plan_file(exported.text, documents=exported.documents) == file

    def test_shows_as_a_digest_where_changes_are_told(self):
        text = "api_products: [{code: weather, name: Weather, service: s, routes: [a], openapi: a.yaml}]"
        file = parse_plan_file(text, documents={"a.yaml": "openapi: 3.1.0\npaths: {}\n"})
        assert file.products[0].as_dict()["openapi_document"].startswith("sha256:")


class TestDocumentation:
    def test_shows_a_file_that_can_be_applied(self):
        page = (Path(control_plane.__file__).parent.parent / "docs" / "catalog.md").read_text()
        (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        document = "openapi: 3.1.0\nservers: [{url: /weather}]\npaths: {'/v1/forecast/{city}': {get: {}}}"
        file = parse_plan_file(text, documents={"weather.openapi.yaml": document})
        assert [offer.facts.code for offer in file.plans] == ["pro", "more-requests"]
        assert parse_plan_file(export_plan_file(file).text, documents=export_plan_file(file).documents) == file
