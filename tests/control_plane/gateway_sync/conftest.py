"""An API product with three plans, and Redis as the projector and the gateway see it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from redis.asyncio import Redis
from sqlalchemy import delete, select, true
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.accounts.operations import create_account
from control_plane.catalog.model import PlanFacts, PlanTerms, ProductFacts
from control_plane.catalog.operations import create_api_product, create_plan
from control_plane.catalog.publishing import publish_version
from control_plane.foundation.clock import to_ms, utc_now
from control_plane.foundation.outbox import Topic, enqueue
from control_plane.foundation.redis import create_redis
from control_plane.gateway_sync.projection import project_changes
from control_plane.gateway_sync.record_writer import RecordWriter
from control_plane.keys.operations import issue_key
from control_plane.subscriptions.operations import subscribe
from control_plane.subscriptions.tables import SubscriptionPhase
from control_plane.usage.tables import UsageHour, UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.records import AccountRecord, KeyRecord, Window, decode_account_record, decode_key_record
from gateway_contract.redis_names import account_record, account_versions, key_record, period_counters

ACTOR = "test"
PUBLIC_URL = "https://api.example.com"
PER_SECOND = Window(limit=2, window_ms=1000)


@dataclass
class Customer:
    account_id: str
    subscription_id: str
    keys: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)


@dataclass
class Shop:
    """Makes rows with the product's own operations, each call in a transaction of its own."""

    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]

    async def add_catalog(self, now: datetime) -> None:
        async with self.sessions() as session, session.begin():
            product = ProductFacts(
                code="weather",
                name="Weather",
                service="weather-api",
                routes=("forecast", "history"),
                route_units={"history": 5},
            )
            await create_api_product(session, product=product, actor=ACTOR, now=now)
            for position, (code, terms) in enumerate(PLANS.items()):
                facts = PlanFacts(
                    code=code, name=code.title(), api_product="weather", position=position, visibility="public"
                )
                await create_plan(session, plan=facts, actor=ACTOR, now=now)
                await publish_version(session, plan_code=code, terms=terms, actor=ACTOR, now=now)

    async def add_customer(
        self, now: datetime, *, plan: str = "free", keys: int = 1, name: str = "Ada", **key_options
    ) -> Customer:
        async with self.sessions() as session, session.begin():
            account = await create_account(session, name=name, actor=ACTOR, now=now)
            subscription = await subscribe(session, account_id=account.id, plan_code=plan, actor=ACTOR, now=now)
            customer = Customer(account.id, subscription.id)
            for number in range(keys):
                issued = await issue_key(
                    session,
                    account_id=account.id,
                    name=f"key {number}",
                    mode=key_options.get("mode", "live"),
                    quota_units=key_options.get("quota_units"),
                    actor=ACTOR,
                    now=now,
                )
                customer.keys.append(issued.key.id)
                customer.hashes.append(issued.key.key_hash)
        return customer

    async def add_usage(
        self,
        customer: Customer,
        hour: datetime,
        *,
        units: int,
        failed_units: int = 0,
        replayed_units: int = 0,
        mode: str = "live",
        revision: int = 1,
        sealed: bool = False,
        phase: int | None = None,
    ) -> None:
        """Put an hour's rows, replacing what stood there; `failed_units` were answered with a 503,
        `replayed_units` with an answer that was billed before. Those of one `phase`, by its number, stand beside
        those of others; None is the last one, alone.
        """
        async with self.sessions() as session, session.begin():
            phases = await session.scalars(
                select(SubscriptionPhase.id)
                .where(SubscriptionPhase.subscription_id == customer.subscription_id)
                .order_by(SubscriptionPhase.starts_at)
            )
            phase_id = phases.all()[-1 if phase is None else phase]
            await session.execute(
                delete(UsageHourly).where(
                    UsageHourly.account_id == customer.account_id,
                    UsageHourly.hour == hour,
                    UsageHourly.mode == mode,
                    true() if phase is None else UsageHourly.phase_id == phase_id,
                )
            )
            for status, count, replayed in (
                (200, units, False),
                (503, failed_units, False),
                (200, replayed_units, True),
            ):
                billable = count if mode == "live" and status < 500 and not replayed else 0
                session.add(
                    UsageHourly(
                        account_id=customer.account_id,
                        hour=hour,
                        phase_id=phase_id,
                        product="weather",
                        mode=mode,
                        key_id=customer.keys[0],
                        endpoint="GET /v1/forecast",
                        status=status,
                        outcome="served",
                        replayed=replayed,
                        calls=count,
                        units=count,
                        billable_calls=billable,
                        billable_units=billable,
                        bytes_in=0,
                        bytes_out=0,
                        latency_ms_sum=0,
                        gateway_ms_sum=0,
                        revision=revision,
                    )
                )
            await session.merge(
                UsageHour(
                    account_id=customer.account_id,
                    hour=hour,
                    revision=revision,
                    aggregated_at=hour,
                    sealed_at=hour if sealed else None,
                )
            )

    async def seal(self, customer: Customer, hour: datetime, *, revision: int) -> None:
        """Announce an hour as the aggregator does."""
        payload = {"account_id": customer.account_id, "hour": hour.isoformat(), "revision": revision}
        async with self.sessions() as session, session.begin():
            await enqueue(
                session, topic=Topic.HOUR_SEALED, entity_id=customer.account_id, payload=payload, now=hour
            )


@dataclass
class Gateway:
    """Redis as the gateway reads it."""

    client: Redis

    async def key(self, key_hash: str) -> KeyRecord | None:
        text = await self.client.get(key_record(key_hash))
        return None if text is None else decode_key_record(text)

    async def account(self, account_id: str) -> AccountRecord | None:
        text = await self.client.get(account_record(account_id))
        return None if text is None else decode_account_record(text)

    async def counters(self, customer: Customer, *, now: datetime) -> str:
        """Return the name of the customer's counters in which live calls count at `now`.

        Not the record's first period: just after one began, the record still holds the one before.
        """
        record = await self.account(customer.account_id)
        (start_ms,) = (
            period.start_ms
            for period in record.products["weather"].periods
            if period.start_ms <= to_ms(now) < period.end_ms
        )
        return period_counters(customer.account_id, customer.subscription_id, start_ms, Mode.LIVE)

    async def versions(self, account_id: str) -> dict[str, int]:
        return {
            name: int(value) for name, value in (await self.client.hgetall(account_versions(account_id))).items()
        }


@pytest.fixture
def now() -> datetime:
    """The real moment: Redis forgets counters whose period is long past by its own clock."""
    return utc_now()


@pytest.fixture
def shop(engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]) -> Shop:
    return Shop(engine, sessions)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = create_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def gateway(client: Redis) -> Gateway:
    return Gateway(client)


@pytest.fixture
def project(sessions: async_sessionmaker[AsyncSession], client: Redis) -> Callable:
    """Works off everything the outbox tells of."""

    async def run(now: datetime) -> int:
        total = 0
        while done := await project_changes(sessions, RecordWriter(client), public_url=PUBLIC_URL, now=now):
            total += done
        return total

    return run


@pytest.fixture
def eventually() -> Callable:
    """Waits until a condition, a function or coroutine function, holds."""

    async def wait(holds: Callable, *, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            result = holds()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            assert time.monotonic() < deadline, "it did not happen in time"
            await asyncio.sleep(0.02)

    return wait


PLANS = {
    "free": PlanTerms(interval="month", currency="USD", quota_units=1000, quota_hard=True, windows=(PER_SECOND,)),
    "starter": PlanTerms(
        interval="month",
        currency="USD",
        quota_units=50_000,
        windows=(Window(limit=10, window_ms=1000), Window(limit=300, window_ms=60_000)),
        entitlements=("history",),
    ),
    "enterprise": PlanTerms(interval="month", currency="USD", by_quote=True, redis_down="closed"),
}
