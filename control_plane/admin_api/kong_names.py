"""Refusing what the gateway, as it is configured, could not sell."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.admin_api.services import Services
from control_plane.catalog.model import ProductFacts
from control_plane.foundation.errors import Problem, refuse
from control_plane.gateway_sync.kong_names import unknown_kong_names
from control_plane.gateway_sync.queries import concurrency_unsupported


async def require_kong_names(services: Services, products: Sequence[ProductFacts]) -> None:
    """Raise ValidationFailedError where the base kong.yml, if one is known, lacks a service or route they name."""
    if services.gateway is not None:
        refuse(await unknown_kong_names(products, config=services.gateway))


async def require_concurrency_seen(session: AsyncSession, services: Services) -> None:
    """Refuse plans that limit calls at a time where the gateway, as it is configured, would not see calls end."""
    if services.gateway is not None:
        problems = await concurrency_unsupported(session, config=services.gateway)
        refuse([Problem(f"kong.yml: {problem.field}", problem.message) for problem in problems])
