"""Commands about coupons, promotion codes, discounts, founding members, referrals and tax rates."""

import json

import pytest

from tests.control_plane.cli.conftest import Km

PLAN = """
api_products: [{code: tides, name: Tides, service: weather, routes: [weather]}]
plans: [{code: tides-pro, name: Tides Pro, api_product: tides, prices: [{model: flat, amount: 49}]}]
"""


def lines(km: Km, *arguments: str) -> list[list[str]]:
    """What a command prints into a pipe, cell by cell."""
    result = km(*arguments)
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


def fields(km: Km, *arguments: str) -> dict[str, str]:
    result = km(*arguments)
    assert result.exit_code == 0, result.output
    return dict(line.split(maxsplit=1) for line in result.stdout.splitlines())


def as_json(km: Km, *arguments: str) -> dict:
    result = km(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def plan(km: Km, tmp_path) -> str:
    path = tmp_path / "plans.yml"
    path.write_text(PLAN)
    assert km("plans", "apply", str(path)).exit_code == 0
    return "tides-pro"


def test_discounts_from_coupon_to_subscription(km: Km, plan: str):
    made = fields(km, "coupons", "create", "tide", "--name", "Tide", "--percent", "20", "--duration", "forever")
    assert (made["percent"], made["duration"], made["scope"]) == ("20", "forever", "all")
    fields(
        km,
        "coupons",
        "change",
        "tide",
        "--name",
        "Tide",
        "--percent",
        "10",
        "--duration",
        "months",
        "--count",
        "12",
    )
    code = fields(km, "promotion-codes", "create", "tide26", "tide", "--max", "5", "--first-time-only")
    assert (code["code"], code["max_redemptions"], code["first_time_only"]) == ("TIDE26", "5", "yes")
    account = as_json(km, "accounts", "create", "Acme")["id"]
    subscription = as_json(km, "subscriptions", "create", account, plan, "--promotion-code", "TIDE26")["id"]
    header, row = lines(km, "subscriptions", "discount", "list", subscription)
    held = dict(zip(header, row, strict=True))
    assert (held["name"], held["percent"], held["promotion_code"], held["over"]) == ("Tide", "10", "TIDE26", "no")
    again = km("subscriptions", "discount", "add", subscription, "--coupon", "tide")
    assert (again.exit_code, "already_discounted" in again.stderr) == (1, True)
    gone = fields(km, "subscriptions", "discount", "remove", subscription, held["id"])
    assert gone["over"] == "yes"
    assert fields(km, "coupons", "show", "tide")["redemptions"] == "1"
    assert lines(km, "promotion-codes", "list", "--coupon", "tide")[1][:3] == ["TIDE26", "tide", "1"]
    assert fields(km, "promotion-codes", "archive", "TIDE26")["archived_at"] != "-"
    assert fields(km, "coupons", "archive", "tide")["archived_at"] != "-"
    assert "tide" in {row[0] for row in lines(km, "coupons", "list", "--archived")}


def test_the_founding_offer(km: Km):
    opened = fields(km, "founding", "open", "--percent", "25", "--accounts", "100")
    assert (opened["state"], opened["months"], opened["members"]) == ("open", "12", "0")
    assert fields(km, "founding", "show")["percent"] == "25"
    assert fields(km, "founding", "close")["state"] == "closed"


def test_referrals(km: Km):
    assert fields(km, "referrals", "reward", "EUR", "25.00")["reward"] == "€25.00"
    ada = as_json(km, "accounts", "create", "Ada", "--currency", "EUR")["id"]
    code = fields(km, "referrals", "code", ada)["code"]
    bob = as_json(km, "accounts", "create", "Bob", "--referral-code", code)["id"]
    cleo = as_json(km, "accounts", "create", "Cleo")["id"]
    assert fields(km, "referrals", "assign", cleo, code)["state"] == "pending"
    brought = {row[0] for row in lines(km, "referrals", "list", "--referrer", ada, "--state", "pending")}
    assert {bob, cleo} < brought
    report = next(row for row in lines(km, "referrals", "report") if row[0] == ada)
    assert report[1:] == ["Ada", "2", "0", "€0.00", "€50.00"]
    assert ["EUR", "€25.00"] in lines(km, "referrals", "rewards")
    assert fields(km, "referrals", "reward", "EUR", "--none")["reward"] == "-"
    assert km("referrals", "reward", "EUR").exit_code == 2


def test_tax_rates(km: Km):
    rate = fields(km, "tax-rates", "create", "VAT", "19", "--country", "DE")
    assert (rate["country"], rate["percent"], rate["valid_until"]) == ("DE", "19", "-")
    assert lines(km, "tax-rates", "list", "--country", "DE")[1][0] == rate["id"]
    assert fields(km, "tax-rates", "end", rate["id"])["valid_until"] != "-"
