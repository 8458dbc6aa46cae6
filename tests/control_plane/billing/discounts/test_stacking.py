"""What discounts take off the lines of an invoice, by hand and for all lines that there can be."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.billing.discounts.model import Taken
from control_plane.billing.discounts.stacking import amounts_left, discounts_after, discounts_on, spread
from control_plane.billing.line_scopes import LineScope
from control_plane.foundation.money import CurrencyMixError
from tests.control_plane.billing.discounts.discount_values import FEB, JAN, MAR, Line, a_discount


def taken(lines, *discounts, currency="USD"):
    """What each discount takes off, in order."""
    return [one.amount_minor for one in discounts_on(lines, discounts, currency=currency)]


def over(invoices, *discounts):
    """What each invoice of one subscription is given in all, one after the other."""
    sums = []
    for lines in invoices:
        applied = discounts_on(lines, discounts, currency="USD")
        sums.append(sum(one.amount_minor for one in applied))
        discounts = discounts_after(discounts, applied)
    return sums


class TestPercentage:
    def test_is_taken_of_the_sum_and_rounded_once(self):
        # 20 % of 49.02 + 18.52 = 67.54 is 13.508; of each alone it would be 9.80 + 3.70
        lines = [Line(amount_minor=4_902), Line(amount_minor=1_852, kind="usage", charge_key="starter/1")]
        assert taken(lines, a_discount(20)) == [1_351]

    @pytest.mark.parametrize(("amount", "given"), [(125, 13), (124, 12), (-125, 0), (0, 0)])
    def test_a_half_is_rounded_up(self, amount, given):
        assert sum(taken([Line(amount_minor=amount)], a_discount(10))) == given

    def test_falls_on_lines_in_proportion(self):
        lines = [
            Line(amount_minor=100),
            Line(amount_minor=200, charge_key="b"),
            Line(amount_minor=33, charge_key="c"),
        ]
        (applied,) = discounts_on(lines, [a_discount(10)], currency="USD")
        assert [(share.base_minor, share.amount_minor) for share in applied.shares] == [
            (100, 10),
            (200, 20),
            (33, 3),
        ]
        assert amounts_left(lines, [applied]) == [90, 180, 30]

    def test_minor_units_of_the_currency_count(self):
        assert taken([Line(amount_minor=333)], a_discount(50), currency="JPY") == [167]


class TestScope:
    LINES = (
        Line(amount_minor=1_000, kind="recurring", charge_key="a"),
        Line(amount_minor=2_000, kind="setup_fee", charge_key="b"),
        Line(amount_minor=4_000, kind="usage", charge_key="c"),
        Line(amount_minor=8_000, kind="commitment", charge_key="d"),
        Line(amount_minor=16_000, kind="manual", charge_key="e", plan_code=None),
        Line(amount_minor=32_000, kind="credit_purchase", charge_key="f", plan_code=None),
    )

    @pytest.mark.parametrize(
        ("scope", "expected"), [(LineScope.ALL, 15_000), (LineScope.FIXED, 3_000), (LineScope.USAGE, 12_000)]
    )
    def test_only_lines_of_its_scope_count_and_never_purchases_of_credits(self, scope, expected):
        assert taken(self.LINES, a_discount(100, scope=scope)) == [expected]

    def test_only_lines_of_its_plans_count(self):
        lines = [Line(amount_minor=100), Line(amount_minor=50, plan_code="support", charge_key="support/0")]
        assert taken(lines, a_discount(100, plan_codes=frozenset({"support"}))) == [50]


class TestHowLong:
    def test_holds_for_periods_that_begin_from_its_first_until_before_its_end(self):
        lines = [
            Line(amount_minor=1, period_start=JAN - timedelta(days=31)),
            Line(amount_minor=10, period_start=JAN),
            Line(amount_minor=100, period_start=FEB),
            Line(amount_minor=1_000, period_start=MAR),
        ]
        assert taken(lines, a_discount(100, holds_from=JAN, ends_at=MAR)) == [110]

    def test_late_usage_of_a_period_that_it_held_for_has_it_after_its_end(self):
        held = a_discount(50, ends_at=FEB)
        late = [Line(amount_minor=10, kind="usage", charge_key="u"), Line(amount_minor=100, period_start=FEB)]
        assert over([[Line(amount_minor=100)], late], held) == [50, 5]

    def test_once_is_one_period_however_many_invoices_bill_it(self):
        start = [Line(amount_minor=4_900)]
        end = [
            Line(amount_minor=1_000, kind="usage", charge_key="u"),
            Line(amount_minor=4_900, period_start=FEB),
        ]
        assert over([start, end, [Line(amount_minor=50, charge_key="late")]], a_discount(20, periods=1)) == [
            980,
            200,
            10,
        ]

    def test_periods_without_anything_to_take_off_are_not_counted(self):
        nothing = [Line(amount_minor=700, kind="usage", charge_key="u")]
        fixed = a_discount(20, periods=1, scope=LineScope.FIXED)
        assert over([nothing, [Line(amount_minor=4_900, period_start=FEB)]], fixed) == [0, 980]

    def test_a_period_with_nothing_but_credits_that_were_never_discounted_is_not_counted(self):
        lines = [Line(amount_minor=-2_450), Line(amount_minor=4_900, period_start=FEB)]
        assert taken(lines, a_discount(20, periods=1)) == [980]

    def test_of_several_periods_on_an_invoice_the_earlier_come_first(self):
        lines = [Line(amount_minor=500, period_start=FEB), Line(amount_minor=300, period_start=JAN)]
        assert taken(lines, a_discount(100, periods=1)) == [300]


class TestAmount:
    def test_is_taken_off_each_period_once(self):
        start = [Line(amount_minor=1_500)]
        end = [
            Line(amount_minor=1_000, kind="usage", charge_key="u"),
            Line(amount_minor=1_500, period_start=FEB),
        ]
        assert over(
            [start, end, [Line(amount_minor=900, kind="usage", charge_key="u")]], a_discount(amount=2_000)
        ) == [
            1_500,
            500 + 1_500,
            0,
        ]

    def test_never_takes_more_than_there_is(self):
        assert taken([Line(amount_minor=700)], a_discount(amount=2_000)) == [700]

    def test_never_exceeds_its_lines_after_a_correction_took_back_a_part_of_it(self):
        charge = JAN, "starter/0"
        more_room = a_discount(amount=1_000, taken={charge: Taken(4_900, 500)})
        assert taken([Line(amount_minor=100)], more_room) == [100]
        less_left = a_discount(amount=1_000, taken={charge: Taken(400, 760)})
        assert taken([Line(amount_minor=-400)], less_left) == [-400]

    def test_of_another_currency_is_an_error(self):
        with pytest.raises(CurrencyMixError):
            taken([Line(amount_minor=700)], a_discount(amount=2_000), currency="EUR")


class TestCreditedLine:
    """An upgrade: 49.00 was charged in advance, half of it is credited, and 99.50 of the new plan is charged."""

    START = (Line(amount_minor=4_900),)
    CHANGE = (Line(amount_minor=-2_450), Line(amount_minor=9_950, plan_code="growth", charge_key="growth/0"))

    def test_gives_its_discount_back(self):
        # 980 of 4,900; then 20 % of 7,500
        assert over([self.START, self.CHANGE], a_discount(20)) == [980, 1_500]

    def test_gives_back_what_was_given_where_nothing_else_is_charged(self):
        assert over([self.START, [Line(amount_minor=-4_900)]], a_discount(20)) == [980, -980]
        assert over([self.START, [Line(amount_minor=-4_900)]], a_discount(amount=2_000)) == [2_000, -2_000]

    def test_an_amount_stays_while_what_is_left_is_worth_it(self):
        assert over([self.START, [Line(amount_minor=-2_450)], self.START], a_discount(amount=2_000)) == [
            2_000,
            0,
            0,
        ]
        assert over([self.START, [Line(amount_minor=-4_000)]], a_discount(amount=2_000)) == [2_000, -1_100]

    def test_gives_nothing_back_that_it_was_not_given(self):
        """The discount began between the two invoices."""
        assert taken(self.CHANGE, a_discount(20)) == [1_990]
        assert taken([Line(amount_minor=-2_450)], a_discount(20)) == []

    def test_gives_back_no_more_than_its_charge_was_given(self):
        discount = a_discount(20)
        given = discounts_on([Line(amount_minor=1_000)], [discount], currency="USD")
        (known,) = discounts_after([discount], given)
        assert taken([Line(amount_minor=-4_900)], known) == [-200]

    def test_a_discount_that_never_held_for_the_period_has_nothing_to_do_with_it(self):
        assert taken(self.CHANGE, a_discount(20, holds_from=FEB)) == []


class TestStacking:
    def test_a_percentage_is_taken_of_what_the_earlier_left(self):
        # 25 % of 100.00, then 10 % of 75.00
        lines = [Line(amount_minor=10_000)]
        assert taken(lines, a_discount(25, id="a"), a_discount(10, id="b")) == [2_500, 750]

    def test_the_order_decides(self):
        lines = [Line(amount_minor=10_000)]
        percent, amount = a_discount(25, id="a"), a_discount(id="b", amount=2_000)
        assert taken(lines, percent, amount) == [2_500, 2_000]
        assert taken(lines, amount, percent) == [2_000, 2_000]

    def test_nothing_is_left_for_those_after_all_was_taken(self):
        assert taken([Line(amount_minor=500)], a_discount(100, id="a"), a_discount(50, id="b")) == [500]


FEWER = settings(max_examples=40)
PERCENTS = st.decimals(min_value="0.0001", max_value=100, places=4, allow_nan=False)
PERIODS = st.sampled_from([JAN, FEB, MAR])


@st.composite
def discounts(draw):
    facts = {
        "id": draw(st.uuids()).hex,
        "scope": draw(st.sampled_from(LineScope)),
        "holds_from": draw(st.sampled_from([JAN, JAN, FEB])),
        "ends_at": draw(st.sampled_from([None, None, FEB])),
        "periods": draw(st.sampled_from([None, None, 1, 2])),
    }
    if draw(st.booleans()):
        return a_discount(draw(PERCENTS), **facts)
    return a_discount(amount=draw(st.integers(1, 20_000)), **facts)


@st.composite
def histories(draw):
    """Invoices as closing makes them: no charge is ever credited further than it was billed."""
    billed: dict[tuple, int] = {}
    invoices = []
    for _ in range(draw(st.integers(1, 4))):
        lines = []
        for _ in range(draw(st.integers(1, 5))):
            kind = draw(st.sampled_from(["recurring", "usage", "setup_fee", "commitment", "manual"]))
            period, key = draw(PERIODS), f"{kind}/{draw(st.integers(0, 1))}"
            amount = draw(st.integers(-billed.get((period, key), 0), 10_000))
            billed[period, key] = billed.get((period, key), 0) + amount
            lines.append(Line(amount_minor=amount, kind=kind, charge_key=key, period_start=period))
        invoices.append(lines)
    return invoices


class TestWhateverIsBilled:
    @given(invoices=histories(), held=st.lists(discounts(), min_size=1, max_size=3))
    @FEWER
    def test_no_share_exceeds_its_line_and_shares_add_up(self, invoices, held):
        for lines in invoices:
            applied = discounts_on(lines, held, currency="USD")
            left = [line.amount_minor for line in lines]
            for discount in applied:
                assert sum(share.amount_minor for share in discount.shares) == discount.amount_minor
                for share in discount.shares:
                    before = left[share.index]
                    left[share.index] -= share.amount_minor
                    assert 0 <= share.amount_minor <= before or before <= share.amount_minor <= 0
            assert left == amounts_left(lines, applied)
            held = discounts_after(held, applied)

    @given(invoices=histories(), held=st.lists(discounts(), min_size=1, max_size=3))
    @FEWER
    def test_all_invoices_together_are_never_below_zero(self, invoices, held):
        billed = given = roundings = 0
        for lines in invoices:
            applied = discounts_on(lines, held, currency="USD")
            billed += sum(line.amount_minor for line in lines)
            given += sum(one.amount_minor for one in applied)
            roundings += len(applied)
            held = discounts_after(held, applied)
            # each percentage was rounded once on each invoice
            assert -roundings <= given <= billed + roundings

    @given(invoices=histories(), amount=st.integers(1, 20_000))
    @FEWER
    def test_an_amount_is_what_one_invoice_of_everything_would_take(self, invoices, amount):
        held = (a_discount(amount=amount),)
        everything = [line for lines in invoices for line in lines]
        assert sum(over(invoices, *held)) == sum(over([everything], *held))

    @given(invoices=histories(), percent=PERCENTS)
    @FEWER
    def test_a_percentage_is_within_half_a_unit_for_each_invoice(self, invoices, percent):
        base = sum(line.amount_minor for lines in invoices for line in lines if line.kind != "manual")
        exact = Fraction(percent) * base / 100
        assert abs(sum(over(invoices, a_discount(percent))) - exact) <= Fraction(len(invoices), 2)

    @given(lines=histories().map(lambda invoices: invoices[0]), held=discounts(), seed=st.randoms())
    @FEWER
    def test_the_order_of_lines_changes_nothing_in_total(self, lines, held, seed):
        lines = list({(line.period_start, line.charge_key): line for line in lines}.values())
        mixed = list(lines)
        seed.shuffle(mixed)
        assert taken(lines, held) == taken(mixed, held)


class TestSpread:
    @given(
        parts=st.lists(
            st.fractions(min_value=-1000, max_value=1000, max_denominator=997), min_size=1, max_size=12
        ),
        up=st.booleans(),
    )
    @FEWER
    def test_adds_up_and_no_part_is_a_whole_unit_off(self, parts, up):
        exact = dict(enumerate(parts))
        total = -(-sum(parts) // 1) if up else sum(parts) // 1
        whole = spread(total, exact)
        assert sum(whole.values()) == total
        assert all(abs(whole[place] - part) < 1 for place, part in exact.items())

    def test_of_equal_fractions_the_first_is_rounded_up(self):
        assert spread(1, dict.fromkeys(range(3), Fraction(1, 3))) == {0: 1, 1: 0, 2: 0}


def test_percent_has_the_precision_of_a_decimal():
    lines = [Line(amount_minor=10**15)]
    assert taken(lines, a_discount(Decimal("33.3333"))) == [333_333_000_000_000]
