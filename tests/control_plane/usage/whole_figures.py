"""Every figure that usage shows or bills, compared with a plain count of a history."""

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.usage.daily.tables import UsageDaily
from control_plane.usage.meters.tables import MeterHourly, MeterPeriod
from control_plane.usage.periods import period_usage
from control_plane.usage.queries import billable_units
from control_plane.usage.summary import GroupBy, UsageFigures, usage_summary
from control_plane.usage.tables import UsageHourly
from gateway_contract.redis_names import usage_stream
from tests.control_plane.usage.conftest import NOON
from tests.control_plane.usage.metered import a_meter, plain_value
from tests.control_plane.usage.plain_usage import FIGURES, PlainPhase, Usage, sums
from tests.control_plane.usage.whole_histories import HOUR, WholeHistory

DAY = timedelta(days=1)
# billing periods end in the middle of all that happens
ANCHOR = NOON - HOUR
PERIODS = [(datetime(2026, 2, 17, 11, tzinfo=NOON.tzinfo), ANCHOR), (ANCHOR, ANCHOR.replace(month=4))]

METERS = (
    a_meter("count", code="weighed", weights={"GET /weather/v1/forecast": 3}),
    a_meter("count", code="paid", events="reported", filters={"event_types": ("paid",)}),
    a_meter("sum", "tokens", code="sum-tokens", events="all"),
    a_meter("sum", "bytes_in", code="sum-bytes", filters={"highest_status": 299}),
    a_meter("unique", "key_id", code="keys"),
    a_meter("unique", "properties.user", code="users", events="reported"),
    a_meter("max", "tokens", code="most-tokens", events="all"),
    a_meter("latest", "seats", code="seats", events="reported"),
    a_meter("sum", "tokens", code="map-tokens", api_product="maps"),
)
# what count and sum meters the plan versions have prices on
PRICED = {"early": {"sum-tokens"}, "late": {"sum-tokens", "paid"}, "maps": {"map-tokens"}}


async def check_figures(session: AsyncSession, played: WholeHistory) -> None:
    usage = played.usage()
    for check in (check_rows, check_ledger, check_meters, check_periods, check_summaries):
        await check(session, played, usage)


async def check_rows(session: AsyncSession, played: WholeHistory, usage: list[Usage]) -> None:
    of_hours = {}
    for row in await session.scalars(select(UsageHourly).where(UsageHourly.account_id.in_(played.accounts))):
        of_hours[row.hour, *place_of(row)] = figures_of(row)
    assert of_hours == sums(usage, lambda one: (one.hour, *one.row)), "hours"
    of_days = {}
    for row in await session.scalars(select(UsageDaily).where(UsageDaily.account_id.in_(played.accounts))):
        of_days[row.day, *place_of(row)] = figures_of(row)
    assert of_days == sums(usage, lambda one: (one.hour.replace(hour=0), *one.row)), "days"


def place_of(row: Any) -> tuple[Any, ...]:
    assert row.amendment_id == ""
    return (
        row.account_id, row.phase_id, row.product, row.mode, row.key_id, row.endpoint, row.status, row.outcome,
        row.replayed,
    )  # fmt: skip


def figures_of(row: Any, names: tuple[str, ...] = FIGURES) -> dict[str, int]:
    found = {name: getattr(row, name) for name in names}
    found |= {f"all {name}": amount for name, amount in row.dimensions.items()}
    found |= {f"billable {name}": amount for name, amount in row.billable_dimensions.items()}
    return {name: amount for name, amount in found.items() if amount}


async def check_ledger(session: AsyncSession, played: WholeHistory, usage: list[Usage]) -> None:
    rows = await session.execute(
        text(
            "SELECT account_id, hour, phase_id, meter, CAST(sum(delta_units) AS bigint) FROM usage_ledger"
            " WHERE account_id = ANY(:accounts) GROUP BY 1, 2, 3, 4"
        ),
        {"accounts": played.accounts},
    )
    ledger: dict[tuple[Any, ...], dict[str, int]] = {}
    for *place, meter, units in rows:
        if units:
            ledger.setdefault(tuple(place), {})[meter] = units
    wanted = sums(usage, lambda one: (one.event.account, one.hour, one.row[1]), Usage.sealed)
    for (hour, phase, code), value in metered(played, usage).items():
        if code in PRICED[phase.version]:
            wanted[phase.account, hour, phase.id][code] = value
    assert ledger == wanted, "ledger"


def metered(played: WholeHistory, usage: list[Usage]) -> dict[tuple[datetime, PlainPhase, str], int]:
    """Return what each meter comes to in each hour of each phase."""
    found = {}
    for phase in played.phases:
        of_phase = [one for one in usage if one.phase is phase]
        for hour in {one.hour for one in of_phase}:
            events = [one.event for one in of_phase if one.hour == hour]
            for meter in METERS:
                value = plain_value(meter, events, phase.below)
                if value is not None:
                    found[hour, phase, meter.code] = value
    return found


async def check_meters(session: AsyncSession, played: WholeHistory, usage: list[Usage]) -> None:
    rows = await session.scalars(select(MeterHourly).where(MeterHourly.account_id.in_(played.accounts)))
    found = {(row.hour, row.phase_id, row.meter_id): row.value for row in rows}
    wanted = metered(played, usage)
    assert found == {(hour, phase.id, f"mtr_{code}"): value for (hour, phase, code), value in wanted.items()}
    of_periods = {}
    for row in await session.scalars(
        select(MeterPeriod).where(MeterPeriod.subscription_id.in_(played.subscriptions))
    ):
        of_periods[row.subscription_id, row.period_start, row.plan_version_id, row.meter_id] = row.value
    unique = {}
    for subscription_id, phases in played.subscriptions.items():
        for start, end in PERIODS:
            for phase in phases:
                events = [one.event for one in usage if one.phase is phase and start <= one.event.at < end]
                for meter in METERS:
                    value = plain_value(meter, events, phase.below)
                    if meter.aggregation == "unique" and value is not None:
                        version = played.world.versions[phase.version]
                        unique[subscription_id, start, version, f"mtr_{meter.code}"] = value
    assert of_periods == unique, "unique meters"


async def check_periods(session: AsyncSession, played: WholeHistory, usage: list[Usage]) -> None:
    for subscription_id, phases in played.subscriptions.items():
        for start, end in PERIODS:
            for one in await billable_units(session, subscription_id=subscription_id, start=start, end=end):
                phase = next(phase for phase in phases if phase.id == one.phase_id)
                within = [each for each in usage if each.phase is phase and start <= each.event.at < end]
                wanted = sums(within, lambda _: (), Usage.sealed).get((), {})
                assert one.calls == wanted.pop("", 0)
                for meter in METERS:
                    # a dimension that has the code of another product's meter is summed up like any other
                    if meter.api_product == phase.product:
                        value = plain_value(meter, [each.event for each in within], phase.below)
                        wanted[meter.code] = value or 0
                billed, wanted = nonzero(one.units), nonzero(wanted)
                assert billed == wanted, f"billable units of {phase.id} since {start}"
        account, product = phases[0].account, phases[0].product
        known = await period_usage(session, subscription_id=subscription_id, now=PERIODS[1][1] - HOUR, limit=2)
        ends = phases[-1].end
        expected = PERIODS[::-1] if ends is None or ends > ANCHOR else PERIODS[:1]
        assert [(one.start, one.end) for one in known] == expected
        for one in known:
            assert one.open_hours == 0
            within = [
                each
                for each in usage
                if (each.event.account, each.event.product) == (account, product)
                and one.start <= each.event.at < one.end
            ]
            shown = {mode: shown_figures(figures) for mode, figures in one.figures.items()}
            assert shown == {mode: found for (mode,), found in shown_sums(within, "mode").items()}, "periods"


def nonzero(units: dict[str, int]) -> dict[str, int]:
    return {name: amount for name, amount in units.items() if amount}


def shown_figures(figures: UsageFigures) -> dict[str, int]:
    more = ("replayed_calls", "replayed_units", "reported_events")
    return figures_of(figures, (*FIGURES, *more))


def shown_sums(usage: list[Usage], *groups: str) -> dict[tuple[Any, ...], dict[str, int]]:
    """Return what summaries show by groups, without zeros."""

    def group(one: Usage) -> tuple[Any, ...]:
        made = one.event
        monday = made.at.date() - timedelta(days=made.at.weekday())
        of = {
            "account": made.account,
            "product": made.product,
            "mode": made.mode,
            "key": made.key,
            "endpoint": made.endpoint,
            "status": str(made.status),
            "status_class": f"{made.status // 100}xx",
            "outcome": made.outcome,
            "hour": f"{one.hour:%Y-%m-%dT%H}:00:00Z",
            "day": f"{made.at:%Y-%m-%d}T00:00:00Z",
            "week": f"{monday:%Y-%m-%d}T00:00:00Z",
            "month": f"{made.at:%Y-%m}-01T00:00:00Z",
        }
        return tuple(of[name] for name in groups)

    def figures(one: Usage) -> dict[str, int]:
        found = one.figures()
        if one.is_report:
            return found | {"calls": 0, "reported_events": 1}
        return found | {"replayed_calls": int(one.replayed), "replayed_units": one.units * one.replayed}

    return sums(usage, group, figures)


async def check_summaries(session: AsyncSession, played: WholeHistory, usage: list[Usage]) -> None:
    start, end = NOON.replace(hour=0) - DAY, NOON + HOUR
    for groups in (
        ("day", "status_class"),
        ("hour", "outcome"),
        ("week", "product", "mode"),
        ("month", "endpoint", "key", "status"),
    ):
        for account in played.accounts:
            figures = await usage_summary(
                session, account_id=account, start=start, end=end, group_by=[GroupBy(name) for name in groups]
            )
            found = {tuple(one.by[name] for name in groups): shown_figures(one) for one in figures}
            wanted = shown_sums([one for one in usage if one.event.account == account], *groups)
            assert found == wanted, groups


async def check_nothing_is_left(session: AsyncSession, world: SimpleNamespace) -> None:
    for table in ("touched_hours", "touched_days", "ingest_batches"):
        assert not await session.scalar(text(f"SELECT count(*) FROM {table}")), table
    assert not await session.scalar(text("SELECT count(*) FROM usage_hours WHERE sealed_at IS NULL"))
    assert await world.redis.xlen(usage_stream(0)) == 0
