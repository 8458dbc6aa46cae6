"""Quota forms and spend caps against an independent reckoning in Decimal, on a real Valkey."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway_contract import counters
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.records import MeterPrice, Period, PriceStep, Quota, SpendCap, Window
from kong_plugins.parts.limit_script import ADMITTED, MINOR_UNITS, REFUSED, SCRIPT
from kong_plugins.parts.spend_prices import SpendCapError, pack_spend_cap, rising_steps
from tests.plugins.fakes import HOUR_MS, now_ms

ROUTE = "forecast"
MICRO = Decimal("0.000001")
relaxed = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def spend_cap(*prices: MeterPrice, most: int, **reserves: int) -> SpendCap:
    return SpendCap(most + 4900, "usd", usage_minor=most, prices=prices, reserves={ROUTE: reserves})


def flat(dimension: str, cents: str, *, included: int = 0, from_units: int = 0) -> MeterPrice:
    step = PriceStep(above=included, base_micro=0, unit_micro=int(Decimal(cents) / MICRO))
    return MeterPrice(dimension, (step,), from_units)


@dataclass(frozen=True)
class Tariff:
    """A price as a plan has it: free units, then tiers of (width, cents a package); None is the rest."""

    shape: str
    free: int
    tiers: tuple[tuple[int | None, Decimal], ...]
    package: int = 1

    def cost(self, units: int) -> Decimal:
        """In cents, not rounded. Tier by tier, unit by unit: slow, and nothing to get wrong."""
        over = max(0, units - self.free)
        if self.shape == "volume":
            left, chosen = over, self.tiers[-1][1]
            for width, cents in self.tiers:
                if width is None or left <= width:
                    chosen = cents
                    break
                left -= width
            return over * chosen
        total, left = Decimal(0), -(-over // self.package)
        for width, cents in self.tiers:
            here = left if width is None else min(left, width)
            total += here * cents
            left -= here
        return total

    def steps(self) -> tuple[PriceStep, ...]:
        """As the control plane writes them."""
        steps, above, base = [], self.free, Decimal(0)
        for width, cents in self.tiers:
            first = (above - self.free) * cents if self.shape == "volume" else base
            steps.append(PriceStep(above, int(first / MICRO), int(cents / MICRO), self.package))
            if width is not None:
                above += width * self.package
                base += width * cents
        return tuple(steps)


def rounded(cents: Decimal) -> int:
    return int(cents.quantize(Decimal(1), rounding=ROUND_HALF_UP))


cents = st.integers(0, 4_000_000).map(lambda micro: micro * MICRO) | st.sampled_from(
    [Decimal("0.5"), Decimal("0.15"), Decimal("0.000001"), Decimal(1), Decimal("2.5")]
)


@st.composite
def tariffs(draw, shapes=("flat", "graduated", "volume", "package")):
    shape = draw(st.sampled_from(shapes))
    widths = draw(st.lists(st.integers(1, 40), max_size=0 if shape in {"flat", "package"} else 3))
    tiers = tuple((width, draw(cents)) for width in [*widths, None])
    package = draw(st.integers(2, 25)) if shape == "package" else 1
    return Tariff(shape, draw(st.integers(0, 40)), tiers, package)


class TestQuotaForms:
    def test_a_soft_quota_is_refused_at_its_cap(self, timed):
        caller = timed(windows=(), quota=Quota(2, hard=False, cap_units=5), units=2)
        assert [caller.ask(0)[0] for _ in range(3)] == [ADMITTED, ADMITTED, REFUSED]
        _, moment, hit, remaining, wait_ms = caller.ask(0)
        assert (hit, remaining, wait_ms) == (1, 1, caller.grant.periods[0].end_ms - moment)
        limit = caller.question.limits[hit - 1]
        assert (limit.name, limit.limit, limit.outcome) == ("quota-cap", 5, Outcome.QUOTA_EXCEEDED)

    def test_a_hard_one_is_named_quota(self, timed):
        limit = timed(windows=(), quota=Quota(2, hard=True)).question.limits[0]
        assert (limit.name, limit.outcome) == ("quota", Outcome.QUOTA_EXCEEDED)

    @pytest.mark.parametrize(
        ("quota", "ceiling", "name", "limit"),
        [
            (Quota(9, hard=True), 7, "spend-cap", 7),
            (Quota(7, hard=True), 9, "quota", 7),
            (Quota(7, hard=True), 7, "quota", 7),
            (Quota(3, hard=False, cap_units=8), 7, "spend-cap", 7),
            (Quota(3, hard=False, cap_units=6), 7, "quota-cap", 6),
            (Quota(3, hard=False), 7, "spend-cap", 7),
            (None, 7, "spend-cap", 7),
        ],
    )
    def test_the_lowest_of_all_that_bound_units_refuses(self, timed, quota, ceiling, name, limit):
        cap = SpendCap(1000, "usd", ceiling_units=ceiling)
        caller = timed(windows=(), quota=quota, spend_cap=cap)
        assert sum(caller.admits(0) for _ in range(12)) == limit
        assert caller.question.limits[caller.ask(0)[2] - 1].name == name

    def test_all_of_them_are_told_in_advance(self, timed):
        caller = timed(
            windows=(Window(5, 1000),),
            quota=Quota(9, hard=True),
            spend_cap=SpendCap(1, "usd", ceiling_units=7),
        )
        assert [limit.name for limit in caller.question.shown] == ["per-second", "quota", "spend-cap"]


class TestCeilingOfUnits:
    def test_is_a_limit_that_says_what_remains(self, timed):
        caller = timed(windows=(), spend_cap=SpendCap(1000, "usd", ceiling_units=4))
        moment = caller.start_us // 1000
        to_end_ms = caller.grant.periods[0].end_ms - moment
        assert caller.ask(0)[3:] == [1, 3, to_end_ms]
        assert caller.question.limits[0].outcome is Outcome.SPEND_CAP_REACHED

    def test_does_not_hold_for_test_keys(self, timed):
        cap = SpendCap(1000, "usd", ceiling_units=1)
        caller = timed(windows=(), spend_cap=cap, mode=Mode.TEST)
        assert all(caller.admits(0) for _ in range(3))


class TestPricesOfACap:
    @given(tariff=tariffs(), units=st.integers(0, 200))
    @relaxed
    def test_are_reckoned_like_the_invoice_does(self, client, tariff, units):
        assume(tariff.shape != "volume")
        assert price_by_script(client, tariff.steps(), units) == rounded(tariff.cost(units))

    @given(tariff=tariffs(shapes=("volume",)), units=st.integers(0, 200))
    @relaxed
    def test_of_a_volume_price_are_the_most_on_the_way(self, client, tariff, units):
        highest = max(rounded(tariff.cost(fewer)) for fewer in range(units + 1))
        assert price_by_script(client, tariff.steps(), units) == highest

    @given(
        step=st.builds(
            PriceStep,
            above=st.integers(0, 1000),
            base_micro=st.integers(0, 10**16),
            unit_micro=st.integers(0, 10**12),
            per_units=st.integers(1, 10**6),
        ),
        units=st.integers(0, 10**13),
    )
    @relaxed
    def test_are_exact_up_to_large_sums(self, client, step, units):
        blocks = -(-max(0, units - step.above) // step.per_units)
        micro = step.base_micro + blocks * step.unit_micro if units > step.above else 0
        assume(micro < 9 * 10**15 * 10**6)
        assert price_by_script(client, (step,), units) == (micro + 500_000) // 1_000_000

    def test_never_fall(self):
        steps = (PriceStep(0, 0, 20), PriceStep(10, 100, 10), PriceStep(30, 0, 0), PriceStep(40, 390, 10))
        assert rising_steps(steps) == [
            PriceStep(0, 0, 20),
            PriceStep(10, 200, 0),
            PriceStep(20, 200, 10),
            PriceStep(30, 300, 0),
            PriceStep(40, 390, 10),
        ]


def price_by_script(client, steps, units):
    """Reckon as the limit script does, by its own functions."""
    functions = SCRIPT.split("-- 1. is what the caller knows")[0]
    program = functions + "return string.format('%.0f', price_of(tonumber(ARGV[8]), spend[2][1][4]))"
    cap = SpendCap(1, "usd", usage_minor=1, prices=(MeterPrice("requests", steps),))
    packed = msgspec.msgpack.encode({"spend": pack_spend_cap(cap, route_name="", units=1)})
    return int(client.eval(program, 0, *[""] * 6, packed, units))


class TestCapOfSeveralPrices:
    def test_reserves_the_most_that_a_call_can_cost(self, timed):
        cap = spend_cap(flat("requests", "1"), flat("tokens", "0.01"), most=50, tokens=1000)
        caller = timed(windows=(), spend_cap=cap, route_name=ROUTE)
        hour = counters.hour_number(caller.start_us // 1000)
        assert sum(caller.admits(0) for _ in range(9)) == 4  # 11 cents each
        stored = caller.counters()
        assert stored[counters.CALLS] == stored[counters.UNITS] == 4
        assert stored[counters.dimension_units("tokens")] == 4000
        assert stored[counters.hour_dimension_units("tokens", hour)] == 4000

    def test_reserves_a_dimension_once_however_many_prices_count_it(self, timed):
        cap = spend_cap(flat("tokens", "0.01"), flat("tokens", "0.02"), most=100, tokens=1000)
        caller = timed(windows=(), spend_cap=cap, route_name=ROUTE)
        assert sum(caller.admits(0) for _ in range(9)) == 3  # 30 cents each
        assert caller.counters()[counters.dimension_units("tokens")] == 3000

    def test_is_named_where_it_refuses_and_nowhere_else(self, timed):
        cap = spend_cap(flat("tokens", "1"), most=10, tokens=10)
        caller = timed(windows=(Window(5, 10_000),), spend_cap=cap, route_name=ROUTE)
        assert caller.ask(0)[3:] == [1, 4, 10_000]
        _, moment, hit, remaining, wait_ms = caller.ask(0)
        limit = caller.question.limits[hit - 1]
        assert (limit.name, limit.outcome, limit.quota_unit) == (
            "spend-cap",
            Outcome.SPEND_CAP_REACHED,
            MINOR_UNITS,
        )
        assert (remaining, wait_ms) == (0, caller.grant.periods[0].end_ms - moment)
        assert limit not in caller.question.shown

    def test_goes_on_when_settlement_gives_units_back(self, timed, client):
        cap = spend_cap(flat("tokens", "1"), most=10, tokens=10)
        caller = timed(windows=(), spend_cap=cap, route_name=ROUTE)
        assert [caller.admits(0) for _ in range(2)] == [True, False]
        client.hincrby(caller.question.keys[1], counters.dimension_units("tokens"), -10)
        assert [caller.admits(0) for _ in range(2)] == [True, False]

    def test_refuses_what_would_get_dearer_when_units_come_back(self, timed):
        volume = MeterPrice("tokens", (PriceStep(0, 0, 2_000_000), PriceStep(10, 10_000_000, 1_000_000)))
        cap = spend_cap(volume, most=15, tokens=11)  # 11 cost 11 cents, and 10 of them would cost 20
        assert not timed(windows=(), spend_cap=cap, route_name=ROUTE).admits(0)

    def test_takes_off_what_was_counted_before_the_price(self, timed, client):
        cap = spend_cap(flat("requests", "1", from_units=100), most=3)
        caller = timed(windows=(), spend_cap=cap, route_name=ROUTE)
        client.hset(caller.question.keys[1], counters.UNITS, 100)
        assert sum(caller.admits(0) for _ in range(9)) == 3

    def test_begins_anew_with_the_next_period(self, timed):
        start = now_ms() - HOUR_MS
        periods = (Period(start, start + 2 * HOUR_MS), Period(start + 2 * HOUR_MS, start + 4 * HOUR_MS))
        cap = spend_cap(flat("tokens", "1"), most=10, tokens=10)
        caller = timed(windows=(), spend_cap=cap, route_name=ROUTE, periods=periods)
        to_end_us = periods[0].end_ms * 1000 - caller.start_us
        assert [caller.admits(at) for at in (0, to_end_us - 1, to_end_us, to_end_us)] == [True, False, True, False]

    def test_does_not_hold_for_test_keys(self, timed):
        cap = spend_cap(flat("tokens", "1"), most=10, tokens=10)
        caller = timed(windows=(), spend_cap=cap, route_name=ROUTE, mode=Mode.TEST)
        assert all(caller.admits(0) for _ in range(3))
        assert counters.dimension_units("tokens") not in caller.counters()

    def test_needs_no_reserve_for_requests_and_one_for_everything_else(self, timed):
        timed(spend_cap=spend_cap(flat("requests", "1"), most=10), route_name="elsewhere")
        with pytest.raises(SpendCapError, match="maximum of tokens is known"):
            timed(spend_cap=spend_cap(flat("tokens", "1"), most=10, tokens=1), route_name="elsewhere")

    @pytest.mark.parametrize("step", [PriceStep(0, 0, -1), PriceStep(0, 0, 1, 0), PriceStep(2**53, 0, 1)])
    def test_refuses_what_cannot_be_reckoned(self, timed, step):
        with pytest.raises(SpendCapError, match="exact"):
            timed(spend_cap=spend_cap(MeterPrice("requests", (step,)), most=10))

    @given(
        priced=st.lists(
            st.tuples(st.sampled_from(["requests", "tokens", "compute_ms"]), tariffs(), st.integers(0, 5)),
            min_size=1,
            max_size=4,
        ),
        most=st.integers(0, 60),
        each=st.fixed_dictionaries(
            {"requests": st.integers(1, 3), "tokens": st.integers(0, 12), "compute_ms": st.integers(0, 30)}
        ),
        returned=st.lists(st.integers(0, 100), min_size=5, max_size=40),
    )
    @settings(parent=relaxed, max_examples=100)
    def test_is_never_overshot(self, timed, client, priced, most, each, returned):  # noqa: PLR0917 - drawn
        """Each call is followed by a settlement that returns a share of what is counted."""
        prices = [MeterPrice(name, tariff.steps(), from_units) for name, tariff, from_units in priced]
        cap = spend_cap(*prices, most=most, tokens=each["tokens"], compute_ms=each["compute_ms"])
        caller = timed(windows=(), spend_cap=cap, route_name=ROUTE, units=each["requests"])
        fields = {name: "units" if name == "requests" else counters.dimension_units(name) for name, _, _ in priced}
        rises = all(tariff.shape != "volume" for _, tariff, _ in priced)

        def counted():
            stored = caller.counters()
            return {name: stored.get(field, 0) for name, field in fields.items()}

        def cost(of):
            return sum(rounded(tariff.cost(max(0, of[name] - before))) for name, tariff, before in priced)

        for share in returned:
            before = counted()
            admitted = caller.admits(0)
            after = counted()
            if admitted:
                assert after == {name: before[name] + each[name] for name in fields}
                assert cost(after) <= most
            else:
                assert after == before
                if rises:
                    assert cost({name: before[name] + each[name] for name in fields}) > most
            for name, field in fields.items():
                client.hincrby(caller.question.keys[1], field, -(after[name] * share // 100 // 3))
            assert cost(counted()) <= most
