"""Starting what-if jobs. Nothing here commits."""

from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.what_if.tables import WhatIfJob
from control_plane.catalog.model import PlanTerms
from control_plane.catalog.plan_file import PlanFile
from control_plane.catalog.publishing import NoDraftError
from control_plane.catalog.queries import draft_of_plan, plan, terms_of_version, versions_of_plan
from control_plane.catalog.tables import Plan
from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id

Source = Literal["draft", "version", "plan_file"]


async def start_what_if(
    session: AsyncSession,
    *,
    plan_code: str,
    source: Source,
    version: int | None = None,
    plan_file: PlanFile | None = None,
    months: int,
    actor: str,
    now: datetime,
) -> WhatIfJob:
    """Start a job that replays the last months of all who have or had a plan under other terms of it.

    The terms are those of now: a draft may be changed afterwards.

    Raises:
        NotFoundError: no such plan or version. NoDraftError. ValidationFailedError: the file has no such plan; it
        is an add-on; `version` and `plan_file` are not what the source needs.
    """
    now = floor_ms(now)
    _check_source(source, version=version, plan_file=plan_file)
    row = await plan(session, plan_code)
    if row.kind != "plan":
        raise ValidationFailedError("plan", "is an add-on: only plans can be replayed")
    terms = await _terms(session, row, source, version, plan_file)
    job = WhatIfJob(
        id=new_id("wif", now),
        plan_id=row.id,
        source=source,
        terms=msgspec.to_builtins(terms),
        months=months,
        status="queued",
        as_of=now,
        created_by=actor,
        created_at=now,
    )
    session.add(job)
    await record_change(
        session,
        actor=actor,
        action="what_if.started",
        entity_type="what_if",
        entity_id=job.id,
        before=None,
        after={"plan": plan_code, "source": source, "months": months},
        now=now,
    )
    return job


def terms_of_job(terms: dict[str, Any]) -> PlanTerms:
    """Return the terms that a job keeps."""
    return msgspec.convert(terms, PlanTerms)


def _check_source(source: Source, *, version: int | None, plan_file: PlanFile | None) -> None:
    for field, value, wanted in (("version", version, "version"), ("plan_file", plan_file, "plan_file")):
        if source == wanted and value is None:
            raise ValidationFailedError(field, f"is needed with source {source}")
        if source != wanted and value is not None:
            raise ValidationFailedError(field, f"goes with source {wanted} only")


async def _terms(
    session: AsyncSession, row: Plan, source: Source, version: int | None, plan_file: PlanFile | None
) -> PlanTerms:
    if source == "draft":
        draft = await draft_of_plan(session, row.id)
        if draft is None:
            raise NoDraftError(row.code)
        return terms_of_version(draft)
    if source == "version":
        for one in await versions_of_plan(session, row.id):
            if one.version == version:
                return terms_of_version(one)
        raise NotFoundError("plan_version", f"{version} of {row.code}")
    for offer in plan_file.plans if plan_file else ():
        if offer.facts.code == row.code:
            return offer.terms
    raise ValidationFailedError("plan_file", f"has no plan {row.code}")
