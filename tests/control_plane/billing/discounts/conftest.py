"""A customer of Starter ($49.00 a month) and coupons."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.subscriptions.tables import Subscription
from tests.control_plane.billing.invoices.billing_kit import Billing
from tests.control_plane.builders import a_published_plan, a_subscription, an_account


@pytest.fixture
def billing(sessions: async_sessionmaker[AsyncSession]) -> Billing:
    return Billing(sessions)


@pytest.fixture
async def subscription(session: AsyncSession, now: Any) -> Subscription:
    await a_published_plan(session, now=now)
    return await a_subscription(session, await an_account(session, now=now), now=now)
