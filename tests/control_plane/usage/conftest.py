"""A gateway's side of usage, in short: makes calls, ships them as the shipper does, and counts them plainly."""

import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.tables import Account
from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion
from control_plane.foundation.clock import to_ms
from control_plane.foundation.redis import RedisClient
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.usage.collect.batch_attribution import Attribution
from control_plane.usage.collect.collector import Collector, CollectorConfig
from control_plane.usage.collect.endpoints import EndpointNames, Template
from control_plane.usage.collect.enrichment import AccountCache, KeptDays
from control_plane.usage.collect.source import UsageSource
from control_plane.usage.collect.storing import EventWriter
from control_plane.usage.collect.stream import StreamSource
from control_plane.usage.retention import MINIMUM_DAYS
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.store import EventStore, EventStoreConfig
from gateway_contract import usage_lines
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, Receipt, sign_receipt
from gateway_contract.redis_names import usage_stream

SECRET = b"a gateway secret of more than 32 characters"
NOON = datetime(2026, 3, 17, 12, 0, tzinfo=UTC)
TEMPLATES = {"weather": (Template("GET", "/weather/v1/current/{city}"), Template("GET", "/weather/v1/forecast"))}


@dataclass(frozen=True)
class Call:
    """One call as the gateway decided it."""

    at: datetime
    account: str = "acc_1"
    key: str = "key_1"
    product: str = "weather"
    mode: Mode = Mode.LIVE
    outcome: Outcome = Outcome.SERVED
    units: int = 1
    status: int = 200
    path: str = "/weather/v1/current/oslo"
    tokens: int = 0
    number: int = 0
    request_id: str = ""
    # what the upstream says of a replay, as it stands in the answer's header
    replayed: str = ""

    @property
    def receipt(self) -> Receipt:
        return Receipt(
            emitter="testemitter",
            sequence=self.number,
            call_number=self.number,
            decided_at_ms=to_ms(self.at),
            account_id=self.account,
            key_id=self.key,
            product=self.product,
            mode=self.mode,
            outcome=self.outcome,
            units=self.units,
        )

    def line(self) -> dict[str, Any]:
        """Return the usage line; as Kong writes it, a refused call has its receipt in the answer only."""
        served = self.outcome is Outcome.SERVED
        return {
            "v": 1,
            "id": self.request_id or f"{self.number:032x}",
            "at": to_ms(self.at) - 3,
            "ru": sign_receipt(self.receipt, place=Place.UPSTREAM, secret=SECRET) if served else "",
            "ra": sign_receipt(self.receipt, place=Place.ANSWER, secret=SECRET),
            "sv": "weather",
            "rt": "weather-v1",
            "m": "GET",
            "p": self.path,
            "st": self.status,
            "so": "upstream" if served else "kong",
            "bi": 300,
            "bo": 1200,
            "lt": 12,
            "lk": 2,
            "lp": 10 if served else -1,
            "ip": "203.0.113.7",
            "u": {"tokens": str(self.tokens)} if self.tokens else {},
            "rp": self.replayed,
        }


@dataclass
class Gateway:
    """Numbers calls, and ships lines as one shipper with one segment after another."""

    redis: Redis
    shipper: str = "node_a"
    segment: str = "seg-1"
    position: int = 0
    shard: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def calls(self, count: int, at: datetime = NOON, **more: Any) -> list[Call]:
        return [
            Call(at=at + timedelta(milliseconds=index), number=next(self.numbers), **more)
            for index in range(count)
        ]

    async def ship(
        self, calls: Sequence[Call | dict[str, Any]], *, shipped_up_to: datetime | None = None
    ) -> bytes:
        """Add one entry with these calls, behind what was shipped before."""
        lines = b"\n".join(
            json.dumps(call.line() if isinstance(call, Call) else call, separators=(",", ":")).encode()
            for call in calls
        )
        return await self.ship_bytes(lines, shipped_up_to=shipped_up_to)

    async def ship_bytes(self, lines: bytes, *, shipped_up_to: datetime | None = None) -> bytes:
        start, self.position = self.position, self.position + len(lines) + 1
        return await self.add(start=start, end=self.position, lines=lines, shipped_up_to=shipped_up_to)

    async def heartbeat(self, shipped_up_to: datetime) -> bytes:
        return await self.add(start=0, end=0, lines=b"", shipped_up_to=shipped_up_to, segment="")

    async def add(
        self,
        *,
        start: int,
        end: int,
        lines: bytes = b"",
        shipped_up_to: datetime | None = None,
        segment: str | None = None,
    ) -> bytes:
        fields: dict[str, Any] = {
            usage_lines.FIELD_SHIPPER: self.shipper,
            usage_lines.FIELD_SEGMENT: self.segment if segment is None else segment,
            usage_lines.FIELD_START: start,
            usage_lines.FIELD_END: end,
            usage_lines.FIELD_SHIPPED_UP_TO_MS: to_ms(shipped_up_to) if shipped_up_to else 0,
            usage_lines.FIELD_DROPPED: 0,
            usage_lines.FIELD_LINES: lines,
        }
        return await self.redis.xadd(usage_stream(self.shard), fields)


@pytest.fixture
def call() -> type[Call]:
    return Call


@pytest.fixture
def noon() -> datetime:
    return NOON


@pytest.fixture
def secret() -> bytes:
    return SECRET


@pytest.fixture
def store(clickhouse_dsn: str) -> Iterator[EventStore]:
    store = EventStore.open(EventStoreConfig(dsn=clickhouse_dsn))
    yield store
    store.close()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(redis_url)
    yield redis
    await redis.aclose()


@pytest.fixture
def gateway(redis: Redis) -> Gateway:
    return Gateway(redis)


@pytest.fixture
def make_gateway(redis: Redis) -> Callable[..., Gateway]:
    return lambda **fields: Gateway(**{"redis": redis, **fields})


@pytest.fixture
def attribution() -> Attribution:
    return Attribution(secrets=(SECRET,), endpoints=EndpointNames(TEMPLATES))


@pytest.fixture
def make_collector(
    redis: Redis, sessions: async_sessionmaker[AsyncSession], store: EventStore, attribution: Attribution
) -> Callable[..., Collector]:
    """Makes collectors whose clock stands at one moment; they take over entries of others at once."""

    def make(
        *,
        now: datetime = NOON + timedelta(minutes=5),
        redis: RedisClient = redis,
        shard: int = 0,
        shards: int = 1,
        accounts: AccountCache | None = None,
        kept: KeptDays | None = None,
        by: Attribution = attribution,
        source: UsageSource | None = None,
        **config: Any,
    ) -> Collector:
        settings = {"max_age_seconds": 0.001, "claim_after_seconds": 0.0} | config
        return Collector(
            config=CollectorConfig(**settings),
            source=source or StreamSource(redis, shard=shard, shards=shards),
            sessions=sessions,
            writer=EventWriter(
                store=store,
                attribution=lambda: by,
                kept=lambda: kept or KeptDays(default_days=MINIMUM_DAYS),
            ),
            clock=lambda: now,
            accounts=accounts,
        )

    return make


@pytest.fixture
async def collect(make_collector: Callable[..., Collector]) -> Callable[..., Any]:
    """Works off everything in the stream, and what collectors that are gone have left."""

    async def collect(**settings: Any) -> Collector:
        collector = make_collector(**settings)
        # the first look may find no consumer group, and makes it
        empty = 0
        while empty < 2:
            empty = 0 if await collector.collect() else empty + 1
        await collector._housekeep()
        return collector

    return collect


@pytest.fixture
def aggregate(sessions: async_sessionmaker[AsyncSession], store: EventStore) -> Callable[..., Any]:
    async def aggregate(now: datetime = NOON + timedelta(minutes=6)) -> int:
        total = 0
        while done := await aggregate_touched(sessions, store, now=now):
            total += done
        return total

    return aggregate


@dataclass
class Catalog:
    """Accounts with subscriptions, written as rows: their own operations are tested elsewhere."""

    sessions: async_sessionmaker[AsyncSession]
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def account(self, account_id: str = "acc_1") -> None:
        async with self.sessions() as session, session.begin():
            session.add(Account(id=account_id, name=account_id, created_at=NOON - timedelta(days=90)))

    async def product(self, code: str = "weather", **fields: Any) -> None:
        async with self.sessions() as session, session.begin():
            session.add(
                ApiProduct(
                    id=f"prod_{code}", code=code, name=code, service=code, routes=[code], created_at=NOON, **fields
                )
            )

    async def plan_version(self, product: str = "weather", **fields: Any) -> str:
        number = next(self.numbers)
        version_id = f"pv_{number}"
        async with self.sessions() as session, session.begin():
            session.add(
                Plan(
                    id=f"plan_{number}",
                    code=f"plan{number}",
                    name="Plan",
                    api_product_id=f"prod_{product}",
                    position=number,
                    created_at=NOON,
                )
            )
            await session.flush()
            session.add(
                PlanVersion(
                    id=version_id,
                    plan_id=f"plan_{number}",
                    version=1,
                    status="published",
                    interval="month",
                    currency="USD",
                    created_at=NOON,
                    published_at=NOON,
                    **fields,
                )
            )
        return version_id

    async def subscription(
        self, *phases: tuple[str, str, datetime, datetime | None], account: str = "acc_1", product: str = "weather"
    ) -> str:
        """Write a subscription with its phases: (phase id, plan version id, start, end)."""
        subscription_id = f"sub_{next(self.numbers)}"
        async with self.sessions() as session, session.begin():
            session.add(
                Subscription(
                    id=subscription_id,
                    account_id=account,
                    api_product_id=f"prod_{product}",
                    status="active",
                    anchor_at=NOON.replace(day=1, hour=0),
                    interval="month",
                    started_at=phases[0][2],
                    created_at=NOON,
                )
            )
            await session.flush()
            session.add_all(
                SubscriptionPhase(
                    id=phase_id,
                    subscription_id=subscription_id,
                    plan_version_id=version_id,
                    starts_at=start,
                    ends_at=end,
                )
                for phase_id, version_id, start, end in phases
            )
        return subscription_id


@pytest.fixture
def catalog(sessions: async_sessionmaker[AsyncSession]) -> Catalog:
    return Catalog(sessions)


@pytest.fixture
def plain_count() -> Callable[..., Counter[tuple[Any, ...]]]:
    """Counts calls the way a person would: each once, by account, hour, key, mode, status and outcome."""

    def count(calls: Sequence[Call]) -> Counter[tuple[Any, ...]]:
        return Counter(
            (
                call.account,
                call.at.replace(minute=0, second=0, microsecond=0),
                call.key,
                call.mode.value,
                call.status,
                call.outcome.value,
            )
            for call in {call.number: call for call in calls}.values()
        )

    return count


@pytest.fixture
def world(redis, sessions, store, make_gateway, make_collector, collect, aggregate, catalog, monkeypatch):  # noqa: PLR0917 - fixtures
    """What a history is played in (see `histories`)."""
    return SimpleNamespace(
        numbers=itertools.count(1),
        noon=NOON,
        redis=redis,
        sessions=sessions,
        store=store,
        make_gateway=make_gateway,
        make_collector=make_collector,
        collect=collect,
        aggregate=aggregate,
        catalog=catalog,
        monkeypatch=monkeypatch,
    )
