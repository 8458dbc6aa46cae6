"""When an hour is final, and that it opens again for late events."""

# ruff: noqa: PLR0917 - fixtures are arguments

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.outbox import OutboxRow
from control_plane.usage.operations import retire_shipper
from control_plane.usage.queries import seal_state, shippers
from control_plane.usage.rollups.sealing import SealingConfig, SealingResult, seal_hours
from control_plane.usage.tables import UsageHour

Sessions = async_sessionmaker[AsyncSession]
CONFIG = SealingConfig()
HOUR = timedelta(hours=1)


@pytest.fixture
def seal(sessions: Sessions, aggregate: Callable[..., Any]) -> Callable[[datetime], Any]:
    """Two passes with the aggregator between: the first may ask for a last look at the events."""

    async def seal(now: datetime) -> SealingResult:
        async with sessions() as session, session.begin():
            first = await seal_hours(session, config=CONFIG, now=now)
        await aggregate(now=now)
        async with sessions() as session, session.begin():
            second = await seal_hours(session, config=CONFIG, now=now)
        return SealingResult(first.sealed + second.sealed, second.silent_shippers, second.sealable_until)

    return seal


async def news(sessions: Sessions) -> list[dict[str, Any]]:
    async with sessions() as session:
        rows = await session.scalars(
            select(OutboxRow).where(OutboxRow.topic == "hour.sealed").order_by(OutboxRow.id)
        )
        return [row.payload for row in rows]


class TestSealing:
    async def test_waits_for_lateness(self, gateway, collect, aggregate, seal, noon):
        await gateway.ship(gateway.calls(2), shipped_up_to=noon + 2 * HOUR)
        await collect()
        await aggregate()
        end = noon + HOUR + CONFIG.lateness
        assert (await seal(end - timedelta(milliseconds=1))).sealed == ()
        assert len((await seal(end)).sealed) == 1

    async def test_tells_the_outbox_once(self, gateway, collect, aggregate, seal, sessions, noon):
        await gateway.ship(gateway.calls(2), shipped_up_to=noon + 2 * HOUR)
        await collect()
        for _ in range(3):
            await seal(noon + 2 * HOUR)
        assert await news(sessions) == [
            {"account_id": "acc_1", "hour": "2026-03-17T12:00:00+00:00", "revision": 1}
        ]

    async def test_waits_for_every_live_shipper(self, gateway, make_gateway, collect, seal, noon):
        other = make_gateway(shipper="node_b")
        await gateway.ship(gateway.calls(2), shipped_up_to=noon + 2 * HOUR)
        await other.heartbeat(noon + HOUR - timedelta(milliseconds=1))
        await collect()
        result = await seal(noon + 2 * HOUR)
        assert result.sealed == ()
        assert result.sealable_until == noon + HOUR - timedelta(milliseconds=1)
        await other.heartbeat(noon + HOUR)
        await collect()
        assert len((await seal(noon + 2 * HOUR)).sealed) == 1

    async def test_a_silent_shipper_is_named_and_holds_the_seal_until_it_is_retired(
        self, gateway, make_gateway, collect, seal, sessions, noon
    ):
        silent = make_gateway(shipper="node_gone")
        await silent.heartbeat(noon)
        await collect(now=noon)
        await gateway.ship(gateway.calls(2), shipped_up_to=noon + 2 * HOUR)
        now = noon + 2 * HOUR
        await collect(now=now)
        result = await seal(now)
        assert (result.sealed, result.silent_shippers) == ((), ("node_gone",))
        async with sessions() as session, session.begin():
            await retire_shipper(session, shipper_id="node_gone", actor="tok_1", now=now)
        assert len((await seal(now)).sealed) == 1
        async with sessions() as session:
            assert [found.shipper_id for found in await shippers(session)] == ["node_a", "node_gone"]

    async def test_a_shipper_that_is_heard_of_but_does_not_get_on_is_named(
        self, gateway, make_gateway, collect, seal, noon
    ):
        stuck = make_gateway(shipper="node_stuck")
        now = noon + 2 * HOUR
        await gateway.ship(gateway.calls(2), shipped_up_to=now)
        await stuck.add(start=100, end=200, lines=b"", shipped_up_to=now)  # what comes before is missing
        await collect(now=now)
        result = await seal(now)
        assert (result.sealed, result.silent_shippers) == ((), ("node_stuck",))

    async def test_waits_for_pending_events(self, gateway, collect, aggregate, seal, sessions, noon):
        await gateway.ship(gateway.calls(2), shipped_up_to=noon + 2 * HOUR)
        await collect()
        await aggregate(now=noon + 2 * HOUR)
        await gateway.ship(gateway.calls(1))
        await collect()
        async with sessions() as session, session.begin():
            result = await seal_hours(session, config=CONFIG, now=noon + 2 * HOUR)
        assert result.sealed == ()
        assert len((await seal(noon + 2 * HOUR)).sealed) == 1

    async def test_looks_at_the_events_once_more_before_it_seals(
        self, gateway, collect, aggregate, seal, sessions, catalog, noon
    ):
        await gateway.ship(gateway.calls(2), shipped_up_to=noon + 2 * HOUR)
        await collect()
        await aggregate(now=noon + timedelta(minutes=5))
        await catalog.account()
        await catalog.product()
        version = await catalog.plan_version()
        await catalog.subscription(("ph_1", version, noon, None))  # committed late, effective before
        await seal(noon + 2 * HOUR)
        assert [found["revision"] for found in await news(sessions)] == [2]

    async def test_a_later_event_makes_a_revision_that_is_sealed_again(
        self, gateway, collect, aggregate, seal, sessions, noon
    ):
        await gateway.ship(gateway.calls(2), shipped_up_to=noon + 2 * HOUR)
        await collect()
        await seal(noon + 2 * HOUR)
        await gateway.ship(gateway.calls(1))
        await collect()
        await aggregate(now=noon + 3 * HOUR)
        async with sessions() as session:
            state = await seal_state(session, account_id="acc_1", start=noon, end=noon + HOUR)
        assert (state.open_hours, state.first_open_hour) == (1, noon)
        await seal(noon + 3 * HOUR)
        assert [found["revision"] for found in await news(sessions)] == [1, 2]

    async def test_a_redelivery_after_the_seal_changes_nothing(
        self, gateway, collect, aggregate, seal, sessions, noon
    ):
        calls = gateway.calls(2)
        await gateway.ship(calls, shipped_up_to=noon + 2 * HOUR)
        await collect()
        await seal(noon + 2 * HOUR)
        await gateway.ship(calls)
        await collect()
        await seal(noon + 3 * HOUR)
        assert len(await news(sessions)) == 1
        async with sessions() as session:
            found = await session.get(UsageHour, ("acc_1", noon))
        assert found is not None
        assert (found.revision, found.sealed_at) == (1, noon + 2 * HOUR)

    async def test_calls_of_nobody_are_sealed_without_news(self, gateway, collect, seal, sessions, noon):
        (made,) = gateway.calls(1)
        await gateway.ship([made.line() | {"ru": "", "ra": ""}], shipped_up_to=noon + 2 * HOUR)
        await collect()
        assert len((await seal(noon + 2 * HOUR)).sealed) == 1
        assert await news(sessions) == []


class TestRetireShipper:
    async def test_of_a_name_nobody_knows(self, sessions, noon):
        async with sessions() as session:
            with pytest.raises(NotFoundError):
                await retire_shipper(session, shipper_id="nobody", actor="tok_1", now=noon)
