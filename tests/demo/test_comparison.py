from collections import Counter

import pytest

from devstack.demo.figures import compare
from devstack.demo.ledger import NOBODY, Answer, Ledger
from devstack.demo.report import Check
from devstack.demo.traffic import MIX, weather_calls
from tests.demo.samples import CURRENT, sample_report

NAME = "Nimbus Labs"


def a_ledger() -> Ledger:
    ledger = Ledger()
    for status, code, count in ((200, "served", 90), (500, "served", 10), (429, "quota_exceeded", 12)):
        for _ in range(count):
            ledger.add(Answer(caller=NAME, endpoint=CURRENT, status=status, code=code))
    for _ in range(20):
        ledger.add(Answer(caller=NOBODY, endpoint=CURRENT, status=401, code="unknown_key"))
    return ledger


def what_the_product_holds(ledger: Ledger) -> Counter:
    stored = Counter()
    for answer, count in ledger.counts.items():
        endpoint = answer.endpoint if answer.caller != NOBODY else "weather"
        stored[answer.caller, endpoint, answer.status, answer.code] += count
    return stored


def rows(stored: Counter) -> tuple:
    report = sample_report()
    kind = type(report.usage[0])
    return tuple(
        kind(account=name, endpoint=endpoint, status=status, outcome=outcome, calls=count)
        for (name, endpoint, status, outcome), count in stored.items()
    )


def invoice(units: int) -> tuple:
    (view,) = sample_report().invoices
    return (type(view)(**{name: getattr(view, name) for name in view.__slots__} | {"billable_units": units}),)


class TestComparison:
    def test_equal_figures_pass(self):
        ledger = a_ledger()
        stored = what_the_product_holds(ledger)
        checks = compare(ledger, rows(stored), stored, invoice(90))
        assert all(check.ok for check in checks)
        assert len(checks) >= 7

    @pytest.mark.parametrize("change", [-1, 1])
    @pytest.mark.parametrize("where", ["events", "rollups"])
    def test_one_call_lost_or_doubled_anywhere_is_noticed(self, change, where):
        ledger = a_ledger()
        for place in what_the_product_holds(ledger):
            stored, rolled_up = what_the_product_holds(ledger), what_the_product_holds(ledger)
            (stored if where == "events" else rolled_up)[place] += change
            checks = compare(ledger, rows(rolled_up), stored, invoice(90))
            assert [check.product[where] - check.client for check in checks if not check.ok] == [change] * sum(
                not check.ok for check in checks
            )
            assert not all(check.ok for check in checks)

    def test_a_failure_on_the_invoice_is_noticed(self):
        ledger = a_ledger()
        stored = what_the_product_holds(ledger)
        checks = compare(ledger, rows(stored), stored, invoice(100))  # the ten 500s were billed
        assert [check.name for check in checks if not check.ok] == [f"{NAME}: billable"]

    def test_a_report_fails_when_a_figure_differs_or_a_request_got_no_answer(self):
        assert sample_report().ok
        assert not sample_report(broken=1).ok
        assert not sample_report(checks=(Check("x", 1, {"events": 2}),)).ok


class TestTraffic:
    def test_the_mix_repeats_and_names_its_endpoints(self):
        calls = list(weather_calls(caller="a", key="k", count=len(MIX) * 8))
        assert Counter(call.endpoint for call in calls)[CURRENT] == 8 * 13
        assert len({call.path for call in calls}) > 8
        assert all("{" not in call.path for call in calls)
