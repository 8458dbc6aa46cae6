"""What holds for every price and quantity."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from control_plane.rating.model import Allowance, Quantity, Share
from control_plane.rating.models import read_price
from control_plane.rating.rate import rate, rated_line, total_minor
from control_plane.rating.words import unit_of
from tests.control_plane.rating.oracle import cost_of, rounded
from tests.control_plane.rating.unhurried import UNHURRIED

amounts = st.decimals(min_value=0, max_value=100_000, places=12, allow_nan=False).map(lambda d: f"{d:f}")
# amounts have 17 digits, and their products must have no more than decimals hold (28)
units = st.integers(min_value=0, max_value=10**10)
cents = st.integers(min_value=0, max_value=10**9)
currencies = st.sampled_from(["USD", "JPY", "KWD"])
TINY = Fraction(1, 10**29)


@st.composite
def tiers(draw) -> dict:
    ends = sorted(draw(st.sets(st.integers(min_value=1, max_value=10**9), max_size=5)))
    return {
        "tiers": [
            {"up_to": end, "unit_amount": draw(amounts), "flat_amount": draw(amounts)} for end in [*ends, None]
        ]
    }


@st.composite
def shares(draw) -> Share:
    period_ms = draw(st.integers(min_value=1, max_value=366 * 86_400_000))
    return Share(covered_ms=draw(st.integers(min_value=0, max_value=period_ms)), period_ms=period_ms)


# no finer than any currency's minor unit
flats = st.builds(lambda a: ("flat", {"amount": str(a)}), st.integers(min_value=0, max_value=100_000))
per_units = st.builds(lambda a: ("per_unit", {"unit_amount": a}), amounts)
overages = st.builds(lambda i, a: ("overage", {"included": i, "unit_amount": a}), units, amounts)
packages = st.builds(
    lambda s, a: ("package", {"size": s, "amount": a}), st.integers(min_value=1, max_value=10**9), amounts
)
graduateds = st.builds(lambda t: ("graduated", t), tiers())
volumes = st.builds(lambda t: ("volume", t), tiers())
percentages = st.builds(
    lambda a: ("percentage", {"percent": f"{a:f}"}), st.decimals(min_value=0, max_value=100, places=12)
)
any_price = st.one_of(flats, percentages, per_units, overages, packages, graduateds, volumes)
# a volume price falls where a tier is reached: 1,000 at 10 cents cost more than 1,001 at 1 cent
monotonic_price = st.one_of(flats, percentages, per_units, overages, packages, graduateds)


def rated(price: tuple[str, dict], quantity: int, *, currency: str = "USD", share: Share | None = None):
    extra = {} if share is None else {"share": share}
    return rate(read_price(*price, currency), quantity=quantity, currency=currency, description="any", **extra)


def exact(price: tuple[str, dict], quantity: int) -> Decimal:
    return sum((line.exact_amount for line in rated(price, quantity)), Decimal(0))


class TestEveryPrice:
    @UNHURRIED
    @given(price=any_price, quantity=units, currency=currencies, share=shares())
    def test_is_exact_and_rounded_once_half_up(self, price, quantity, currency, share):
        model, params = price
        (line,) = rated(price, quantity, currency=currency, share=share)
        time = Fraction(share.covered_ms, share.period_ms)
        expected = Fraction(params["amount"]) * time if model == "flat" else None
        if expected is None:
            expected = cost_of(model, params, quantity, currency=currency, time=time)
        assert abs(Fraction(line.exact_amount) - expected) < TINY
        assert line.amount_minor == rounded(expected, currency) >= 0
        assert line.formula
        assert [line] == rated(price, quantity, currency=currency, share=share)

    @UNHURRIED
    @given(price=st.one_of(overages, graduateds, volumes), quantity=units)
    def test_tiers_hold_every_unit_and_add_up(self, price, quantity):
        for line in rated(price, quantity):
            assert sum(tier.quantity for tier in line.tiers) == quantity
            assert sum(Fraction(tier.amount) for tier in line.tiers) == Fraction(line.exact_amount)

    @UNHURRIED
    @given(price=any_price, quantity=units, share=shares(), before=units, left=shares())
    def test_steps_say_what_it_charges_whatever_its_allowance(self, price, quantity, share, before, left):
        made = read_price(*price, "USD").under(Allowance(units_before=before, share=left))
        steps = made.steps(share)
        if price[0] == "flat":
            assert steps == ()
            return
        assert [step.above for step in steps] == sorted(step.above for step in steps)
        found = next((step.cost(quantity) for step in reversed(steps) if step.above < quantity), Decimal(0))
        used = Quantity(units=quantity, unit=unit_of("requests"), currency="USD", share=share)
        assert abs(Fraction(found) - Fraction(made.charge(used).amount)) < TINY


class TestCommitment:
    @UNHURRIED
    @given(minimum=cents, used=cents, share=shares())
    def test_with_what_it_counts_costs_the_larger_of_both(self, minimum, used, share):
        price = read_price("commitment", {"amount": f"{Decimal(minimum) / 100:.2f}", "counts": "usage"}, "USD")
        charged = Decimal(used) / 100
        due = rated_line(
            price.charge(
                Quantity(units=0, unit=unit_of("requests"), currency="USD", share=share, charged=charged)
            ),
            description="any",
            currency="USD",
        )
        least = rounded(Fraction(minimum, 100) * Fraction(share.covered_ms, share.period_ms), "USD")
        assert used + due.amount_minor == max(used, least)


class TestMonotonic:
    @UNHURRIED
    @given(price=monotonic_price, quantity=units, more=units)
    def test_more_usage_never_costs_less(self, price, quantity, more):
        assert exact(price, quantity) <= exact(price, quantity + more)

    @UNHURRIED
    @given(price=flats, share=shares())
    def test_a_longer_part_never_costs_less(self, price, share):
        (part,) = rated(price, 0, share=share)
        (whole,) = rated(price, 0)
        assert part.amount_minor <= whole.amount_minor


class TestAdditive:
    @UNHURRIED
    @given(price=st.one_of(per_units, percentages), first=units, second=units)
    def test_prices_without_allowance_add_up_exactly(self, price, first, second):
        assert exact(price, first) + exact(price, second) == exact(price, first + second)

    @UNHURRIED
    @given(price=overages, first=units, second=units)
    def test_two_allowances_never_cost_more_than_one(self, price, first, second):
        assert exact(price, first) + exact(price, second) <= exact(price, first + second)

    @UNHURRIED
    @given(price=flats, period_ms=st.integers(min_value=1, max_value=10**10), cut=st.fractions(0, 1))
    def test_flat_parts_add_up_to_the_whole_within_a_minor_unit(self, price, period_ms, cut):
        first_ms = int(period_ms * cut)
        parts = [Share(first_ms, period_ms), Share(period_ms - first_ms, period_ms)]
        split = sum(line.amount_minor for share in parts for line in rated(price, 0, share=share))
        assert abs(split - total_minor(rated(price, 0))) <= 1

    @UNHURRIED
    @given(included=units, amount=amounts, quantity=units)
    def test_overage_is_a_graduated_price_with_a_free_first_tier(self, included, amount, quantity):
        free = [{"up_to": included, "unit_amount": "0"}] if included else []
        graduated = ("graduated", {"tiers": [*free, {"up_to": None, "unit_amount": amount}]})
        overage = ("overage", {"included": included, "unit_amount": amount})
        assert exact(overage, quantity) == exact(graduated, quantity)
