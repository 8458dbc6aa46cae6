"""Plans as code: comparing a plan file with the catalogue, and applying it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.exceptions import HTTPException

from control_plane.admin_api.access import Authenticated, reads_only
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import StrictBody
from control_plane.admin_api.kong_names import require_concurrency_seen, require_kong_names
from control_plane.admin_api.plan_forms import (
    FieldChangeAnswer,
    PlanImpactAnswer,
    field_change_answer,
    impact_answer,
)
from control_plane.admin_api.problems import validation_failure
from control_plane.admin_api.services import Given, Now, Services
from control_plane.billing.charged_dimensions import require_dimensions_kept
from control_plane.billing.operations import require_caps_kept
from control_plane.billing.plan_impact import impact_of_terms
from control_plane.catalog.plan_changes import ChangeKind, PlanDiff, apply_plan_file, diff_plan_file
from control_plane.catalog.plan_export import export_plan_file, read_catalog
from control_plane.catalog.plan_file import PlanFile, parse_plan_file
from control_plane.foundation.errors import ValidationFailedError

router = APIRouter(prefix="/plans", tags=["plans"])
# beside /plans/{code}: a plan may have any code
exports = APIRouter(prefix="/plan-file", tags=["plans"])
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
MAX_DOCUMENTS = 50
# one at a time, and not among the threads in which the event store is asked
_reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="km-plan-file")


class PlanFileForm(StrictBody):
    """A plan file with the OpenAPI documents that it names."""

    plan_file: str = Field(description="Text of the plan file, YAML.")
    documents: dict[str, str] = Field(
        default_factory=dict,
        max_length=MAX_DOCUMENTS,
        description="Text of each OpenAPI document by the name that `openapi:` gives.",
    )


class ChangeAnswer(BaseModel):
    kind: str = Field(description="`create`, `update` or `new_version`.")
    entity_type: str = Field(description="`api_product`, `meter`, `plan` or `add_on`.")
    code: str
    fields: list[FieldChangeAnswer] = Field(description="What differs, by path.")
    text: str = Field(description="The change in one line.")


class PlanDiffAnswer(BaseModel):
    """The changes in the order they are made; none means that the catalogue is as the file says."""

    changes: list[ChangeAnswer]
    impact: list[PlanImpactAnswer] = Field(
        description="Who has the plans that get a new version, and what recurs; of plans that somebody has."
    )
    left_alone: list[str] = Field(description="What is on sale but not in the file; it stays on sale.")


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string", "description": "A plan file."}},
            "application/json": {"schema": PlanFileForm.model_json_schema()},
        },
    }
}


async def _plan_file(request: Request) -> PlanFile:
    body = await request.body()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # a large file takes half a minute to read: the loop that counts usage must not stand still for it
    return await asyncio.get_running_loop().run_in_executor(_reader, _read, body, media_type)


def _read(body: bytes, media_type: str) -> PlanFile:
    try:
        if media_type == "application/json":
            form = PlanFileForm.model_validate_json(body)
            return parse_plan_file(form.plan_file, documents=form.documents)
        if media_type in YAML_TYPES:
            return parse_plan_file(body.decode())
    except ValidationError as error:
        raise validation_failure(error) from error
    except UnicodeDecodeError as error:
        raise ValidationFailedError("", "must be UTF-8 text") from error
    raise HTTPException(
        415, "Send a plan file as application/yaml, or application/json with plan_file and documents."
    )


Sent = Annotated[PlanFile, Depends(_plan_file)]


async def _answer(session: AsyncSession, diff: PlanDiff, file: PlanFile, now: datetime) -> PlanDiffAnswer:
    changes = [
        ChangeAnswer(
            kind=change.kind.value,
            entity_type=change.entity_type,
            code=change.code,
            fields=[field_change_answer(field) for field in change.fields],
            text=str(change),
        )
        for change in diff.changes
    ]
    renewed = {change.code for change in diff.changes if change.kind is ChangeKind.NEW_VERSION}
    terms = {offer.facts.code: offer.terms for offer in file.plans if offer.facts.code in renewed}
    impact = [impact_answer(one) for one in await impact_of_terms(session, terms, now=now)]
    return PlanDiffAnswer(changes=changes, impact=impact, left_alone=list(diff.left_alone))


class PlanFileAnswer(BaseModel):
    plan_file: str = Field(description="Text of a plan file, YAML.")
    documents: dict[str, str] = Field(description="The OpenAPI documents that it names, by name.")


@exports.get("")
async def export_plans(session: Database) -> PlanFileAnswer:
    """Return what is on sale as a plan file with the documents it names: applying it changes nothing."""
    exported = export_plan_file(await read_catalog(session))
    return PlanFileAnswer(plan_file=exported.text, documents=exported.documents)


@router.post("/diff", openapi_extra=_BODY)
@reads_only
async def diff_plans(
    _caller: Authenticated, session: Database, services: Given, now: Now, file: Sent
) -> PlanDiffAnswer:
    """Say what applying a plan file would change, and whom that concerns. Writes nothing; any role may ask."""
    diff = await diff_plan_file(session, file)
    await _require_kong_names(services, diff, file)
    return await _answer(session, diff, file, now)


@router.post("/apply", openapi_extra=_BODY)
async def apply_plans(
    caller: Authenticated, session: Database, services: Given, now: Now, file: Sent
) -> PlanDiffAnswer:
    """Make the catalogue as the file says, all or nothing. A second time changes nothing.

    Changed terms make a new version of a plan; subscriptions keep the version they have. Services and routes must
    be in the base `kong.yml`, where the control plane knows it.
    """
    diff = await apply_plan_file(session, file, actor=caller.actor, now=now)
    await _require_kong_names(services, diff, file)
    for change in diff.changes:
        if change.entity_type == "api_product" and change.kind is ChangeKind.UPDATE:
            await require_dimensions_kept(session, product_code=change.code, now=now)
            await require_caps_kept(session, product_code=change.code, now=now)
    if any(offer.terms.concurrency for offer in file.plans):
        await require_concurrency_seen(session, services)
    return await _answer(session, diff, file, now)


async def _require_kong_names(services: Services, diff: PlanDiff, file: PlanFile) -> None:
    """Refuse new and changed API products whose service or routes the base configuration lacks."""
    changed = {change.code for change in diff.changes if change.entity_type == "api_product"}
    await require_kong_names(services, [product for product in file.products if product.code in changed])
