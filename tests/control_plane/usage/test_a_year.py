"""Fourteen months of traffic with a leap day: every period bills what a plain count of its calls says.

Billing periods begin on the 28th, 29th, 30th and 31st, at different hours, monthly and yearly; their beginnings
are written down here by hand. Calls come month by month, some of them a month late, some too late, through stream,
collector, aggregator, sealer, daily rollups and unique meters. Meanwhile raw events and hours grow old and go.
"""

import bisect
import itertools
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, text

from control_plane.catalog.tables import Meter
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.daily.retention import HourlyRetentionConfig, drop_old_hours
from control_plane.usage.daily.rollup import DailyConfig, roll_up_days
from control_plane.usage.daily.tables import UsageDay
from control_plane.usage.meters.hourly import derive_meters
from control_plane.usage.meters.periods import PeriodsConfig, count_due_periods
from control_plane.usage.periods import period_usage
from control_plane.usage.queries import billable_units
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.rollups.ledger import billable_units_as_of
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.summary import GroupBy, usage_summary
from control_plane.usage.tables import UsageHourly
from gateway_contract.modes import Mode
from tests.control_plane.usage.conftest import Call
from tests.control_plane.usage.plain_usage import PlainPhase, Usage, judged, sums, usage_of_call

HOUR, DAY, MS = timedelta(hours=1), timedelta(days=1), timedelta(milliseconds=1)
HOURS_KEPT_DAYS = 150
AT_ONCE = DailyConfig(quiet=timedelta(days=-3650))  # the database marks days by its own clock
SOON = PeriodsConfig(shortest_pause_seconds=0.0, pause_factor=0.0)
MONTHS = [(2027, 11), (2027, 12), *((2028, month) for month in range(1, 13)), (2029, 1)]
ENTRY_LINES = 250
KEYS = 4


def at(moment: str) -> datetime:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC)


def moments(hour: str, *days: str) -> list[datetime]:
    return [at(f"{day}T{hour}") for day in days]


@dataclass(frozen=True)
class Customer:
    """`starts`: when billing periods begin, and the last one ends. `change`: from then on on the other plan."""

    account: str
    starts: list[datetime]
    interval: str = "month"
    change: datetime | None = None

    @property
    def phases(self) -> list[PlainPhase]:
        first = PlainPhase(
            f"ph_{self.account}_1", self.account, "weather", self.interval, self.starts[0], self.change
        )
        if self.change is None:
            return [first]
        return [
            first,
            PlainPhase(f"ph_{self.account}_2", self.account, "weather", "other", self.change, None, below=400),
        ]


CUSTOMERS = [
    Customer(
        "acc_28",
        moments(
            "00:00",
            *("2027-11-28", "2027-12-28", "2028-01-28", "2028-02-28", "2028-03-28", "2028-04-28", "2028-05-28"),
            *("2028-06-28", "2028-07-28", "2028-08-28", "2028-09-28", "2028-10-28", "2028-11-28", "2028-12-28"),
        ),
        # in the middle of an hour, on the leap day
        change=at("2028-02-29T09:17:23.456"),
    ),
    Customer(
        "acc_29",
        moments(
            "07:00",
            *("2027-11-29", "2027-12-29", "2028-01-29", "2028-02-29", "2028-03-29", "2028-04-29", "2028-05-29"),
            *("2028-06-29", "2028-07-29", "2028-08-29", "2028-09-29", "2028-10-29", "2028-11-29", "2028-12-29"),
        ),
        # as a downgrade does: where a period begins
        change=at("2028-02-29T07:00"),
    ),
    Customer(
        "acc_30",
        moments(
            "13:00",
            *("2027-11-30", "2027-12-30", "2028-01-30", "2028-02-29", "2028-03-30", "2028-04-30", "2028-05-30"),
            *("2028-06-30", "2028-07-30", "2028-08-30", "2028-09-30", "2028-10-30", "2028-11-30", "2028-12-30"),
        ),
    ),
    Customer(
        "acc_31",
        moments(
            "23:00",
            *("2027-10-31", "2027-11-30", "2027-12-31", "2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30"),
            *("2028-05-31", "2028-06-30", "2028-07-31", "2028-08-31", "2028-09-30", "2028-10-31", "2028-11-30"),
            "2028-12-31",
        ),
        change=at("2028-02-14T12:00:00.001"),
    ),
    Customer("acc_year", moments("06:00", "2027-11-30", "2028-11-30"), interval="year"),
    Customer("acc_leap", moments("10:00", "2028-02-29", "2029-02-28"), interval="year"),
]
PHASES = [phase for customer in CUSTOMERS for phase in customer.phases]


@dataclass
class Year:
    """The calls of all these months, by the month in which they arrive, and those that have arrived."""

    arriving: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))
    too_late: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))
    arrived: list[Call] = field(default_factory=list)

    def usage(self, *, since: datetime | None = None) -> list[Usage]:
        calls = [call for call in self.arrived if since is None or call.at >= since]
        return judged(map(usage_of_call, calls), PHASES)


def month_starts() -> list[datetime]:
    return [datetime(year, month, 1, tzinfo=UTC) for year, month in MONTHS]


def make_year(seed: int) -> Year:
    """Calls on every other day, and in the last millisecond before and the first after anything begins."""
    chance, numbers, year = random.Random(seed), itertools.count(1), Year()
    begins, ends = month_starts()[0], month_starts()[-1]
    calendar = {*month_starts(), *(at(f"2028-{day}T00:00") for day in ("02-29", "03-01", "01-01"))}
    for customer in CUSTOMERS:
        edges = {*customer.starts, *([customer.change] if customer.change else [])}
        # an hour apart from each edge as well: what is off by one hour shows
        edges = edges | {edge + HOUR for edge in edges} | {edge - HOUR for edge in edges} | calendar
        made = {edge - MS for edge in edges} | edges
        day = begins
        while day < ends:
            hour = day + HOUR * chance.randrange(24)
            made |= {hour + MS * chance.randrange(3_600_000) for _ in range(3)}
            day += 2 * DAY
        for moment in sorted(moment for moment in made if begins <= moment < ends):
            call = Call(
                moment,
                account=customer.account,
                key=f"key_{customer.account}_{chance.randrange(KEYS)}",
                mode=chance.choice((Mode.LIVE, Mode.LIVE, Mode.LIVE, Mode.TEST)),
                units=chance.randrange(1, 4),
                status=chance.choice((200, 200, 200, 404, 500)),
                tokens=chance.choice((0, chance.randrange(1, 1000))),
                number=next(numbers),
            )
            month = bisect.bisect_right(month_starts(), moment) - 1
            late = chance.random()
            if late < 0.002 and month + 5 < len(MONTHS):
                year.too_late[month + 5].append(call)
            else:
                year.arriving[month + (late < 0.05)].append(call)
    return year


@pytest.fixture
async def market(world: SimpleNamespace) -> SimpleNamespace:
    await world.catalog.product(unit_headers={"tokens": "x-tokens"})
    versions = {
        "month": await world.catalog.plan_version(),
        "year": await world.catalog.plan_version(),
        "other": await world.catalog.plan_version(billable_statuses={"below": 400}),
    }
    world.subscriptions, world.versions = {}, {version: name for name, version in versions.items()}
    for customer in CUSTOMERS:
        await world.catalog.account(customer.account)
        rows = [(phase.id, versions[phase.version], phase.start, phase.end) for phase in customer.phases]
        subscription_id = await world.catalog.subscription(*rows, account=customer.account)
        world.subscriptions[customer.account] = subscription_id
        async with world.sessions() as session, session.begin():
            row = await session.get(Subscription, subscription_id)
            row.anchor_at, row.interval = customer.starts[0], customer.interval
    async with world.sessions() as session, session.begin():
        session.add(
            Meter(
                id="mtr_keys",
                code="keys",
                name="Keys",
                api_product_id="prod_weather",
                aggregation="unique",
                value="key_id",
                events="calls",
                filters={},
                weights={},
                created_at=at("2027-01-01T00:00"),
            )
        )
    world.gateway = world.make_gateway(shipper="node")
    return world


class TestAYear:
    async def test_bills_every_period_as_a_plain_count_does(self, market):
        year = make_year(2028)
        for month, now in enumerate(moment + timedelta(minutes=10) for moment in month_starts()[1:]):
            await deliver(market, year, month, now)
            await work(market, now)
            await check_running_figures(market, year, now)
        await deliver(market, year, len(MONTHS) - 1, now + DAY)
        await work(market, now + DAY)
        await check_ledger(market, year, now + DAY)
        await check_unique_values(market, year)
        await check_days(market, year)


async def deliver(market: Any, year: Year, month: int, now: datetime) -> None:
    """Ship what arrives in this month, and what comes when its hour is past counting."""
    calls = [*year.arriving[month], *year.too_late[month]]
    year.arrived += year.arriving[month]
    random.Random(month).shuffle(calls)
    for first in range(0, len(calls), ENTRY_LINES):
        await market.gateway.ship(calls[first : first + ENTRY_LINES])
    await market.gateway.heartbeat(now)
    await market.collect(now=now)


async def work(market: Any, now: datetime) -> None:
    """What the workers do until nothing is left to do, and what retention takes away."""
    while await aggregate_touched(market.sessions, market.store, now=now, limit=500, derive=(derive_meters,)):
        pass
    while await count_due_periods(market.sessions, market.store, now=now, config=SOON):
        pass
    sealed = True
    while sealed:
        async with market.sessions() as session, session.begin():
            sealed = (await seal_hours(session, config=SealingConfig(hours_per_pass=5000), now=now)).sealed
    done = True
    while done:
        async with market.sessions() as session, session.begin():
            done = await roll_up_days(session, config=AT_ONCE, now=now)
    # what the table's TTL does, by the clock of this test
    day = (now - 90 * DAY).replace(hour=0)
    for number in range(1, 33):
        market.store._client.command(f"ALTER TABLE usage_events DROP PARTITION '{day - number * DAY:%Y%m%d}'")
    async with market.sessions() as session, session.begin():
        await drop_old_hours(
            session, config=HourlyRetentionConfig(keep_days=HOURS_KEPT_DAYS, days_per_pass=10_000), now=now
        )


def billed(usage: list[Usage], phases: list[PlainPhase], start: datetime, end: datetime) -> dict[str, Any]:
    """Return billed calls and units by phase, without zeros, of [start, end)."""
    return {
        phase: units
        for (phase,), units in sums(
            (one for one in usage if one.phase in phases and start <= one.event.at < end),
            lambda one: (one.row[1],),
            Usage.sealed,
        ).items()
    }


def told(found: Any) -> dict[str, Any]:
    units = {one.phase_id: {"": one.calls, **one.units} for one in found}
    cleaned = {
        phase: {meter: amount for meter, amount in of.items() if amount and meter != "keys"}
        for phase, of in units.items()
    }
    return {phase: of for phase, of in cleaned.items() if of}


async def check_running_figures(market: Any, year: Year, now: datetime) -> None:
    """Periods that ended lately, as a bill is made from them, and as they are shown: with what has arrived."""
    usage = year.usage(since=now - 100 * DAY)
    async with market.sessions() as session:
        for customer in CUSTOMERS:
            if customer.interval == "year":
                continue  # its hours are gone before it ends: see `check_ledger`
            subscription_id = market.subscriptions[customer.account]
            for start, end in itertools.pairwise(customer.starts):
                if now - 62 * DAY < end <= now:
                    found = await billable_units(session, subscription_id=subscription_id, start=start, end=end)
                    assert told(found) == billed(usage, customer.phases, start, end)
            last = max((start for start in customer.starts if start <= now), default=None)
            if last is None:
                continue
            shown = await period_usage(session, subscription_id=subscription_id, now=now, limit=2)
            of_account = [one for one in usage if one.event.account == customer.account]
            for one in shown:
                within = [each for each in of_account if one.start <= each.event.at < one.end]
                calls = sums(within, lambda each: (each.event.mode,), lambda _: {"calls": 1})
                assert {mode: figures.calls for mode, figures in one.figures.items()} == {
                    mode: of["calls"] for (mode,), of in calls.items()
                }
            if shown:
                assert shown[0].start == last


async def check_ledger(market: Any, year: Year, now: datetime) -> None:
    """What was sealed of each period, the yearly ones too, long after hours and events have gone."""
    usage = year.usage()
    async with market.sessions() as session:
        for customer in CUSTOMERS:
            for start, end in itertools.pairwise(customer.starts):
                subscription_id = market.subscriptions[customer.account]
                found = await billable_units_as_of(
                    session, subscription_id=subscription_id, start=start, end=end, at=now
                )
                wanted = billed(usage, customer.phases, start, end)
                assert wanted
                assert told(found) == wanted


async def check_unique_values(market: Any, year: Year) -> None:
    usage = year.usage()
    wanted = {}
    for customer in CUSTOMERS:
        for start, end in itertools.pairwise(customer.starts):
            for phase in customer.phases:
                keys = {
                    one.event.key
                    for one in usage
                    if one.phase == phase and one.billed and start <= one.event.at < end
                }
                if keys and customer.interval == "month":
                    wanted[market.subscriptions[customer.account], start, phase.version] = len(keys)
    async with market.sessions() as session:
        rows = await session.execute(
            text(
                "SELECT subscription_id, period_start, plan_version_id, value FROM meter_periods"
                " WHERE period_start < :last"
            ),
            {"last": at("2028-12-28T00:00")},
        )
        found = {(one, start, market.versions[version]): value for one, start, version, value in rows}
    assert found == {place: value for place, value in wanted.items() if place[1] < at("2028-12-28T00:00")}


async def check_days(market: Any, year: Year) -> None:
    """Days add up to months, and hours, as far as there are any, to days; the oldest have gone."""
    usage = year.usage()
    begins, ends = month_starts()[0], month_starts()[-1]
    async with market.sessions() as session:
        dropped = await session.scalar(
            select(UsageDay.day).where(UsageDay.hours_dropped_at.is_not(None)).order_by(UsageDay.day.desc())
        )
        assert dropped is not None
        assert dropped > at("2028-02-29T00:00")
        oldest = await session.scalar(select(UsageHourly.hour).order_by(UsageHourly.hour).limit(1))
        assert oldest is not None
        assert oldest > dropped
        kept_from = dropped + DAY
        for customer in CUSTOMERS:
            of_account = [one for one in usage if one.event.account == customer.account]
            by_day = await summary(session, customer.account, begins, ends, GroupBy.DAY)
            by_month = await summary(session, customer.account, begins, ends, GroupBy.MONTH)
            by_hour = await summary(session, customer.account, kept_from, ends, GroupBy.HOUR)
            assert len(by_month) == 14
            assert by_day["2028-02-29"] == plain(of_account, 10)["2028-02-29"]
            assert by_day == plain(of_account, 10)
            assert by_month == plain(of_account, 7)
            assert by_hour == plain([one for one in of_account if one.event.at >= kept_from], 13)


async def summary(session: Any, account: str, start: datetime, end: datetime, by: GroupBy) -> dict[str, Any]:
    length = {GroupBy.HOUR: 13, GroupBy.DAY: 10, GroupBy.MONTH: 7}[by]
    figures = await usage_summary(session, account_id=account, start=start, end=end, group_by=[by])
    return {
        one.by[by.value][:length]: {
            "calls": one.calls,
            "billable_calls": one.billable_calls,
            "billable_units": one.billable_units,
            "bytes_out": one.bytes_out,
            "billable tokens": one.billable_dimensions.get("tokens", 0),
        }
        for one in figures
    }


def plain(usage: list[Usage], length: int) -> dict[str, Any]:
    """Return figures by the first so many characters of a call's time."""
    found: dict[str, Any] = {}
    for one in usage:
        figures = one.figures()
        group = found.setdefault(
            one.event.at.isoformat()[:length],
            dict.fromkeys(("calls", "billable_calls", "billable_units", "bytes_out", "billable tokens"), 0),
        )
        for name in group:
            group[name] += figures.get(name, 0)
    return found
