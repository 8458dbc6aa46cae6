"""Plans and add-ons as they are sold: what they show, and taking them off sale.

Terms come by plan file (see `plan_files`) or by draft (see `plan_drafts`).
"""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Code, CodePath, Name, StrictBody
from control_plane.admin_api.plan_forms import PlanAnswer, VersionAnswer, plan_fields, version_answer
from control_plane.admin_api.services import Now
from control_plane.catalog import operations, price_list, queries
from control_plane.catalog.locks import lock_catalog
from control_plane.catalog.model import PlanFacts
from control_plane.catalog.rules import MAX_DESCRIPTION
from control_plane.subscriptions import plan_removal

router = APIRouter(prefix="/plans", tags=["plans"])
MAX_POSITION = 100_000

Kind = Literal["plan", "add_on"]
Description = Annotated[str, Field(max_length=MAX_DESCRIPTION)]
Position = Annotated[
    int, Field(strict=True, ge=0, le=MAX_POSITION, description="Place on the pricing page; left out: the last.")
]
Visibility = Annotated[Literal["public", "hidden"], Field(description="`hidden`: only administrators sell it.")]


class PlanWithVersionsAnswer(PlanAnswer):
    versions: list[VersionAnswer] = Field(description="All versions, newest first.")


class PlansAnswer(BaseModel):
    items: list[PlanAnswer]


class PlansQuery(StrictBody):
    product: Annotated[Code | None, Field(description="Only plans of this API product.")] = None
    kind: Annotated[Kind | None, Field(description="Only plans, or only add-ons.")] = None
    on_page: Annotated[
        bool, Field(description="Only what a pricing page shows: public, with a version on sale.")
    ] = False
    archived: Annotated[bool, Field(description="Archived ones too.")] = False


class CreatePlan(StrictBody):
    code: Annotated[Code, Field(examples=["starter"])]
    kind: Kind = "plan"
    name: Name
    api_product: Code
    description: Description = ""
    position: Position | None = None
    visibility: Visibility = "public"
    recommended: Annotated[bool, Field(strict=True)] = False


class UpdatePlan(StrictBody):
    """What is left out stays as it is."""

    name: Name = ""
    description: Description = ""
    position: Position = 0
    visibility: Visibility = "public"
    recommended: Annotated[bool, Field(strict=True)] = False

    def changes(self) -> dict[str, Any]:
        """Return what the caller gave, and only that."""
        return {name: getattr(self, name) for name in self.model_fields_set}


@router.get("")
async def list_plans(session: Database, query: Annotated[PlansQuery, Query()]) -> PlansAnswer:
    """List plans, then add-ons, in the order of the price list, with the terms on sale."""
    plans = await queries.plans(
        session,
        product_code=query.product,
        kind=query.kind,
        public_only=query.on_page,
        archived=query.archived and not query.on_page,
    )
    published = await queries.published_versions(session, [plan.id for plan in plans])
    shown = [plan for plan in plans if plan.id in published or not query.on_page]
    return PlansAnswer(items=[PlanAnswer(**plan_fields(plan, published.get(plan.id))) for plan in shown])


@router.post("", status_code=201)
async def create_plan(body: CreatePlan, session: Database, caller: Authenticated, now: Now) -> PlanAnswer:
    """Make a plan or an add-on without terms: keep a draft of them and publish it, then it is on sale."""
    await lock_catalog(session)
    beside = await queries.plans(session, product_code=body.api_product, kind=body.kind)
    position = body.position
    if position is None:
        position = min(max((plan.position for plan in beside), default=-1) + 1, MAX_POSITION)
    facts = PlanFacts(**body.model_dump() | {"position": position})
    await price_list.require_free_position(session, facts)
    plan = await operations.create_plan(session, plan=facts, actor=caller.actor, now=now)
    return PlanAnswer(**plan_fields(plan, None))


@router.get("/{code}")
async def get_plan(code: CodePath, session: Database) -> PlanWithVersionsAnswer:
    """Return a plan with all its versions and their prices."""
    plan = await queries.plan(session, code)
    versions = await queries.versions_of_plan(session, plan.id)
    published = next((version for version in versions if version.status == "published"), None)
    return PlanWithVersionsAnswer(
        **plan_fields(plan, published), versions=[version_answer(version) for version in versions]
    )


@router.patch("/{code}")
async def update_plan(
    code: CodePath, body: UpdatePlan, session: Database, caller: Authenticated, now: Now
) -> PlanAnswer:
    """Change what a plan shows. Its terms change by publishing a new version."""
    await lock_catalog(session)  # before reading, so that nobody's change in between is undone
    facts = replace(queries.facts_of_plan(await queries.plan(session, code)), **body.changes())
    await price_list.require_free_position(session, facts)
    await operations.update_plan(session, plan=facts, unarchive=False, actor=caller.actor, now=now)
    return await _answer(session, code)


@router.post("/{code}/archive")
async def archive_plan(code: CodePath, session: Database, caller: Authenticated, now: Now) -> PlanAnswer:
    """Take a plan or an add-on off sale. Whoever has it keeps it; its code is never used again."""
    await operations.archive_plan(session, code=code, actor=caller.actor, now=now)
    return await _answer(session, code)


@router.post("/{code}/unarchive")
async def unarchive_plan(code: CodePath, session: Database, caller: Authenticated, now: Now) -> PlanAnswer:
    """Put an archived plan or add-on on sale again, with the terms it had."""
    await price_list.unarchive_plan(session, code=code, actor=caller.actor, now=now)
    return await _answer(session, code)


@router.delete("/{code}")
async def delete_plan(code: CodePath, session: Database, caller: Authenticated, now: Now) -> PlanAnswer:
    """Delete a plan or an add-on that no subscription ever had, with its versions. Archive any other."""
    deleted = await _answer(session, code)
    await plan_removal.delete_plan(session, code=code, actor=caller.actor, now=now)
    return deleted


async def _answer(session: Database, code: str) -> PlanAnswer:
    plan = await queries.plan(session, code)
    published = await queries.published_versions(session, [plan.id])
    return PlanAnswer(**plan_fields(plan, published.get(plan.id)))
