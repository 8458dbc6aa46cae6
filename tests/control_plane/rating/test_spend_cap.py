"""The gateway's sum and the invoice are the same; no quantity that the gateway admits costs more than the cap."""

import itertools
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from control_plane.foundation.money import minor_units, round_minor
from control_plane.rating.cost_tables import MAX_CAP_MINOR, MAX_UNITS, dearer, rising, table_cost_minor
from control_plane.rating.model import WHOLE_PERIOD, Quantity, Share
from control_plane.rating.models import MODELS, read_price
from control_plane.rating.runs import Run, Stretch
from control_plane.rating.spend_cap import (
    CappedPeriod,
    CountedPhase,
    charges_by_use,
    compile_spend_cap,
    reported_dimensions,
    stricter_cap,
)
from control_plane.rating.versions import SoldPrice, read_version
from control_plane.rating.words import unit_of
from gateway_contract.records import MeterPrice, PriceStep


class Counted(NamedTuple):
    run: Run
    phase: CountedPhase


numbers = itertools.count()
UNIT = unit_of("requests")
HALF = Share(covered_ms=15, period_ms=30)
TOKENS = {"chat": {"tokens": 8000}}

units = st.integers(min_value=0, max_value=10**9)
currencies = st.sampled_from(["USD", "JPY", "KWD"])
shares = st.builds(
    lambda part, whole: Share(covered_ms=min(part, whole), period_ms=whole),
    st.integers(min_value=1, max_value=10**9),
    st.integers(min_value=1, max_value=10**9),
)


def amounts(*, places: int, most: int = 1000) -> st.SearchStrategy[str]:
    return st.decimals(min_value=0, max_value=most, places=places, allow_nan=False).map(lambda d: f"{d:f}")


def usage_prices(
    amount: st.SearchStrategy[str], *, end: int = 10**6, models: tuple[str, ...] = tuple(MODELS)
) -> st.SearchStrategy:
    ends = st.sets(st.integers(min_value=1, max_value=end), max_size=5).map(sorted)
    tier = st.fixed_dictionaries({"unit_amount": amount}, optional={"flat_amount": amount})
    tiers = ends.flatmap(
        lambda found: st.tuples(*(tier.map(lambda t, end=end: {**t, "up_to": end}) for end in [*found, None])).map(
            lambda made: {"tiers": list(made)}
        )
    )
    params = {
        "per_unit": st.fixed_dictionaries({"unit_amount": amount}),
        "overage": st.fixed_dictionaries({"included": st.integers(0, end), "unit_amount": amount}),
        "package": st.fixed_dictionaries({"size": st.integers(1, end), "amount": amount}),
        "graduated": tiers,
        "volume": tiers,
    }
    return st.one_of(*(params[model].map(lambda p, m=model: (m, p)) for model in models if model in params))


def cost_minor(price: tuple[str, dict], quantity: int, *, currency: str = "USD", share: Share = WHOLE_PERIOD):
    used = Quantity(units=quantity, unit=UNIT, currency=currency, share=share)
    return round_minor(read_price(*price, currency).charge(used).amount, currency)


def version(
    *prices: tuple[str | None, str, dict],
    share: Share = WHOLE_PERIOD,
    name: str = "",
    units_at_most: dict | None = None,
    **changes,
) -> Counted:
    """What a plan version charges in a part of a period, and what was used of it, where it is over."""
    sold = [
        SoldPrice(position=position, model=model, meter=meter, params=params)
        for position, (meter, model, params) in enumerate(prices)
    ]
    facts = {key: changes.pop(key) for key in ("is_add_on", "quota_on_change") if key in changes}
    name = name or f"pv_{next(numbers)}"
    read = read_version(version_id=name, name=name, currency="USD", prices=sold, **facts)
    units = changes.pop("units", {})
    stretch = Stretch(covered_ms=share.covered_ms, units=units)
    run = Run(version=read, period_ms=share.period_ms, stretches=(stretch,), **changes)
    return Counted(run, CountedPhase(plan_version_id=name, units=units, units_at_most=units_at_most or {}))


def cap_of(amount_minor: int | None, in_force: Counted, *others: Counted, currency="USD", reserves=TOKENS, **more):
    found = [*others, in_force]
    period = CappedPeriod(
        runs=[one.run for one in found],
        phases=[one.phase for one in found],
        plan_version_id=in_force.run.version.version_id,
    )
    return compile_spend_cap(amount_minor, currency=currency, period=period, reserves=reserves, **more)


FLAT_49 = (None, "flat", {"amount": "49.00"})
OVERAGE = ("requests", "overage", {"included": 50_000, "unit_amount": "0.0015"})
PER_TOKEN = ("tokens", "per_unit", {"unit_amount": "0.00002"})
# 1,000 at 10 cents are $100, 1,001 at 1 cent are $10.01
FALLING = {"tiers": [{"up_to": 1000, "unit_amount": "0.10"}, {"up_to": None, "unit_amount": "0.01"}]}


class TestSteps:
    @given(price=usage_prices(amounts(places=12)), quantity=units, share=shares)
    def test_give_exactly_what_the_price_charges(self, price, quantity, share):
        made = read_price(*price, "USD")
        steps = made.steps(share)
        found = next((step.cost(quantity) for step in reversed(steps) if step.above < quantity), Decimal(0))
        used = Quantity(units=quantity, unit=UNIT, currency="USD", share=share)
        expected = made.charge(used).amount
        # a part of a period is the one division, far behind the last digit that counts
        assert abs(found - expected) < Decimal("1e-25")
        assert share.covered_ms != share.period_ms or found == expected

    def test_of_a_flat_price_are_none(self):
        assert read_price("flat", {"amount": "49.00"}, "USD").steps(WHOLE_PERIOD) == ()

    @given(price=usage_prices(amounts(places=3, most=2), end=40), quantity=st.integers(0, 90))
    def test_made_rising_cost_as_much_as_the_dearest_smaller_quantity(self, price, quantity):
        steps = rising(read_price(*price, "USD").steps(WHOLE_PERIOD))
        found = next((step.cost(quantity) for step in reversed(steps) if step.above < quantity), Decimal(0))
        assert round_minor(found, "USD") == max(cost_minor(price, fewer) for fewer in range(quantity + 1))


class TestPriceTable:
    """Form B: the gateway adds up tables."""

    @staticmethod
    def table(price: tuple[str, dict], *, currency: str, share: Share = WHOLE_PERIOD) -> MeterPrice | None:
        # another dimension beside it makes the cap one of several prices
        charges = version(("tokens", *price), PER_TOKEN, share=share)
        cap = cap_of(MAX_CAP_MINOR, charges, currency=currency)
        return cap.prices[0] if len(cap.prices) > 1 else None

    @given(
        data=st.data(),
        quantity=units,
        currency=currencies,
        model=st.sampled_from(["per_unit", "overage", "graduated", "package"]),
    )
    def test_is_the_invoice_line_to_the_minor_unit(self, data, quantity, currency, model):
        finest = amounts(places=minor_units(currency) + 6)
        price = data.draw(usage_prices(finest, models=(model,)))
        table = self.table(price, currency=currency)
        found = table_cost_minor(table, quantity) if table else 0
        assert min(found, MAX_CAP_MINOR) == min(cost_minor(price, quantity, currency=currency), MAX_CAP_MINOR)

    @given(price=usage_prices(amounts(places=3, most=2), end=40, models=("volume",)), quantity=st.integers(0, 90))
    def test_of_a_volume_price_is_its_dearest_line_up_to_there(self, price, quantity):
        table = self.table(price, currency="USD")
        dearest = max(cost_minor(price, fewer) for fewer in range(quantity + 1))
        assert (table_cost_minor(table, quantity) if table else 0) == dearest

    @given(price=usage_prices(amounts(places=12)), quantity=units, currency=currencies, share=shares)
    def test_is_never_below_the_invoice_line(self, price, quantity, currency, share):
        table = self.table(price, currency=currency, share=share)
        found = table_cost_minor(table, quantity) if table else 0
        line = cost_minor(price, quantity, currency=currency, share=share)
        assert found >= min(line, MAX_CAP_MINOR)

    def test_rounds_amounts_finer_than_a_millionth_of_a_cent_up(self):
        table = self.table(("per_unit", {"unit_amount": "0.000000001"}), currency="USD")
        assert table.steps == (PriceStep(above=0, base_micro=0, unit_micro=1),)

    def test_takes_units_of_earlier_versions_off_first(self):
        table = MeterPrice("tokens", (PriceStep(0, 0, 1_000_000),), from_units=40)
        assert [table_cost_minor(table, units) for units in (0, 39, 40, 41, 50)] == [0, 0, 0, 1, 10]


class TestCeiling:
    """Form A: only requests cost by use, so the cap is a number of units."""

    def test_worked_example(self):
        # $250 less $49 leave $201.00; 134,003 requests at $0.0015 are $201.0045, one more is $201.006, or $201.01
        cap = cap_of(250_00, version(FLAT_49, OVERAGE))
        assert cap.ceiling_units == 50_000 + 134_003
        assert (cap.amount_minor, cap.currency, cap.prices, cap.reserves) == (250_00, "USD", (), {})

    @given(price=usage_prices(amounts(places=3, most=2), end=40), room=st.integers(0, 5000))
    def test_is_the_last_number_before_the_first_that_costs_more(self, price, room):
        cap = cap_of(room, version(("requests", *price)))
        if cap is None:
            assert all(cost_minor(price, quantity) == 0 for quantity in range(100))
            return
        first = next((n for n in range(300) if cost_minor(price, n) > room), None)
        if first is None:
            assert cap.ceiling_units >= 299
        else:
            assert cap.ceiling_units == first - 1

    @given(price=usage_prices(amounts(places=12)), room=st.integers(0, 10**8))
    def test_costs_no_more_than_the_cap(self, price, room):
        cap = cap_of(room, version(("requests", *price)))
        if cap is not None:
            assert cost_minor(price, cap.ceiling_units) <= room
            if cap.ceiling_units < MAX_UNITS:
                assert cost_minor(price, cap.ceiling_units + 1) > room

    def test_stops_below_the_first_crossing_of_a_price_that_falls(self):
        assert cap_of(90_00, version(("requests", "volume", FALLING))).ceiling_units == 900

    def test_covers_several_prices_of_requests_together(self):
        package = ("requests", "package", {"size": 100, "amount": "1.00"})
        cap = cap_of(10_00, version(("requests", "per_unit", {"unit_amount": "0.01"}), package))
        # 500 cost $5 and five packages; the 501st begins the sixth
        assert cap.ceiling_units == 500

    def test_is_as_large_as_can_be_where_use_above_some_tier_is_free(self):
        tiers = {"tiers": [{"up_to": 10, "unit_amount": "1"}, {"up_to": None, "unit_amount": "0"}]}
        assert cap_of(20_00, version(("requests", "graduated", tiers))).ceiling_units == MAX_UNITS

    def test_leaves_what_is_included_when_nothing_may_be_added(self):
        assert cap_of(49_00, version(FLAT_49, OVERAGE)).ceiling_units == 50_003  # three round to no cent
        assert cap_of(10_00, version(FLAT_49, OVERAGE)).ceiling_units == 50_003


class TestChargesOfOtherVersions:
    def test_come_off_the_cap_and_their_units_on_top(self):
        starter = version(FLAT_49, OVERAGE, share=HALF, units={"requests": 60_000})
        growth = version(
            (None, "flat", {"amount": "199.00"}),
            ("requests", "overage", {"included": 500_000, "unit_amount": "0.0006"}),
            share=HALF,
        )
        # $24.50 + $15.00 of Starter and $99.50 of Growth leave $61.00 of $200
        cap = cap_of(200_00, growth, starter)
        own = cap.ceiling_units - 60_000
        price = ("overage", {"included": 500_000, "unit_amount": "0.0006"})
        assert cost_minor(price, own) == 61_00
        assert cost_minor(price, own + 1) > 61_00

    def test_count_as_dear_as_their_open_hours_can_get(self):
        earlier = version(
            ("requests", "per_unit", {"unit_amount": "0.10"}),
            units={"requests": 100},
            units_at_most={"requests": 130},
        )
        dollar = ("requests", "per_unit", {"unit_amount": "1.00"})
        # $100 less 130 calls at 10 cents leave $87; only the 100 certain ones are left out of the count
        assert cap_of(100_00, version(dollar), earlier).ceiling_units == 87 + 100

    def test_are_left_out_of_each_price_of_several(self):
        earlier = version(PER_TOKEN, units={"tokens": 1_000_000, "requests": 7})
        cap = cap_of(100_00, version(PER_TOKEN, ("requests", "per_unit", {"unit_amount": "0.01"})), earlier)
        assert cap.usage_minor == 80_00
        assert [(price.dimension, price.from_units) for price in cap.prices] == [
            ("tokens", 1_000_000),
            ("requests", 7),
        ]

    def test_fixed_charges_are_those_of_all_versions(self):
        fee = (None, "setup_fee", {"amount": "10.00"})
        plan = version(FLAT_49, fee, OVERAGE, PER_TOKEN, setup_fee_due=True)
        cap = cap_of(100_00, plan, version(FLAT_49, share=HALF))
        assert cap.usage_minor == 100_00 - 49_00 - 10_00 - 24_50

    def test_leave_a_minimum_that_they_fell_short_of(self):
        minimum = (None, "commitment", {"amount": "30.00", "counts": "usage"})
        cents = ("requests", "per_unit", {"unit_amount": "0.01"})

        def left(used):
            return cap_of(
                100_00, version(PER_TOKEN), version(cents, minimum, units={"requests": used})
            ).usage_minor

        assert [left(0), left(1000), left(3000), left(4000)] == [70_00, 70_00, 70_00, 60_00]

    def test_of_a_minimum_in_force_nothing_comes_off_since_use_pays_towards_it(self):
        minimum = (None, "commitment", {"amount": "30.00", "counts": "all"})
        assert cap_of(100_00, version(FLAT_49, minimum, PER_TOKEN)).usage_minor == 51_00


class TestAllowanceAfterAChange:
    def test_is_what_is_left_of_it_under_carry(self):
        before = version(OVERAGE, units={"requests": 20_000})
        plan = version(OVERAGE, quota_on_change="carry")
        stretch = replace(plan.run.stretches[0], units_before={"requests": 20_000})
        plan = plan._replace(run=replace(plan.run, stretches=(stretch,)))
        cap = cap_of(15_00, plan, before)
        # of 50,000 included ones 30,000 are left; 10,003 more cost $15.00; the 20,000 before are counted, too
        assert cap.ceiling_units == 20_000 + 30_000 + 10_003

    def test_is_cut_by_time_where_it_is_prorated(self):
        plan = version(OVERAGE, share=HALF, starts_ms=15, quota_on_change="prorated")
        assert cap_of(15_00, plan).ceiling_units == 25_000 + 10_003

    def test_grows_with_add_ons(self):
        assert cap_of(15_00, version(OVERAGE, extra_units=7_000)).ceiling_units == 57_000 + 10_003


class TestAddOns:
    def cap(self, amount_minor: int, plan: Counted, add_on: Counted, *phases: CountedPhase):
        ids = frozenset({add_on.run.version.version_id})
        in_force = CountedPhase(plan_version_id=plan.run.version.version_id, add_ons=ids)
        period = CappedPeriod(
            runs=[plan.run, add_on.run],
            phases=[*phases, in_force],
            plan_version_id=plan.run.version.version_id,
            add_ons=ids,
        )
        return compile_spend_cap(amount_minor, currency="USD", period=period, reserves=TOKENS)

    def test_charge_what_is_used_from_their_beginning_on(self):
        plan = version(("requests", "per_unit", {"unit_amount": "0.01"}))
        add_on = version(
            (None, "flat", {"amount": "10.00"}),
            ("requests", "per_unit", {"unit_amount": "0.04"}),
            share=HALF,
            is_add_on=True,
        )
        before = CountedPhase(plan_version_id=plan.run.version.version_id, units={"requests": 300})
        # $20 less $5.00 fixed: 300 calls at 1 cent, then 240 at 5 cents
        assert self.cap(20_00, plan, add_on, before).ceiling_units == 300 + 240

    def test_that_ran_under_an_earlier_plan_too_go_on_from_there(self):
        plan = version(PER_TOKEN)
        add_on = version(("requests", "overage", {"included": 100, "unit_amount": "0.10"}), is_add_on=True)
        before = CountedPhase(
            plan_version_id="other",
            add_ons=frozenset({add_on.run.version.version_id}),
            units={"requests": 60},
            units_at_most={"requests": 70},
        )
        cap = self.cap(20_00, plan, add_on, before)
        assert [(price.dimension, price.from_units) for price in cap.prices] == [("tokens", 0), ("requests", 0)]
        # the gateway counts the 60 units before, too
        assert [table_cost_minor(cap.prices[1], units) for units in (100, 101)] == [0, 10]


class TestPrepaidCredits:
    def test_pay_for_use_alone(self):
        cap = cap_of(None, version(FLAT_49, OVERAGE), prepaid_minor=15_00)
        assert (cap.ceiling_units, cap.prepaid, cap.amount_minor) == (50_000 + 10_003, True, 15_00)

    def test_hold_beside_the_customers_own_cap_the_stricter_of_both(self):
        plan = version(FLAT_49, OVERAGE)
        assert cap_of(64_00, plan, prepaid_minor=16_00) == cap_of(64_00, plan)
        assert cap_of(66_00, plan, prepaid_minor=15_00) == cap_of(None, plan, prepaid_minor=15_00)

    def test_have_paid_for_what_was_used_before(self):
        earlier = version(("requests", "per_unit", {"unit_amount": "0.10"}), units={"requests": 100})
        assert cap_of(None, version(PER_TOKEN), earlier, prepaid_minor=15_00).usage_minor == 5_00

    def test_no_cap_without_either(self):
        assert cap_of(None, version(PER_TOKEN)) is None


class TestReserves:
    def test_name_only_what_costs_something_and_is_reported(self):
        cap = cap_of(
            100_00,
            version(PER_TOKEN, OVERAGE, ("images", "per_unit", {"unit_amount": "0"})),
            reserves={"chat": {"tokens": 8000, "images": 4, "requests": 1}, "status": {"tokens": 0}},
        )
        assert cap.reserves == {"chat": {"tokens": 8000}, "status": {"tokens": 0}}
        assert cap.ceiling_units is None

    def test_are_needed_for_dimensions_that_cost_something(self):
        plan = version(PER_TOKEN, OVERAGE, ("images", "per_unit", {"unit_amount": "0"}))
        assert reported_dimensions([plan.run.version]) == {"tokens"}

    def test_no_cap_where_nothing_is_charged_by_use(self):
        assert cap_of(100_00, version(FLAT_49)) is None
        free = version(FLAT_49, ("requests", "per_unit", {"unit_amount": "0.00"}))
        assert not charges_by_use([free.run.version])


class TestStricterOfTwoPeriods:
    def test_takes_the_lower_ceiling(self):
        plan = version(FLAT_49, OVERAGE)
        low, high = cap_of(100_00, plan), cap_of(200_00, plan)
        assert stricter_cap(low, high).ceiling_units == stricter_cap(high, low).ceiling_units == low.ceiling_units

    @given(
        price=usage_prices(amounts(places=4, most=20), end=1000),
        share=shares,
        earlier=st.integers(0, 2000),
        quantity=st.integers(0, 5000),
    )
    def test_admits_nothing_that_either_refuses(self, price, share, earlier, quantity):
        def cap(share, *others):
            return cap_of(
                500_00,
                version(("tokens", *price), PER_TOKEN, (None, "flat", {"amount": "9"}), share=share),
                *others,
            )

        this = cap(share, version(FLAT_49, units={"tokens": earlier}))
        following = cap(WHOLE_PERIOD)
        strict = stricter_cap(this, following)

        def admits(cap):
            return sum(table_cost_minor(price, quantity) for price in cap.prices) <= cap.usage_minor

        assert not admits(strict) or (admits(this) and admits(following))

    def test_charges_packages_whole_where_one_period_has_some_of_a_package_left(self):
        step = PriceStep(above=300, base_micro=0, unit_micro=80_000_000, per_units=1000)
        left, whole = MeterPrice("tokens", (step,)), MeterPrice("tokens", (replace(step, above=0),))
        for price in (dearer(left, whole), dearer(whole, left)):
            assert [table_cost_minor(price, units) for units in (0, 1, 300, 301, 1300)] == [0, 80, 80, 160, 160]

    def test_of_equal_ones_is_the_same(self):
        cap = cap_of(100_00, version(PER_TOKEN, OVERAGE))
        assert stricter_cap(cap, cap) == cap
        assert stricter_cap(None, None) is None
