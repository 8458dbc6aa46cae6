"""The contract that is read from the SDK: what it lets through, what it refuses, and what answers must hold."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from devstack.stripe.contract.annotations import fields_of
from devstack.stripe.contract.checking import Contract
from devstack.stripe.contract.events import event_problem, known_types, resource_classes
from devstack.stripe.contract.forms import parse_form
from devstack.stripe.contract.misfits import misfit
from devstack.stripe.contract.services import operations
from devstack.stripe.contract.shapes import Named
from devstack.stripe.operations import load
from devstack.stripe.problems import StripeProblem

CONTRACT = Contract()
FIXTURES = json.loads((Path(__file__).parent / "data" / "fixtures.json").read_text())["resources"]

# what Stripe's own examples, older than the SDK, do not have yet or still had
OLDER = {
    "subscription_schedule": "pause_schedules",
    "billing_portal.configuration": "subscription_pause",
    "invoice": "subscription",
}


def check(method: str, template: str, form: str) -> dict[str, object]:
    return CONTRACT.params(method, template, parse_form(form))


class TestForms:
    @pytest.mark.parametrize(
        ("form", "tree"),
        [
            ("a=1&b=x%20y", {"a": "1", "b": "x y"}),
            ("a[b][c]=1&a[b][d]=2", {"a": {"b": {"c": "1", "d": "2"}}}),
            ("i[0][p]=x&i[1][p]=y", {"i": [{"p": "x"}, {"p": "y"}]}),
            ("i[1]=b&i[0]=a&i[10]=c", {"i": ["a", "b", "c"]}),
            ("i[]=a&i[]=b", {"i": ["a", "b"]}),
            ("a=", {"a": ""}),
            ("", {}),
        ],
    )
    def test_names_with_brackets_become_maps_and_lists(self, form: str, tree: dict) -> None:
        assert parse_form(form) == tree

    @pytest.mark.parametrize("form", ["[a]=1", "a[b=1", "a=1&a[b]=2"])
    def test_forms_that_say_nothing_clear_are_refused(self, form: str) -> None:
        with pytest.raises(StripeProblem):
            parse_form(form)


class TestRequests:
    def test_values_have_the_types_the_sdk_gives_them(self) -> None:
        taken = check(
            "POST",
            "/v1/prices",
            "currency=usd&product=p&active=true&recurring[interval]=month&recurring[interval_count]=3"
            "&billing_scheme=tiered&tiers_mode=graduated&tiers[0][up_to]=1000&tiers[0][unit_amount]=0"
            "&tiers[1][up_to]=inf&tiers[1][unit_amount_decimal]=0.04&metadata[0]=a&metadata[x]=7",
        )
        assert taken["active"] is True
        assert taken["recurring"] == {"interval": "month", "interval_count": 3}
        assert taken["tiers"] == [
            {"up_to": 1000, "unit_amount": 0},
            {"up_to": "inf", "unit_amount_decimal": Decimal("0.04")},
        ]
        assert taken["metadata"] == {"0": "a", "x": "7"}

    @pytest.mark.parametrize(
        ("method", "template", "form", "param"),
        [
            # unknown, at any depth
            ("POST", "/v1/customers", "emial=x", "emial"),
            ("POST", "/v1/prices", "currency=usd&product=p&recurring[intervall]=month", "recurring[intervall]"),
            ("POST", "/v1/subscriptions", "customer=c&items[0][prices]=x", "items[0][prices]"),
            ("GET", "/v1/prices", "lookup_key=x", "lookup_key"),
            # gone from the API
            ("POST", "/v1/subscriptions", "customer=c&coupon=x", "coupon"),
            ("POST", "/v1/promotion_codes", "promotion[type]=coupon&coupon=x", "coupon"),
            ("POST", "/v1/checkout/sessions", "mode=payment&payment_method_types[0]=card", "payment_method_types"),
            ("POST", "/v1/prices", "currency=usd&recurring[interval]=day&recurring[aggregate_usage]=sum",
             "recurring[aggregate_usage]"),
            # missing
            ("POST", "/v1/prices", "product=p", "currency"),
            ("POST", "/v1/prices", "currency=usd&recurring[usage_type]=metered", "recurring[interval]"),
            ("POST", "/v1/billing/meter_events", "event_name=x", "payload"),
            ("GET", "/v1/billing/meters/{id}/event_summaries", "customer=c&start_time=0", "end_time"),
            # enums are closed
            ("POST", "/v1/prices", "currency=usd&billing_scheme=tierd", "billing_scheme"),
            ("POST", "/v1/billing/meters", "display_name=x&event_name=x&default_aggregation[formula]=max",
             "default_aggregation[formula]"),
            ("POST", "/v1/subscriptions/{subscription_exposed_id}", "proration_behavior=always",
             "proration_behavior"),
            ("POST", "/v1/webhook_endpoints", "url=http://x&enabled_events[0]=invoice.payed", "enabled_events[0]"),
            # kinds
            ("POST", "/v1/prices", "currency=usd&unit_amount=1.5", "unit_amount"),
            ("POST", "/v1/prices", "currency=usd&unit_amount_decimal=abc", "unit_amount_decimal"),
            ("POST", "/v1/prices", "currency=usd&unit_amount_decimal=NaN", "unit_amount_decimal"),
            ("POST", "/v1/prices", "currency=usd&active=yes", "active"),
            ("POST", "/v1/prices", "currency=usd&tiers=x", "tiers"),
            ("POST", "/v1/customers", "address=somewhere", "address"),
            ("POST", "/v1/billing/meter_events", "event_name=x&payload[value][0]=1", "payload[value]"),
            # since endive an object, before it a string
            ("POST", "/v1/subscriptions/{subscription_exposed_id}", "billing_cycle_anchor=now",
             "billing_cycle_anchor"),
            # what cannot be cleared
            ("POST", "/v1/products/{id}", "name=", "name"),
            ("POST", "/v1/customers", "email=", "email"),
        ],
    )  # fmt: skip
    def test_planted_faults_are_refused_with_the_field_named(
        self, method: str, template: str, form: str, param: str
    ) -> None:
        with pytest.raises(StripeProblem) as refused:
            check(method, template, form)
        assert refused.value.status == 400
        assert refused.value.param == param

    @pytest.mark.parametrize(
        ("template", "form", "name"),
        [
            ("/v1/customers/{customer}", "metadata=", "metadata"),
            ("/v1/products/{id}", "description=", "description"),
            ("/v1/subscriptions/{subscription_exposed_id}", "pause_collection=", "pause_collection"),
            ("/v1/subscriptions/{subscription_exposed_id}", "discounts=", "discounts"),
        ],
    )
    def test_an_empty_string_clears_what_can_be_cleared(self, template: str, form: str, name: str) -> None:
        assert check("POST", template, form)[name] == ""

    def test_alternatives_take_what_fits(self) -> None:
        template = "/v1/subscriptions/{subscription_exposed_id}"
        assert check("POST", template, "trial_end=now")["trial_end"] == "now"
        assert check("POST", template, "trial_end=1772366400")["trial_end"] == 1_772_366_400
        anchored = check("POST", template, "billing_cycle_anchor[type]=now")
        assert anchored["billing_cycle_anchor"] == {"type": "now"}
        assert check("GET", "/v1/invoices", "created[gte]=5")["created"] == {"gte": 5}
        assert check("GET", "/v1/invoices", "created=5")["created"] == 5

    def test_json_of_v2_keeps_its_own_types(self) -> None:
        given = {"event_name": "x", "payload": {"value": "1"}, "timestamp": "2026-03-01T12:00:00Z"}
        assert CONTRACT.params("POST", "/v2/billing/meter_events", given) == given
        with pytest.raises(StripeProblem) as refused:
            CONTRACT.params("POST", "/v2/billing/meter_events", {**given, "payload": {"value": 1}})
        assert refused.value.param == "payload[value]"

    def test_what_the_sdk_does_not_know_is_no_operation(self) -> None:
        assert CONTRACT.operation("POST", "/v1/subscription_items/{id}/usage_records") is None
        assert CONTRACT.operation("GET", "/v1/invoices/upcoming") is CONTRACT.operation(
            "GET", "/v1/invoices/{x}"
        ) or (CONTRACT.operation("GET", "/v1/invoices/upcoming") is None)
        with pytest.raises(LookupError):
            CONTRACT.params("POST", "/v1/subscription_items/{id}/usage_records", {})


class TestAnswers:
    @pytest.mark.parametrize("name", sorted(FIXTURES))
    def test_stripes_own_examples_fit_the_shapes_read_from_the_sdk(self, name: str) -> None:
        problem = misfit(resource_classes()[FIXTURES[name]["object"]], FIXTURES[name])
        assert OLDER[name] in problem if name in OLDER else problem == ""

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"currency": 5}, "currency: 5"),
            ({"billing_scheme": "tierd"}, "billing_scheme: 'tierd'"),
            ({"active": None}, "active: None"),
            ({"unit_amount": "5"}, "unit_amount: '5'"),
            ({"unit_amount_decimal": 5}, "unit_amount_decimal: 5"),
            ({"recurring": {"interval": "month"}}, "recurring: Price.Recurring needs"),
            ({"recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed", "x": 1}},
             "recurring: Price.Recurring has no x"),
            ({"amount": 5}, "Price has no amount"),
            ({"metadata": {"a": 1}}, "metadata.a: 1"),
        ],
    )  # fmt: skip
    def test_an_answer_with_a_fault_is_named(self, change: dict, complaint: str) -> None:
        assert complaint in misfit(resource_classes()["price"], {**FIXTURES["price"], **change})

    def test_an_answer_without_a_required_field_is_named(self) -> None:
        lacking = {name: value for name, value in FIXTURES["price"].items() if name != "currency"}
        assert "needs currency" in misfit(resource_classes()["price"], lacking)

    def test_lists_and_deleted_objects_have_their_own_form(self) -> None:
        page = {"object": "list", "data": [FIXTURES["price"]], "has_more": False, "url": "/v1/prices"}
        assert CONTRACT.answer_problem("GET", "/v1/prices", page) == ""
        assert "has_more" in CONTRACT.answer_problem("GET", "/v1/prices", {**page, "has_more": 1})
        gone = {"id": "p", "object": "product", "deleted": True}
        assert CONTRACT.answer_problem("DELETE", "/v1/products/{id}", gone) == ""
        assert CONTRACT.answer_problem("DELETE", "/v1/products/{id}", {**gone, "name": "x"}) != ""

    def test_an_event_is_checked_with_the_object_in_it(self) -> None:
        event = {**FIXTURES["event"], "type": "price.created", "data": {"object": FIXTURES["price"]}}
        assert event_problem(event) == ""
        broken = {**event, "data": {"object": {**FIXTURES["price"], "currency": None}}}
        assert "currency" in event_problem(broken)
        assert "type" in event_problem({**event, "type": "price.crated"})

    def test_a_thin_event_is_checked_by_the_class_of_its_type(self) -> None:
        event = {
            "id": "evt_1",
            "object": "v2.core.event",
            "created": "2026-03-01T12:00:00.000Z",
            "livemode": False,
            "reason": None,
            "context": None,
            "type": "v1.invoice.paid",
            "related_object": {"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"},
        }
        assert event_problem(event) == ""
        assert "related_object" in event_problem({**event, "related_object": None})
        assert "no thin event" in event_problem({**event, "type": "v1.invoice.payed"})


class TestReading:
    def test_every_operation_of_the_sdk_is_found(self) -> None:
        found = operations()
        assert len(found) > 600
        needed = ["POST /v1/customers", "POST /v1/invoices/create_preview", "GET /v2/core/events/{id}"]
        assert all(tuple(one.split(" ")) in found for one in needed)
        assert {"invoice.paid", "customer.subscription.updated"} <= set(known_types())

    @pytest.mark.parametrize(
        "name", ["invoice", "subscription", "checkout.session", "billing_portal.configuration"]
    )
    def test_classes_are_read_to_their_last_field(self, name: str) -> None:
        todo, seen = [resource_classes()[name]], set()
        while todo:
            named = todo.pop()
            if named in seen or named.module != resource_classes()[name].module:
                continue
            seen.add(named)
            for field in fields_of(named).fields.values():
                options = getattr(field.shape, "options", (field.shape,))
                todo += [one for one in options if isinstance(one, Named)]
        assert len(seen) > 5

    def test_every_operation_of_the_simulator_is_one_of_the_sdk(self) -> None:
        unknown = [
            (one.method, one.template) for one in load() if not CONTRACT.operation(one.method, one.template)
        ]
        assert unknown == []
