"""Daily rollups: the sums of their hours at every moment, and all that is left of days long past."""

import random
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import delete, event, func, insert, select, text, update

from control_plane.foundation.clock import to_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.daily.marks import touch_days
from control_plane.usage.daily.retention import HourlyRetentionConfig, drop_old_hours, hours_were_dropped
from control_plane.usage.daily.rollup import DailyConfig, roll_up_days
from control_plane.usage.daily.rows import daily_rows
from control_plane.usage.daily.tables import TouchedDay, UsageDaily, UsageDay
from control_plane.usage.model import HourKey
from control_plane.usage.summary import GroupBy, usage_summary
from control_plane.usage.tables import UsageHour, UsageHourly

# ruff: noqa: PLR0917 - fixtures are arguments

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MIDNIGHT = datetime(2026, 2, 28, tzinfo=UTC)
LATER = MIDNIGHT + 3 * DAY
CONFIG = DailyConfig()


def row(hour, *, account="acc_1", endpoint="GET /a", status=200, tokens=0, calls=1, **more):
    values = {
        "account_id": account,
        "hour": hour,
        "phase_id": "ph_1",
        "product": "weather",
        "mode": "live",
        "key_id": "key_1",
        "endpoint": endpoint,
        "status": status,
        "outcome": "served",
        "replayed": False,
        "calls": calls,
        "units": 2 * calls,
        "billable_calls": calls if status < 500 else 0,
        "billable_units": 2 * calls if status < 500 else 0,
        "bytes_in": 3 * calls,
        "bytes_out": 5 * calls,
        "latency_ms_sum": 7 * calls,
        "gateway_ms_sum": 11 * calls,
        "upstream_ms_sum": 13 * calls,
        "dimensions": {"tokens": tokens} if tokens else {},
        "billable_dimensions": {"tokens": tokens} if tokens and status < 500 else {},
        "revision": 1,
    }
    return UsageHourly(**values | more)


@pytest.fixture
def put(sessions):
    """Writes hours as the aggregator does: rows, the hour, and the mark of its day."""

    async def write(*rows, sealed=True, now=LATER - HOUR):
        async with sessions() as session, session.begin():
            keys = {HourKey(one.account_id, to_ms(one.hour)) for one in rows}
            await touch_days(session, hours=keys, now=now)
            session.add_all(rows)
            for account, hour in {(one.account_id, one.hour) for one in rows}:
                if await session.get(UsageHour, (account, hour)) is None:
                    session.add(
                        UsageHour(account_id=account, hour=hour, revision=1, sealed_at=now if sealed else None)
                    )

    return write


@pytest.fixture
def roll_up(sessions):
    async def run(now=LATER, **config):
        async with sessions() as session, session.begin():
            return await roll_up_days(session, config=DailyConfig(**config), now=now)

    return run


@pytest.fixture
def drop(sessions):
    async def run(now, **config):
        async with sessions() as session, session.begin():
            return await drop_old_hours(session, config=HourlyRetentionConfig(**config), now=now)

    return run


async def days(sessions) -> dict[tuple, tuple]:
    async with sessions() as session:
        found = await session.scalars(select(UsageDaily))
        return {
            (one.account_id, one.day, one.endpoint, one.status): (
                one.calls,
                one.dimensions,
                one.billable_dimensions,
            )
            for one in found
        }


async def count(sessions, table) -> int:
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(table))


class TestRollUpDays:
    async def test_sums_a_days_hours_and_no_others(self, put, roll_up, sessions):
        await put(
            row(MIDNIGHT - HOUR),
            row(MIDNIGHT, tokens=5),
            row(MIDNIGHT + 23 * HOUR, tokens=7),
            row(MIDNIGHT + 5 * HOUR, status=503, tokens=9),
            row(MIDNIGHT + DAY, calls=4),
            row(MIDNIGHT, account="acc_2"),
        )
        assert await roll_up() == 4
        assert await days(sessions) == {
            ("acc_1", MIDNIGHT - DAY, "GET /a", 200): (1, {}, {}),
            ("acc_1", MIDNIGHT, "GET /a", 200): (2, {"tokens": 12}, {"tokens": 12}),
            ("acc_1", MIDNIGHT, "GET /a", 503): (1, {"tokens": 9}, {}),
            ("acc_1", MIDNIGHT + DAY, "GET /a", 200): (4, {}, {}),
            ("acc_2", MIDNIGHT, "GET /a", 200): (1, {}, {}),
        }

    async def test_sums_every_figure(self, put, roll_up, sessions):
        chance = random.Random(4)
        columns = [column.name for column in UsageDaily.__table__.columns]
        names = [name for name in columns if name.endswith(("calls", "units", "sum", "in", "out"))]
        rows = [
            row(MIDNIGHT + HOUR * number, endpoint=chance.choice("abc"), calls=chance.randrange(1, 9))
            for number in range(24)
        ]
        wanted = {name: sum(getattr(one, name) for one in rows) for name in names}
        await put(*rows)
        await roll_up()
        async with sessions() as session:
            found = list(await session.scalars(select(UsageDaily)))
            assert {name: sum(getattr(one, name) for one in found) for name in names} == wanted

    async def test_leaves_a_day_alone_that_is_not_over_or_not_quiet(self, put, roll_up):
        await put(row(MIDNIGHT), now=MIDNIGHT + HOUR)
        assert await roll_up(MIDNIGHT + DAY + CONFIG.after_its_end - timedelta(seconds=1)) == 0
        await put(row(MIDNIGHT + HOUR), now=MIDNIGHT + 2 * DAY)
        assert await roll_up(MIDNIGHT + 2 * DAY + CONFIG.quiet - timedelta(seconds=1)) == 0
        assert await roll_up(MIDNIGHT + 2 * DAY + CONFIG.quiet) == 1

    async def test_does_a_day_again_when_an_hour_of_it_changed(self, put, roll_up, sessions):
        await put(row(MIDNIGHT))
        await roll_up()
        await put(row(MIDNIGHT + HOUR, calls=5))
        assert await roll_up(LATER + HOUR) == 1
        assert await roll_up(LATER + HOUR) == 0
        assert [calls for calls, *_ in (await days(sessions)).values()] == [6]

    async def test_forgets_figures_whose_hours_have_gone(self, put, roll_up, sessions):
        await put(row(MIDNIGHT), row(MIDNIGHT, endpoint="GET /b"))
        await roll_up()
        async with sessions() as session, session.begin():
            await session.execute(text("DELETE FROM usage_hourly WHERE endpoint = 'GET /b'"))
        await roll_up(LATER + HOUR)
        assert [key[2] for key in await days(sessions)] == ["GET /a"]

    @pytest.mark.parametrize(
        "change",
        [
            insert(UsageHourly).values(
                {
                    column.name: getattr(row(MIDNIGHT, endpoint="GET /b"), column.name)
                    for column in UsageHourly.__table__.columns
                    if column.name != "amendment_id"
                }
            ),
            update(UsageHourly).values(calls=2),
            delete(UsageHourly),
        ],
        ids=["insert", "update", "delete"],
    )
    async def test_a_day_is_marked_by_whatever_changes_its_hours(self, put, roll_up, sessions, change):
        await put(row(MIDNIGHT))
        await roll_up()
        before = await days(sessions)
        async with sessions() as session, session.begin():
            await session.execute(change)
        assert await roll_up() == 1
        assert await days(sessions) != before

    async def test_keeps_the_mark_of_a_day_that_changed_meanwhile(self, put, roll_up, sessions):
        """The mark is raised between the reading of its generation and its clearing, by another connection."""
        await put(row(MIDNIGHT))
        async with sessions() as session, session.begin():
            assert await roll_up_days(session, config=CONFIG, now=LATER) == 1
            # the mark is deleted, not committed: who raises it waits and makes it anew
            await session.rollback()
        async with sessions() as other, other.begin():
            await touch_days(other, hours={HourKey("acc_1", to_ms(MIDNIGHT))}, now=LATER)
            assert await roll_up(LATER + HOUR) == 1  # the locked mark of the other is passed over ...
        assert await count(sessions, TouchedDay) == 1  # ... and stays
        assert await roll_up(LATER + HOUR) == 1
        assert await count(sessions, TouchedDay) == 0

    async def test_takes_many_days_in_turns(self, put, roll_up, sessions):
        await put(*(row(MIDNIGHT - number * DAY) for number in range(7)))
        assert [await roll_up(days_per_pass=3) for _ in range(4)] == [3, 3, 1, 0]
        assert len(await days(sessions)) == 7


async def summed(sessions, start, end, *groups, **more):
    async with sessions() as session:
        found = await usage_summary(session, start=start, end=end, group_by=groups, **more)
        return [asdict(one) for one in found]


def rows_read(plan, table):
    """Rows that a plan took from a table, those that it threw away again too."""
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) if plan.get("Relation Name") == table else 0
    return own * plan["Actual Loops"] + sum(rows_read(part, table) for part in plan.get("Plans", ()))


class TestUsageSummary:
    """Compared with the same summary by the hour, added up here."""

    @pytest.mark.parametrize("seed", range(4))
    async def test_is_the_same_whatever_was_rolled_up(self, put, roll_up, sessions, seed):
        chance = random.Random(seed)
        rows = [
            row(
                MIDNIGHT + chance.randrange(5 * 24) * HOUR,
                account=chance.choice(("acc_1", "acc_2")),
                endpoint=f"GET /{number}",
                calls=chance.randrange(1, 9),
                tokens=chance.randrange(9),
            )
            for number in range(60)
        ]
        await put(*rows[:40])
        await roll_up(LATER + 9 * DAY, days_per_pass=chance.randrange(1, 12))
        await put(*rows[40:])  # some days change after they were rolled up
        for _ in range(12):
            start = MIDNIGHT + chance.randrange(4 * 24) * HOUR
            end = start + chance.randrange(1, 60) * HOUR
            account = chance.choice(("acc_1", None))
            found = await summed(sessions, start, end, GroupBy.PRODUCT, account_id=account)
            inside = [one for one in rows if start <= one.hour < end and account in {None, one.account_id}]
            assert sum(one["calls"] for one in found) == sum(one.calls for one in inside)
            tokens = sum(one["dimensions"].get("tokens", 0) for one in found)
            assert tokens == sum(one.dimensions.get("tokens", 0) for one in inside)
            assert await summed(sessions, start, end, GroupBy.DAY, account_id=account) == await by_the_day(
                sessions, start, end, account
            )

    async def test_reads_hours_of_changed_days_only_when_many_were_marked_before(self, put, roll_up, sessions):
        """Marks come and go faster than statistics: a plan for many of them would read all hours of the span."""
        await put(*(row(MIDNIGHT + number * HOUR) for number in range(30 * 24)))
        names = [column.name for column in UsageHourly.__table__.columns]
        values = ["endpoint || number" if name == "endpoint" else name for name in names]
        async with sessions() as session, session.begin():
            await session.execute(
                text(
                    f"INSERT INTO usage_hourly ({', '.join(names)})"
                    f" SELECT {', '.join(values)} FROM usage_hourly, generate_series(1, 39) AS number"
                )
            )
            await session.execute(text("ANALYZE usage_hourly, touched_days"))
        await roll_up(MIDNIGHT + 40 * DAY)
        await put(row(MIDNIGHT + 9 * DAY, endpoint="GET /late"))
        rows = daily_rows(start=MIDNIGHT, end=MIDNIGHT + 30 * DAY, account_id="acc_1")
        async with sessions() as session:
            statement = select(func.sum(rows.calls)).compile(session.bind, compile_kwargs={"literal_binds": True})
            (plan,) = (await session.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"))).scalar_one()
        assert rows_read(plan["Plan"], "usage_hourly") == 24 * 40 + 1

    async def test_reads_days_that_lost_their_hours(self, put, roll_up, drop, sessions):
        await put(row(MIDNIGHT + HOUR, tokens=3), row(MIDNIGHT + 2 * HOUR), row(MIDNIGHT + DAY + HOUR, calls=5))
        span = MIDNIGHT - DAY, MIDNIGHT + 2 * DAY
        before = await summed(sessions, *span, GroupBy.DAY, GroupBy.ENDPOINT)
        await roll_up()
        await drop(MIDNIGHT + 401 * DAY)
        assert await summed(sessions, *span, GroupBy.DAY, GroupBy.ENDPOINT) == before
        async with sessions() as session, session.begin():
            await touch_days(session, hours={HourKey("acc_1", to_ms(MIDNIGHT))}, now=LATER)
        assert await summed(sessions, *span, GroupBy.DAY, GroupBy.ENDPOINT) == before

    @pytest.mark.parametrize(("start", "groups"), [(MIDNIGHT, [GroupBy.HOUR]), (MIDNIGHT + HOUR, [GroupBy.DAY])])
    async def test_refuses_hours_that_are_no_longer_kept(self, put, roll_up, drop, sessions, start, groups):
        await put(row(MIDNIGHT))
        await roll_up()
        await drop(MIDNIGHT + 401 * DAY)
        with pytest.raises(ValidationFailedError, match="hours are kept from 2026-03-01T00:00:00Z on"):
            await summed(sessions, start, MIDNIGHT + 2 * DAY, *groups)


async def by_the_day(sessions, start, end, account):
    """Return the summary by day, added up from the one by the hour."""
    days: dict[str, dict] = {}
    for one in await summed(sessions, start, end, GroupBy.HOUR, account_id=account):
        day = f"{one['by']['hour'][:10]}T00:00:00Z"
        found = days.setdefault(day, {"by": {"day": day}, "key_name": ""})
        for name, value in one.items():
            if isinstance(value, int):
                found[name] = found.get(name, 0) + value
            elif name.endswith("dimensions"):
                found[name] = dict(Counter(found.get(name, {})) + Counter(value))
    return list(days.values())


class TestDropOldHours:
    async def test_keeps_the_days_figures(self, put, roll_up, drop, sessions):
        await put(row(MIDNIGHT), row(MIDNIGHT + HOUR), row(MIDNIGHT + DAY))
        await roll_up()
        before = await days(sessions)
        assert await drop(MIDNIGHT + 401 * DAY, keep_days=400) == 1
        assert await count(sessions, UsageHourly) == 1
        assert await days(sessions) == before
        async with sessions() as session:
            assert await hours_were_dropped(session, account_id="acc_1", hour=MIDNIGHT + HOUR)
            assert not await hours_were_dropped(session, account_id="acc_1", hour=MIDNIGHT + DAY)

    async def test_waits_until_the_day_is_older_than_that(self, put, roll_up, drop):
        await put(row(MIDNIGHT))
        await roll_up()
        assert await drop(MIDNIGHT + 401 * DAY - timedelta(seconds=1), keep_days=400) == 0

    async def test_leaves_days_that_are_open_touched_or_not_rolled_up(self, put, roll_up, drop, sessions):
        await put(row(MIDNIGHT), sealed=False)
        await roll_up()
        await put(row(MIDNIGHT - DAY))
        assert await drop(MIDNIGHT + 500 * DAY) == 0
        assert await count(sessions, UsageHourly) == 2

    async def test_leaves_a_day_alone_that_changes_between_choosing_and_locking(
        self, put, roll_up, engine, sessions
    ):
        """Without rows an hour that is open, or marked, would be sealed with nothing: all would be taken back."""
        await put(row(MIDNIGHT), row(MIDNIGHT + DAY))
        await roll_up()
        changes = {
            MIDNIGHT: "UPDATE usage_hours SET sealed_at = NULL WHERE hour = %(hour)s",
            MIDNIGHT + DAY: (
                "INSERT INTO touched_hours (account_id, hour, touched_at) VALUES ('acc_1', %(hour)s, %(hour)s)"
            ),
        }
        url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

        def change(_connection, _cursor, statement, *_more):
            if "NOWAIT" in statement:
                with psycopg.connect(url) as other:
                    for hour, sql in changes.items():
                        other.execute(sql, {"hour": hour})

        event.listen(engine.sync_engine, "before_cursor_execute", change)
        async with sessions() as session, session.begin():
            assert await drop_old_hours(session, config=HourlyRetentionConfig(), now=MIDNIGHT + 500 * DAY) == 0
        assert await count(sessions, UsageHourly) == 2

    async def test_a_day_that_is_touched_afterwards_keeps_its_figures(self, put, roll_up, drop, sessions):
        await put(row(MIDNIGHT))
        await roll_up()
        before = await days(sessions)
        await drop(MIDNIGHT + 500 * DAY)
        async with sessions() as session, session.begin():
            await touch_days(session, hours={HourKey("acc_1", to_ms(MIDNIGHT))}, now=LATER)
        await roll_up(MIDNIGHT + 500 * DAY)
        assert await days(sessions) == before
        assert await count(sessions, UsageDay) == 1
        assert await count(sessions, TouchedDay) == 0
