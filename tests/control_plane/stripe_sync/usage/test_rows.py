"""Sealed usage becomes rows for Stripe in the transaction that seals it."""

from sqlalchemy import text

from control_plane.usage.rollups.tables import UsageLedger
from tests.control_plane.stripe_sync.usage.conftest import OURS

HOUR = OURS.replace(day=17, hour=5)


class TestTakingSealedUsage:
    async def test_each_row_of_the_ledger_that_stripe_may_rate_becomes_one(self, world):
        await world.seal(HOUR, 10)
        await world.seal(HOUR, -3)
        await world.seal(HOUR, 7, meter="upstream_ms")
        await world.seal(HOUR, 4_000, meter="bytes_out")  # no price counts these
        await world.seal(HOUR, 10, meter="")
        rows = await world.rows()
        assert [(row.revision, row.meter, row.delta_units) for row in rows] == [
            (1, "requests", 10),
            (2, "requests", -3),
            (3, "upstream_ms", 7),
        ]
        assert {(row.state, row.subscription_id) for row in rows} == {("waiting", world.subscription_id)}

    async def test_what_stripe_does_not_bill_does_not(self, world):
        for more in ({"phase_kind": "trial"}, {"phase_kind": "paused"}, {"billed_by": "own"}):
            await world.subscribe(linked=False, **more)
            await world.seal(HOUR, 10)
        assert await world.rows() == []

    async def test_none_is_missed_when_a_seal_that_began_first_commits_last(self, world):
        first = a_seal(world, HOUR, 1)
        async with world.sessions() as slow:
            slow.add(first)
            await slow.flush()
            await world.seal(HOUR.replace(hour=6), 2)
            await world.send()
            assert len(await world.rows()) == 1
            await slow.commit()
        await world.send()
        assert [row.state for row in await world.rows()] == ["delivered", "delivered"]
        assert await world.at_stripe() == 3

    async def test_a_seal_that_is_undone_leaves_none(self, world):
        async with world.sessions() as session:
            session.add(a_seal(world, HOUR, 1))
            await session.flush()
            await session.rollback()
        assert await world.rows() == []

    async def test_what_is_taken_back_from_a_phase_that_is_gone_follows_what_it_had(self, world):
        await world.seal(HOUR, 10)
        async with world.sessions() as session, session.begin():
            await session.execute(text("SET LOCAL session_replication_role = replica"))
            await session.execute(text("DELETE FROM subscription_phases"))
        await world.seal(HOUR, -10)
        await world.seal(HOUR.replace(hour=7), 10)  # had none: of nobody
        assert [(row.revision, row.delta_units) for row in await world.rows()] == [(1, 10), (2, -10)]


def a_seal(world, hour, units):
    return UsageLedger(
        account_id=world.account_id,
        hour=hour,
        revision=1,
        phase_id=world.phase_id,
        meter="requests",
        units=units,
        delta_units=units,
        sealed_at=world.now,
    )
