"""Rows that tests start from, made by the operations themselves. Each names only what matters to the test."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import create_account
from control_plane.accounts.tables import Account
from control_plane.catalog.model import PlanFacts, PlanTerms, PriceTerms, ProductFacts
from control_plane.catalog.operations import create_api_product, create_plan
from control_plane.catalog.publishing import publish_version
from control_plane.catalog.tables import ApiProduct, PlanVersion
from control_plane.foundation.audit import AuditRow
from control_plane.foundation.outbox import OutboxRow
from control_plane.keys.operations import IssuedKey, issue_key
from control_plane.subscriptions.operations import subscribe
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.tables import UsageHourly

ACTOR = "tok_tester"
FLAT_49 = PriceTerms(model="flat", meter=None, params={"amount": "49.00"})


async def an_account(
    session: AsyncSession, *, now: datetime, name: str = "Ada", currency: str = "USD", time_zone: str = "UTC"
) -> Account:
    return await create_account(session, name=name, currency=currency, time_zone=time_zone, actor=ACTOR, now=now)


async def a_key(session: AsyncSession, account: Account, *, now: datetime, **options: Any) -> IssuedKey:
    options = {"name": "server", "mode": "live", **options}
    return await issue_key(session, account_id=account.id, **options, actor=ACTOR, now=now)


async def an_api_product(session: AsyncSession, *, now: datetime, code: str = "weather") -> ApiProduct:
    found = await session.scalar(select(ApiProduct).where(ApiProduct.code == code))
    if found is not None:
        return found
    product = ProductFacts(code=code, name=code.title(), service=code, routes=(code,))
    return await create_api_product(session, product=product, actor=ACTOR, now=now)


async def a_published_plan(
    session: AsyncSession,
    *,
    now: datetime,
    code: str = "starter",
    product: str = "weather",
    visibility: str = "public",
    position: int = 0,
    recommended: bool = False,
    kind: str = "plan",
    **terms: Any,
) -> PlanVersion:
    await an_api_product(session, now=now, code=product)
    facts = PlanFacts(
        code=code,
        name=code.title(),
        api_product=product,
        position=position,
        visibility=visibility,
        recommended=recommended,
        kind=kind,
    )
    await create_plan(session, plan=facts, actor=ACTOR, now=now)
    return await a_new_version(session, code=code, now=now, **terms)


async def a_new_version(
    session: AsyncSession, *, now: datetime, code: str = "starter", **terms: Any
) -> PlanVersion:
    wanted = PlanTerms(**{"interval": "month", "currency": "USD", "prices": (FLAT_49,), **terms})
    return await publish_version(session, plan_code=code, terms=wanted, actor=ACTOR, now=now)


async def a_subscription(
    session: AsyncSession, account: Account, *, now: datetime, plan: str = "starter", **options: Any
) -> Subscription:
    return await subscribe(session, account_id=account.id, plan_code=plan, **options, actor=ACTOR, now=now)


def an_hour_of_use(
    subscription: Subscription, units: int, *, hour: datetime, phase_id: str | None = None, **more: Any
) -> UsageHourly:
    """A row of hourly figures: calls of a unit each, served and billable, in the first phase where not said."""
    values: dict[str, Any] = {
        "account_id": subscription.account_id,
        "hour": hour,
        "phase_id": phase_id or subscription.phases[0].id,
        "product": "weather",
        "mode": "live",
        "key_id": "key_1",
        "endpoint": "GET /v1/current",
        "status": 200,
        "outcome": "served",
        "calls": units,
        "units": units,
        "billable_calls": units,
        "billable_units": units,
        "bytes_in": 0,
        "bytes_out": 0,
        "latency_ms_sum": 0,
        "gateway_ms_sum": 0,
        "revision": 1,
    }
    return UsageHourly(**values | more)


async def outbox_of(session: AsyncSession, topic: str) -> list[str]:
    """Entity ids of the waiting rows of a topic, in order."""
    statement = select(OutboxRow.entity_id).where(OutboxRow.topic == topic, OutboxRow.done_at.is_(None))
    return list(await session.scalars(statement.order_by(OutboxRow.id)))


async def audit_of(session: AsyncSession, entity_id: str) -> list[AuditRow]:
    statement = select(AuditRow).where(AuditRow.entity_id == entity_id).order_by(AuditRow.at, AuditRow.id)
    return list(await session.scalars(statement))
