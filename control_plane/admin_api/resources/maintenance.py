"""Maintenance: making Redis anew."""

from fastapi import APIRouter
from pydantic import Field

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Answer
from control_plane.admin_api.services import Given, Now
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError
from control_plane.gateway_sync.sweep import SweepInterruptedError

router = APIRouter(tags=["maintenance"])


class RebuildInterruptedError(ConflictError):
    """Redis changed under the rebuild."""

    def __init__(self) -> None:
        super().__init__("rebuild_interrupted", "Redis was emptied or restarted meanwhile. Call it again.")


class RebuildAnswer(Answer):
    keys: int
    accounts: int
    counters: int
    written: int = Field(description="Records that were not already as they should be.")
    seconds: float


@router.post("/rebuild")
async def rebuild(session: Database, services: Given, caller: Authenticated, now: Now) -> RebuildAnswer:
    """Make everything in Redis anew from the database: counters, then accounts, then keys. Safe at any time."""
    try:
        report = await services.rebuild(now)
    except SweepInterruptedError as error:
        raise RebuildInterruptedError from error
    await record_change(
        session,
        actor=caller.actor,
        action="redis.rebuilt",
        entity_type="installation",
        entity_id="redis",
        before=None,
        after={"keys": report.keys, "accounts": report.accounts, "written": report.written},
        now=now,
    )
    return RebuildAnswer.model_validate(report)
