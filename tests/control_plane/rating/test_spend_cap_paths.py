"""Whatever a subscription goes through within a billing period, no call that the gateway admits passes its cap."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.rating.cost_tables import table_cost_minor
from control_plane.rating.period import rate_period
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.runs import Run, period_runs
from control_plane.rating.spend_cap import CappedPeriod, CountedPhase, compile_spend_cap
from control_plane.rating.versions import CARRY, FULL, PRORATED, RatedVersion, SoldPrice, read_version
from gateway_contract.records import SpendCap
from tests.control_plane.rating.test_spend_cap import amounts, usage_prices

START = datetime(2026, 4, 1, tzinfo=UTC)
DAYS = 30
END = START + timedelta(days=DAYS)
MOST_UNITS = 400


class Stage(NamedTuple):
    """A phase as it is played: what runs from which day on, and the calls that are tried."""

    plan: str
    add_on: bool
    day: int
    calls: int


@st.composite
def versions(draw) -> dict[str, RatedVersion]:
    prices = usage_prices(amounts(places=2, most=3), end=60)
    found = {}
    for name in ("a", "b", "add_on"):
        sold = [
            SoldPrice(position=0, model="flat", meter=None, params={"amount": draw(amounts(places=2, most=9))})
        ]
        for meter in draw(st.sampled_from([("requests",), ("requests", "tokens"), ("requests", "requests")])):
            model, params = draw(prices)
            sold.append(SoldPrice(position=len(sold), model=model, meter=meter, params=params))
        if name != "add_on" and draw(st.booleans()):
            params = {
                "amount": draw(amounts(places=2, most=20)),
                "counts": draw(st.sampled_from(["usage", "all"])),
            }
            sold.append(SoldPrice(position=len(sold), model="commitment", meter=None, params=params))
        if draw(st.booleans()):
            params = {"amount": draw(amounts(places=2, most=9))}
            sold.append(SoldPrice(position=len(sold), model="setup_fee", meter=None, params=params))
        found[name] = read_version(
            version_id=name,
            name=name,
            currency="USD",
            prices=sold,
            is_add_on=name == "add_on",
            quota_units=25,
            quota_on_change=draw(st.sampled_from([FULL, CARRY, PRORATED])),
        )
    return found


stages = st.lists(
    st.builds(Stage, st.sampled_from("ab"), st.booleans(), st.integers(0, DAYS - 1), st.integers(0, MOST_UNITS)),
    min_size=1,
    max_size=4,
    unique_by=lambda stage: stage.day,
).map(lambda found: sorted(found, key=lambda stage: stage.day))


def runs_of(sold: dict[str, RatedVersion], played: Sequence[Stage], used: Sequence[int]) -> tuple[Run, ...]:
    """As the bill sees it while the last stage is in force: it is to last."""
    edges = [START + timedelta(days=stage.day) for stage in played[1:]]
    phases = [
        PhaseUsage(
            plan_version_id=stage.plan,
            starts_at=start,
            ends_at=end,
            units={"requests": units, "tokens": 3 * units},
            add_ons={"add_on": 1} if stage.add_on else {},
        )
        for stage, start, end, units in zip(played, [START, *edges], [*edges, None], used, strict=True)
    ]
    fees = {stage.plan for stage in played[:1]} | {"add_on"}
    return period_runs(phases, sold, period_start=START, period_end=END, setup_fees_due=fees)


def bill(runs: Sequence[Run]) -> int:
    return sum(rated.line.amount_minor for rated in rate_period(runs))


def cap_now(sold, played: Sequence[Stage], used: Sequence[int], cap_minor: int) -> SpendCap | None:
    phases = [
        CountedPhase(
            plan_version_id=stage.plan,
            add_ons=frozenset({"add_on"} if stage.add_on else ()),
            units={"requests": units, "tokens": 3 * units},
        )
        for stage, units in zip(played, used, strict=True)
    ]
    period = CappedPeriod(
        runs=runs_of(sold, played, used),
        phases=phases,
        plan_version_id=played[-1].plan,
        add_ons=frozenset({"add_on"} if played[-1].add_on else ()),
    )
    return compile_spend_cap(cap_minor, currency="USD", period=period, reserves={"chat": {"tokens": 3}})


def admits(cap: SpendCap | None, counted: int) -> bool:
    """What the gateway says when all units of the period, with the call's, are so many."""
    if cap is None:
        return True
    if cap.ceiling_units is not None:
        return counted <= cap.ceiling_units
    units = {"requests": counted, "tokens": 3 * counted}
    return sum(table_cost_minor(price, units[price.dimension]) for price in cap.prices) <= cap.usage_minor


class TestEveryPath:
    @settings(max_examples=50, deadline=None)
    @given(sold=versions(), played=stages, cap_minor=st.integers(0, 200_00))
    def test_no_admitted_call_brings_the_bill_above_the_cap(self, sold, played, cap_minor):
        used: list[int] = []
        for number, stage in enumerate(played, start=1):
            cap = cap_now(sold, played[:number], [*used, 0], cap_minor)
            before, made = sum(used), 0
            while made < stage.calls and admits(cap, before + made + 1):
                made += 1
            without = bill(runs_of(sold, played[:number], [*used, 0]))
            used.append(made)
            assert bill(runs_of(sold, played[:number], used)) <= max(cap_minor, without)

    def test_use_of_an_add_on_does_not_pay_towards_the_plans_minimum(self):
        minimum = SoldPrice(
            position=0, model="commitment", meter=None, params={"amount": "1.00", "counts": "usage"}
        )
        per_call = SoldPrice(position=1, model="per_unit", meter="requests", params={"unit_amount": "0.01"})
        plan = read_version(version_id="a", name="a", currency="USD", prices=[minimum, per_call])
        add_on = read_version(version_id="add_on", name="x", currency="USD", prices=[per_call], is_add_on=True)
        sold = {"a": plan, "add_on": add_on}
        # alone, the first hundred calls cost nothing more
        assert cap_now(sold, [Stage("a", False, 0, 0)], [0], 1_00).ceiling_units == 100
        # beside the add-on three calls cost three cents, and up to three more of the plan's
        cap = cap_now(sold, [Stage("a", True, 0, 0)], [0], 1_06)
        assert cap.ceiling_units == 3
        assert bill(runs_of(sold, [Stage("a", True, 0, 0)], [3])) == 1_03
