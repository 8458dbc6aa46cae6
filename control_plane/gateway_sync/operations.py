"""Kong configuration: pushed to every node, verified, and watched for drift."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import httpx
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.ids import new_id
from control_plane.gateway_sync import metrics
from control_plane.gateway_sync.config import GatewayConfig
from control_plane.gateway_sync.nodes import (
    NodePush,
    NodeReading,
    PushOutcome,
    node_name,
    public_url,
    push_text,
    read_configuration_hash,
)
from control_plane.gateway_sync.queries import render_current
from control_plane.gateway_sync.render import RenderedConfig
from control_plane.gateway_sync.tables import GatewayNode

# any fixed number: pushes and checks of nodes take turns under this PostgreSQL lock
NODES_LOCK = 0x6B6D_6E6F
NO_JUDGEMENT = (PushOutcome.UNREACHABLE, PushOutcome.FAILED)


@dataclass(frozen=True, slots=True)
class NodeResult:
    """One node's part in a push; without `push` the node was left alone, since another had refused."""

    name: str
    admin_url: str
    push: NodePush | None


@dataclass(frozen=True, slots=True)
class PushReport:
    """The result of a push: `hash` is the configuration that every node should run now."""

    hash: str
    added: tuple[str, ...]
    nodes: tuple[NodeResult, ...]

    @property
    def succeeded(self) -> bool:
        return all(node.push is not None and node.push.succeeded for node in self.nodes)


async def push_config(session: AsyncSession, *, config: GatewayConfig, actor: str, now: datetime) -> PushReport:
    """Render, give every node the same text, read back what each runs; write its row and an audit row.

    Nothing is sent when rendering fails. One node goes first: when it refuses, the others are left alone. Nodes
    that run this configuration already answer so without reloading.

    Raises:
        KongConfigError: as `render_current`.
    """
    rendered = await render_current(session, config=config)
    await _take_turn(session)
    nodes = await _nodes(session, config)
    async with _http_client(config) as client:
        pushes = await _push_to_all(client, nodes, rendered)
    for node in nodes:
        push = pushes.get(node.admin_url)
        if push is not None:
            metrics.PUSHES.labels(push.outcome.value).inc()
            await _record_push(session, node, push, rendered=rendered, actor=actor, now=now)
    return PushReport(
        hash=rendered.hash,
        added=rendered.added,
        nodes=tuple(
            NodeResult(node.name, public_url(node.admin_url), pushes.get(node.admin_url)) for node in nodes
        ),
    )


async def check_nodes(session: AsyncSession, *, config: GatewayConfig, now: datetime) -> list[str]:
    """Compare what every node runs with what it was last given; returns addresses that have drifted just now.

    A node that was found drifted before is not told of again: pushing what it refused would change nothing.
    """
    await _take_turn(session)
    nodes = await _nodes(session, config)
    async with _http_client(config) as client:
        readings = await asyncio.gather(*(read_configuration_hash(client, node.admin_url) for node in nodes))
    newly_drifted = []
    for node, reading in zip(nodes, readings, strict=True):
        before = node.status
        node.status, node.detail = judge_reading(node, reading)
        node.checked_at = now
        if node.status == "drifted" and before != "drifted":
            newly_drifted.append(public_url(node.admin_url))
    await session.flush()
    for status in ("unknown", "in_sync", "drifted", "unreachable"):
        metrics.NODES.labels(status).set(sum(node.status == status for node in nodes))
    return newly_drifted


def judge_reading(node: GatewayNode, reading: NodeReading) -> tuple[str, str | None]:
    """Return a node's status and the sentence behind it."""
    if reading.hash is None:
        return "unreachable", reading.detail
    if node.config_hash is None:
        return "unknown", "nothing was pushed to this node yet"
    if reading.hash == node.config_hash:
        return "in_sync", None
    if node.status == "drifted" and node.detail:
        return "drifted", node.detail  # a refusal says more than the hashes
    return "drifted", f"runs configuration {reading.hash}, was given {node.config_hash}"


async def _take_turn(session: AsyncSession) -> None:
    await session.execute(select(func.pg_advisory_xact_lock(NODES_LOCK)))


async def _nodes(session: AsyncSession, config: GatewayConfig) -> list[GatewayNode]:
    """Return a row for every configured node, in that order; rows of nodes that are gone are removed."""
    await session.execute(delete(GatewayNode).where(GatewayNode.admin_url.not_in(config.node_urls)))
    known = {row.admin_url: row for row in await session.scalars(select(GatewayNode))}
    for url in config.node_urls:
        if url not in known:
            known[url] = GatewayNode(id=new_id("node"), name=node_name(url), admin_url=url, status="unknown")
            session.add(known[url])
    await session.flush()
    return [known[url] for url in dict.fromkeys(config.node_urls)]


async def _push_to_all(
    client: httpx.AsyncClient, nodes: Sequence[GatewayNode], rendered: RenderedConfig
) -> dict[str, NodePush]:
    """One node at a time until one has judged the configuration; then, unless it refused, all others at once."""
    pushes: dict[str, NodePush] = {}
    waiting = list(nodes)

    async def push(node: GatewayNode) -> None:
        pushes[node.admin_url] = await push_text(
            client, node.admin_url, text=rendered.text, expected_hash=rendered.hash
        )

    while waiting:
        first = waiting.pop(0)
        await push(first)
        if pushes[first.admin_url].outcome is PushOutcome.REFUSED:
            break
        if pushes[first.admin_url].outcome not in NO_JUDGEMENT:
            await asyncio.gather(*(push(node) for node in waiting))
            break
    return pushes


async def _record_push(
    session: AsyncSession,
    node: GatewayNode,
    push: NodePush,
    *,
    rendered: RenderedConfig,
    actor: str,
    now: datetime,
) -> None:
    if push.succeeded:
        node.status, node.pushed_at = "in_sync", now
    elif push.outcome in NO_JUDGEMENT:
        # it is tried again when a check finds it back
        node.status = "unreachable"
    elif push.outcome is PushOutcome.NOT_VERIFIED and (node.status, node.config_hash) != (
        "drifted",
        rendered.hash,
    ):
        # it may have restarted just then: the next check gives it to the node once more, and no more than that
        node.status = "unknown"
    else:
        node.status = "drifted"
    # what it should run, also when it did not take it: so it counts as drifted until it does
    node.config_hash, node.detail, node.checked_at = rendered.hash, push.detail, now
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="gateway_node.pushed",
        entity_type="gateway_node",
        entity_id=node.id,
        before={"config_hash": push.hash_before},
        after={
            "admin_url": public_url(node.admin_url),
            "config_hash": push.hash_after,
            "pushed_hash": rendered.hash,
            "outcome": push.outcome.value,
            "detail": push.detail,
        },
        now=now,
    )


def _http_client(config: GatewayConfig) -> httpx.AsyncClient:
    # trust_env off: an Admin API is never behind the proxy that the environment names
    return httpx.AsyncClient(timeout=config.timeout_seconds, trust_env=False)
