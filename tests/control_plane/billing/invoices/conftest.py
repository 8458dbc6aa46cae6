"""The kit, on a fresh database."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.control_plane.billing.invoices.billing_kit import Billing


@pytest.fixture
def billing(sessions: async_sessionmaker[AsyncSession]) -> Billing:
    return Billing(sessions)
