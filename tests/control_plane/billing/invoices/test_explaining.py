"""A line explains itself from what its invoice keeps, as it did when it was rated."""

# ruff: noqa: RUF001 - signs as an invoice shows them

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from control_plane.billing.invoices.explaining import explained
from control_plane.billing.invoices.model import ChargeLine, LineKind
from control_plane.billing.invoices.tables import InvoiceLine
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.explain import explain_line
from control_plane.rating.period import RatedPrice, rate_period
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.runs import period_runs
from control_plane.rating.versions import SoldPrice, read_version

PERIOD = BillingPeriod(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
LATER = datetime(2026, 11, 11, tzinfo=UTC)
TIERS = {"tiers": [{"up_to": 1_000, "unit_amount": "0.01"}, {"up_to": None, "unit_amount": "0.005"}]}
VERSION = read_version(
    version_id="v",
    name="Plan",
    currency="USD",
    prices=[
        SoldPrice(position=0, model="flat", meter=None, params={"amount": "49.00"}),
        SoldPrice(position=1, model="graduated", meter="requests", params=TIERS),
        SoldPrice(position=2, model="overage", meter="active_users", params={"included": 10, "unit_amount": "1"}),
    ],
    meter_names={"active_users": "Active users"},
    quota_on_change="prorated",
)


def rated() -> list[RatedPrice]:
    units = {"requests": 1_234, "active_users": 12}
    phase = PhaseUsage(plan_version_id="v", starts_at=LATER, ends_at=None, units=units)
    runs = period_runs([phase], {"v": VERSION}, period_start=PERIOD.start, period_end=PERIOD.end)
    return list(rate_period(runs))


def kept(one: RatedPrice, **changed) -> InvoiceLine:
    line = one.line
    charge = ChargeLine(
        charge_key="v/0",
        kind=LineKind(one.kind),
        period=PERIOD,
        plan_version_id="v",
        plan_code="plan",
        plan_name="Plan",
        plan_version=1,
        meter=one.meter,
        unit=VERSION.prices[one.position].unit if one.meter else None,
        used_units=one.used_units,
        covered_ms=1,
        period_ms=1,
        **{
            name: getattr(line, name)
            for name in ("currency", "description", "formula", "quantity", "unit_amount", "exact_amount")
        },
        amount_minor=line.amount_minor,
        tiers=line.tiers,
        notes=line.notes,
        **changed,
    )
    return InvoiceLine(
        formula=charge.formula,
        exact_amount=charge.exact_amount,
        amount_minor=charge.amount_minor,
        used_units=charge.used_units,
        tiers=[
            {
                "first_unit": tier.first_unit,
                "last_unit": tier.last_unit,
                "quantity": tier.quantity,
                "unit_amount": f"{tier.unit_amount:f}",
                "flat_amount": f"{tier.flat_amount:f}",
            }
            for tier in charge.tiers
        ],
        details=json.loads(json.dumps(charge.details())),
    )


class TestExplained:
    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_says_what_was_said_when_it_was_rated(self, position):
        one = rated()[position]
        unit = VERSION.prices[position].unit if one.meter else None
        said = explained(kept(one), "USD")
        assert said == explain_line(one.line, used_units=one.used_units, unit=unit)
        assert len(said) >= (3 if one.meter else 1)

    def test_names_declared_meters_and_cut_allowances(self):
        assert explained(kept(rated()[2]), "USD") == (
            "5 active users above 7 × $1.00 = $5.00.",
            "12 active users were counted.",
            "Active users 1 to 7: 7 included.",
            "Active users from 8: 5 × $1.00 = $5.00.",
            "Included for 20 of 30 days: 7 of 10 active users.",
        )

    def test_of_a_correction_says_what_is_due_in_all(self):
        line = kept(rated()[2], corrects={"amount_minor": 3_00, "due_minor": 5_00})
        line.amount_minor, line.formula = 2_00, "5 active users above 7 × $1.00 − $3.00 billed before"
        assert explained(line, "USD")[0].endswith("billed before = $2.00; what is due in all is $5.00.")

    def test_lines_without_a_formula_have_nothing_to_explain(self):
        line = InvoiceLine(formula="", exact_amount=Decimal(5), amount_minor=5_00, tiers=[], details={})
        assert explained(line, "USD") == ()
