"""Prices of a plan version as `km plans show` lists them."""

from control_plane.entrypoints.commands.plan_prices import COLUMNS, price_rows


def graduated(first: str, last: str) -> dict[str, object]:
    tiers = [{"up_to": 1000, "unit_amount": first, "flat_amount": "5.00"}, {"up_to": None, "unit_amount": last}]
    return {"model": "graduated", "meter": "tokens", "params": {"tiers": tiers}, "description": "Tokens"}


class TestPrices:
    def test_each_currency_has_its_prices_tier_by_tier(self):
        version = {
            "currency": "USD",
            "currencies": ["USD", "EUR"],
            "prices": [graduated("0.001", "0.0005")],
            "prices_in": {"EUR": [graduated("0.0009", "0.0004")]},
        }
        assert [[row[column] for column in COLUMNS] for row in price_rows(version)] == [
            ["USD", "graduated", "tokens", "up to 1,000: 0.001 + 5.00 once; above: 0.0005", "Tokens"],
            ["EUR", "graduated", "tokens", "up to 1,000: 0.0009 + 5.00 once; above: 0.0004", "Tokens"],
        ]

    def test_other_models_tell_their_parameters(self):
        overage = {
            "model": "overage",
            "meter": "requests",
            "params": {"included": 50_000, "unit_amount": "0.0015"},
        }
        version = {"currency": "USD", "currencies": ["USD"], "prices": [overage], "prices_in": {}}
        assert [row["price"] for row in price_rows(version)] == ["included 50,000, unit amount 0.0015"]
