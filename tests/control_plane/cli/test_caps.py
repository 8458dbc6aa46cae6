"""`km` on caps: setting a spend cap, and what is shown of the others."""

import json
from pathlib import Path

import pytest

from tests.control_plane.cli.conftest import Km
from tests.control_plane.cli.test_commands import an_account, answer

PLANS = """
api_products:
  - {code: caps, name: Caps, service: caps, routes: [caps-chat, caps-status], unit_headers: {tokens: x-tokens}}
plans:
  - {code: caps-pro, name: Pro, api_product: caps, position: 0, concurrency: {limit: 20}, on_past_due: refuse,
     event_retention_days: 400,
     quota: {units: 500, on_exceed: charge, cap: 900},
     prices: [{model: flat, amount: 49}, {model: overage, unit_amount: 0.01}]}
  - {code: caps-free, name: Free, api_product: caps, position: 1}
"""


@pytest.fixture
def plans(km: Km, tmp_path: Path) -> None:
    file = tmp_path / "caps.yml"
    file.write_text(PLANS)
    assert km("plans", "apply", str(file)).exit_code == 0


@pytest.fixture
def subscription(km: Km, plans: None) -> str:
    return answer(km("subscriptions", "create", an_account(km), "caps-pro", "--json"))["id"]


class TestSpendCap:
    def test_is_set_shown_and_taken_away(self, km: Km, subscription: str):
        assert "$250.00" in km("subscriptions", "spend-cap", subscription, "250.00").stdout
        shown = km("subscriptions", "show", subscription).stdout
        assert "spend_cap             $250.00" in shown
        found = answer(km("subscriptions", "show", subscription, "--json"))
        lines = km("invoices", "preview", found["account_id"], "caps").stdout
        assert "Spend cap: $250.00, $201.00 left" in lines
        assert km("subscriptions", "spend-cap", subscription, "none").exit_code == 0
        assert answer(km("subscriptions", "show", subscription, "--json"))["spend_cap"] is None

    def test_below_the_fixed_charges_is_refused_in_one_line(self, km: Km, subscription: str):
        refused = km("subscriptions", "spend-cap", subscription, "10.00")
        assert refused.exit_code == 1
        assert refused.stderr.startswith("km: amount: must be at least $49.00: what Pro costs before any use")

    def test_says_where_there_is_nothing_to_cap(self, km: Km, subscription: str):
        km("subscriptions", "change", subscription, "caps-free", "--at", "now")
        told = km("subscriptions", "spend-cap", subscription, "60")
        assert (told.exit_code, "charges nothing by use" in told.stderr) == (0, True)


class TestOverrides:
    def test_of_cap_and_concurrency_come_and_go(self, km: Km, subscription: str):
        given = ("--quota-cap-units", "1000", "--concurrency", "5", "--json")
        found = answer(km("subscriptions", "override", subscription, *given))
        assert (found["quota_cap_units_override"], found["concurrency_limit_override"]) == (1000, 5)
        back = ("--plan-quota-cap", "--plan-concurrency", "--json")
        found = answer(km("subscriptions", "override", subscription, *back))
        assert (found["quota_cap_units_override"], found["concurrency_limit_override"]) == (None, None)


class TestShown:
    def test_plans_show_caps_and_calls_at_a_time(self, km: Km, plans: None):
        header, pro, *_ = km("plans", "list", "--product", "caps").stdout.splitlines()
        row = dict(zip(header.split("\t"), pro.split("\t"), strict=True))
        assert row["quota"] == "500 then charged, refused above 900"
        assert row["limits"] == "20 at a time"
        shown = km("plans", "show", "caps-pro").stdout
        assert "refuse" in shown
        assert "400" in shown
        assert "USD\toverage\trequests\tincluded 500, unit amount " in shown

    def test_products_take_maxima_and_a_replay_header(self, km: Km, plans: None):
        given = (
            "--unit-maximum",
            "*:tokens=8000",
            "--unit-maximum",
            "caps-status:tokens=0",
            "--replay-header",
            "X-Again",
        )
        found = json.loads(km("products", "update", "caps", *given, "--json").stdout)
        assert found["unit_maximums"] == {"*": {"tokens": 8000}, "caps-status": {"tokens": 0}}
        assert found["replay_header"] == "x-again"
        assert (
            json.loads(km("products", "update", "caps", "--replay-header", "", "--json").stdout)["replay_header"]
            == ""
        )
        wrong = km("products", "update", "caps", "--unit-maximum", "tokens=8000")
        assert wrong.exit_code == 2
