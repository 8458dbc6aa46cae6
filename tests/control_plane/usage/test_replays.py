"""An answer that the upstream repeated is billed once, whatever order the calls came in."""

# ruff: noqa: PLR0917 - fixtures are arguments

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, text

from control_plane.usage.operations import touch_hours
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.summary import GroupBy, usage_summary
from control_plane.usage.tables import ReplayHour, TouchedHour, UsageHour, UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

HOUR = timedelta(hours=1)
MILLISECOND = timedelta(milliseconds=1)
LONG_AGO = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


@pytest.fixture
def play(gateway, collect, aggregate, noon):
    """Ships calls of (moment after noon, changes) together, has them counted, and returns them."""

    async def play(*calls):
        made = [gateway.calls(1, at=noon + after, **changes)[0] for after, changes in calls]
        await gateway.ship(made)
        await collect(now=noon + timedelta(days=10))
        await aggregate()
        return made

    return play


@pytest.fixture
def billed(sessions):
    """Calls by hour of the day they were made in and whether they are billed: {(12, True): 3}."""

    async def billed(column="calls"):
        async with sessions() as session:
            rows = await session.execute(
                text(
                    f"SELECT hour, billable_calls > 0, sum({column}), sum(billable_calls) FROM usage_hourly"
                    " WHERE outcome = 'served' GROUP BY 1, 2"
                )
            )
            return {(row[0], row[1]): int(row[2]) for row in rows}

    return billed


async def touched(sessions):
    async with sessions() as session:
        return list(await session.scalars(select(TouchedHour.hour).order_by(TouchedHour.hour)))


def replay(**changes):
    return {"replayed": "true", **changes}


class TestReplays:
    async def test_of_a_billed_call_is_counted_and_not_billed(self, play, sessions, noon):
        await play((timedelta(), {"units": 2, "tokens": 5}), (MILLISECOND, replay(units=2, tokens=5)))
        async with sessions() as session:
            first, second = await session.scalars(select(UsageHourly).order_by(UsageHourly.replayed))
            (figures,) = await usage_summary(
                session, account_id="acc_1", start=noon, end=noon + HOUR, group_by=[GroupBy.ACCOUNT]
            )
        assert (first.replayed, first.calls, first.billable_calls, first.billable_units) == (False, 1, 1, 2)
        assert (second.replayed, second.calls, second.units, second.billable_calls) == (True, 1, 2, 0)
        assert (second.dimensions, second.billable_dimensions) == ({"tokens": 5}, {})
        assert (figures.calls, figures.billable_calls, figures.billable_units) == (2, 1, 2)
        assert (figures.replayed_calls, figures.replayed_units) == (1, 2)

    @pytest.mark.parametrize(
        ("original", "is_billed"),
        [
            ({"key": "key_other"}, False),
            ({"account": "acc_other"}, True),
            ({"product": "maps"}, True),
            ({"path": "/weather/v1/current/bergen"}, True),
            ({"mode": Mode.TEST}, True),
            ({"status": 500}, True),
            ({"status": 499}, False),
            ({"outcome": Outcome.RATE_LIMITED, "status": 429}, True),
        ],
    )
    async def test_is_judged_by_a_billed_call_of_the_same_account_product_method_and_path(
        self, original, is_billed, play, sessions
    ):
        await play((timedelta(), original), (timedelta(minutes=1), replay()))
        async with sessions() as session:
            row = await session.scalar(
                select(UsageHourly.replayed).where(
                    UsageHourly.account_id == "acc_1",
                    UsageHourly.key_id == "key_1",
                    UsageHourly.status == 200,
                    UsageHourly.mode == "live",
                    UsageHourly.product == "weather",
                ).order_by(UsageHourly.replayed.desc())
            )  # fmt: skip
        assert row is not is_billed

    async def test_of_another_method_is_billed(self, gateway, collect, aggregate, billed, noon):
        first, second = gateway.calls(2)
        await gateway.ship([first.line() | {"m": "POST"}, second.line() | {"rp": "true"}])
        await collect()
        await aggregate()
        assert await billed() == {(noon, True): 2}

    @pytest.mark.parametrize(("late", "is_billed"), [(timedelta(), False), (MILLISECOND, True)])
    async def test_has_its_original_for_24_hours(self, late, is_billed, play, billed, noon):
        original = timedelta(minutes=20, milliseconds=7)
        await play((original, {}), (original + 24 * HOUR + late, replay()))
        assert await billed() == {
            (noon, True): 1,
            (noon + 24 * HOUR, is_billed): 1,
        }

    async def test_before_its_original_is_billed_as_any_other(self, play, billed, noon):
        await play((MILLISECOND, {}), (timedelta(), replay()))
        assert await billed() == {(noon, True): 2}

    async def test_of_a_call_that_failed_is_billed_once(self, play, billed, noon):
        """The first attempt was done by the upstream, and its answer was lost."""
        await play(
            (timedelta(), {"status": 504}),
            (timedelta(minutes=1), replay()),
            (timedelta(minutes=2), replay()),
            (timedelta(hours=3), replay()),
        )
        assert await billed() == {(noon, False): 2, (noon, True): 1, (noon + 3 * HOUR, False): 1}

    async def test_that_the_upstream_always_claims_are_billed_once_in_24_hours(self, play, billed, noon):
        """From the first: at 0:10, then the next is free of an original after 24:10, then after 48:20."""
        await play(*((timedelta(minutes=10 + 70 * number), replay()) for number in range(60)))
        paid = [hour for (hour, is_paid), _ in (await billed()).items() if is_paid]
        # 0:10, then 24:40 (10 + 70 * 21), then 49:10
        assert sorted(paid) == [noon, noon + 24 * HOUR, noon + 49 * HOUR]

    async def test_in_the_hour_in_which_an_original_grows_too_old(self, play, billed, noon):
        await play(
            (timedelta(minutes=30), {}),
            *((24 * HOUR + timedelta(minutes=minute), replay(units=minute)) for minute in range(0, 60, 5)),
        )
        assert await billed() == {(noon, True): 1, (noon + 24 * HOUR, False): 11, (noon + 24 * HOUR, True): 1}
        # 12:35 on the next day: the first after the 24 hours; those behind it have it as their original
        assert (await billed("units"))[noon + 24 * HOUR, True] == 35

    async def test_test_calls_are_judged_among_themselves(self, play, sessions):
        await play(
            (timedelta(), {"mode": Mode.TEST}),
            (timedelta(minutes=1), replay(mode=Mode.TEST)),
            (timedelta(minutes=2), replay()),
        )
        async with sessions() as session:
            rows = await session.execute(
                select(UsageHourly.mode, UsageHourly.replayed, UsageHourly.billable_calls)
            )
            assert sorted(rows) == [("live", False, 1), ("test", False, 0), ("test", True, 0)]


class TestOrderOfArrival:
    async def test_a_late_original_takes_the_bill_from_replays_of_later_hours(self, play, sessions, billed, noon):
        await play((5 * HOUR, replay()), (29 * HOUR, replay()), (30 * HOUR, {"path": "/else"}))
        assert await billed() == {
            (noon + 5 * HOUR, True): 1,
            (noon + 29 * HOUR, False): 1,
            (noon + 30 * HOUR, True): 1,
        }
        async with sessions() as session, session.begin():
            await session.execute(text("UPDATE usage_hours SET sealed_at = now()"))
        await play((timedelta(), {}))
        # 5:00 has the late one as its original now, and is none itself for 29:00
        assert await billed() == {
            (noon, True): 1,
            (noon + 5 * HOUR, False): 1,
            (noon + 29 * HOUR, True): 1,
            (noon + 30 * HOUR, True): 1,
        }
        async with sessions() as session:
            found = {row.hour: row for row in await session.scalars(select(UsageHour))}
        # the hours that changed are open again; the one that did not was left alone
        assert [found[noon + after * HOUR].revision for after in (5, 29, 30)] == [2, 2, 1]
        assert [found[noon + after * HOUR].sealed_at is None for after in (5, 29, 30)] == [True, True, False]

    async def test_an_original_that_turns_out_unbilled_gives_the_bill_to_its_replay(
        self, play, aggregate, billed, sessions, catalog, noon
    ):
        """A change of plan that reaches back: the new one bills statuses below 400 only."""
        await catalog.account()
        await catalog.product()
        version = await catalog.plan_version(billable_statuses={"below": 400})
        await play((timedelta(minutes=30), {"status": 404}), (2 * HOUR, replay()))
        assert await billed() == {(noon, True): 1, (noon + 2 * HOUR, False): 1}
        await catalog.subscription(("ph_1", version, noon + timedelta(minutes=15), None))
        async with sessions() as session, session.begin():
            await touch_hours(session, account_id="acc_1", start=noon, end=noon + HOUR, now=noon)
        await aggregate()
        assert await billed() == {(noon, False): 1, (noon + 2 * HOUR, True): 1}

    async def test_a_change_of_plan_within_the_hour_cuts_replays_too(self, play, billed, sessions, catalog, noon):
        await catalog.account()
        await catalog.product()
        plans = await catalog.plan_version(), await catalog.plan_version()
        change = noon + timedelta(minutes=30)
        await catalog.subscription(("ph_1", plans[0], LONG_AGO, change), ("ph_2", plans[1], change, None))
        await play(
            (timedelta(minutes=10), replay(units=3)),
            (timedelta(minutes=20), replay(units=4)),
            (timedelta(minutes=40), replay(units=5)),
        )
        async with sessions() as session:
            rows = await session.execute(
                select(UsageHourly.phase_id, UsageHourly.replayed, UsageHourly.units, UsageHourly.billable_units)
            )
            assert sorted(rows) == [("ph_1", False, 3, 3), ("ph_1", True, 4, 0), ("ph_2", True, 5, 0)]

    async def test_an_hour_waits_for_those_it_is_judged_by(
        self, gateway, collect, aggregate, sessions, store, billed, noon
    ):
        """Somebody is at work on the hour of the original, unseen: the later mark stays until he is done."""
        await gateway.ship(gateway.calls(1, path="/else"))
        await collect()
        await aggregate()
        await gateway.ship(gateway.calls(1) + gateway.calls(1, at=noon + HOUR, replayed="true"))
        await collect()
        async with sessions() as other, other.begin():
            await other.execute(select(UsageHour).where(UsageHour.hour == noon).with_for_update())
            assert await aggregate_touched(sessions, store, now=noon) == 1
            assert await touched(sessions) == [noon, noon + HOUR]
        assert await aggregate_touched(sessions, store, now=noon) == 2
        assert await touched(sessions) == []
        assert await billed() == {(noon, True): 2, (noon + HOUR, False): 1}


class TestCost:
    async def test_hours_without_replays_are_read_as_ever(self, play, sessions, store, monkeypatch, noon):
        def never(*_arguments):
            raise AssertionError("nothing to judge")

        monkeypatch.setattr(store, "query", never)
        await play((timedelta(), {}), (HOUR, {"replayed": "false"}), (2 * HOUR, {}))
        async with sessions() as session:
            assert list(await session.scalars(select(ReplayHour))) == []
