"""The gateway: what is pushed to the Kong nodes, and what they run."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Answer, Moment
from control_plane.admin_api.services import Given, Now, Services
from control_plane.foundation.errors import ConflictError
from control_plane.gateway_sync import operations, queries
from control_plane.gateway_sync.config import GatewayConfig

router = APIRouter(prefix="/gateway", tags=["gateway"])


class NoGatewayError(ConflictError):
    """This installation was given no base configuration, so there is nothing to push."""

    def __init__(self) -> None:
        super().__init__("no_gateway_config", "No base kong.yml is set (KM_KONG_CONFIG).")


class NodeAnswer(Answer):
    name: str
    admin_url: str
    status: str = Field(description="`in_sync`, `drifted`, `unreachable` or `unknown`, as last seen.")
    config_hash: str | None = Field(description="What the node was given last.")
    pushed_at: Moment | None
    checked_at: Moment | None
    detail: str | None
    current: bool = Field(description="Whether it was given what a push would send now.")


class GatewayAnswer(Answer):
    nodes: list[NodeAnswer]
    wanted_hash: str | None = Field(description="The configuration that a push would send now.")
    error: str | None = Field(description="Why none can be rendered.")


class PreviewAnswer(Answer):
    text: str = Field(description="The whole declarative configuration, YAML.")
    hash: str
    added: list[str] = Field(description="What the base did not have, in words.")
    diff: str = Field(description="Unified diff from the base.")


class PushedNodeAnswer(BaseModel):
    name: str
    admin_url: str
    outcome: str = Field(
        description="`applied`, `unchanged`, `refused`, `failed`, `unreachable`, `not_verified`, or `left_alone`"
        " after another node had refused."
    )
    config_hash: str | None = Field(description="What the node runs now, as far as it told.")
    detail: str | None


class PushAnswer(BaseModel):
    succeeded: bool = Field(description="Whether every node runs the configuration now.")
    hash: str
    added: list[str]
    nodes: list[PushedNodeAnswer]


@router.get("")
async def get_gateway(session: Database, services: Given) -> GatewayAnswer:
    """Return what is known of every node, as last seen; asks none of them."""
    status = await queries.gateway_status(session, config=_config(services))
    return GatewayAnswer.model_validate(status)


@router.post("/check")
async def check_gateway(session: Database, services: Given, now: Now, _caller: Authenticated) -> GatewayAnswer:
    """Ask every node what it runs, and return what is known then."""
    await operations.check_nodes(session, config=_config(services), now=now)
    return GatewayAnswer.model_validate(await queries.gateway_status(session, config=_config(services)))


@router.get("/preview")
async def preview_gateway(session: Database, services: Given) -> PreviewAnswer:
    """Return what a push would send. Changes nothing."""
    preview = await queries.preview_config(session, config=_config(services))
    return PreviewAnswer.model_validate(preview)


@router.post("/push")
async def push_gateway(session: Database, services: Given, now: Now, caller: Authenticated) -> PushAnswer:
    """Give every node the configuration and verify what each runs. When one refuses, the others are left alone.

    Keys, plans and subscriptions are never part of it: they reach the nodes within a second by themselves.
    """
    report = await operations.push_config(session, config=_config(services), actor=caller.actor, now=now)
    nodes = [
        PushedNodeAnswer(
            name=node.name,
            admin_url=node.admin_url,
            outcome=node.push.outcome.value if node.push else "left_alone",
            config_hash=node.push.hash_after if node.push else None,
            detail=node.push.detail if node.push else None,
        )
        for node in report.nodes
    ]
    return PushAnswer(succeeded=report.succeeded, hash=report.hash, added=list(report.added), nodes=nodes)


def _config(services: Services) -> GatewayConfig:
    if services.gateway is None:
        raise NoGatewayError
    return services.gateway
