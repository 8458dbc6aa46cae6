"""A world whose Stripe is reached by its official API alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.foundation.db import session_factory
from control_plane.stripe_sync.model import StripeContext
from tests.control_plane.stripe_scenarios.access import Access
from tests.control_plane.stripe_scenarios.real import a_part_of
from tests.control_plane.stripe_scenarios.world import World


@asynccontextmanager
async def world_by_api(access: Access, engine: AsyncEngine) -> AsyncIterator[World]:
    sessions = session_factory(engine)
    async with a_part_of(access, sessions) as (stripe, real):
        ctx = StripeContext(sessions=sessions, stripe=stripe, now=real.began)
        yield World(sessions=sessions, plain=sessions, side=real, ctx=ctx)
