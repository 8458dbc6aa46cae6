"""`km` on what plans would cost: forecasts, comparisons, moves, what-if jobs."""

import csv
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.control_plane.cli.conftest import Km
from tests.control_plane.cli.test_commands import an_account, answer

PLANS = """
api_products: [{code: tides, name: Tides, service: weather, routes: [weather]}]
plans:
  - {code: tides-pro, name: Tides Pro, api_product: tides,
     prices: [{model: flat, amount: %s}, {model: per_unit, unit_amount: 0.01}]}
"""
DONE_WITHIN_SECONDS = 30


@pytest.fixture
def subscription(km: Km, tmp_path: Path) -> dict:
    """One on a version that has a successor."""
    file = tmp_path / "tides.yml"
    file.write_text(PLANS % 49)
    assert km("plans", "apply", str(file)).exit_code == 0
    made = answer(km("subscriptions", "create", an_account(km), "tides-pro", "--json"))
    file.write_text(PLANS % 59)
    diff = km("plans", "diff", str(file)).stdout
    assert "with their use: km what-if start tides-pro --file FILE" in diff
    assert km("plans", "apply", str(file)).exit_code == 0
    return made


def test_forecasts_comparisons_moves_and_what_ifs(km: Km, subscription: dict, tmp_path: Path):
    forecast = km("invoices", "forecast", subscription["account_id"], "tides").stdout
    assert "Sureness: none" in forecast
    assert "$49.00" in forecast
    compared = km("plans", "compare", "tides", "--units", "requests=10000").stdout.splitlines()
    assert compared[-1].split("\t")[:4] == ["tides-pro", "2", "$159.00", "$1,908.00"]
    held = km("plans", "compare", "tides", "--account", subscription["account_id"]).stdout
    assert "held; cheapest that fits" in held
    assert km("plans", "compare", "tides").exit_code == 1
    at = (datetime.now(UTC) + timedelta(days=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (
        "1 of 1 subscriptions can move to tides-pro version 2"
        in km("plan-moves", "preview", "tides-pro", "--at", at).stdout
    )
    move = answer(km("plan-moves", "schedule", "tides-pro", "--at", at, "--json"))["id"]
    until(lambda: "1 planned" in km("plan-moves", "show", move).stdout)
    assert subscription["id"] in km("plan-moves", "report", move).stdout
    assert move in km("plan-moves", "list").stdout
    assert "1 excluded" in km("plan-moves", "exclude", move, subscription["id"]).stdout
    job = answer(km("what-if", "start", "tides-pro", "--version", "2", "--json"))["id"]
    until(lambda: answer(km("what-if", "show", job, "--json"))["status"] == "done")
    assert job in km("what-if", "list").stdout
    target = tmp_path / "found.csv"
    assert km("what-if", "export", job, "--to", str(target)).exit_code == 0
    # nobody has a period that is over
    assert list(csv.DictReader(target.read_text().splitlines())) == []


def until(holds) -> None:
    deadline = time.monotonic() + DONE_WITHIN_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
