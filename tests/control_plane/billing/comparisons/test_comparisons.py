"""The same use on each plan: amounts by hand, order, and what would have been refused."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.comparisons.fitting_plans import Demand
from control_plane.billing.comparisons.model import Candidate, Words, compare
from control_plane.billing.comparisons.queries import compare_last_month, compare_units
from control_plane.billing.queries import preview_invoice
from control_plane.catalog.model import PlanTerms, PriceTerms
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ValidationFailedError
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.tables import UsageHourly
from tests.control_plane.builders import (
    ACTOR,
    a_new_version,
    a_published_plan,
    a_subscription,
    an_account,
    an_hour_of_use,
)

HOUR = timedelta(hours=1)


def price(model: str, meter: str | None = None, **params) -> PriceTerms:
    return PriceTerms(model=model, meter=meter, params=params)


FLAT_49, FLAT_199 = price("flat", amount="49.00"), price("flat", amount="199.00")


def overage(included: int, unit_amount: str) -> PriceTerms:
    return price("overage", "requests", included=included, unit_amount=unit_amount)


def plan(code: str, position: int = 0, **terms) -> Candidate:
    wanted = PlanTerms(**{"interval": "month", "currency": "USD", **terms})
    return Candidate(code=code, name=code.title(), version=1, position=position, terms=wanted)


FREE = plan("free", 3, quota_units=1_000, quota_hard=True)
STARTER = plan("starter", 2, quota_units=50_000, prices=(FLAT_49, overage(50_000, "0.0015")))
GROWTH = plan("growth", 1, quota_units=500_000, prices=(FLAT_199, overage(500_000, "0.0006")))
ENTERPRISE = plan("enterprise", 0, by_quote=True)
SHIPPED = (ENTERPRISE, GROWTH, STARTER, FREE)


def amounts(units: int, plans=SHIPPED) -> list[tuple[str, int | None]]:
    found = compare(plans, demand=Demand(units={"requests": units}), currency="USD", held=None, words=Words())
    return [(one.plan.code, one.monthly_minor) for one in found]


class TestCompare:
    @pytest.mark.parametrize(
        ("units", "expected"),
        [
            (900, [("free", 0), ("starter", 49_00), ("growth", 199_00), ("enterprise", None)]),
            (100_000, [("free", 0), ("starter", 124_00), ("growth", 199_00), ("enterprise", None)]),
            # 199.00 = 49.00 + 100,000 x 0.0015
            (150_000, [("free", 0), ("growth", 199_00), ("starter", 199_00), ("enterprise", None)]),
            (1_000_000, [("free", 0), ("growth", 499_00), ("starter", 1474_00), ("enterprise", None)]),
        ],
    )
    def test_costs_what_an_invoice_would_charge(self, units: int, expected: list):
        assert amounts(units) == expected

    def test_says_what_would_have_been_refused_and_what_fits(self):
        found = compare(
            SHIPPED, demand=Demand(units={"requests": 60_000}), currency="USD", held=None, words=Words()
        )
        free, starter = found[0], found[1]
        assert (free.refused_units, free.refuses, free.fits) == (59_000, "refuses above 1,000 units", False)
        assert (starter.refused_units, starter.refuses, starter.fits) == (0, "", True)
        assert not found[-1].fits

    def test_what_is_refused_is_not_charged(self):
        prices = (
            price("per_unit", "requests", unit_amount="0.01"),
            price("per_unit", "tokens", unit_amount="0.001"),
        )
        capped = plan("capped", quota_units=1, quota_cap_units=1_000, prices=prices)
        demand = Demand(units={"requests": 4_000, "tokens": 40_000})
        (found,) = compare([capped], demand=demand, currency="USD", held=None, words=Words())
        assert (found.refused_units, found.monthly_minor) == (3_000, 10_00 + 10_00)

    def test_yearly_plans_are_put_beside_monthly_ones(self):
        yearly = plan(
            "yearly", interval="year", prices=(price("flat", amount="480.00"), overage(600_000, "0.001"))
        )
        demand = Demand(units={"requests": 60_000})
        (found,) = compare([yearly], demand=demand, currency="USD", held=None, words=Words())
        # 60,000 in 30 days are 730,000 in 365
        assert (found.yearly_minor, found.monthly_minor) == (480_00 + 130_00, 50_83)

    def test_what_does_not_add_up_is_no_more_in_a_year(self):
        seats = plan("seats", interval="year", prices=(price("per_unit", "seats", unit_amount="120.00"),))
        demand = Demand(units={"seats": 50}, not_added=frozenset({"seats"}))
        (found,) = compare([seats], demand=demand, currency="USD", held=None, words=Words())
        assert (found.yearly_minor, found.monthly_minor) == (6_000_00, 500_00)

    def test_commitments_count_and_setup_fees_stand_apart(self):
        prices = (
            price("setup_fee", amount="500.00"),
            price("per_unit", "requests", unit_amount="0.001"),
            price("commitment", amount="100.00", counts="usage"),
        )
        committed = plan("committed", prices=prices)
        (found,) = compare(
            [committed], demand=Demand(units={"requests": 60_000}), currency="USD", held=None, words=Words()
        )
        assert [line.line.amount_minor for line in found.lines] == [60_00, 40_00]
        assert (found.monthly_minor, found.setup_fee_minor) == (100_00, 500_00)

    def test_no_currency_with_minor_units_of_another_size_goes_wrong(self):
        yen = plan("yen", currency="JPY", interval="year", prices=(price("flat", amount="1000"),))
        (found,) = compare([yen], demand=Demand(), currency="JPY", held=None, words=Words())
        assert (found.yearly_minor, found.monthly_minor) == (1000, 83)


def served(subscription: Subscription, calls: int, *, hour: datetime, outcome: str = "served") -> UsageHourly:
    billed = calls if outcome == "served" else 0
    return an_hour_of_use(
        subscription, billed, hour=hour, calls=calls, status=200 if billed else 429, outcome=outcome
    )


class TestLastMonth:
    async def test_goes_by_what_the_account_asked_for(self, session: AsyncSession, now):
        terms = {"quota_units": 1_000, "prices": (FLAT_49, overage(1_000, "0.01"))}
        await a_published_plan(session, now=now, **terms)
        await a_published_plan(session, now=now, code="growth", position=1, prices=(FLAT_199,))
        await a_published_plan(session, now=now, code="secret", position=2, visibility="hidden")
        euro = {"currency": "EUR", "prices": (FLAT_49,)}
        await a_published_plan(session, now=now, code="euro", position=3, **euro)
        account = await an_account(session, now=now)
        subscription = await a_subscription(session, account, now=now - 31 * 24 * HOUR)
        await a_new_version(session, now=now, prices=(price("flat", amount="1.00"),))
        for hours_ago, outcome, calls in (
            (1, "served", 2_000),
            (2, "quota_exceeded", 500),
            (24 * 31, "served", 9),
        ):
            hour = now.replace(minute=0, second=0, microsecond=0) - hours_ago * HOUR
            session.add(served(subscription, calls, hour=hour, outcome=outcome))
        await session.flush()
        found = await compare_last_month(session, account_id=account.id, product_code="weather", now=now)
        assert found.demand.units["requests"] == 2_500
        # the version it has, not the one that is on sale now
        assert [(one.plan.code, one.plan.version, one.monthly_minor) for one in found.plans] == [
            ("starter", 1, 49_00 + 15_00),
            ("growth", 1, 199_00),
        ]
        assert [one.plan.held for one in found.plans] == [True, False]
        assert (found.cheapest_fitting, found.not_sold) == ("starter", ("euro",))

    async def test_a_quota_of_its_own_stays_as_on_invoices(self, session: AsyncSession, now):
        terms = {"quota_units": 1_000, "prices": (FLAT_49, overage(1_000, "0.01"))}
        await a_published_plan(session, now=now, **terms)
        hard = {"quota_units": 9_000, "quota_hard": True, "prices": (FLAT_199,)}
        await a_published_plan(session, now=now, code="hard", position=1, **hard)
        account = await an_account(session, now=now)
        subscription = await a_subscription(session, account, now=now.replace(day=1, hour=0, minute=0))
        await override_limits(session, subscription_id=subscription.id, quota_units=3_000, actor=ACTOR, now=now)
        session.add(served(subscription, 5_000, hour=floor_hour(now) - HOUR))
        await session.flush()
        found = await compare_last_month(session, account_id=account.id, product_code="weather", now=now)
        # 2,000 above the 3,000 of its own; the hard quota is its own, too
        assert [(one.plan.code, one.monthly_minor, one.refused_units) for one in found.plans] == [
            ("starter", 49_00 + 20_00, 0),
            ("hard", 199_00, 2_000),
        ]
        preview = await preview_invoice(session, account_id=account.id, product_code="weather", now=now)
        assert preview.lines[-1].line.amount_minor == 20_00

    async def test_units_of_a_month_name_known_meters(self, session: AsyncSession, now):
        await a_published_plan(session, now=now)
        found = await compare_units(session, product_code="weather", units={"requests": 5}, currency="USD")
        assert [(one.plan.code, one.monthly_minor) for one in found.plans] == [("starter", 49_00)]
        with pytest.raises(ValidationFailedError):
            await compare_units(session, product_code="weather", units={"stars": 5}, currency="USD")
