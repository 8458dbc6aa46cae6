"""The ledger of sealed usage: what each seal changed, and what was known at any past moment."""

# ruff: noqa: PLR0917 - fixtures are arguments

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import to_ms
from control_plane.usage.model import HourKey
from control_plane.usage.queries import billable_units
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.rollups.ledger import billable_units_as_of
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.rollups.tables import UsageLedger
from control_plane.usage.summary import GroupBy, usage_as_of, usage_summary
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

Sessions = async_sessionmaker[AsyncSession]
HOUR = timedelta(hours=1)


@pytest.fixture
def seal(sessions: Sessions, aggregate: Callable[..., Any]) -> Callable[..., Any]:
    async def seal(now: datetime, **more: Any) -> None:
        await aggregate(now=now)
        async with sessions() as session, session.begin():
            await seal_hours(session, config=SealingConfig(), now=now, **more)

    return seal


@pytest.fixture
async def subscription(catalog, noon) -> str:
    await catalog.account()
    await catalog.product()
    version = await catalog.plan_version()
    return await catalog.subscription(("ph_1", version, noon - 24 * HOUR, None))


async def entries(sessions: Sessions) -> list[tuple[int, str, int, int]]:
    async with sessions() as session:
        rows = await session.scalars(
            select(UsageLedger)
            .where(UsageLedger.meter.in_(["requests", "tokens", "declared"]))
            .order_by(UsageLedger.revision, UsageLedger.meter)
        )
        return [(row.revision, row.meter, row.units, row.delta_units) for row in rows]


class TestLedger:
    async def test_holds_the_units_of_the_first_seal_and_then_what_changed(
        self, gateway, collect, seal, sessions, subscription, noon
    ):
        await gateway.ship(gateway.calls(2, units=3, tokens=7), shipped_up_to=noon + 9 * HOUR)
        await collect()
        await seal(noon + 2 * HOUR)
        assert await entries(sessions) == [(1, "requests", 6, 6), (1, "tokens", 14, 14)]
        await gateway.ship(gateway.calls(1, units=5))
        await collect(now=noon + 3 * HOUR)
        await seal(noon + 3 * HOUR)
        # the tokens are what they were: no entry
        assert (await entries(sessions))[2:] == [(2, "requests", 11, 5)]

    async def test_counts_nothing_that_is_not_billed(self, gateway, collect, seal, sessions, subscription, noon):
        for kind in ({"status": 500}, {"mode": Mode.TEST}, {"outcome": Outcome.RATE_LIMITED, "status": 429}):
            await gateway.ship(gateway.calls(2, tokens=3, **kind), shipped_up_to=noon + 9 * HOUR)
        await collect()
        await seal(noon + 2 * HOUR)
        assert await entries(sessions) == []

    async def test_counts_what_the_gateway_measured_and_nothing_that_only_has_its_name(
        self, gateway, collect, seal, sessions, subscription, noon
    ):
        (call,) = gateway.calls(1)
        named = {"bytes_out": "9", "requests": "9", "tokens": "9"}
        await gateway.ship([call.line() | {"u": named}], shipped_up_to=noon + 9 * HOUR)
        await collect()
        await seal(noon + 2 * HOUR)
        async with sessions() as session:
            rows = await session.execute(text("SELECT meter, units FROM usage_ledger ORDER BY meter"))
            found = {row.meter: row.units for row in rows}
        measured = {"bytes_in": 300, "bytes_out": 1200, "upstream_ms": 10}
        assert found == {"": 1, "requests": 1, "tokens": 9, **measured}

    async def test_takes_back_what_moved_to_another_phase(
        self, gateway, collect, seal, sessions, catalog, subscription, noon
    ):
        await gateway.ship(gateway.calls(2, tokens=7), shipped_up_to=noon + 9 * HOUR)
        await collect()
        await seal(noon + 2 * HOUR)
        async with sessions() as session, session.begin():
            await session.execute(text("UPDATE subscription_phases SET ends_at = :noon"), {"noon": noon})
            await session.execute(
                text("INSERT INTO touched_hours (account_id, hour, touched_at) VALUES ('acc_1', :noon, :noon)"),
                {"noon": noon},
            )
        await seal(noon + 3 * HOUR)
        async with sessions() as session:
            rows = await session.execute(
                text("SELECT phase_id, units, delta_units FROM usage_ledger WHERE meter = 'tokens' ORDER BY 1, 3")
            )
            assert [tuple(row) for row in rows] == [("", 14, 14), ("ph_1", 0, -14), ("ph_1", 14, 14)]

    async def test_adds_units_that_no_row_holds(self, gateway, collect, seal, sessions, subscription, noon):
        async def declared(_session, hours):
            return {(key, "ph_1", "declared"): 4 for key in hours if key == HourKey("acc_1", to_ms(noon))}

        await gateway.ship(gateway.calls(1), shipped_up_to=noon + 9 * HOUR)
        await collect()
        await seal(noon + 2 * HOUR, extra_units=[declared])
        assert (1, "declared", 4, 4) in await entries(sessions)

    async def test_is_never_changed(self, gateway, collect, seal, sessions, subscription, noon):
        await gateway.ship(gateway.calls(1), shipped_up_to=noon + 9 * HOUR)
        await collect()
        await seal(noon + 2 * HOUR)
        for statement in (
            "UPDATE usage_ledger SET units = 0",
            "DELETE FROM usage_ledger",
            "TRUNCATE usage_ledger",
        ):
            with pytest.raises(DBAPIError, match="never changed"):
                async with sessions() as session, session.begin():
                    await session.execute(text(statement))

    async def test_waits_for_an_hour_that_is_being_recomputed(
        self, gateway, collect, aggregate, sessions, store, subscription, monkeypatch, noon
    ):
        """The sealer passes over an hour that an aggregator holds: no row changes between reading and seal."""
        sealed = []

        async def derive(_session, _store, _recomputed):
            async with sessions() as other, other.begin():
                found = await seal_hours(other, config=SealingConfig(), now=noon + 2 * HOUR)
            sealed.append(found.sealed)
            return ()

        await gateway.ship(gateway.calls(1), shipped_up_to=noon + 9 * HOUR)
        await collect()
        await aggregate(now=noon + 2 * HOUR)
        await gateway.ship(gateway.calls(1))
        await collect()
        assert await aggregate_touched(sessions, store, now=noon + 2 * HOUR, derive=[derive]) == 1
        assert sealed == [()]
        assert await entries(sessions) == []


class TestAsOf:
    async def test_tells_of_each_hour_what_was_sealed_at_the_moment(
        self, gateway, collect, seal, sessions, subscription, noon
    ):
        known = []
        for hours in range(2, 6):
            await gateway.ship(gateway.calls(hours, tokens=2), shipped_up_to=noon + 9 * HOUR)
            if hours == 4:
                await gateway.ship(gateway.calls(1, at=noon + HOUR))
            await collect()
            at = noon + hours * HOUR
            await seal(at)
            async with sessions() as session:
                span = {"start": noon, "end": noon + 9 * HOUR}
                known.append(
                    (
                        at,
                        await usage_summary(session, account_id="acc_1", group_by=[GroupBy.HOUR], **span),
                        await billable_units(session, subscription_id=subscription, **span),
                    )
                )
        async with sessions() as session:
            for at, summary, units in known:
                then = await usage_as_of(session, at=at, account_id="acc_1", group_by=[GroupBy.HOUR], **span)
                assert (then.figures, then.open_hours) == (summary, 0 if at >= noon + 4 * HOUR else 1)
                assert await billable_units_as_of(session, subscription_id=subscription, at=at, **span) == units
                # until the next seal nothing else is known
                later = await usage_as_of(
                    session, at=at + HOUR / 2, account_id="acc_1", group_by=[GroupBy.HOUR], **span
                )
                assert later.figures == summary
            before = await usage_as_of(session, at=noon + HOUR, group_by=[GroupBy.HOUR], **span)
            assert (before.figures, before.open_hours) == ([], 2)

    async def test_says_that_a_sealed_hour_was_open_again(self, gateway, collect, aggregate, seal, sessions, noon):
        await gateway.ship(gateway.calls(2), shipped_up_to=noon + 9 * HOUR)
        await collect()
        await seal(noon + 2 * HOUR)
        await gateway.ship(gateway.calls(1))
        await collect()
        await aggregate(now=noon + 3 * HOUR)
        async with sessions() as session:
            span = {"start": noon, "end": noon + HOUR, "group_by": [GroupBy.ACCOUNT]}
            then = await usage_as_of(session, at=noon + 4 * HOUR, **span)
            assert ([found.calls for found in then.figures], then.open_hours) == ([2], 1)
        await seal(noon + 5 * HOUR)
        async with sessions() as session:
            then = await usage_as_of(session, at=noon + 4 * HOUR, **span)
            assert ([found.calls for found in then.figures], then.open_hours) == ([2], 1)
            then = await usage_as_of(session, at=noon + 5 * HOUR, **span)
            assert ([found.calls for found in then.figures], then.open_hours) == ([3], 0)
