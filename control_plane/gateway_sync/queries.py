"""What would be pushed to Kong, and what is known of the nodes. Nothing here asks or changes a node."""

import asyncio
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion
from control_plane.foundation.errors import Problem
from control_plane.gateway_sync.base_config import KongConfigError, parse_base_config
from control_plane.gateway_sync.config import GatewayConfig
from control_plane.gateway_sync.nodes import node_name, public_url
from control_plane.gateway_sync.render import (
    HEADER,
    ProductRouting,
    RenderedConfig,
    RenderSettings,
    concurrency_problems,
    dump_config,
    render_kong_config,
)
from control_plane.gateway_sync.tables import GatewayNode
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase


@dataclass(frozen=True, slots=True)
class ConfigPreview:
    """What would be pushed; `diff` is a unified diff from the base to it, empty where nothing is added."""

    text: str
    hash: str
    added: tuple[str, ...]
    diff: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node as last seen. `current` says whether it was given the configuration that would be pushed today."""

    name: str
    admin_url: str
    status: str
    config_hash: str | None
    pushed_at: datetime | None
    checked_at: datetime | None
    detail: str | None
    current: bool


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """All nodes, and the hash of what would be pushed today, or why nothing could be (`error`)."""

    nodes: tuple[NodeStatus, ...]
    wanted_hash: str | None
    error: str | None


async def render_current(session: AsyncSession, *, config: GatewayConfig) -> RenderedConfig:
    """Render the configuration from the base file and the API products as they are now.

    Raises:
        KongConfigError: the base cannot be read or built upon; tells every problem.
    """
    # a large kong.yml takes seconds to read: the loop that counts usage must not stand still for it
    return await asyncio.to_thread(_render, config, await _products(session))


async def preview_config(session: AsyncSession, *, config: GatewayConfig) -> ConfigPreview:
    """Return what a push would send. Changes nothing.

    Raises:
        KongConfigError: as `render_current`.
    """
    rendered = await render_current(session, config=config)
    diff = await asyncio.to_thread(_diff, config, rendered)
    return ConfigPreview(text=rendered.text, hash=rendered.hash, added=rendered.added, diff=diff)


async def gateway_status(session: AsyncSession, *, config: GatewayConfig) -> GatewayStatus:
    """Return what is known of the nodes; asks none of them."""
    wanted, error = None, None
    try:
        wanted = (await render_current(session, config=config)).hash
    except KongConfigError as problem:
        error = problem.message
    rows = await session.scalars(select(GatewayNode).order_by(GatewayNode.name))
    known = {row.admin_url: row for row in rows}
    nodes = [_status(url, known.get(url), wanted) for url in config.node_urls]
    return GatewayStatus(nodes=tuple(nodes), wanted_hash=wanted, error=error)


async def concurrency_unsupported(session: AsyncSession, *, config: GatewayConfig) -> list[Problem]:
    """Return what in the base configuration keeps plans from limiting calls at a time.

    Nothing, where the base cannot be read: other commands tell of that.
    """
    products = await _products(session)
    if not any(product.concurrency_plan for product in products):
        return []

    def find() -> list[Problem]:
        settings = RenderSettings(usage_spool_path=config.usage_spool_path)
        try:
            return concurrency_problems(load_base(config), products, settings)
        except KongConfigError:
            return []

    return await asyncio.to_thread(find)


def load_base(config: GatewayConfig) -> dict[str, Any]:
    """Return the base document.

    Raises:
        KongConfigError: the file cannot be read, or is no YAML mapping.
    """
    try:
        text = config.base_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KongConfigError("kong.yml", f"the base configuration cannot be read: {error}") from error
    return parse_base_config(text)


def _render(config: GatewayConfig, products: Sequence[ProductRouting]) -> RenderedConfig:
    settings = RenderSettings(usage_spool_path=config.usage_spool_path)
    return render_kong_config(load_base(config), products, settings)


def _diff(config: GatewayConfig, rendered: RenderedConfig) -> str:
    before = dump_config(load_base(config)).splitlines(keepends=True)
    after = rendered.text.removeprefix(HEADER).splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, "base", "rendered"))


async def _concurrency_plans(session: AsyncSession) -> dict[str, str]:
    """Return, by API product, the code of a plan that limits calls at a time and is in use or on sale."""
    in_use = exists().where(
        SubscriptionPhase.plan_version_id == PlanVersion.id,
        SubscriptionPhase.subscription_id == Subscription.id,
        Subscription.status.not_in(sorted(OVER)),
        SubscriptionPhase.ends_at.is_(None) | (SubscriptionPhase.ends_at > func.now()),
    )
    on_sale = (PlanVersion.status == "published") & Plan.archived_at.is_(None)
    statement = (
        select(Plan.api_product_id, Plan.code)
        .join(PlanVersion, PlanVersion.plan_id == Plan.id)
        .where(PlanVersion.concurrency_limit.is_not(None), on_sale | in_use)
        .order_by(Plan.position.desc(), Plan.code.desc())
    )
    # of several, the first in the order of the price list: it is written last
    found = (await session.execute(statement)).all()
    return {product_id: str(code) for product_id, code in found}


async def _products(session: AsyncSession) -> list[ProductRouting]:
    limited_by = await _concurrency_plans(session)
    rows = await session.execute(
        select(
            ApiProduct.id,
            ApiProduct.code,
            ApiProduct.service,
            ApiProduct.routes,
            ApiProduct.unit_headers,
            ApiProduct.replay_header,
        )
        .where(ApiProduct.archived_at.is_(None))
        .order_by(ApiProduct.code)
    )
    return [
        ProductRouting(
            code=code,
            service=service,
            routes=tuple(routes),
            unit_headers=dict(headers),
            replay_header=replay_header,
            concurrency_plan=limited_by.get(product_id),
        )
        for product_id, code, service, routes, headers, replay_header in rows
    ]


def _status(url: str, row: GatewayNode | None, wanted: str | None) -> NodeStatus:
    return NodeStatus(
        name=node_name(url),
        admin_url=public_url(url),
        status="unknown" if row is None else row.status,
        config_hash=None if row is None else row.config_hash,
        pushed_at=None if row is None else row.pushed_at,
        checked_at=None if row is None else row.checked_at,
        detail=None if row is None else row.detail,
        current=row is not None and wanted is not None and row.config_hash == wanted and row.status == "in_sync",
    )
