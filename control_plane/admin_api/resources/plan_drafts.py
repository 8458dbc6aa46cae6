"""Drafts: terms of a plan that are worked on, looked at, and put on sale when they are right."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import CodePath
from control_plane.admin_api.kong_names import require_concurrency_seen
from control_plane.admin_api.plan_forms import (
    FieldChangeAnswer,
    PlanImpactAnswer,
    VersionAnswer,
    field_change_answer,
    impact_answer,
    version_answer,
)
from control_plane.admin_api.services import Given, Now
from control_plane.billing.plan_impact import impact_of_terms
from control_plane.catalog import drafts, publishing, queries
from control_plane.catalog.model import ADD_ON, PlanTerms
from control_plane.catalog.plan_changes import field_changes
from control_plane.catalog.plan_schema import AddOnTermsShape, PlanTermsShape, problems_of
from control_plane.catalog.plan_terms import read_terms, written_terms
from control_plane.catalog.tables import Plan
from control_plane.foundation.errors import ValidationFailedError, refuse

router = APIRouter(prefix="/plans/{code}/draft", tags=["plans"])


class ProblemAnswer(BaseModel):
    field: str
    message: str


class DraftAnswer(BaseModel):
    """A draft: what it would change, whom that concerns, and what keeps it from being sold."""

    plan: str
    terms: dict[str, Any] = Field(description="In the words of a plan file, to be changed and sent back.")
    problems: list[ProblemAnswer] = Field(description="What keeps it from being published; none: it can be.")
    changes: list[FieldChangeAnswer] = Field(description="Against what is on sale; empty where nothing is.")
    impact: PlanImpactAnswer
    version: VersionAnswer


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "description": "Terms in the words of a plan file: interval, currency, quota, limits, prices.",
                },
                "example": {
                    "interval": "month",
                    "currency": "USD",
                    "quota": {"units": 50000, "on_exceed": "charge"},
                    "limits": [{"limit": 10, "per": "second"}],
                    "prices": [
                        {"model": "flat", "amount": "49.00"},
                        {"model": "overage", "unit_amount": "0.0015"},
                    ],
                },
            }
        },
    }
}


async def _json(request: Request) -> Any:
    try:
        # numbers with a point by their characters, as in a plan file
        return json.loads(await request.body(), parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValidationFailedError("", "must be a JSON object") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


Sent = Annotated[Any, Depends(_json)]


@router.get("")
async def get_draft(code: CodePath, session: Database, now: Now) -> DraftAnswer:
    """Return the draft of a plan, what it would change, and what keeps it from being published."""
    return await _answer(session, await queries.plan(session, code), now)


@router.put("", openapi_extra=_BODY)
async def save_draft(
    code: CodePath, sent: Sent, session: Database, caller: Authenticated, now: Now
) -> DraftAnswer:
    """Keep terms as the draft of a plan or add-on, in place of the one that was kept. Nothing on sale changes.

    Each field must be right by itself; what is missing to sell it is told in `problems`.
    """
    plan = await queries.plan(session, code)
    terms = _read(sent, plan)
    await drafts.save_draft(session, plan_code=code, terms=terms, actor=caller.actor, now=now)
    return await _answer(session, plan, now)


@router.delete("")
async def discard_draft(code: CodePath, session: Database, caller: Authenticated, now: Now) -> DraftAnswer:
    """Throw the draft of a plan away."""
    discarded = await _answer(session, await queries.plan(session, code), now)
    await drafts.discard_draft(session, plan_code=code, actor=caller.actor, now=now)
    return discarded


@router.post("/publish")
async def publish_draft(
    code: CodePath, session: Database, services: Given, caller: Authenticated, now: Now
) -> VersionAnswer:
    """Put the draft of a plan on sale. New subscriptions get it; those that run keep the version they have."""
    version = await publishing.publish_draft(session, plan_code=code, actor=caller.actor, now=now)
    if version.concurrency_limit is not None:
        await require_concurrency_seen(session, services)
    whole = await queries.plan_versions(session, [version.id])
    return version_answer(whole[version.id])


def _read(sent: Any, plan: Plan) -> PlanTerms:
    shape = AddOnTermsShape if plan.kind == ADD_ON else PlanTermsShape
    try:
        return read_terms(shape.model_validate(sent))
    except ValidationError as error:
        refuse(problems_of(error))
        raise


async def _answer(session: AsyncSession, plan: Plan, now: datetime) -> DraftAnswer:
    draft = await queries.draft_of_plan(session, plan.id)
    if draft is None:
        raise publishing.NoDraftError(plan.code)
    terms = queries.terms_of_version(draft)
    on_sale = (await queries.published_versions(session, [plan.id])).get(plan.id)
    changes = (
        () if on_sale is None else field_changes(queries.terms_of_version(on_sale).as_dict(), terms.as_dict())
    )
    impact = await impact_of_terms(session, {plan.code: terms}, now=now)
    problems = await publishing.draft_problems(session, plan, terms)
    return DraftAnswer(
        plan=plan.code,
        terms=written_terms(terms, code=plan.code, kind=plan.kind),
        problems=[ProblemAnswer(field=problem.field, message=problem.message) for problem in problems],
        changes=[field_change_answer(change) for change in changes],
        impact=impact_answer(impact[0]) if impact else PlanImpactAnswer(plan=plan.code, versions=[]),
        version=version_answer(draft),
    )
