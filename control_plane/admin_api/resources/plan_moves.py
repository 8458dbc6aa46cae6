"""Moving many subscriptions to the version of a plan that is on sale."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from control_plane.admin_api.access import Authenticated, reads_only
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import PageAnswer, PageQuery, page_answer
from control_plane.admin_api.plan_move_forms import (
    ExcludeFromMove,
    PlanMoveAnswer,
    PlanMoveItemAnswer,
    PlanMovePreviewAnswer,
    PreviewPlanMove,
    SchedulePlanMove,
)
from control_plane.admin_api.services import Now
from control_plane.billing.plan_moves import operations, queries

router = APIRouter(prefix="/plan-moves", tags=["plans"])
PREVIEWED = 200
MoveId = Annotated[str, Path(pattern=r"^mov_[0-9a-hjkmnp-tv-z]{26}$", description="The move's id.")]
Status = Literal["waiting", "planned", "moved", "skipped", "failed", "excluded", "canceled"]


class ItemsQuery(PageQuery):
    """Which subscriptions of a move."""

    status: Status | None = None


@router.post("/preview")
@reads_only
async def preview_plan_move(body: PreviewPlanMove, session: Database, now: Now) -> PlanMovePreviewAnswer:
    """Say who would be moved when, what it would cost them, and who cannot be moved. Changes nothing.

    The 200 with the largest differences are listed, the counts and sums are of all.
    """
    found = await queries.preview_move(session, scope=body.scope(), when=body.when(), now=now)
    return PlanMovePreviewAnswer.of(found, limit=PREVIEWED)


@router.post("", status_code=201)
async def schedule_plan_move(
    body: SchedulePlanMove, session: Database, caller: Authenticated, now: Now
) -> PlanMoveAnswer:
    """Move all who are on the versions now: their changes are planned within minutes, and begin at their time."""
    move = await operations.schedule_move(
        session,
        scope=body.scope(),
        when=body.when(),
        message=body.message,
        exclude=body.exclude,
        actor=caller.actor,
        now=now,
    )
    return PlanMoveAnswer.of(await queries.move_report(session, move.id))


@router.get("")
async def list_plan_moves(page: Annotated[PageQuery, Query()], session: Database) -> PageAnswer[PlanMoveAnswer]:
    """List moves, newest first."""
    found = await queries.moves_page(session, cursor=page.cursor, limit=page.limit)
    return page_answer(found, PlanMoveAnswer.of)


@router.get("/{move_id}")
async def get_plan_move(move_id: MoveId, session: Database) -> PlanMoveAnswer:
    """Show a move and what became of its subscriptions."""
    return PlanMoveAnswer.of(await queries.move_report(session, move_id))


@router.get("/{move_id}/subscriptions")
async def list_moved_subscriptions(
    move_id: MoveId, page: Annotated[ItemsQuery, Query()], session: Database
) -> PageAnswer[PlanMoveItemAnswer]:
    """List the subscriptions of a move, with the notice for each and what became of it."""
    found = await queries.items_page(session, move_id, status=page.status, cursor=page.cursor, limit=page.limit)
    return page_answer(found, lambda row: PlanMoveItemAnswer.of(*row))


@router.post("/{move_id}/cancel")
async def cancel_plan_move(move_id: MoveId, session: Database, caller: Authenticated, now: Now) -> PlanMoveAnswer:
    """Take back what has not begun yet; who was moved already stays moved. Repeatable."""
    await operations.cancel_move(session, move_id=move_id, actor=caller.actor, now=now)
    await session.flush()
    return PlanMoveAnswer.of(await queries.move_report(session, move_id))


@router.post("/{move_id}/exclude")
async def exclude_from_plan_move(
    move_id: MoveId, body: ExcludeFromMove, session: Database, caller: Authenticated, now: Now
) -> PlanMoveAnswer:
    """Let a subscription whose customer objects stay as it is."""
    await operations.exclude_from_move(
        session,
        move_id=move_id,
        subscription_id=body.subscription_id,
        reason=body.reason,
        actor=caller.actor,
        now=now,
    )
    await session.flush()
    return PlanMoveAnswer.of(await queries.move_report(session, move_id))
