"""Published prices of well-known APIs as prices of ours, against the bills of docs/pricing-examples.md."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from control_plane.catalog.prices import check_price_params
from control_plane.rating.period import rate_period
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.rate import total_minor
from control_plane.rating.runs import period_runs
from control_plane.rating.versions import SoldPrice, read_version

EXAMPLES = json.loads(Path(__file__).with_name("published_prices.json").read_text())
PAGE = Path(__file__).parents[3] / "docs" / "pricing-examples.md"
START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
BILLS = [
    pytest.param(example["prices"], bill, id=f"{example['name']}: {bill['used']}")
    for example in EXAMPLES
    for bill in example["bills"]
]


def total(prices: list[dict], used: dict[str, int]) -> int:
    version = read_version(
        version_id="v",
        name="Plan",
        currency="USD",
        prices=[
            SoldPrice(
                position=position,
                model=price["model"],
                meter=price["meter"],
                params=check_price_params(price["model"], price["params"], currency="USD"),
            )
            for position, price in enumerate(prices)
        ],
    )
    phase = PhaseUsage(plan_version_id="v", starts_at=START, ends_at=None, units=used)
    runs = period_runs([phase], {"v": version}, period_start=START, period_end=END)
    return total_minor(rated.line for rated in rate_period(runs))


class TestPublishedPrices:
    @pytest.mark.parametrize(("prices", "bill"), BILLS)
    def test_come_to_the_bill_computed_by_hand(self, prices, bill):
        assert total(prices, bill["used"]) == int(Decimal(bill["total"].replace("$", "").replace(",", "")) * 100)

    def test_cover_every_model_of_use_and_say_where_they_are_from(self):
        shown = {price["model"] for example in EXAMPLES for price in example["prices"]}
        assert shown >= {
            "flat",
            "per_unit",
            "overage",
            "graduated",
            "volume",
            "package",
            "percentage",
            "commitment",
        }
        assert all(example["source"].startswith("http") and example["seen"] for example in EXAMPLES)

    def test_stand_on_their_page(self):
        sections = PAGE.read_text().split("\n## ")
        for example in EXAMPLES:
            (section,) = [text for text in sections if text.startswith(example["name"] + "\n")]
            for bill in example["bills"]:
                assert f"| {bill['by_hand']} | {bill['total']} |" in section
