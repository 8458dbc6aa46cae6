"""Whatever happens on the way, and wherever it breaks: every figure ends as a plain count does.

One example is a history of gateway calls and of events that applications report, of several accounts, products,
plans and modes. Whatever can be repeated is, and comes in any order, before and after seals. Every step of
collector, ingest writer, aggregator, sealer, daily rollup and meters may fail or be killed just before or just
after any statement, commit or command that it sends to a store (see `breaking`). At the end figures by hour and by
day, the ledger, declared meters, billable units, billing periods and summaries are compared with a plain count.

`KM_TEST_HISTORIES=500` plays that many.
"""

import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.catalog.tables import Meter, Price
from control_plane.foundation.db import create_engine
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.store import EventStore, EventStoreConfig
from tests.control_plane.usage.breaking import Fuse, FusedClient, FusedRedis
from tests.control_plane.usage.conftest import NOON
from tests.control_plane.usage.histories import HOURS_AGO, KINDS
from tests.control_plane.usage.plain_usage import PlainPhase
from tests.control_plane.usage.whole_figures import (
    ANCHOR,
    METERS,
    PRICED,
    check_figures,
    check_nothing_is_left,
)
from tests.control_plane.usage.whole_histories import HOUR, NUMBERS, WholeHistory

HISTORIES = int(os.environ.get("KM_TEST_HISTORIES", "8"))
START = NOON - timedelta(days=30)
# after the first calls of an action, and before its last
CHANGE = NOON - HOUR + timedelta(minutes=7, milliseconds=3)
MAPS_END = NOON - timedelta(minutes=32)
CALLS: tuple[dict[str, Any], ...] = (
    *KINDS,
    {"status": 404, "tokens": 5},
    {"product": "maps", "path": "/maps/tiles", "tokens": 9, "key": "key_3"},
    {"product": "maps", "path": "/maps/tiles", "replayed": "true"},
)
REPORTS: tuple[dict[str, Any], ...] = (
    {"type": "paid", "units": {"seats": 4, "cents": 250}, "properties": {"user": "ann"}},
    {"type": "paid", "units": {"seats": 2}, "properties": {"user": "bob", "plan": "gold"}},
    {"type": "opened", "units": {"tokens": 6}, "properties": {"user": "ann"}},
    {"type": "opened", "mode": "test", "units": {"tokens": 8}},
    {"type": "paid", "product": "maps", "units": {"seats": 9}, "properties": {"user": "eve"}},
)
crashes = st.none() | st.tuples(st.integers(0, 70), st.booleans())
actions = st.one_of(
    st.tuples(
        st.just("calls"), st.integers(1, 5), st.integers(0, 2), st.sampled_from(HOURS_AGO), st.sampled_from(CALLS)
    ),
    st.tuples(
        st.just("report"),
        st.integers(1, 4),
        st.integers(0, 2),
        st.sampled_from(HOURS_AGO),
        st.sampled_from(REPORTS),
        crashes,
    ),
    st.tuples(st.just("report again"), st.integers(0, 50), st.booleans(), crashes),
    st.tuples(st.just("repeat"), st.integers(0, 50)),
    st.tuples(st.just("ship"), st.integers(1, 6)),
    st.tuples(st.just("ship ahead"), st.integers(1, 4)),
    st.sampled_from(
        [
            ("heartbeat",),
            ("ship again",),
            ("ship everything again",),
            ("redis forgets",),
            ("redis loses the oldest",),
            ("redis loses its group",),
            ("another claims",),
            ("seal early",),
        ]
    ),
    st.tuples(st.just("collect"), crashes),
    st.tuples(st.just("collect"), crashes),
    st.tuples(st.just("aggregate"), st.sampled_from((1, 200)), crashes),
    st.tuples(st.just("aggregate"), st.sampled_from((1, 200)), crashes),
    st.tuples(st.just("seal"), crashes),
    st.tuples(st.just("roll up days"), crashes),
    st.tuples(st.just("count periods"), crashes),
)


@pytest.fixture
def fuse() -> Fuse:
    return Fuse()


@pytest.fixture
async def engine(database_url: str, fuse: Fuse) -> AsyncIterator[AsyncEngine]:
    engine = fuse.attach(create_engine(database_url))
    yield engine
    await engine.dispose()


@pytest.fixture
async def redis(redis_url: str, fuse: Fuse) -> AsyncIterator[FusedRedis]:
    redis = FusedRedis.at(redis_url, fuse)
    yield redis
    await redis.aclose()


@pytest.fixture
def store(clickhouse_dsn: str, fuse: Fuse) -> Iterator[EventStore]:
    store = EventStore.open(EventStoreConfig(dsn=clickhouse_dsn), max_threads=1)
    yield EventStore(FusedClient(store._client, fuse))
    store.close()


@pytest.fixture
async def market(world: SimpleNamespace, fuse: Fuse) -> SimpleNamespace:
    """Two products with meters, two plan versions of the first with other terms, one of the second."""
    world.fuse = fuse
    await world.catalog.product("weather", unit_headers={"tokens": "x-tokens"})
    await world.catalog.product("maps", unit_headers={"tokens": "x-tokens"})
    world.versions = {
        "early": await world.catalog.plan_version(),
        "late": await world.catalog.plan_version(billable_statuses={"below": 400}),
        "maps": await world.catalog.plan_version("maps"),
    }
    async with world.sessions() as session, session.begin():
        session.add_all(
            Meter(
                id=f"mtr_{meter.code}",
                code=meter.code,
                name=meter.name,
                api_product_id=f"prod_{meter.api_product}",
                aggregation=meter.aggregation.value,
                value=meter.value,
                events=meter.events.value,
                filters=meter.filters.as_dict(),
                weights=meter.weights,
                created_at=START,
            )
            for meter in METERS
        )
        await session.execute(text("ALTER TABLE prices DISABLE TRIGGER USER"))
        session.add_all(
            Price(
                id=f"price_{name}_{code}",
                plan_version_id=world.versions[name],
                currency="USD",
                position=position,
                model="per_unit",
                meter=code,
                params={"unit_amount": "1.00"},
            )
            for name, codes in PRICED.items()
            for position, code in enumerate(sorted(codes))
        )
        await session.flush()
        await session.execute(text("ALTER TABLE prices ENABLE TRIGGER USER"))
    return world


async def begin(world: SimpleNamespace) -> WholeHistory:
    """Subscribe three accounts: to two plans of one product in turn, to two products, to none."""
    number = next(NUMBERS)
    first, second, third = (f"acc_{number}_{index}" for index in range(3))
    phases = [
        PlainPhase(f"ph_{number}_early", first, "weather", "early", START, CHANGE),
        PlainPhase(f"ph_{number}_late", first, "weather", "late", CHANGE, None, below=400),
        PlainPhase(f"ph_{number}_other", second, "weather", "early", START, None),
        PlainPhase(f"ph_{number}_maps", second, "maps", "maps", START, MAPS_END),
    ]
    for account in (first, second, third):
        await world.catalog.account(account)
    history = WholeHistory(world, number, phases)
    history.subscriptions = {}
    for some in (phases[:2], phases[2:3], phases[3:]):
        rows = [(phase.id, world.versions[phase.version], phase.start, phase.end) for phase in some]
        subscription_id = await world.catalog.subscription(*rows, account=some[0].account, product=some[0].product)
        history.subscriptions[subscription_id] = some
        async with world.sessions() as session, session.begin():
            (await session.get(Subscription, subscription_id)).anchor_at = ANCHOR
    return history


class TestWholeHistory:
    @pytest.mark.timeout(120 + 30 * HISTORIES)
    @settings(
        max_examples=HISTORIES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # shrinking replays hundreds of histories; the actions of a failing one are short enough to read
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    @given(actions=st.lists(actions, min_size=8, max_size=24))
    async def test_ends_as_a_plain_count(self, market, actions):
        played = await begin(market)
        opening = [("calls", 3, 0, 1, {"units": 2, "tokens": 4}), ("report", 2, 1, 0, REPORTS[0], None)]
        for name, *arguments in [*opening, *actions]:
            await played.play("calls_" if name == "calls" else name, *arguments)
        event(f"broken steps: {market.fuse.blown}")
        await played.finish()
        async with market.sessions() as session:
            await check_figures(session, played)
            await check_nothing_is_left(session, market)
